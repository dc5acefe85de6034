"""Weights are safetensors; what is something else, or does not fit, is named."""

import pickle

import pytest
import torch
from torch import nn

from multidiff.errors import InputError
from multidiff.weights import is_pickle, load_into, read_tensors, save_tensors


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_tensors_come_back(tmp_path, layer):
    tensors = {
        **layer.state_dict(),
        "half": torch.ones(2, dtype=torch.float16),
        "n": torch.tensor(3),
    }
    save_tensors(tensors, tmp_path / "a.safetensors", {"mel": "x"})
    found, told = read_tensors(tmp_path / "a.safetensors")
    assert told["mel"] == "x" and found.keys() == tensors.keys()
    assert all(
        torch.equal(found[k], tensors[k]) and found[k].dtype == tensors[k].dtype for k in found
    )


def test_tied_and_transposed_tensors_can_be_saved(tmp_path):
    table = torch.randn(4, 3)
    save_tensors({"a": table, "b": table, "c": table.T}, tmp_path / "a.safetensors")
    found, _ = read_tensors(tmp_path / "a.safetensors")
    assert torch.equal(found["b"], table) and torch.equal(found["c"], table.T)


def test_missing_extra_and_misshapen_tensors(tmp_path, layer):
    path = tmp_path / "a.safetensors"
    good = layer.state_dict()
    cases = [
        ({"weight": good["weight"]}, "bias missing"),
        ({**good, "odd": torch.zeros(1)}, "odd not of this model"),
        ({**good, "weight": torch.zeros(5, 3)}, r"weight \(5, 3\) where \(2, 3\) belongs"),
        ({"w": torch.zeros(1), "bias": torch.zeros(9)}, "weight missing; w not .*; bias .* shape"),
        ({}, "weight, bias missing"),
    ]
    for tensors, reason in cases:
        with pytest.raises(InputError, match=reason) as told:
            load_into(nn.Linear(3, 2), tensors, path)
        assert str(path) in str(told.value) and "\n" not in str(told.value)
    load_into(layer, {name: t.half() for name, t in good.items()}, path)


def test_nothing_is_loaded_if_something_does_not_fit(tmp_path, layer):
    before = layer.weight.clone()
    with pytest.raises(InputError):
        load_into(layer, {"weight": torch.zeros(2, 3)}, tmp_path / "a")
    assert torch.equal(layer.weight, before)


class Harm:
    def __reduce__(self):
        return (print, ("this must never be printed",))


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch"])
def test_a_pickle_posing_as_weights_is_not_opened(tmp_path, kind, capsys):
    path = tmp_path / "model.safetensors"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"weight": Harm()}))
    else:
        torch.save({"weight": Harm()}, path, _use_new_zipfile_serialization=kind == "torch")
    assert is_pickle(path)
    with pytest.raises(InputError, match="is a pickle, which can run code"):
        read_tensors(path)
    assert "never" not in capsys.readouterr().out


def test_headers_that_begin_like_a_pickle_are_weights(tmp_path):
    """A header of 0x480 bytes begins with 80 04, as a pickle of protocol 4 does."""
    path = tmp_path / "a.safetensors"
    for length in range(1, 200):
        save_tensors({"a": torch.zeros(1)}, path, {"pad": "x" * (1000 + length)})
        assert not is_pickle(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 64, b"\xff" * 64, b"text " * 30])
def test_damaged_weights(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_tensors(path)
    with pytest.raises(InputError, match="no such weights file"):
        read_tensors(tmp_path / "none")
