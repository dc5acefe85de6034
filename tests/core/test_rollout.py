"""Training on the states that sampling visits."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.rollout import RolloutTask
from multidiff.core.gaussian.samplers import DDIM
from multidiff.core.gaussian.schedules import LogSNRSchedule
from multidiff.core.gaussian.timesteps import explicit_log_snrs
from multidiff.core.protocols import Domain, Encoded
from multidiff.core.random import normal, uniform
from multidiff.core.sample import sample
from multidiff.core.task import DiffusionTask

LOG_SNRS = (-5.0, -1.0, 3.0)
PROCESS = GaussianProcess(LogSNRSchedule(9, -7), "v")


@dataclass
class Rows(Domain):
    """States with a condition each; its extra loss keeps what it was given."""

    seen: list = field(default_factory=list)

    def encode(self, batch, rng):
        return Encoded(batch["x0"], batch["mean"])

    def extra_losses(self, encoded, corrupted, estimate, process):
        self.seen.append(corrupted)
        return {"size": (estimate.x0.abs().mean(dim=1) - encoded.x0.abs().mean(dim=1)).abs()}


class Linear(nn.Module):
    """A network that counts its calls with gradients."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.2]))
        self.with_gradient = 0

    def forward(self, xt, level, condition=None):
        self.with_gradient += torch.is_grad_enabled()
        return self.weight[0] * xt + self.weight[1] * condition


def task(ratio, domain=None):
    domain = Rows() if domain is None else domain
    return RolloutTask(domain, PROCESS, Linear(), explicit_log_snrs(LOG_SNRS), ratio)


def batch(count=6):
    generator = torch.Generator().manual_seed(1)
    x0 = torch.randn(count, 4, generator=generator)
    return {"x0": x0, "mean": torch.randn(count, 1, generator=generator)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(4))
def test_sampled_states_are_those_of_sampling(seed):
    """Sampling from the same noise passes through the states that the task trains on."""
    mine, data = task(1.0), batch()
    mine.losses(data, generator(seed))
    (corrupted,) = mine.domain.seen
    rng = generator(seed)
    PROCESS.corrupt(data["x0"], PROCESS.draw_level(6, rng), rng)
    reached = int(float(uniform((6, 2), rng)[0, 1]) * 3)
    states = [normal((6, 4), rng)]
    sample(
        PROCESS, mine.denoiser, DDIM(), (6, 4), explicit_log_snrs(LOG_SNRS),
        condition=data["mean"], start=states[0], on_step=lambda step: states.append(step.state),
    )  # fmt: skip
    torch.testing.assert_close(corrupted.xt, states[reached])
    torch.testing.assert_close(
        corrupted.level.log_snr, torch.full((6,), LOG_SNRS[reached], dtype=torch.float64)
    )
    both = corrupted.level.alpha.float()[:, None] * corrupted.x0
    both = both + corrupted.level.sigma.float()[:, None] * corrupted.noise
    torch.testing.assert_close(both, corrupted.xt, atol=1e-5, rtol=0)


def test_some_rows_are_sampled_and_the_rest_is_noisy_data():
    mine, data = task(0.5), batch(64)
    losses = mine.losses(data, generator())
    (corrupted,) = mine.domain.seen
    plain = task(0.0)
    wanted = plain.losses(data, generator())
    (noisy,) = plain.domain.seen
    sampled = losses["denoising"] == 0
    assert 20 < int(sampled.sum()) < 44
    torch.testing.assert_close(corrupted.xt[~sampled], noisy.xt[~sampled])
    torch.testing.assert_close(losses["denoising"][~sampled], wanted["denoising"][~sampled])
    assert len(set(corrupted.level.log_snr[sampled].tolist())) == 1


def test_without_sampled_states_it_is_the_denoising_task():
    mine, data = task(0.0), batch()
    plain = DiffusionTask(Rows(), PROCESS, mine.denoiser)
    found, wanted = mine.losses(data, generator()), plain.losses(data, generator())
    assert found.keys() == wanted.keys()
    for name in found:
        torch.testing.assert_close(found[name], wanted[name])


def test_a_generator_for_each_sample():
    """A sample's draws are its own, but for the level that all sampled states share."""
    mine, data = task(0.5), batch()
    mine.losses(data, [generator(seed) for seed in range(6)])
    mine.losses(data, [generator(seed) for seed in (0, 1, 2, 3, 4, 9)])
    first, second = mine.domain.seen
    torch.testing.assert_close(first.xt[:5], second.xt[:5])
    assert not torch.allclose(first.xt[5], second.xt[5])


def test_only_the_last_evaluation_has_a_gradient():
    mine = task(1.0)
    sum(one.mean() for one in mine.losses(batch(), generator(2)).values()).backward()
    assert mine.denoiser.with_gradient == 1
    assert bool((mine.denoiser.weight.grad != 0).all())


def test_refusals():
    with pytest.raises(ValueError, match=r"ratio 1.5 is not in \[0, 1\]"):
        task(1.5)

    class Plain(Domain):
        pass

    with pytest.raises(ValueError, match="Plain has no extra losses"):
        task(0.5, Plain())
