"""float16 with a loss scale: like float32 in effect, overflows skipped, resumed exactly."""

import pytest
import torch
from test_trainer import QUICK, fit, lines_of, weights_of
from toys import Ring, ring_task

import multidiff as md
from multidiff.training.checkpoints import read
from multidiff.training.scaling import LossScaler
from multidiff.utils.errors import InputError


def test_small_gradients_survive():
    """A loss of 1e-7 squares to gradients below float16's smallest number, 6e-8."""
    scaler, found = LossScaler("cpu"), []
    for scale in (lambda loss: loss, scaler.scaled):
        weight = torch.full((4, 4), 0.1, requires_grad=True)
        with torch.autocast("cpu", torch.float16):
            loss = 1e-9 * (torch.ones(2, 4) @ weight).float().sum()
        scale(loss).backward()
        found.append(weight.grad)
    optimizer = torch.optim.SGD([weight], lr=0.0)
    scaler.unscale(optimizer)
    assert not found[0].any()
    assert torch.allclose(weight.grad, torch.full((4, 4), 2e-9), rtol=1e-2)


@pytest.mark.parametrize("fused", [True, False])
def test_an_overflow_is_skipped_and_halves_the_scale(fused):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=fused)
    scaler = LossScaler("cpu")
    before = scaler.scale
    for factor, done in ((1.0, True), (float("inf"), False), (1.0, True)):
        kept = weight.detach().clone()
        weight.grad = None
        scaler.scaled((weight * factor).sum()).backward()
        scaler.unscale(optimizer)
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        assert scaler.step(optimizer) is done
        assert torch.equal(weight, kept) is not done
    assert scaler.skipped == 1
    assert scaler.scale == before / 2
    assert float(optimizer.state[weight]["step"]) == 2
    with pytest.raises(InputError, match="not finite in float16"):
        for _ in range(40):
            scaler.scaled((weight * float("inf")).sum()).backward()
            scaler.unscale(optimizer)
            scaler.step(optimizer)


def test_a_run_resumes_exactly_with_its_scale(tmp_path):
    options = {"precision": "fp16", "max_gradient_norm": 100.0}
    whole = fit(tmp_path / "whole", 10, **options)
    fit(tmp_path / "halves", 5, **options)
    halves = fit(tmp_path / "halves", 10, resume=True, **options)
    assert torch.equal(weights_of(whole), weights_of(halves))
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "halves")
    saved = read(tmp_path / "halves" / "checkpoints" / "00000010").numbers
    assert saved["precision"] == "fp16"
    assert saved["loss_scaler"]["_growth_tracker"] == 10 - saved["loss_scaler"]["skipped"]
    single = fit(tmp_path / "single", 10, precision="fp32")
    assert not torch.equal(weights_of(single), weights_of(whole))
    assert torch.allclose(weights_of(single), weights_of(whole), atol=0.02)


def test_skipped_steps_are_counted_in_the_log(tmp_path):
    """The first batches' gradients overflow at the initial scale of 2 ** 16."""
    task = ring_task(dropout=0.0)
    plain = task.losses
    task.losses = lambda batch, rng: {k: 1e3 * v for k, v in plain(batch, rng).items()}
    data = md.Batches(Ring(), 8)
    md.Trainer(steps=12, precision="fp16", **QUICK).fit(task, data, out=tmp_path)
    lines = lines_of(tmp_path)
    skipped = [line["skipped"] for line in lines]
    assert 0 < skipped[-1] < 12
    for line, before, now in zip(lines, [0, *skipped], skipped, strict=False):
        assert ("gradient" in line) == (now == before)
        assert line["loss_scale"] == 2.0 ** (16 - now)
    assert torch.isfinite(weights_of(task)).all()
