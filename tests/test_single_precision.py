"""Nothing is float64 on a device that has none: utils/devices.py stands for Apple's GPUs."""

import subprocess
import sys
from textwrap import dedent

import pytest
import torch
from program import ENVIRONMENT, ROOT

from multidiff.core.devices import finest_dtype, in_float64, moved

CODE = """
    import torch
    from devices import NAME, Device, There
    from toys import ring_task

    import multidiff
    from multidiff.core import devices
    from multidiff.core.discrete.blocks import BlockMaskProcess
    from multidiff.core.gaussian.likelihood import (
        ContinuousDecoder, DiscretisedDecoder, vlb,
    )
    from multidiff.core.gaussian.losses import HybridLoss
    from multidiff.core.discrete.schedules import LogLinearMasks
    from multidiff.core.discrete.absorbing import (
        MaskProcess, continuous_time, discrete_time, nelbo,
    )
    from multidiff.core.random import generators
    from multidiff.core.gaussian.timesteps import DiscreteTimes, ImportanceTimes
    from multidiff.text.masked import model as masked
    from multidiff.text.request import TextRequest

    devices.WITHOUT_FLOAT64, masked.LOOKS = (NAME.type,), 2
    torch.set_num_threads(1)

    def sampled(name):
        model = multidiff.load(name, NAME)
        assert isinstance(next(model.parameters()), There)
        return model

    @torch.no_grad()
    def samples():
        digits = sampled("digits")
        options = {"steps": 1, "sampler": "ddpm", "guidance_scale": 2.0}
        assert digits.generate(["a handwritten seven"], **options).shape[0] == 1
        assert sampled("digit-tokens").generate(["2"], steps=2).shape[0] == 1
        speech = sampled("speech")
        assert speech.synthesize(speech.preset.mel(torch.randn(1, 8192) / 10)).isfinite().all()
        orders, texts = [TextRequest(length=12)] * 2, ["The Eagle is a cheap pub ."] * 2
        assert len(sampled("restaurant").generate(orders, steps=2)) == 2
        by_masks = sampled("masked")
        assert len(by_masks.generate(orders, steps=2)) == 2
        assert 0 < by_masks.nats_per_token(texts, [{}] * 2)["total"] < 9
        running = sampled("shakespeare")
        assert len(running.generate(orders, steps=2)) == 2
        assert sampled("edits").revise([[5, 6, 7, 8, 9]] * 2)

    def learns(task, rng):
        task = task.to(NAME)
        loss = sum(task.losses({"points": torch.rand(4, 2).to(NAME)}, rng).values())
        loss.mean().backward()
        found = [one.grad for one in task.parameters() if one.grad is not None]
        assert found and all(isinstance(one, There) for one in found)
        return loss

    def trains():
        importance = ImportanceTimes(100, history=1)
        for times in (DiscreteTimes(), importance):
            for rng in (torch.Generator(), generators(range(4))):
                loss = learns(ring_task(times=times), rng)
        importance.observe(torch.full((4,), 0.5), loss)
        assert importance.losses.dtype == torch.float32
        hybrid = ring_task(times=DiscreteTimes(), learns_variance=True, objective=HybridLoss())
        hybrid.denoiser.layers[-1] = torch.nn.Linear(32, 4)
        learns(hybrid, torch.Generator())

    def bounds():
        task, points = ring_task().to(NAME), torch.rand(4, 2).to(NAME)
        for decoder in (ContinuousDecoder(), DiscretisedDecoder()):
            points = (points * 255).round() / 255
            options = {"times": multidiff.uniform_timesteps(2), "decoder": decoder}
            found = vlb(task.process, task.denoiser, points, **options)
            assert isinstance(found.total, There)
        tokens = torch.randint(8, (3, 6)).to(NAME)
        network = lambda noisy, level, condition: torch.zeros(3, 6, 8, device=noisy.device)
        process = MaskProcess(8, LogLinearMasks())
        for form in (None, continuous_time, discrete_time(10)):
            found = nelbo(process, network, tokens, num_times=2, form=form)
            assert isinstance(found.total, There)
        blocks = BlockMaskProcess(8, LogLinearMasks(), 2)
        assert isinstance(nelbo(blocks, network, tokens, num_times=2).total, There)

    with Device():
        for check in (trains, bounds, samples):
            check()
"""


@pytest.mark.long
def test_models_sample_measure_and_train_without_float64(tmp_path):
    paths = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", dedent(CODE)]
    done = subprocess.run(command, capture_output=True, text=True, env=paths, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_draws_that_lose_digits_stay_under_one(monkeypatch):
    monkeypatch.setattr("multidiff.core.devices.has_float64", lambda device: False)
    draws = torch.tensor([0.0, 0.1, 1 - 2**-53, -1 + 2**-53, 1.0, 1e-300], dtype=torch.float64)
    found = moved(draws, "cpu")
    assert found.dtype == torch.float32
    assert bool((found.double().abs() <= draws.abs()).all())
    assert torch.allclose(found.double(), draws, atol=2**-23)
    assert moved(torch.ones(2, dtype=torch.int64), "cpu").dtype == torch.int64


@pytest.mark.parametrize(("device", "dtype"), [("mps", torch.float32), ("cuda:1", torch.float64)])
def test_the_finest_dtype_of_a_device(device, dtype):
    assert finest_dtype(device) == dtype
    assert in_float64(torch.ones(2)).dtype == torch.float64
