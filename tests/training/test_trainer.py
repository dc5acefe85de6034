"""The trainer learns, resumes exactly, stops cleanly and never spoils what is good."""

import json
import logging
import math

import pytest
import torch
from toys import Ring, ring_task

import multidiff as md
from multidiff.core.gaussian.timesteps import ImportanceTimes
from multidiff.data.batches import Batches
from multidiff.training.ema import MovingAverage
from multidiff.training.trainer import Trainer
from multidiff.utils.errors import InputError

QUICK = {"learning_rate": 1e-2, "log_every": 1, "save_every": 5, "validate_every": 5}


def lines_of(folder, group="train"):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["group"] == group]


def weights_of(task):
    return torch.cat([p.detach().flatten() for p in task.parameters()])


def fit(folder, steps, resume=False, task=None, **options):
    task = ring_task() if task is None else task
    trainer = Trainer(steps=steps, decay="none", **{**QUICK, **options})
    trainer.fit(task, Batches(Ring(), 8), Batches(Ring(), 8, seed=1), out=folder, resume=resume)
    return task


@pytest.mark.usefixtures("unchecked_signatures")
def test_a_model_overfits_one_batch():
    task = ring_task(dropout=0.0)
    batch = {"points": torch.tensor([[1.0, 0.0]] * 16)}

    def loss():
        with torch.no_grad():
            losses = task.losses(batch, torch.Generator().manual_seed(0))
        return float(losses["denoising"].mean())

    before = loss()
    Trainer(steps=400, learning_rate=1e-2, ema_decay=0.9).fit(task, [batch])
    assert loss() < before / 5


def test_going_on_equals_never_having_stopped(tmp_path):
    """Order of the data, noise, dropout, moments and average: N + N steps are 2 N, bit by bit."""
    whole = fit(tmp_path / "whole", 20)
    fit(tmp_path / "halves", 10)
    halves = fit(tmp_path / "halves", 20, resume=True)
    assert torch.equal(weights_of(whole), weights_of(halves))
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "halves")


def test_resumed_moments_are_the_saved_ones(tmp_path):
    """Without Adam's moments the first step after resuming would be another one."""
    fit(tmp_path, 10)
    resumed = fit(tmp_path, 11, resume=True)
    fresh = ring_task()
    whole = fit(tmp_path / "other", 11, task=fresh)
    assert torch.equal(weights_of(resumed), weights_of(whole))


def test_learned_times_travel_in_checkpoints(tmp_path):
    def task():
        return ring_task(times=ImportanceTimes(100, history=1))

    whole = fit(tmp_path / "whole", 30, task=task())
    fit(tmp_path / "halves", 15, task=task())
    halves = fit(tmp_path / "halves", 30, resume=True, task=task())
    assert torch.equal(whole.times.losses, halves.times.losses)
    assert int(whole.times.counts.sum()) == 30 * 8
    assert torch.equal(weights_of(whole), weights_of(halves))


def test_accumulated_batches_are_one_large_batch():
    """Two half batches for a step give the gradient of the whole one."""
    points = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    whole, halves = ring_task(dropout=0.0), ring_task(dropout=0.0)
    split_of = [{"points": points[:4]}, {"points": points[4:]}]

    class SameNoise:
        """Noise by row, as one batch of eight would draw it."""

        def __init__(self, task):
            self.inner, self.calls = task.losses, 0

        def __call__(self, batch, rng):
            rows = range(8) if len(rng) == 8 else range(4 * self.calls, 4 * self.calls + 4)
            self.calls += 1
            return self.inner(batch, [torch.Generator().manual_seed(100 + row) for row in rows])

    whole.losses, halves.losses = SameNoise(whole), SameNoise(halves)
    options = {"steps": 1, "learning_rate": 1e-2, "max_gradient_norm": 100.0}
    Trainer(**options).fit(whole, [{"points": points}])
    Trainer(**options, gradient_accumulation_steps=2).fit(halves, split_of)
    torch.testing.assert_close(weights_of(whole), weights_of(halves), rtol=0, atol=1e-4)


def test_held_out_losses_use_the_average_and_leave_the_weights(tmp_path):
    task = fit(tmp_path, 10)
    held_out = lines_of(tmp_path, "held-out")
    assert [line["step"] for line in held_out] == [5, 10]
    assert torch.isfinite(weights_of(task)).all()
    quiet = ring_task()
    Trainer(steps=10, decay="none", **QUICK).fit(quiet, Batches(Ring(), 8))
    assert torch.equal(weights_of(task), weights_of(quiet))


