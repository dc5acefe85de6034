"""FSDP: the same training with the weights in shards."""

import json

import pytest
import torch
from program import ENVIRONMENT, LAUNCH, RECIPES, ROOT, run, with_overrides

import multidiff
from multidiff.models.weights import read_tensors

SMALL = [
    RECIPES / "smoke" / "speech.yaml",
    "trainer.steps=6",
    "trainer.save_every=2",
    "trainer.validate_every=2",
    "trainer.log_every=1",
    "model.denoiser.width=16",
]
SHARDED = [*LAUNCH[:-2], str(ROOT / "tests" / "sharded.py")]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A run of two processes, each with its copy of the weights."""
    folder = tmp_path_factory.mktemp("copies")
    done = run("train", *SMALL, "--out", folder, program=LAUNCH)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "shards", [pytest.param("NO_WRAP", marks=pytest.mark.long), "TRANSFORMER_BASED_WRAP"]
)
def test_shards_train_like_copies(tmp_path, copies, shards, monkeypatch):
    """Steps, looks at held-out data, previews, checkpoints, the model, and going on."""
    monkeypatch.setitem(ENVIRONMENT, "SHARDS", shards)
    resume = ()
    if shards != "NO_WRAP":
        first = run(
            "train", *with_overrides(SMALL, "trainer.steps=4"), "--out", tmp_path, program=SHARDED
        )
        assert first.returncode == 0, first.stderr[-3000:]
        resume = ("--resume",)
    done = run("train", *SMALL, *resume, "--out", tmp_path, program=SHARDED)
    assert done.returncode == 0, done.stderr[-3000:]
    model, other = (read_tensors(f / "model" / "model.safetensors")[0] for f in (tmp_path, copies))
    assert model.keys() == other.keys()
    for name in model:
        torch.testing.assert_close(model[name], other[name], rtol=1e-4, atol=1e-6)
    assert isinstance(multidiff.load(tmp_path), torch.nn.Module)
    logs = [[json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()]
            for f in (tmp_path, copies)]  # fmt: skip
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
    for here, there in zip(*logs, strict=True):
        assert here["denoising"] == pytest.approx(there["denoising"], rel=1e-4)


@pytest.mark.long
def test_half_precision_in_shards(tmp_path, monkeypatch):
    """The network computes in bfloat16; nothing else does."""
    monkeypatch.setitem(ENVIRONMENT, "SHARDS", "TRANSFORMER_BASED_WRAP")
    short = with_overrides(SMALL, "trainer.steps=2", "trainer.precision=bf16")
    done = run("train", *short, "--out", tmp_path, program=SHARDED)
    assert done.returncode == 0, done.stderr[-3000:]
    tensors = read_tensors(tmp_path / "model" / "model.safetensors")[0]
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
