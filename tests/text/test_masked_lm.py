"""Masked language models of transformers as denoisers."""

from pathlib import Path

import pytest
import torch
import transformers
from commands import complains, does, facts
from published import byte_pieces, masked_lm, wrapped

import multidiff as md
from multidiff.config.recipe import parse, to_yaml
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.text.data.vocabulary import END, PAD, UNKNOWN, with_blanks
from multidiff.text.request import TextRequest

SENTENCES = Path(md.__file__).parent / "starter" / "restaurant" / "sentences.csv"
KINDS = ["bert", "roberta", "distilbert", "modernbert"]
LEVEL = LogLinearMasks().at(torch.full((2,), 0.5))


@pytest.fixture(scope="module", params=KINDS)
def published(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, *masked_lm(request.param, folder)


def test_logits_are_those_of_transformers(published):
    """Also of padded batches, and with a source before the sequence."""
    folder, theirs, words = published
    model = md.load(folder)
    mask = model.process.size
    texts = ["the cat sat on the mat", "happy dogs"]
    tokens = model.domain.tokens(texts)
    xt = tokens.clone()
    xt[:, 1] = mask
    found = model.denoiser(xt, LEVEL, {"real": tokens != PAD})
    written = model.denoiser.written
    for row, text in enumerate(texts):
        ids = [words.cls_token_id, *words(text, add_special_tokens=False).input_ids]
        ids[2] = words.mask_token_id
        ids.append(words.sep_token_id)
        with torch.no_grad():
            want = theirs(input_ids=torch.tensor([ids])).logits[0, 1:]
        got = found[row, : len(want)]
        assert torch.allclose(
            got[:, written], want[:, model.denoiser.ids[written]], atol=1e-5, rtol=0
        )
        assert bool((got[:, ~written] < -1e8).all())


def test_special_tokens_are_never_written(published, capsys):
    """Nor rows of the table that no token has, whatever the sampler."""
    folder, _, words = published
    model = md.load(folder)
    special = {*words.all_special_ids}
    asked = with_blanks(model.domain.vocabulary, "the [MASK] sat on [MASK][MASK] mat")
    assert asked.count(None) == 3
    space = " " if "<s>" in words.all_special_tokens else ""  # pieces of bytes hold the space
    known = [
        number
        for part in ("the", f"{space}sat on", f"{space}mat")
        for number in model.domain.vocabulary.numbers(part)
    ]
    assert [one for one in asked if one is not None] == known
    options = ["--sampler", "random", "--temperature", 5, "--infill", "the [MASK] sat on [MASK]"]
    texts = [one["text"] for one in facts(capsys, "sample", folder, "-n", 8, *options)["outputs"]]
    assert len({*texts}) > 4
    for text in texts:
        ids = words(text, add_special_tokens=False).input_ids
        assert text.startswith("the") and not special & {*ids} and "[unused" not in text
    written = model.denoiser.written.clone()
    written[UNKNOWN] = False  # read, and counted in the bound, but forbidden in sampling
    ids = model.denoiser.ids[written]
    assert int(ids.max()) < len(words) and not special & {*ids.tolist()}


def test_the_bound_and_the_round_trip(published, tmp_path, capsys):
    folder, theirs, words = published
    model = md.load(folder)
    texts = ["the cat sat on the mat", "a small bird sings"]
    nats = model.nats(texts, [{}, {}], seed=3)
    special = model.denoiser.special
    ids = torch.tensor([[*special.start, *words(texts[0]).input_ids, special.end]])
    with torch.no_grad():
        states = theirs.base_model(input_ids=ids).last_hidden_state[0, 1:-1]
    assert torch.allclose(model.encode(texts, pooled=False)[0], states, atol=1e-5)
    does(capsys, "convert", folder, tmp_path / "ours")
    again = md.load(tmp_path / "ours")
    assert torch.equal(again.nats(texts, [{}, {}], seed=3)["tokens"], nats["tokens"])
    does(capsys, "convert", tmp_path / "ours", tmp_path / "theirs", "--to", "transformers")
    back = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "theirs").eval()
    state = back.state_dict()
    assert all(torch.equal(one, state[name]) for name, one in theirs.state_dict().items())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert tokenizer.mask_token_id == words.mask_token_id
    assert tokenizer(texts).input_ids == words(texts).input_ids
    (tmp_path / "held_out.txt").write_text("\n".join(f"{texts[n % 2]} {n}" for n in range(24)))
    printed = does(capsys, "eval", folder, tmp_path / "held_out.txt", "--num", 0, "--bound", 4)
    assert "of the model at most" in printed
    assert model.domain.tokens(texts)[1, -1] == PAD and END in model.domain.tokens(texts)[0]