def test_previews_see_averaged_weights(tmp_path):
    task, seen = ring_task(), []
    Trainer(steps=4, **{**QUICK, "validate_every": 2}).fit(
        task,
        Batches(Ring(), 8),
        out=tmp_path,
        preview=lambda writer, step: seen.append((step, weights_of(task).clone())),
    )
    assert [step for step, _ in seen] == [2, 4]
    assert torch.equal(seen[1][1], weights_of(task))  # training ends with the average
    assert list((tmp_path / "tensorboard").iterdir())


def test_only_the_last_checkpoints_stay(tmp_path):
    fit(tmp_path, 20, save_every=2, keep_checkpoints=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00000018", "00000020"]


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    fit(tmp_path, 5)
    with pytest.raises(InputError, match="--resume to continue"):
        fit(tmp_path, 5)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(InputError, match="no intact checkpoint"):
        fit(tmp_path, 5, resume=True)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "state"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog, damage):
    fit(tmp_path, 10)
    newest = tmp_path / "checkpoints" / "00000010"
    target = newest / ("state.json" if damage == "state" else "ema.safetensors")
    content = target.read_bytes()
    if damage == "remove":
        target.unlink()
    elif damage == "flip":
        target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        target.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        resumed = fit(tmp_path, 12, resume=True)
    assert "skipped a damaged checkpoint" in caplog.text
    assert str(target) in caplog.text
    assert torch.equal(weights_of(resumed), weights_of(fit(tmp_path / "whole", 12)))


def test_a_checkpoint_of_another_model(tmp_path):
    fit(tmp_path, 5)
    other = ring_task()
    other.denoiser.layers[3] = torch.nn.Linear(32, 2, bias=False)
    with pytest.raises(InputError, match="of another model"):
        fit(tmp_path, 10, resume=True, task=other)


def test_a_loss_that_is_no_number_stops_before_anything_is_spoiled(tmp_path):
    class Broken(Ring):
        def example(self, index, rng):
            example = super().example(index, rng)
            if index == 13:
                example["points"] = example["points"] * math.nan
            return example

    task = ring_task()
    batches = Batches(Broken(), 4, shuffle=False)  # 13 is in the fourth batch
    with pytest.raises(
        InputError, match=r"step 4: .*denoising.* not a finite .*point-13"
    ) as reported:
        Trainer(steps=20, **{**QUICK, "save_every": 1}).fit(task, batches, out=tmp_path)
    assert "\n" not in str(reported.value)
    saved = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert saved[-1] == "00000003"
    resumed = ring_task()
    Trainer(steps=4, **QUICK).fit(
        resumed, Batches(Ring(), 4), out=tmp_path, resume=True, allow_changed=["recipe"]
    )
    assert torch.isfinite(weights_of(resumed)).all()


def test_schedule_of_the_rate():
    from multidiff.training.lr_schedule import rate_at

    rates = [rate_at(step, 100, 10, "linear", 0.5) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == rates[49] == 1
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == 0
    assert rate_at(75, 100, 0, "cosine", 0.5) == pytest.approx(0.5)
    assert rate_at(99, 100, 0, "none", 0.5) == 1


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"steps": 1, "learning_rate": 0.0}, {"steps": 1, "decay_from": 2.0}]
)
def test_wrong_plans(wrong):
    with pytest.raises(ValueError, match="must be"):
        Trainer(**wrong)


def test_the_condition_is_left_out_for_a_share_of_the_samples():
    class Labelled(md.Domain):
        def encode(self, batch, rng):
            return md.Encoded(batch["points"], batch["label"])

    seen = []

    class Recorder(torch.nn.Linear):
        def forward(self, xt, level, condition):
            seen.append(condition)
            return super().forward(xt)

    process = md.GaussianProcess(md.BetaSchedule.linear(100))
    task = md.DiffusionTask(Labelled(), process, Recorder(2, 2), drop_condition=0.3)
    batch = {"points": torch.zeros(4000, 2), "label": torch.arange(4000)}
    task.losses(batch, torch.Generator().manual_seed(0))
    dropped = seen[0] == -1
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(seen[0][~dropped], batch["label"][~dropped])
    with pytest.raises(ValueError, match="not in"):
        md.DiffusionTask(Labelled(), process, Recorder(2, 2), drop_condition=1.5)


def test_the_average_warms_up():
    """Decay min(d, (1 + n) / (10 + n)) at update n, so that the start does not linger."""
    module = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(module, 0.9)
    wanted = float(module.weight)
    for count in range(1, 101):
        with torch.no_grad():
            module.weight.fill_(float(count))
        average.update()
        keep = min(0.9, (1 + count) / (10 + count))
        wanted = keep * wanted + (1 - keep) * count
        assert float(average.shadow["weight"]) == pytest.approx(wanted, rel=1e-5)
