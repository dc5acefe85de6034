"""Random streams of a batch's rows: in bulk, and the same however the rows are shared."""

import pytest
import torch

import multidiff as md
from multidiff.core.random import (
    WIDEST_SHARED_DRAW,
    BatchRows,
    device_of,
    normal,
    uniform,
    unpadded,
)

WIDE = (WIDEST_SHARED_DRAW + 1,)


@pytest.mark.parametrize("state", [(), (3, 5), WIDE])
def test_rows_shared_by_processes_are_those_of_one(state):
    whole = BatchRows(7, 6)
    parts = [BatchRows(7, 2, first, 6) for first in (0, 2, 4)]
    for draw in (normal, uniform, normal):  # the same draws one after the other
        made = [draw((2, *state), part) for part in parts]
        assert torch.equal(torch.cat(made), draw((6, *state), whole))


@pytest.mark.parametrize("state", [(3,), WIDE])
def test_rows_and_draws_differ(state):
    rows = BatchRows(7, 3)
    first, second = normal((3, *state), rows), normal((3, *state), rows)
    assert len({tuple(row.tolist()[:3]) for row in (*first, *second)}) == 6
    assert not torch.equal(first, normal((3, *state), BatchRows(8, 3)))


def test_bulk_draws_are_standard_normal_and_uniform():
    rows = BatchRows(1, 500)
    values = normal((500, 200), rows)
    assert abs(float(values.mean())) < 0.01 and abs(float(values.std()) - 1) < 0.01
    assert abs(float(uniform((500, 200), rows).mean()) - 0.5) < 0.005


def test_rows_are_a_list_of_generators():
    rows = BatchRows(7, 3, first=2)
    assert len(list(rows)) == 3 and device_of(rows) == torch.device("cpu")
    # A row's generator goes on where it was, and is that of the same row of a whole batch.
    first, second = (torch.rand(2, generator=rows[1]) for _ in range(2))
    again = BatchRows(7, 6)[3]
    assert torch.equal(torch.rand(4, generator=again), torch.cat([first, second]))
    assert [one.initial_seed() for one in rows[1:]] == [
        rows[1].initial_seed(),
        rows[-1].initial_seed(),
    ]
    assert len(unpadded(rows, [1, 2, 3])) == 3
    with pytest.raises(IndexError, match="row 3 of 3"):
        rows[3]


def test_rows_outside_of_the_batch():
    with pytest.raises(ValueError, match="rows 4 to 7 of a batch of 6"):
        BatchRows(0, 3, 4, 6)
    with pytest.raises(ValueError, match="3 generators for a batch of 2"):
        normal((2, 4), BatchRows(0, 3))


def test_an_estimate_is_made_only_for_losses_that_read_it(monkeypatch):
    """Of tokens it takes as much memory as the loss itself."""
    made = []
    process = md.GaussianProcess(md.BetaSchedule.cosine(10), "x0")
    estimate = process.estimate
    monkeypatch.setattr(process, "estimate", lambda *args: made.append(1) or estimate(*args))

    class Plain(md.Domain):
        def encode(self, batch, rng):
            return md.Encoded(batch)

        def decode(self, state, condition=None):
            return state

    class WithMean(Plain):
        def extra_losses(self, encoded, corrupted, estimate, process):
            return {"mean": estimate.x0.mean(dim=1)}

    class Network(torch.nn.Linear):
        def forward(self, xt, level, condition):
            return super().forward(xt)

    for domain, count in ((Plain(), 0), (WithMean(), 1)):
        losses = md.DiffusionTask(domain, process, Network(3, 3)).losses(torch.zeros(2, 3), None)
        assert len(made) == count and len(losses) == 1 + count
