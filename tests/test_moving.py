"""Weights read into memory of their own, and moved in a precision of choice."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from multidiff import load
from multidiff.models.moving import move_into, read_into_memory
from multidiff.models.weights import without_values
from multidiff.utils.errors import InputError

KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8,
         torch.bool, torch.float8_e4m3fn)  # fmt: skip


def test_every_kind_of_tensor_is_read(tmp_path):
    wanted = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in KINDS}
    wanted |= {"empty": torch.zeros(0, 4), "scalar": torch.tensor(2.5)}
    save_file(wanted, tmp_path / "a.safetensors", {"format": "pt"})
    found, metadata = read_into_memory(tmp_path / "a.safetensors")
    assert metadata == {"format": "pt"} and found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name].double(), tensor.double())
    (tmp_path / "a.safetensors").write_bytes(b"")  # what was read does not depend on the file
    assert found["torch.float32"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_names_that_are_skipped(tmp_path):
    save_file({"a.x": torch.ones(1), "b.x": torch.ones(1)}, tmp_path / "a.safetensors")
    assert read_into_memory(tmp_path / "a.safetensors", skip=["a."])[0].keys() == {"b.x"}


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.light, self.whole = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, None])
def test_moving_empties_the_dict_and_copies_only_what_changes(kind):
    tensors = {f"{name}.weight": torch.randn(16, 16).half() for name in ("light", "whole")}
    given = dict(tensors)
    with without_values():
        module = Two()
    move_into(module, tensors, "x", dtype=kind, half_parts=["light."])
    assert tensors == {}
    assert module.light.weight.dtype == (kind or torch.float16)
    assert module.whole.weight.dtype == torch.float32 and module.whole.weight.requires_grad
    for name, weight in module.named_parameters():
        assert torch.equal(weight, given[name].to(weight.dtype))
    taken = module.light.weight.data_ptr() == given["light.weight"].data_ptr()
    assert taken == (module.light.weight.dtype == torch.float16)


def test_a_precision_that_nothing_computes_in():
    with pytest.raises(InputError, match="--dtype float8: expected one of float32, float16"):
        load("digits", dtype="float8")
    with pytest.raises(InputError, match="--dtype float16: a TextDiffusion computes in float32"):
        load("restaurant", dtype="float16")
