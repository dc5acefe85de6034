"""Control by gradients, against closed forms."""

import pytest
import torch

from multidiff.core.gaussian.classifier_guidance import Controlled
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM, DDPM
from multidiff.core.gaussian.schedules import BetaSchedule, clean_level
from multidiff.core.gaussian.timesteps import even_times
from multidiff.core.random import generators
from multidiff.core.sample import sample

PROCESS = GaussianProcess(BetaSchedule.cosine(100), "clean")
SLOPE = torch.tensor([0.5, -1.0, 2.0])


def denoiser(noisy, level, condition=None):
    return noisy * (level.alpha / (level.alpha**2 + level.sigma**2)).to(noisy)[:, None]


def linear(noisy, level):
    return noisy @ SLOPE


def walk(solver, count=4, seeds=None):
    rng = generators(range(count) if seeds is None else seeds)
    return sample(PROCESS, denoiser, solver, (len(rng), 3), even_times(10), rng=rng)


@pytest.mark.parametrize("solver", [DDIM(), DDPM()])
def test_no_updates_change_nothing_to_the_bit(solver):
    free = walk(solver)
    assert torch.equal(free, walk(Controlled(solver, linear, updates=0)))
    assert not torch.equal(free, walk(Controlled(solver, linear, updates=1)))


@pytest.mark.parametrize(("updates", "rate", "fluency"), [(1, 1.0, 0.0), (3, 0.5, 0.2)])
def test_a_step_is_the_papers_update(updates, rate, fluency):
    levels = [level.expand(2) for level in PROCESS.levels(even_times(10))]
    noisy = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))

    def estimate_at(state, level):
        return PROCESS.estimate(denoiser(state, level), state, level)

    plain, _ = DDIM().step(estimate_at, noisy, levels[3], levels[4], None, None)
    solver = Controlled(DDIM(), linear, updates, rate, fluency)
    found, _ = solver.step(estimate_at, noisy, levels[3], levels[4], None, None)
    # x - x' obeys d <- (1 - rate fluency) d + rate sigma^2 slope, from 0: a geometric sum.
    keep = 1 - rate * fluency
    factor = sum(keep**k for k in range(updates))
    shift = rate * float(levels[4].sigma[0]) ** 2 * factor * SLOPE
    torch.testing.assert_close(found, plain + shift)


def test_more_control_makes_more_of_what_is_wanted_likely():
    scores = [
        float(linear(walk(Controlled(DDIM(), linear, 1, rate, 0.0)), None).mean())
        for rate in (0.0, 0.5, 1.0, 2.0)
    ]
    assert scores == sorted(scores) and scores[-1] > scores[0] + 1


def test_a_sample_does_not_depend_on_its_batch():
    solver = Controlled(DDPM(), lambda x, level: -(x**4).sum(dim=1), 2, 0.1, 0.01)
    together = walk(solver, 5)
    for row in range(5):
        torch.testing.assert_close(walk(solver, seeds=[row]), together[row : row + 1])


def test_the_last_step_is_left_alone():
    level, clean = PROCESS.schedule.at(torch.tensor([0.1])), clean_level(1)
    noisy = torch.ones(1, 3)
    asked = []

    def wanted(state, level):
        asked.append(level)
        return linear(state, level)

    def estimate_at(state, level):
        return PROCESS.estimate(denoiser(state, level), state, level)

    solver = Controlled(DDIM(), wanted)
    found, _ = solver.step(estimate_at, noisy, level, clean, None, None)
    assert torch.equal(found, estimate_at(noisy, level).clean) and not asked


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match="updates -1, rate 1, fluency 0"):
        Controlled(DDIM(), linear, updates=-1)
