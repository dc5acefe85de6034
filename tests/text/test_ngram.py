"""The n-gram model against its formula in fractions, and what it writes against its numbers."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multidiff.text.metrics.ngram import NGramModel

START, END = "<start>", "<end>"
TINY = [["a", "b"], ["a"]]
PETS = [
    line.split()
    for line in (
        "the cat sat on the mat",
        "the dog sat on the rug",
        "a cat ran to the dog",
        "a dog ran",
        "the cat saw a dog on the mat",
        "on the mat sat a cat",
    )
]
SENTENCES = st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1, max_size=6).filter(
    lambda sentences: any(sentences)
)


def formula(sentences, order, history, event):
    """The recursion as the paper writes it, counting again for each term."""
    if history is None:
        return Fraction(1, len({token for s in sentences for token in s}) + 2)
    seen = Counter()
    for sentence in sentences:
        padded = [START] * (order - 1) + list(sentence) + [END]
        for position in range(order - 1, len(padded)):
            if padded[position - len(history) : position] == list(history):
                seen[padded[position]] += 1
    shorter = formula(sentences, order, history[1:] if history else None, event)
    kinds = len(seen)
    return (seen[event] + kinds * shorter) / (seen.total() + kinds) if seen else shorter


def ratios(model, beginning):
    return dict(zip([END, "unknown", *model.tokens], model.distribution(beginning), strict=True))


# ------------------------------------------------------------------------- probabilities


def test_a_tiny_corpus_by_hand():
    """Events a 2, b 1, END 2, UNKNOWN 0: the unigram adds 3 kinds at 1/4 to a count of 5."""
    unigram, bigram = NGramModel(TINY, order=1), NGramModel(TINY, order=2)
    single = {"a": 2.75 / 8, "b": 1.75 / 8, END: 2.75 / 8, "unknown": 0.75 / 8}
    assert ratios(unigram, []) == pytest.approx(single)
    opening = {word: (2 * (word == "a") + ratio) / 3 for word, ratio in single.items()}
    assert ratios(bigram, []) == pytest.approx(opening)
    after = {w: ((w in ("b", END)) + 2 * ratio) / 4 for w, ratio in single.items()}
    assert ratios(bigram, ["a"]) == pytest.approx(after)
    assert ratios(bigram, ["never seen"]) == pytest.approx(single)
    assert bigram.nats(["a", "b"]) == pytest.approx(
        [-math.log(opening["a"]), -math.log(after["b"]), -math.log((1 + single[END]) / 2)]
    )
    assert unigram.nats(["what"]) == pytest.approx([-math.log(0.75 / 8), -math.log(2.75 / 8)])


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(1, 4), st.lists(st.sampled_from("abcx"), max_size=6))
def test_every_probability_is_the_formulas(sentences, order, sentence):
    model = NGramModel(sentences, order)
    padded = [START] * (order - 1) + sentence + [END]
    truth = [
        formula(sentences, order, padded[position - order + 1 : position], padded[position])
        for position in range(order - 1, len(padded))
    ]
    assert model.nats(sentence) == pytest.approx([-math.log(ratio) for ratio in truth], rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(1, 4), st.lists(st.sampled_from("abcx"), max_size=6))
def test_probabilities_sum_to_one(sentences, order, beginning):
    model = NGramModel(sentences, order)
    found = ratios(model, beginning)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert min(found.values()) > 0
    sentence = [*beginning, "a"]
    scored = model.nats(sentence)[len(beginning)]
    assert scored == pytest.approx(-math.log(found.get("a", found["unknown"])), rel=1e-12)


def test_the_unigram_is_its_closed_form():
    model = NGramModel(PETS, order=1)
    counts = Counter(token for sentence in PETS for token in sentence)
    counts[END] = len(PETS)
    kinds, events = len(counts), len(counts) + 1
    total = counts.total()
    nats = sum(
        -count * math.log((count + kinds / events) / (total + kinds)) for count in counts.values()
    )
    assert model.nats_per_token(PETS) == pytest.approx(nats / total, rel=1e-12)


def test_the_mean_is_over_tokens_and_ends():
    model = NGramModel(PETS, order=3)
    asked = [PETS[0], [], ["the", "unheard", "cat"]]
    scores = [nats for sentence in asked for nats in model.nats(sentence)]
    assert len(scores) == 7 + 1 + 4
    assert model.nats_per_token(asked) == pytest.approx(sum(scores) / 12, rel=1e-12)


def test_order_tells_text_from_its_shuffle():
    rng = np.random.default_rng(0)
    shuffled = [list(rng.permutation(sentence)) for sentence in PETS]
    scores = [NGramModel(PETS, order).nats_per_token(PETS) for order in (1, 2, 3)]
    assert scores[0] > scores[1] > scores[2]
    assert NGramModel(PETS, 1).nats_per_token(shuffled) == pytest.approx(scores[0])
    for order in (2, 3):
        assert NGramModel(PETS, order).nats_per_token(shuffled) > scores[order - 1] + 0.5


def test_numbers_are_tokens_too():
    numbers = {token: position for position, token in enumerate(NGramModel(PETS).tokens)}
    coded = [[numbers[token] for token in sentence] for sentence in PETS]
    model = NGramModel(coded, order=3)
    assert model.tokens == list(range(len(numbers)))
    assert model.nats_per_token(coded) == NGramModel(PETS, order=3).nats_per_token(PETS)


def test_refusals():
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        NGramModel(PETS, order=0)
    with pytest.raises(ValueError, match="2 sentences without a token"):
        NGramModel([[], []])
    with pytest.raises(ValueError, match="no sentences to score"):
        NGramModel(PETS).nats_per_token([])


# ---------------------------------------------------------------------------- generation


def test_samples_follow_the_probabilities():
    model = NGramModel(TINY, order=2)
    rng = np.random.default_rng(0)
    made = [tuple(model.sample(rng, longest=50)) for _ in range(4000)]
    known = {w: ratio for w, ratio in ratios(model, []).items() if w != "unknown"}
    for word, ratio in known.items():
        wanted = ratio / sum(known.values())
        found = sum((sentence[0] if sentence else END) == word for sentence in made) / len(made)
        assert abs(found - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / len(made))
    assert {token for sentence in made for token in sentence} == {"a", "b"}


def test_samples_are_their_generators_and_end():
    model = NGramModel(PETS, order=3)

    def drawn(seed, longest):
        rng = np.random.default_rng(seed)
        return [model.sample(rng, longest) for _ in range(50)]

    assert drawn(1, 30) == drawn(1, 30) != drawn(2, 30)
    assert max(map(len, drawn(1, 4))) == 4
    assert drawn(1, 0) == [[]] * 50


def whole(model, sentence):
    return sum(model.nats(sentence))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_a_lone_blank_takes_the_word_that_fits_best(order):
    model = NGramModel(PETS, order)
    for sentence in [*PETS, ["a", "strange", "dog", "sat"]]:
        for position in range(len(sentence)):
            tries = [[*sentence[:position], t, *sentence[position + 1 :]] for t in model.tokens]
            best = min(tries, key=lambda made: whole(model, made))
            asked = [*sentence[:position], None, *sentence[position + 1 :]]
            assert whole(model, model.fill(asked)) == pytest.approx(whole(model, best), rel=1e-12)
            assert asked[position] is None


def test_a_lone_blank_draws_by_the_probability_of_the_sentence():
    model = NGramModel(PETS, order=3)
    tries = [["the", token, "sat"] for token in model.tokens]
    weights = np.exp([-whole(model, made) for made in tries])
    rng = np.random.default_rng(0)
    found = Counter(model.fill(["the", None, "sat"], rng)[1] for _ in range(2000))
    for token, ratio in zip(model.tokens, weights / weights.sum(), strict=True):
        std = math.sqrt(ratio * (1 - ratio) / 2000)
        assert abs(found[token] / 2000 - ratio) < 4 * std


def test_both_sides_of_a_blank_count():
    model = NGramModel([["x", "a", "p"], ["x", "a", "p"], ["x", "b", "q"]], order=2)
    assert model.fill(["x", None, "p"]) == ["x", "a", "p"]
    assert model.fill(["x", None, "q"]) == ["x", "b", "q"]
    assert model.fill(["x", None, None]) == ["x", "a", "p"]


def test_blanks_are_filled_from_the_left_and_words_stay():
    model = NGramModel(PETS, order=3)
    assert model.fill([None, "cat", "unheard", None])[1:3] == ["cat", "unheard"]
    assert model.fill(["no", "blank"]) == ["no", "blank"]
    assert model.fill([]) == []
    first = model.fill([None, None, "on"])[0]
    assert first == model.tokens[int(model.distribution([])[2:].argmax())]
    assert set(model.fill([None] * 8)) <= set(model.tokens)
