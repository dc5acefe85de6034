"""Inverse problems and guidance, on normals whose posterior is known."""

import math

import pytest
import torch
from oracles import gaussian_data

from multidiff.core.gaussian.inverse import (
    DPS,
    MMPS,
    PiGDM,
    RePaint,
    conjugate_gradients,
    observe_mask,
)
from multidiff.core.gaussian.losses import HybridLoss
from multidiff.core.gaussian.multistep import UniPC
from multidiff.core.gaussian.predictions import spread
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM, DDPM, DPMSolverPP
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.gaussian.timesteps import log_snr_timesteps, uniform_timesteps
from multidiff.core.guidance import ClassifierFreeGuidance
from multidiff.core.guidance_variants import Autoguidance, IntervalGuidance
from multidiff.core.projections import clip, compose, dynamic_threshold, inpaint
from multidiff.core.protocols import Estimate
from multidiff.core.random import generators
from multidiff.core.sample import sample

PROCESS = GaussianProcess(BetaSchedule.linear(), "x0")
# A pair with correlation 0.8 whose first value is 1.5: the second is N(1.2, 0.6^2).
COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
VALUES, VECTORS = torch.linalg.eigh(COVARIANCE)
KNOWN, MASK = torch.tensor([[1.5, 0.0]]), torch.tensor([1.0, 0.0])
COUNT = 800


def first(state):
    return state[:, :1]


def denoiser(xt, level, condition=None):
    values, vectors = VALUES.to(xt), VECTORS.to(xt)
    a, s = spread(level.alpha, xt), spread(level.sigma, xt)
    return (xt @ vectors) * a * values / (a**2 * values + s**2) @ vectors.T


def posterior(sampler, times, project=None):
    """Return mean and standard deviation of both values, from noise that sums to 0."""
    noise = torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(0))
    start = torch.cat([noise, -noise])
    rng = torch.Generator().manual_seed(1)
    found = sample(
        PROCESS, denoiser, sampler, (2 * COUNT, 2), times, project=project, start=start, rng=rng
    )
    return found.mean(dim=0).tolist(), found.std(dim=0).tolist()


@pytest.mark.parametrize(
    ("sampler", "times"),
    [
        (DPMSolverPP(), log_snr_timesteps(40)),
        (UniPC(), log_snr_timesteps(40)),
        (DDIM(), uniform_timesteps(100)),
        (DDPM(), uniform_timesteps(100)),
    ],
    ids=["dpm++", "unipc", "ddim", "ddpm"],
)
def test_tweedies_covariance_finds_the_posterior_with_every_sampler(sampler, times):
    means, stds = posterior(sampler, times, MMPS(KNOWN[:, :1], first))
    assert means[0] == pytest.approx(1.5, abs=0.02) and stds[0] < 0.03
    assert means[1] == pytest.approx(1.2, abs=0.03)
    assert stds[1] == pytest.approx(0.6, abs=0.04)


def test_a_measurement_beside_other_projections():
    own = MMPS(KNOWN[:, :1], first)
    alone = posterior(DDIM(), uniform_timesteps(4), own)
    assert posterior(DDIM(), uniform_timesteps(4), compose(clip(-99, 99), own)) == alone
    assert posterior(DDIM(), uniform_timesteps(4), compose(own, clip(-99, 99))) == alone


def test_guidance_of_states_where_one_has_no_measurement():
    """Their distance is 0, whose gradient was NaN; the variance that a network learned stays."""
    process = GaussianProcess(
        BetaSchedule.linear(), "x0", objective=HybridLoss(), learns_variance=True
    )

    def learned(xt, level, condition=None):
        return torch.cat([denoiser(xt, level), torch.zeros_like(xt)], dim=1)

    seen = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    found = [
        sample(
            process, learned, sampler, (2, 2), uniform_timesteps(20), rng=generators([1, 2])
        )
        for sampler in (
            DPS(DDPM("learned"), KNOWN * seen, observe_mask(seen), 0.3), DDPM("learned")
        )
    ]  # fmt: skip
    assert found[0].isfinite().all() and not torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_a_mask_is_an_operator():
    asked = [MMPS(KNOWN[:, :1], first), MMPS(KNOWN, observe_mask(MASK))]
    found = [posterior(DPMSolverPP(), log_snr_timesteps(12), one) for one in asked]
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-3)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-3)


def test_what_the_other_methods_are_biased_by():
    """What docs/paths.md warns of: when one of these comes nearer, its figure is out of date."""
    times = uniform_timesteps(80)
    replaced = posterior(DDIM(), times, inpaint(KNOWN, MASK))
    assert replaced[0][1] == pytest.approx(0.52, abs=0.06)
    pi_gdm = posterior(DDIM(), times, PiGDM(KNOWN[:, :1], first))
    assert pi_gdm[0][1] == pytest.approx(1.14, abs=0.03)
    repainted = posterior(RePaint(KNOWN, MASK, resamplings=5), uniform_timesteps(30))
    assert repainted[0][0] == pytest.approx(1.5) and repainted[0][1] == pytest.approx(
        1.08, abs=0.08
    )
    pulled = posterior(DPS(DDPM(), KNOWN[:, :1], first, step_size=0.3), times)
    assert pulled[0][0] == pytest.approx(1.5, abs=0.1) and pulled[0][1] > 1.35


