"""Control by gradients, against closed forms."""

import pytest
import torch

from multidiff.core.gaussian.classifier_guidance import ClassifierGuidance
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM, DDPM
from multidiff.core.gaussian.schedules import BetaSchedule, clean_level
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.core.random import generators
from multidiff.core.sample import sample

PROCESS = GaussianProcess(BetaSchedule.cosine(100), "x0")
SLOPE = torch.tensor([0.5, -1.0, 2.0])


def denoiser(xt, level, condition=None):
    return xt * (level.alpha / (level.alpha**2 + level.sigma**2)).to(xt)[:, None]


def linear(xt, level):
    return xt @ SLOPE


def walked(sampler, count=4, seeds=None):
    rng = generators(range(count) if seeds is None else seeds)
    return sample(PROCESS, denoiser, sampler, (len(rng), 3), uniform_timesteps(10), rng=rng)


@pytest.mark.parametrize("sampler", [DDIM(), DDPM()])
def test_no_updates_change_nothing_to_the_bit(sampler):
    free = walked(sampler)
    assert torch.equal(free, walked(ClassifierGuidance(sampler, linear, updates=0)))
    assert not torch.equal(free, walked(ClassifierGuidance(sampler, linear, updates=1)))


@pytest.mark.parametrize(("updates", "rate", "fluency"), [(1, 1.0, 0.0), (3, 0.5, 0.2)])
def test_a_step_is_the_papers_update(updates, rate, fluency):
    levels = [level.expand(2) for level in PROCESS.levels(uniform_timesteps(10))]
    xt = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))

    def estimate_at(state, level):
        return PROCESS.estimate(denoiser(state, level), state, level)

    plain, _ = DDIM().step(estimate_at, xt, levels[3], levels[4], None, None)
    sampler = ClassifierGuidance(DDIM(), linear, updates, rate, fluency)
    found, _ = sampler.step(estimate_at, xt, levels[3], levels[4], None, None)
    # x - x' obeys d <- (1 - rate fluency) d + rate sigma^2 slope, from 0: a geometric sum.
    keep = 1 - rate * fluency
    factor = sum(keep**k for k in range(updates))
    shift = rate * float(levels[4].sigma[0]) ** 2 * factor * SLOPE
    torch.testing.assert_close(found, plain + shift)


def test_more_control_makes_more_of_what_is_wanted_likely():
    scores = [
        float(linear(walked(ClassifierGuidance(DDIM(), linear, 1, rate, 0.0)), None).mean())
        for rate in (0.0, 0.5, 1.0, 2.0)
    ]
    assert scores == sorted(scores) and scores[-1] > scores[0] + 1


def test_a_sample_does_not_depend_on_its_batch():
    sampler = ClassifierGuidance(DDPM(), lambda x, level: -(x**4).sum(dim=1), 2, 0.1, 0.01)
    together = walked(sampler, 5)
    for row in range(5):
        torch.testing.assert_close(walked(sampler, seeds=[row]), together[row : row + 1])


def test_the_last_step_is_left_alone():
    level, x0 = PROCESS.schedule.at(torch.tensor([0.1])), clean_level(1)
    xt = torch.ones(1, 3)
    asked = []

    def wanted(state, level):
        asked.append(level)
        return linear(state, level)

    def estimate_at(state, level):
        return PROCESS.estimate(denoiser(state, level), state, level)

    sampler = ClassifierGuidance(DDIM(), wanted)
    found, _ = sampler.step(estimate_at, xt, level, x0, None, None)
    assert torch.equal(found, estimate_at(xt, level).x0) and not asked


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match="updates -1, rate 1, fluency 0"):
        ClassifierGuidance(DDIM(), linear, updates=-1)
