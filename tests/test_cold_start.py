"""Imports of a fresh process that loads models: only what they compute with."""

import json
import os
import subprocess
import sys

import torch
import transformers

from multidiff.image.diffusion.text_encoder import TextEncoder
from multidiff.models.loading import shipped

# Packages that cost from 50 ms to seconds, and parts of torch that compile.
HEAVY = {
    "transformers", "datasets", "accelerate", "diffusers", "huggingface_hub", "tokenizers",
    "torchvision", "torchaudio", "scipy", "sklearn", "librosa", "numba", "pandas", "pyarrow",
    "tensorboard", "matplotlib", "sympy", "triton", "gradio", "fastapi", "uvicorn",
    "torch._dynamo", "torch._inductor", "torch.distributed.fsdp",
}  # fmt: skip
PROGRAM = """
import json, sys
import multidiff as md
found = {}
from multidiff.cli.main import run
from tempfile import TemporaryDirectory
with TemporaryDirectory() as folder:
    status = run(["sample", "digits", "--prompt", "a seven", "--steps", "1", "-o", folder])
found["sample digits"] = [status, sorted(set(sys.argv[1].split()) & set(sys.modules))]
for name in sys.argv[2:]:
    md.load(name)
    found[name] = sorted(set(sys.argv[1].split()) & set(sys.modules))
print(json.dumps(found))
"""


def test_models_are_loaded_without_heavy_packages():
    """One process draws a digit, then loads each shipped model in turn."""
    last = "english-edits"  # whose vocabulary is one of tokenizers
    names = [*(shipped().keys() - {last}), last]
    words = [sys.executable, "-c", PROGRAM, " ".join(sorted(HEAVY)), *names]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("sample digits") == [0, []]
    assert found.pop(last) == ["tokenizers"]
    assert found == {name: [] for name in shipped() if name != last}


def test_the_text_encoder_is_initialised_as_clip():
    """Names, order and standard deviations of the weights are the library's."""
    torch.manual_seed(0)
    ours = TextEncoder(500, 96, 384, 3, 4, length=20).transformer
    config = transformers.CLIPTextConfig(
        vocab_size=500, hidden_size=96, intermediate_size=384, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=20,
    )  # fmt: skip
    theirs = transformers.CLIPTextModel(config).state_dict()
    wanted = {name.removeprefix("text_model."): value for name, value in theirs.items()}
    assert list(ours.state_dict()) == list(wanted)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value.std(), wanted[name].std(), rtol=0.1, atol=0, msg=name)
