"""Validation losses that some batches lack, and batches of nested dicts."""

import json

import pytest
import torch
from toys import ring_task

from multidiff.core.task import DiffusionTask
from multidiff.training.trainer import Trainer
from multidiff.utils.errors import InputError


class Rare(DiffusionTask):
    """A second loss, the mean of what a batch holds under "rare"."""

    def losses(self, batch, rng):
        found = {"first": batch["points"][:, 0], **super().losses(batch, rng)}
        return {**found, "rare": batch["rare"]} if "rare" in batch else found


def rare_task():
    task = ring_task()
    task.__class__ = Rare
    return task


def batch(count, value, rare=None):
    points = torch.full((count, 2), float(value))
    return {"points": points} | ({} if rare is None else {"rare": torch.full((count,), rare)})


def test_a_loss_is_averaged_over_the_examples_that_have_it(tmp_path):
    held_out = [batch(2, 1), batch(2, 2, rare=3.0), batch(4, 3), batch(6, 4, rare=5.0)]
    trainer = Trainer(steps=1, validate_every=1, validation_batches=4, keep_best="rare")
    trainer.fit(rare_task(), [batch(4, 1)], held_out, out=tmp_path)
    lines = [json.loads(one) for one in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = next(one for one in lines if one["group"] == "held-out")
    assert found["rare"] == pytest.approx((2 * 3 + 6 * 5) / 8)
    assert found["first"] == pytest.approx((2 * 1 + 2 * 2 + 4 * 3 + 6 * 4) / 14)
    assert (tmp_path / "checkpoints" / "best").is_dir()
    with pytest.raises(InputError, match="no validation loss 'rare'"):
        Trainer(steps=1, keep_best="rare").fit(
            rare_task(), [batch(4, 1)], [batch(4, 1)], out=tmp_path / "other"
        )


def test_batches_may_be_nested():
    class Nested(DiffusionTask):
        def losses(self, batch, rng):
            return super().losses(batch["inside"], rng)

    nested, plain = ring_task(), ring_task()
    nested.__class__ = Nested
    points = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    Trainer(steps=2).fit(nested, [{"inside": {"points": points}}])
    Trainer(steps=2).fit(plain, [{"points": points}])
    weights = zip(nested.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
    with pytest.raises(InputError, match="no value with a row for each example"):
        Trainer(steps=1).fit(ring_task(), [{"inside": {}}])