# ------------------------------------------------------------------------------ bad input


def test_what_is_no_masked_language_model(tmp_path, capsys):
    folder = tmp_path / "gpt2"
    config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=400)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    words, special = byte_pieces()
    wrapped(words, special).save_pretrained(folder)
    assert "is a causal language model (GPT2LMHeadModel)" in complains(capsys, "sample", folder)
    masked_lm("bert", tmp_path / "bert")
    maskless = {name: token for name, token in special.items() if name != "mask"}
    wrapped(words, maskless).save_pretrained(tmp_path / "maskless")
    said = complains(
        capsys, "convert", tmp_path / "bert", tmp_path / "new", "--tokenizer", tmp_path / "maskless"
    )
    assert "has no mask token" in said and not (tmp_path / "new").exists()
    for path in (tmp_path / "bert").glob("*token*"):
        path.unlink()
    assert "has no tokenizer" in complains(capsys, "sample", tmp_path / "bert")


def test_wrong_requests(published, capsys, monkeypatch):
    folder, _, words = published
    long = "cat " * 60 + "[MASK]"
    assert "writes 1 to 3" in complains(capsys, "sample", folder, "--infill", long)
    special = "".join({*words.all_special_tokens} - {"[MASK]"})
    assert "does not know" in complains(capsys, "sample", folder, "--infill", special)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = complains(capsys, "sample", "nobody-at-all/no-such-bert", "--infill", "a [MASK]")
    assert "cannot be read from the hub" in said


def test_a_penalty_on_repetition(published):
    """Where it is high no token is written twice, one at a time; 1 changes nothing."""
    model = md.load(published[0])
    request, states = TextRequest(known={0: 7}, length=14), []
    options = {"sampler": "random", "temperature": 0.5, "seed": 3}

    def note(number, tokens):
        states.append(tokens[0, :14].tolist())

    model.generate([request], repetition_penalty=200.0, **options, on_step=note)
    assert len({*states[-1]}) == 14
    assert model.generate([request], **options) == model.generate(
        [request], repetition_penalty=1.0, **options
    )


def test_a_folder_from_the_hub(published, tmp_path, capsys, monkeypatch):
    folder, *_ = published
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(folder))
    infill = ["--infill", "the [MASK] sat"]
    printed = does(capsys, "sample", "somebody/some-bert", *infill)
    assert printed == does(capsys, "sample", folder, *infill)
    does(capsys, "convert", "somebody/some-bert", tmp_path / "ours")
    assert printed == does(capsys, "sample", tmp_path / "ours", *infill)


def test_a_prompt_is_continued(published, capsys):
    """To the length that is given, or to one that is drawn."""
    folder, *_ = published
    words = ["sample", folder, "-n", 3, "--infill", "the cat"]
    for more in ([], ["--length", 12]):
        for one in facts(capsys, *words, *more)["outputs"]:
            assert one["text"].startswith("the cat") and len(one["text"]) > len("the cat")


# --------------------------------------------------------------------------- fine-tuning


