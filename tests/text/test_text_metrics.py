"""Measures of text against values by hand, naive counts and another library."""

import math
from collections import Counter

import pytest
import sacrebleu
import torch
from distances import naive_distance
from hypothesis import given
from hypothesis import strategies as st

from multidiff.text.metrics.causal import causal_nats_per_token
from multidiff.text.metrics.scores import (
    bleu,
    copy_rate,
    distinct,
    edit_distance,
    entropy,
    minimum_bayes_risk,
    sari,
    self_bleu,
)
from multidiff.utils.errors import InputError

WORDS = st.lists(st.sampled_from("abc"), max_size=6)
SOME = st.lists(st.sampled_from("abc"), min_size=1, max_size=6)
CATS = [
    line.split()
    for line in (
        "the cat sat on the mat",
        "the cat sat on a red mat today",
        "a cat sat there on the mat",
        "dogs bark",
    )
]


# ------------------------------------------------------------------------------- variety


def test_distinct_n_grams():
    sentences = [["a", "b", "a"], ["a", "b"], []]
    assert distinct(sentences, 1) == 2 / 5
    assert distinct(sentences, 2) == 2 / 3  # none across the end of a sentence
    assert distinct(sentences, 3) == 1
    assert distinct(sentences, 4) == 0
    assert distinct([[3, 30], [33, 0]], 2) == 1


def test_entropy_in_nats():
    assert entropy([["a", "b"], ["c", "d"]]) == pytest.approx(math.log(4))
    assert entropy([["a", "a", "a"], ["b"]]) == pytest.approx(
        0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    )
    assert entropy([["a"] * 9, []]) == 0
    assert entropy([[]]) == 0


def test_copies_are_whole_sentences():
    training = [["a", "b"], ["c"]]
    assert copy_rate([["a", "b"], ["a"], ["c"], ["c", "c"]], training) == 0.5
    assert copy_rate([["a b"]], training) == 0
    assert copy_rate([[]], training) == 0


def test_self_bleu_is_the_mean_over_sentences():
    lines = [" ".join(sentence) for sentence in CATS]
    truth = [
        sacrebleu.sentence_bleu(line, [other for other in lines if other != line], tokenize="none")
        for line in lines
    ]
    assert self_bleu(CATS) == pytest.approx(sum(one.score for one in truth) / 4)
    assert self_bleu([CATS[0]] * 3) == pytest.approx(100)
    assert self_bleu([["a", "b"], ["c", "d"], []]) == 0
    assert self_bleu([CATS[0], CATS[0], CATS[3]], most=2) == pytest.approx(100)


# --------------------------------------------------------------------------------- BLEU


def naive_bleu(num_candidates, references):
    """Papineni et al. 2002, section 2.3."""

    def counts(sentence, n):
        return Counter(tuple(sentence[i : i + n]) for i in range(len(sentence) - n + 1))

    logs = 0
    for n in (1, 2, 3, 4):
        hits = total = 0
        for made, group in zip(num_candidates, references, strict=True):
            limits = Counter()
            for reference in group:
                limits |= counts(reference, n)
            found = counts(made, n)
            hits, total = hits + (found & limits).total(), total + found.total()
        logs += math.log(hits / total) / 4
    made = sum(map(len, num_candidates))
    wanted = sum(
        min(map(len, group), key=lambda length: (abs(length - len(one)), length))
        for one, group in zip(num_candidates, references, strict=True)
    )
    return 100 * min(1, math.exp(1 - wanted / made)) * math.exp(logs)


def test_bleu_is_the_papers_formula():
    num_candidates = [CATS[0], CATS[3], ["a", "red", "cat", "sat", "on", "the", "mat"]]
    references = [
        [CATS[1], CATS[2]],
        [["all", "dogs", "bark", "loudly"]],
        [CATS[2], CATS[0], CATS[1]],
    ]
    truth = naive_bleu(num_candidates, references)
    assert 10 < truth < 90
    assert bleu(num_candidates, references) == pytest.approx(truth)
    swapped = [group[::-1] for group in references]
    assert bleu(num_candidates, swapped) == pytest.approx(truth)


def test_bleu_of_the_references_themselves():
    assert bleu(CATS, [[one] for one in CATS]) == pytest.approx(100)
    assert bleu([CATS[0]], [[CATS[3]]]) == 0
    assert bleu([[]], [[CATS[0]]]) == 0


def test_bleu_takes_tokens_as_they_are():
    """Tokens with marks, spaces or of numbers are one token each, in upper and lower case."""
    plain = [["x", "b", "c", "d", "f"]], [[["a", "b", "c", "d", "e"]]]
    names = {"a": "New York", "b": "e.g.", "c": "don't", "d": "\u00a0", "e": "E", "f": "e", "x": ""}
    odd = [[names[token] for token in plain[0][0]]], [[[names[t] for t in plain[1][0][0]]]]
    numbers = [[ord(token) for token in plain[0][0]]], [[[ord(t) for t in plain[1][0][0]]]]
    assert bleu(*odd) == bleu(*numbers) == bleu(*plain) > 0


