"""Batches are functions of their number, whoever asks for which share."""

import multiprocessing

import numpy as np
import pytest
import torch
from toys import Ring

from multidiff.core.random import mixed_seed, placed_normal
from multidiff.data.batches import (
    Batches,
    ListedBatches,
    TensorExamples,
    _end_workers,
    collate,
    examples_in,
    moved_batch,
    rows_of,
    source_of,
    stream,
)
from multidiff.utils.errors import InputError


def test_a_batch_is_the_same_whenever_it_is_asked_for():
    first, second = Batches(Ring(), 6, seed=3), Batches(Ring(), 6, seed=3)
    second.batch(0)
    assert torch.equal(first.batch(17)["points"], second.batch(17)["points"])
    other = Batches(Ring(), 6, seed=4)
    assert not torch.equal(first.batch(17)["points"], other.batch(17)["points"])


def test_shares_make_up_the_whole():
    batches = Batches(Ring(), 6)
    whole = batches.batch(5)
    ratios = [batches.batch(5, part, 3) for part in range(3)]
    assert torch.equal(torch.cat([ratio["points"] for ratio in ratios]), whole["points"])
    assert [name for ratio in ratios for name in ratio["name"]] == whole["name"]
    with pytest.raises(InputError, match="cannot be split evenly over 4"):
        batches.batch(0, 0, 4)


def test_an_epoch_sees_every_example_once_in_a_new_order():
    batches = Batches(Ring(), 10)
    epochs = [
        [name for number in range(4) for name in batches.batch(4 * epoch + number)["name"]]
        for epoch in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(f"point-{i}" for i in range(40))
    assert epochs[0] != epochs[1]
    assert batches.batches_per_epoch == 4


def test_the_same_example_is_cut_anew_in_each_epoch():
    batches = Batches(Ring(), 40, shuffle=False)
    assert not torch.equal(batches.batch(0)["points"], batches.batch(1)["points"])


def test_nothing_to_draw():
    class Nothing(Ring):
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="both must be > 0"):
        Batches(Nothing(), 4)
    with pytest.raises(ValueError, match="list of batches"):
        ListedBatches([])


def test_listed_batches_go_round():
    listed = ListedBatches([{"x": torch.zeros(2)}, {"x": torch.ones(2)}])
    assert listed.batch(3)["x"].tolist() == [1, 1]
    assert listed.batch(3, 1, 2)["x"].tolist() == [1]
    with pytest.raises(InputError, match="cannot be split"):
        rows_of({"x": torch.zeros(3)}, 0, 2)


def test_examples_are_counted_in_nested_batches_too():
    deep = {"one": {"scale": 2.0, "two": {"x": torch.zeros(4, 3)}}, "name": ["a", "b", "c", "d"]}
    assert examples_in(deep) == 4
    assert examples_in({"all": torch.tensor(1.0), "kind": "texts", "name": ["a", "b"]}) == 2
    with pytest.raises(InputError, match=r"keys \['a'\], has no value with a row for each example"):
        examples_in({"a": {"b": "c"}})
    listed = ListedBatches([{"one": {"x": torch.arange(4)}}])
    assert listed.batch(0, 1, 2)["one"]["x"].tolist() == [2, 3]
    other = ListedBatches([{"one": {"x": torch.arange(1, 5)}}])
    assert listed.data_fingerprint() != other.data_fingerprint()


def test_what_gives_no_batches_by_number():
    assert isinstance(source_of([{"x": torch.zeros(2)}]), ListedBatches)
    for other in (Ring(), torch.utils.data.DataLoader(Ring())):
        with pytest.raises(TypeError, match=rf"{type(other).__name__} cannot be read as batches"):
            source_of(other)


