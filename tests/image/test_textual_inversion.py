"""Textual inversion: the tokens and hidden states of diffusers, and what is refused."""

import pytest
import torch
from commands import complains, does
from pipelines import pipeline
from safetensors.torch import save_file

import multidiff as md
from multidiff.image.data.image_files import read_facts
from multidiff.image.stable_diffusion.textual_inversion import load_embedding


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("embedding")
    pipe = pipeline(root)
    pipe.save_pretrained(root / "folder")
    return root, pipe


def vectors(count=2, width=64):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(4))


def test_tokens_and_hidden_states_are_those_of_diffusers(published, tmp_path):
    root, pipe = published
    save_file({"<toy>": vectors()}, tmp_path / "toy.safetensors")
    model = md.load(root / "folder")
    found = load_embedding(model, tmp_path / "toy.safetensors")
    assert (found.token, found.count) == ("<toy>", 2) and model.embeddings == [found]
    pipe.load_textual_inversion(str(tmp_path / "toy.safetensors"))
    prompts = ["a <toy> cat", "<toy>", "cat"]
    options = {"padding": "max_length", "truncation": True, "max_length": 12}
    texts = pipe.maybe_convert_prompt(prompts, pipe.tokenizer)
    tokens = pipe.tokenizer(texts, return_tensors="pt", **options).input_ids
    assert torch.equal(model.domain.tokenizer(prompts), tokens)
    with torch.no_grad():
        wanted = pipe.text_encoder(tokens)[0]
        torch.testing.assert_close(model.domain.prompted(prompts), wanted, rtol=1e-5, atol=1e-6)
    weighted = model.domain.prompted(["a (<toy>:1.2) cat"])
    assert not torch.equal(weighted[0], wanted[0])


def write(form, path):
    if form == "emb_params":
        save_file({"emb_params": vectors(1)}, path.with_suffix(".safetensors"))
        return path.with_suffix(".safetensors")
    content = {"string_to_param": {"*": vectors(1)}, "name": "<named>", "step": 5}
    torch.save(content if form == "webui" else {"<x>": vectors(1)[0]}, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


@pytest.mark.parametrize(
    ("form", "token"), [("emb_params", "thing"), ("webui", "<named>"), ("vector", "<x>")]
)
def test_every_form(published, tmp_path, form, token):
    model = md.load(published[0] / "folder")
    assert load_embedding(model, write(form, tmp_path / "thing")).token == token
    rows = model.domain.text_encoder.transformer.embeddings.token_embedding.weight
    torch.testing.assert_close(rows[-1], vectors(1)[0])


def test_what_is_refused_and_what_is_warned_of(published, tmp_path, capsys, caplog):
    folder = published[0] / "folder"
    path = write("emb_params", tmp_path / "thing")
    how = ["sample", folder, "--prompt", "a cat", "--steps", 1, "--size", "16x16"]
    does(capsys, *how, "--embedding", f"{path}:<new>", "-o", tmp_path / "out")
    assert "thing.safetensors: no prompt has its token <new>" in caplog.text
    facts = read_facts(tmp_path / "out/000-a-cat-0.png")
    assert facts["embedding"] == "thing.safetensors:<new>" and len(facts["embedding_sha256"]) == 64
    save_file({"<wide>": vectors(1, 1024)}, tmp_path / "wide.safetensors")
    save_file({"clip_l": vectors(1), "clip_g": vectors(1)}, tmp_path / "xl.safetensors")
    save_file({"a": vectors(1), "b": vectors(1)}, tmp_path / "two.safetensors")
    for name, reason in (
        ("wide.safetensors", "have 1024 numbers (Stable Diffusion 2), the model's tokens 64"),
        ("xl.safetensors", "Stable Diffusion XL"),
        ("two.safetensors", "is no textual inversion; it has a, b"),
        ("none.pt", "no such file"),
        ("thing.safetensors:cat", "cat is a token already"),
        ("thing.safetensors:a b", "has no blanks"),
    ):
        assert reason in complains(capsys, *how, "--embedding", tmp_path / name)
    reported = complains(capsys, "sample", "digits", "--prompt", "7", "--embedding", path)
    assert "has no text encoder of Stable Diffusion" in reported