def test_the_candidate_of_least_risk_is_in_the_middle():
    assert minimum_bayes_risk(CATS) == 0
    assert minimum_bayes_risk(CATS[::-1]) == 3
    lines = [" ".join(sentence) for sentence in CATS]
    for order in ([3, 1, 0, 2], [2, 3, 1], [1, 3]):
        gains = [
            sum(
                sacrebleu.sentence_bleu(lines[one], [lines[other]], tokenize="none").score
                for other in order
                if other != one
            )
            for one in order
        ]
        assert minimum_bayes_risk([CATS[i] for i in order]) == gains.index(max(gains))


def test_of_equal_risk_the_first_is_taken():
    assert minimum_bayes_risk([CATS[3]]) == 0
    assert minimum_bayes_risk([CATS[3], CATS[0], CATS[1], CATS[0], CATS[2]]) == 1
    assert minimum_bayes_risk([["a"], ["b"], ["c"]]) == 0
    assert minimum_bayes_risk([[], ["a", "b"], [], ["a", "b"]]) == 1


# -------------------------------------------------------------------------- edit distance


@given(WORDS, WORDS, WORDS)
def test_edit_distance_is_the_recursion(one, other, third):
    found = edit_distance(one, other)
    assert found == naive_distance(one, other) == edit_distance(other, one)
    assert abs(len(one) - len(other)) <= found <= max(len(one), len(other))
    assert found <= edit_distance(one, third) + edit_distance(third, other)


def test_edit_distance_counts_tokens():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance(["the", "cat"], ["the", "caterpillar"]) == 1
    assert edit_distance([1, 2, 3], [2, 3]) == 1


# ----------------------------------------------------------------------------------- SARI


def one_sari(source, made, *references):
    return sari([source.split()], [made.split()], [[line.split() for line in references]])


def test_sari_of_a_wrong_addition():
    """Keeps and deletions are right; additions wrong for n of 1 to 3, none wanted for 4."""
    assert one_sari("a b c", "a b d", "a b e") == pytest.approx(100 * (1 / 4 + 1 + 1) / 3)


def test_sari_of_two_references():
    """Half of them keep b: it is half right to delete it.

    Keep: precisions 1, 0, 1, 1 and recalls 2/3, 0, 1, 1. Deletion: 1/2, 1/2, 1, 1.
    """
    keep = 2 * (3 / 4) * (2 / 3) / (3 / 4 + 2 / 3)
    assert one_sari("a b", "a x", "a x", "a b") == pytest.approx(100 * (1 + keep + 3 / 4) / 3)


def test_sari_of_copying_what_was_to_be_rewritten():
    """Nothing for additions and deletions; keep: precisions 3/4, 1/3, 0, 0, recalls 1, 1, 0, 0."""
    precision, recall = (3 / 4 + 1 / 3) / 4, 2 / 4
    keep = 2 * precision * recall / (precision + recall)
    assert one_sari("a b c d", "a b c d", "a b x d") == pytest.approx(100 * keep / 3)


def test_sari_of_means_and_harmonic_means():
    """F1 is made of mean precision and mean recall; the mean of F1 would be (2/3 + 0 + 2) / 4.

    Additions: x is right and y is not; no pair is right; nothing of three or four is wanted,
    and nothing made. Keeps and deletions: none of one token, the rest as well.
    """
    found = one_sari("a", "x y", "x")
    precision, recall = (1 / 2 + 0 + 1 + 1) / 4, (1 + 0 + 1 + 1) / 4
    add = 2 * precision * recall / (precision + recall)
    assert found == pytest.approx(100 * (add + 1 + 1) / 3)


@given(SOME, SOME)
def test_sari_of_the_only_reference_is_100(source, reference):
    assert sari([source], [reference], [[reference, reference]]) == pytest.approx(100)
    assert sari([source], [reference], [[reference]]) == pytest.approx(100)


@given(SOME, WORDS, st.lists(SOME, min_size=1, max_size=3))
def test_sari_stays_between_0_and_100(source, made, references):
    found = sari([source], [made], [references])
    assert 0 <= found <= 100 + 1e-9
    assert sari([source], [made], [references[::-1]]) == pytest.approx(found)


def test_sari_of_a_corpus_is_the_mean():
    parts = [one_sari("a b c", "a b d", "a b e"), one_sari("a b", "a x", "a x", "a b")]
    whole = sari(
        [["a", "b", "c"], ["a", "b"]],
        [["a", "b", "d"], ["a", "x"]],
        [[["a", "b", "e"]], [["a", "x"], ["a", "b"]]],
    )
    assert whole == pytest.approx(sum(parts) / 2)


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "measure",
    [
        lambda: distinct([], 1),
        lambda: entropy([]),
        lambda: copy_rate([], [["a"]]),
        lambda: bleu([], []),
        lambda: minimum_bayes_risk([]),
        lambda: sari([], [], []),
    ],
)
def test_nothing_has_no_measure(measure):
    with pytest.raises(ValueError, match="no sentences to measure"):
        measure()