def test_repainting_once_is_replacing():
    once = posterior(RePaint(KNOWN, MASK, resamplings=1), uniform_timesteps(50))
    again = posterior(RePaint(KNOWN, MASK, resamplings=4), uniform_timesteps(50))
    assert once[0][1] < again[0][1] - 0.1
    with pytest.raises(ValueError, match="0 resamplings"):
        RePaint(KNOWN, MASK, resamplings=0)


def test_conjugate_gradients_solve_each_sample():
    matrices = torch.randn(3, 4, 4, dtype=torch.float64)
    matrices = matrices @ matrices.mT + torch.eye(4)
    right = torch.randn(3, 4, dtype=torch.float64)
    found = conjugate_gradients(lambda v: (matrices @ v[..., None])[..., 0], right, 6)
    torch.testing.assert_close(found, torch.linalg.solve(matrices, right), rtol=1e-8, atol=1e-8)


def test_guided_projections_need_gradients_and_a_fitting_measurement():
    level, state = PROCESS.schedule.at(torch.ones(1)), torch.zeros(1, 2)
    with pytest.raises(ValueError, match="MMPS differentiates the estimate: pass it to sample"):
        MMPS(KNOWN[:, :1], first)(Estimate(state, state), state, level)
    with pytest.raises(ValueError, match=r"shape \(1, 2\), but the operator makes \(1600, 1\)"):
        posterior(DDIM(), uniform_timesteps(3), MMPS(KNOWN, first))
    with pytest.raises(ValueError, match="noise_std 0 must be above 0"):
        PiGDM(KNOWN, first, noise_std=0.0)


# -------------------------------------------------------------------------- guidance


def by_condition(xt, level, condition):
    return xt + condition[:, None]


def test_guidance_within_an_interval():
    calls = []

    def network(xt, level, condition=None):
        calls.append(len(xt))
        return by_condition(xt, level, condition)

    guided = IntervalGuidance(ClassifierFreeGuidance(network, 3.0), lowest=0.1, highest=10.0)
    xt, condition = torch.zeros(3, 2), torch.ones(3)
    levels = PROCESS.schedule.at(torch.tensor([0.001, 0.5, 1.0]))
    found = guided(xt, levels, condition)  # inside in the middle row alone
    assert found[:, 0].tolist() == [1, 3, 1]
    calls.clear()
    guided(xt, levels[2:].expand(3), condition)
    assert calls == [3]  # and at half the cost outside
    with pytest.raises(ValueError, match="empty"):
        IntervalGuidance(ClassifierFreeGuidance(network, 3.0), 2.0, 1.0)


def test_autoguidance_pushes_away_from_the_weak_model():
    strong, weak = gaussian_data(0.5), gaussian_data(0.7)
    level, xt = PROCESS.schedule.at(torch.tensor([0.4])), torch.ones(1, 3)
    found = Autoguidance(strong, weak, 2.0)(xt, level)
    torch.testing.assert_close(found, 2 * strong(xt, level) - weak(xt, level))
    assert torch.equal(Autoguidance(strong, weak, 1.0)(xt, level), strong(xt, level))


def test_dynamic_thresholding():
    """Saharia et al. 2022: small estimates stay, large ones are scaled by their quantile."""
    level = PROCESS.schedule.at(torch.tensor([0.4, 0.4]))
    x0 = torch.stack([torch.linspace(-0.9, 0.9, 100), torch.linspace(-3, 3, 100)])
    xt = torch.zeros(2, 100)
    found = dynamic_threshold(0.9)(Estimate(x0, x0), xt, level)
    assert torch.equal(found.x0[0], x0[0])
    bound = float(torch.quantile(x0[1].abs(), 0.9))
    torch.testing.assert_close(found.x0[1], x0[1].clamp(-bound, bound) / bound)
    again = spread(level.alpha, xt) * found.x0 + spread(level.sigma, xt) * found.noise
    torch.testing.assert_close(again, xt, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="quantile 0"):
        dynamic_threshold(0.0)
    assert math.isclose(float(found.x0.abs().max()), 1.0, rel_tol=1e-6)


def test_dynamic_thresholding_leaves_padding_out():
    level = PROCESS.schedule.at(torch.tensor([0.4, 0.4, 0.4]))
    real = torch.linspace(-3, 3, 40)
    x0 = torch.full((3, 1, 100), 50.0)
    x0[0, 0], x0[1, 0, :40] = torch.linspace(-2, 2, 100), real
    mask = torch.arange(100) < torch.tensor([100, 40, 0])[:, None, None]
    xt = torch.zeros(3, 1, 100)
    found = dynamic_threshold(0.9, mask=mask)(Estimate(x0, x0), xt, level)
    whole = dynamic_threshold(0.9)(Estimate(x0[:1], x0[:1]), xt[:1], level[:1])
    torch.testing.assert_close(found.x0[:1], whole.x0)
    alone = dynamic_threshold(0.9)(Estimate(real[None], real[None]), real[None], level[:1])
    torch.testing.assert_close(found.x0[1, 0, :40], alone.x0[0])
    assert bool((found.x0[2] == 1).all())  # nothing real: clipped to the limit
    with pytest.raises(ValueError, match=r"mask: its shape \(3, 7\) does not broadcast"):
        dynamic_threshold(mask=torch.ones(3, 7))(Estimate(x0, x0), xt, level)
