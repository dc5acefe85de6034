"""Weights are safetensors; what is something else, or does not fit, is named."""

import pickle
import threading
import zipfile

import pytest
import torch
from torch import nn

from multidiff import load
from multidiff.models.loading import RECIPE, WEIGHTS, build_model, read_weights, shipped
from multidiff.models.weights import (
    is_pickle,
    load_into,
    read_pickle,
    read_tensors,
    save_tensors,
    without_values,
)
from multidiff.utils.errors import InputError


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
    found, reported = read_tensors(tmp_path / "a.safetensors")
    assert reported["mel"] == "x" and found.keys() == tensors.keys()
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
        ({**good, "odd": torch.zeros(1)}, "odd not in this model"),
        ({**good, "weight": torch.zeros(5, 3)}, r"weight \(5, 3\) instead of \(2, 3\)"),
        ({"w": torch.zeros(1), "bias": torch.zeros(9)}, "weight missing; w not .*; bias .* shape"),
        ({}, "weight, bias missing"),
    ]
    for tensors, reason in cases:
        with pytest.raises(InputError, match=reason) as reported:
            load_into(nn.Linear(3, 2), tensors, path)
        assert str(path) in str(reported.value) and "\n" not in str(reported.value)
    load_into(layer, {name: t.half() for name, t in good.items()}, path)


def test_nothing_is_loaded_if_something_does_not_fit(tmp_path, layer):
    before = layer.weight.clone()
    with pytest.raises(InputError):
        load_into(layer, {"weight": torch.zeros(2, 3)}, tmp_path / "a")
    assert torch.equal(layer.weight, before)


class Tied(nn.Module):
    """What building without values must not lose: layouts, ties, buffers that are not saved."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.other.weight = self.one.weight
        self.fixed = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.image = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        self.register_buffer("rates", torch.arange(3.0), persistent=False)
        self.register_buffer("count", torch.tensor(0))


def test_modules_built_without_values():
    whole = Tied()
    drawn = torch.get_rng_state()
    with without_values():
        module = Tied()
    assert module.one.weight.is_meta and module.image.weight.is_meta
    assert torch.equal(module.rates, torch.arange(3.0))
    tensors = {name: t + 1 for name, t in whole.state_dict().items()}
    load_into(module, tensors, "x")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(t, tensors[name]) for name, t in module.state_dict().items())
    assert module.other.weight is module.one.weight and module.one.weight.requires_grad
    assert not module.fixed.requires_grad
    assert module.image.weight.is_contiguous(memory_format=torch.channels_last)
    assert not module.image.weight.is_contiguous()
    assert not nn.Linear(2, 2).weight.is_meta


class Drawn(nn.Module):
    """Parameters and buffers that do not come from torch's layers."""

    def __init__(self, persistent):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(3))
        self.register_buffer("memory", torch.empty(3), persistent=persistent)


def test_modules_without_values_draw_nothing_and_leave_nothing_unfilled():
    drawn = torch.get_rng_state()
    with without_values():
        module, lost = Drawn(persistent=True), Drawn(persistent=False)
    assert torch.equal(torch.get_rng_state(), drawn)
    load_into(module, {"scale": torch.ones(3), "memory": torch.full((3,), 2.0)}, "x")
    assert module.scale.tolist() == [1.0] * 3 and module.memory.tolist() == [2.0] * 3
    with pytest.raises(RuntimeError, match="memory: made by"):
        load_into(lost, {"scale": torch.ones(3)}, "x")
    with without_values():
        module.table = torch.empty(3)  # neither parameter nor buffer
    with pytest.raises(RuntimeError, match="table: made by"):
        load_into(module, {"scale": torch.ones(3), "memory": torch.ones(3)}, "x")


def test_building_without_values_stays_in_its_thread():
    """Layers that another thread builds meanwhile have values, and may come and go."""
    inside, done, found = threading.Event(), threading.Event(), []

    def other():
        inside.wait(5)
        found.append(nn.Linear(4, 4).weight.is_meta)
        done.set()

    worker = threading.Thread(target=other)
    worker.start()
    with without_values():
        inside.set()
        assert done.wait(5)
        assert nn.Linear(4, 4).weight.is_meta
    worker.join()
    assert found == [False]


@pytest.mark.parametrize("name", shipped())
def test_loaded_models_are_those_that_were_built_with_values(name):
    folder = shipped()[name]
    torch.manual_seed(0)
    whole = build_model(folder / RECIPE)
    load_into(whole, read_weights(folder)[0], folder)
    drawn = torch.get_rng_state()
    found = load(name)
    assert torch.equal(torch.get_rng_state(), drawn)
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = dict(getattr(found, kind)()), dict(getattr(whole, kind)())
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.equal(ours[key], tensor) and ours[key].stride() == tensor.stride()


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


def test_a_recipe_of_absurd_numbers_allocates_nothing(tmp_path):
    """A folder of a few kilobytes may ask for a buffer of gigabytes."""
    recipe = (shipped()["digits"] / RECIPE).read_text()
    (tmp_path / RECIPE).write_text(recipe.replace("steps: 1000,", "steps: 2000000000,", 1))
    (tmp_path / WEIGHTS).touch()
    with pytest.raises(InputError, match=rf"{RECIPE}:\d+: .*(bytes|steps)"):
        load(tmp_path)


def test_a_torch_file_says_no_more_than_it_holds(tmp_path):
    state = {"state_dict": {"a": torch.zeros(1).expand(1 << 40)}}
    torch.save(state, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="repeats fewer values"):
        read_pickle(tmp_path / "a.ckpt")
    torch.save({"a": torch.zeros(3, device="meta")}, tmp_path / "b.ckpt")
    with pytest.raises(InputError, match="without dense values"):
        read_pickle(tmp_path / "b.ckpt")


def deflated(path, zeros, count=1):
    """A zip file whose members are zeros, a thousandth of their size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            archive.writestr(f"archive/data/{number}", bytes(zeros))


def test_a_torch_file_that_inflates_is_refused_unread(tmp_path, monkeypatch):
    deflated(tmp_path / "a.ckpt", 8 << 20, 9)
    monkeypatch.setattr(torch, "load", None)  # is not reached
    with pytest.raises(InputError, match="declares 75,497,472 bytes in a file of"):
        read_pickle(tmp_path / "a.ckpt")


def test_pickles_are_read_by_several_threads_at_once(tmp_path, monkeypatch):
    """What may stand in one is a list of the process, which each reader sets and puts back."""
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.pt")
    inside, most, load_one = [], [], torch.load

    def slow(*args, **options):
        inside.append(1)
        most.append(len(inside))
        found = load_one(*args, **options)
        threading.Event().wait(0.02)
        inside.pop()
        return found

    monkeypatch.setattr(torch, "load", slow)
    before, found = torch.serialization.get_safe_globals(), []
    threads = [
        threading.Thread(target=lambda: found.append(read_pickle(tmp_path / "a.pt")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and max(most) == 1
    assert torch.serialization.get_safe_globals() == before