def test_examples_are_collated_by_kind():
    batch = collate([{"x": torch.zeros(2), "hz": 3.5, "kind": np.int64(3), "name": "a"}] * 2)
    assert batch["x"].shape == (2, 2)
    assert batch["kind"].tolist() == [3, 3]
    assert batch["hz"].tolist() == [3.5, 3.5] and batch["name"] == ["a", "a"]


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_change_nothing(workers):
    batches = Batches(Ring(), 4)
    found = list(stream(batches, range(2, 5), 0, 1, workers, pin=False))
    for number, batch in zip(range(2, 5), found, strict=True):
        assert torch.equal(batch["points"], batches.batch(number)["points"])


def test_workers_end_with_what_they_failed_in_and_at_exit():
    """They ignore SIGTERM, by which multiprocessing would end them, and then wait for them."""

    class Failing(Ring):
        def example(self, index, rng):
            raise InputError("gone")

    failing = stream(Batches(Failing(), 4), range(9), 0, 1, 1, pin=False)
    with pytest.raises(InputError, match="gone") as kept:
        next(failing)
    assert kept.traceback and not multiprocessing.active_children()

    left = stream(Batches(Ring(), 4), range(9), 0, 1, 1, pin=False)
    next(left)
    (worker,) = multiprocessing.active_children()
    _end_workers()
    worker.join(10)
    assert not worker.is_alive()


def test_mixed_seeds_differ():
    seeds = {mixed_seed(a, b) for a in range(100) for b in range(100)}
    assert len(seeds) == 10_000
    assert mixed_seed(1, 2) != mixed_seed(2, 1)
    bits = np.array([bin(mixed_seed(0, k) ^ mixed_seed(0, k + 1)).count("1") for k in range(1000)])
    assert 28 < bits.mean() < 35  # half of 63 bits flip


def test_placed_noise_does_not_depend_on_the_stretch():
    whole = placed_normal((3, 5000), 0, 9)
    assert torch.equal(placed_normal((3, 700), 1900, 9), whole[:, 1900:2600])
    assert float(whole.std()) == pytest.approx(1, abs=0.02)
    assert not torch.equal(placed_normal((3, 700), 1900, 8), whole[:, 1900:2600])


class OneByOne:
    """The same examples without a way to take a batch in one piece."""

    def __init__(self, examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def example(self, index, rng):
        return self.examples.example(index, rng)


@pytest.mark.parametrize("parts", [1, 2])
def test_tensors_in_one_piece_are_the_examples_one_by_one(parts):
    rows = TensorExamples(x=torch.arange(21.0).view(7, 3), label=torch.arange(7))
    piece, single = Batches(rows, 4, seed=2), Batches(OneByOne(rows), 4, seed=2)
    for number in range(8):  # batches 1, 3 and 5 lie across two epochs
        for part in range(parts):
            made, wanted = (one.batch(number, part, parts) for one in (piece, single))
            assert made.keys() == wanted.keys()
            assert all(torch.equal(made[key], wanted[key]) for key in made)


def test_a_batch_of_several_epochs():
    rows = TensorExamples(label=torch.arange(3))
    batch = Batches(rows, 8).batch(0)["label"]
    assert sorted(batch[:3].tolist()) == sorted(batch[3:6].tolist()) == [0, 1, 2]


def test_columns_that_do_not_fit():
    with pytest.raises(ValueError, match="'a': 3, 'b': 4"):
        TensorExamples(a=torch.zeros(3), b=torch.zeros(4))
    with pytest.raises(ValueError, match="give one or more"):
        TensorExamples()


def test_changed_columns_have_another_fingerprint():
    one, other = (TensorExamples(x=torch.full((3,), value)) for value in (1.0, 2.0))
    assert one.data_fingerprint() != other.data_fingerprint()
    assert one.data_fingerprint() == TensorExamples(x=torch.ones(3)).data_fingerprint()


def test_a_moved_batch_keeps_its_form():
    batch = {"x": torch.ones(2), "name": ["a", "b"], "parts": (torch.zeros(1), {"n": 3})}
    moved = moved_batch(batch, torch.device("meta"))
    assert moved["x"].is_meta and moved["parts"][0].is_meta
    assert moved["name"] == ["a", "b"] and moved["parts"][1] == {"n": 3}
