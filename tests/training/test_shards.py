"""FSDP: the same training with the weights in shards."""

import json

import pytest
import torch
from program import ENVIRONMENT, LAUNCH, RECIPES, ROOT, here, run, with_overrides

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
def whole(tmp_path_factory):
    """A run of one process, which has all of the weights."""
    folder = tmp_path_factory.mktemp("whole")
    here("train", *SMALL, "--out", folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("shards", "begun"),
    [
        ("TRANSFORMER_BASED_WRAP", "whole"),
        ("TRANSFORMER_BASED_WRAP", "shards"),
        ("NO_WRAP", ""),
    ],
)
def test_shards_train_like_one_process(tmp_path, whole, shards, begun, monkeypatch):
    """Steps, looks at held-out data, checkpoints, the model, and going on from either kind."""
    monkeypatch.setitem(ENVIRONMENT, "SHARDS", shards)
    short = ["train", *with_overrides(SMALL, "trainer.steps=4"), "--out", tmp_path]
    if begun == "whole":
        here(*short)
    elif begun:
        first = run(*short, program=SHARDED)
        assert first.returncode == 0, first.stderr[-3000:]
    resume = ["--resume"] if begun else []
    done = run("train", *SMALL, *resume, "--out", tmp_path, program=SHARDED)
    assert done.returncode == 0, done.stderr[-3000:]
    model, other = (read_tensors(f / "model" / "model.safetensors")[0] for f in (tmp_path, whole))
    assert model.keys() == other.keys()
    for name in model:
        # Two processes sum gradients in another order, which Adam enlarges where they are tiny;
        # six updates move a weight by up to 6e-3.
        torch.testing.assert_close(model[name], other[name], rtol=1e-4, atol=1e-5)
    assert isinstance(multidiff.load(tmp_path), torch.nn.Module)
    logs = [[json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()]
            for f in (tmp_path, whole)]  # fmt: skip
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
    for one, other in zip(*logs, strict=True):
        assert one["denoising"] == pytest.approx(other["denoising"], rel=1e-4)


@pytest.mark.long
def test_half_precision_in_shards(tmp_path, monkeypatch):
    """The network computes in bfloat16; nothing else does."""
    monkeypatch.setitem(ENVIRONMENT, "SHARDS", "TRANSFORMER_BASED_WRAP")
    short = with_overrides(SMALL, "trainer.steps=2", "trainer.precision=bf16")
    done = run("train", *short, "--out", tmp_path, program=SHARDED)
    assert done.returncode == 0, done.stderr[-3000:]
    tensors = read_tensors(tmp_path / "model" / "model.safetensors")[0]
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