def test_tuning_by_adapters_on_pairs(tmp_path, capsys):
    """The base is frozen, the text's source is read, and the adapters can be merged."""
    theirs, _ = masked_lm("bert", tmp_path / "bert")
    does(capsys, "convert", tmp_path / "bert", tmp_path / "base")
    recipe = parse((tmp_path / "base" / "recipe.yaml").read_text(), "recipe").plain()
    model = recipe["model"]
    model["domain"] |= {"source_length": 12, "length": 20}
    model["domain"]["vocabulary"]["folder"] = str(tmp_path / "base")
    sources = {"sources": model["process"]["size"], "source_length": 12}
    model["denoiser"] |= {**sources, "lora": {"rank": 2, "targets": ["query", "value"]}}
    pairs = "text,source\nthe cat sat on the cat,the dog\nthe cat sat,happy cats\n" * 4
    (tmp_path / "pairs.csv").write_text(pairs)
    source = {"path": str(tmp_path / "pairs.csv"), "source_column": "source"}
    examples = {"use": "Sentences", "source": source}
    recipe |= {
        "weights": [{"model": str(tmp_path / "base"), "source_key": "denoiser",
                     "target_key": "denoiser"}],
        "data": {"use": "Batches", "batch_size": 4, "examples": examples},
        "trainer": {"use": "Trainer", "steps": 4, "learning_rate": 0.05, "save_every": 4,
                    "threads": 1},
    }  # fmt: skip
    (tmp_path / "tune.yaml").write_text(to_yaml(recipe))
    does(capsys, "train", tmp_path / "tune.yaml", "--out", tmp_path / "run")
    tuned = md.load(tmp_path / "run")
    state, before = tuned.denoiser.network.model.state_dict(), theirs.state_dict()
    assert all(torch.equal(state[name], one) for name, one in before.items())
    assert any(bool(one.any()) for name, one in state.items() if "lora_B" in name)
    does(capsys, "sample", tmp_path / "run", "--length", 5, "--source", "the dog")
    xt = torch.full((1, 4), tuned.process.size)
    one, other = (
        tuned.denoiser(xt, LEVEL, {"source": tuned.domain.source_tokens([text])})
        for text in ("the dog", "happy cats")
    )
    assert float((one - other).abs().max()) > 0.01
    does(capsys, "convert", tmp_path / "run", tmp_path / "back", "--to", "transformers")
    merged = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "back").eval()
    xt = tuned.domain.tokens(["the cat sat on the mat"])
    ids = torch.cat([torch.tensor([[tuned.denoiser.special.start[0]]]), tuned.denoiser.ids[xt]], 1)
    with torch.no_grad():
        want = merged(input_ids=ids).logits[0, 1:]
        base = theirs(input_ids=ids).logits[0, 1:]
    written = tuned.denoiser.written
    got = tuned.denoiser(xt, LEVEL)[0][:, written]
    assert torch.allclose(got, want[:, tuned.denoiser.ids[written]], atol=1e-4)
    assert not torch.allclose(want, base, atol=1e-2)


@pytest.mark.long
def test_tuning_a_random_bert_falls_below_a_unigram(tmp_path, capsys):
    masked_lm("bert", tmp_path / "bert", SENTENCES.read_text().splitlines(), pieces=400, scale=0.0)
    does(capsys, "convert", tmp_path / "bert", tmp_path / "base")
    recipe = parse((tmp_path / "base" / "recipe.yaml").read_text(), "recipe").plain()
    recipe["model"]["domain"]["vocabulary"]["folder"] = str(tmp_path / "base")
    source = {"path": "starter:restaurant/sentences.csv", "held_out_every": 10}
    recipe |= {
        "weights": [{"model": str(tmp_path / "base")}],
        "data": {"use": "Batches", "batch_size": 16, "group_by_length": 8,
                 "examples": {"use": "Sentences", "source": source, "longest": 28}},
        "trainer": {"use": "Trainer", "steps": 400, "learning_rate": 3e-3, "warmup_steps": 20,
                    "decay": "cosine", "threads": 1},
    }  # fmt: skip
    (tmp_path / "tune.yaml").write_text(to_yaml(recipe))
    does(capsys, "train", tmp_path / "tune.yaml", "--out", tmp_path / "run")
    data = ["starter:restaurant/sentences.csv", "--num", 0, "--bound", 40]
    bound = facts(capsys, "eval", tmp_path / "run", *data)["bound"]
    assert bound["unconditional"]["total"] < bound["1-gram"]["total"]