def test_what_does_not_belong_together():
    with pytest.raises(ValueError, match="references for 1 of 2 candidates"):
        bleu([["a"], ["b"]], [[["a"]]])
    with pytest.raises(ValueError, match="candidate 1 has no references"):
        bleu([["a"], ["b"]], [[["a"]], []])
    with pytest.raises(ValueError, match="candidate 0 has no references"):
        sari([["a"]], [["a"]], [[]])
    with pytest.raises(ValueError, match="2 sources for 1 candidates"):
        sari([["a"], ["b"]], [["a"]], [[["a"]]])
    with pytest.raises(ValueError, match="1 sentences: at least two are needed"):
        self_bleu(CATS, most=1)


# --------------------------------------------------------------------------- a causal model

VOCABULARY = ["<unk>", "<s>", "the", "cat", "sat", "on", "mat"]


def write_tokenizer(folder, **special):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbers = {token: number for number, token in enumerate(VOCABULARY)}
    inner = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **special)
    tokenizer.save_pretrained(folder)


def write_gpt2(folder, change=lambda model: None, **special):
    """A random GPT-2 of one layer whose outputs are far from uniform."""
    from transformers import GPT2Config, GPT2LMHeadModel

    write_tokenizer(folder, **(special or {"bos_token": "<s>"}))
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(VOCABULARY), n_positions=8, n_embd=8, n_layer=1, n_head=2,
        initializer_range=1.0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    change(model)
    model.save_pretrained(folder)
    return model


def losses(model, *rows):
    """What the library says a row of numbers costs, its first aside, and how many that is."""
    with torch.no_grad():
        return [
            (float(model(input_ids=ids, labels=ids).loss), ids.shape[1] - 1)
            for ids in (torch.tensor([row]) for row in rows)
        ]


def mean(costs):
    return sum(cost * count for cost, count in costs) / sum(count for _, count in costs)


TEXTS, ROWS = ["the cat sat", "mat", "the dog sat on the cat"], [[2, 3, 4], [6], [2, 0, 4, 5, 2, 3]]


@pytest.mark.parametrize(
    "special",
    [{"bos_token": "<s>"}, {"eos_token": "<s>"}, {"bos_token": "<s>", "eos_token": "<unk>"}],
)
def test_causal_nats_are_the_librarys_loss(tmp_path, special):
    model = write_gpt2(tmp_path, **special)
    truth = mean(losses(model, *([1, *row] for row in ROWS)))
    assert abs(truth - math.log(len(VOCABULARY))) > 0.3
    assert causal_nats_per_token(TEXTS, tmp_path) == pytest.approx(truth, rel=1e-5)
    assert causal_nats_per_token(TEXTS, str(tmp_path)) == pytest.approx(truth, rel=1e-5)


def test_causal_nats_without_a_token_to_begin_with(tmp_path):
    model = write_gpt2(tmp_path, pad_token="<unk>")
    truth = mean(losses(model, ROWS[0], ROWS[2]))
    assert causal_nats_per_token(TEXTS, tmp_path) == pytest.approx(truth, rel=1e-5)
    with pytest.raises(ValueError, match="1 texts without a token to score"):
        causal_nats_per_token(["mat"], tmp_path)


def test_causal_nats_of_a_model_that_knows_nothing(tmp_path):
    write_gpt2(tmp_path, lambda model: torch.nn.init.zeros_(model.transformer.wte.weight))
    found = causal_nats_per_token(["the cat", "", "sat"], tmp_path)
    assert found == pytest.approx(math.log(len(VOCABULARY)), rel=1e-6)


def refused(match, path, texts=TEXTS):
    with pytest.raises(InputError, match=match) as reported:
        causal_nats_per_token(texts, path)
    assert str(path) in str(reported.value) and "\n" not in str(reported.value)


def test_folders_without_a_causal_model(tmp_path):
    refused("no such folder", tmp_path / "none")
    refused("has no causal language model", tmp_path)
    write_gpt2(tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").unlink()
    refused("has no causal language model", tmp_path / "cut")


def test_a_model_that_lacks_weights(tmp_path):
    from safetensors.torch import load_file, save_file

    write_gpt2(tmp_path)
    file = tmp_path / "model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if not k.endswith("c_proj.weight")}
    save_file(kept, file, {"format": "pt"})
    refused("lacks weights of its model", tmp_path)


def test_a_model_that_sees_what_follows(tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    write_tokenizer(tmp_path, bos_token="<s>")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8, initializer_range=1.0,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path)
    refused("sees the words that it has to predict", tmp_path)


def test_a_text_longer_than_the_model_reads(tmp_path):
    write_gpt2(tmp_path)
    assert causal_nats_per_token(["the " * 7], tmp_path) > 0
    refused("reads 8 tokens at most, and 'the the", tmp_path, ["the " * 8])
