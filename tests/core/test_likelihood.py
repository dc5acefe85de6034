"""The bound on data whose likelihood is known, and its parts against torch.distributions."""

import math

import pytest
import torch
from oracles import gaussian_data, gaussian_data_with_variance

from multidiff.core.gaussian.likelihood import (
    ContinuousDecoder,
    DiscretisedDecoder,
    gaussian_kl,
    last_variance_of,
    prior_kl,
    vlb,
)
from multidiff.core.gaussian.losses import HybridLoss
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule
from multidiff.core.gaussian.timesteps import trailing_timesteps, uniform_timesteps


def draws(count, std=0.5):
    rng = torch.Generator().manual_seed(3)
    return std * torch.randn(count, 1, generator=rng, dtype=torch.float64)


def exact_nll(x0, std=0.5):
    return -torch.distributions.Normal(0.0, std).log_prob(x0).mean()


def test_kl_of_gaussians_against_torch():
    rng = torch.Generator().manual_seed(0)
    mean_q, log_var_q, mean_p, log_var_p = torch.randn(4, 50, dtype=torch.float64, generator=rng)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean_q, (log_var_q / 2).exp()),
        torch.distributions.Normal(mean_p, (log_var_p / 2).exp()),
    )
    torch.testing.assert_close(gaussian_kl(mean_q, log_var_q, mean_p, log_var_p), wanted)


def test_prior_term_of_the_linear_schedule():
    """2.911e-5 bits per dimension for |x_0| = 1."""
    level = BetaSchedule.linear().at(torch.ones(1))
    bits = prior_kl(torch.ones(1, 5, dtype=torch.float64), level) / math.log(2)
    assert float(bits) == pytest.approx(2.911e-5, rel=1e-3)


def test_variance_of_the_last_step():
    """log of the second step's for images (-9.8168), the first beta for real numbers."""
    linear = BetaSchedule.linear()
    images = last_variance_of(linear, DiscretisedDecoder())
    assert float(images.log()) == pytest.approx(-9.8168, abs=1e-4)
    assert float(last_variance_of(linear, ContinuousDecoder())) == pytest.approx(1e-4, rel=1e-9)
    with pytest.raises(ValueError, match="at least two"):
        last_variance_of(BetaSchedule([0.5]), ContinuousDecoder())


@pytest.mark.parametrize("std", [3e-4, 0.004, 0.05, 1.0])
@pytest.mark.parametrize("bins", [2, 256])
def test_discretised_decoder_is_a_distribution(std, bins):
    values = torch.linspace(-1, 1, bins, dtype=torch.float64)
    mean = torch.full_like(values, 0.3337)
    log_variance = torch.full_like(values, 2 * math.log(std))
    nll = DiscretisedDecoder(bins).nll(values, mean, log_variance)
    assert torch.isfinite(nll).all()
    assert float(torch.exp(-nll).sum()) == pytest.approx(1, abs=1e-9)


def test_discretised_decoder_against_the_normal_distribution():
    normal = torch.distributions.Normal(torch.tensor(0.1, dtype=torch.float64), 0.02)
    values = torch.linspace(-1, 1, 256, dtype=torch.float64)[120:150]
    mass = normal.cdf(values + 1 / 255) - normal.cdf(values - 1 / 255)
    log_variance = torch.full_like(values, 2 * math.log(0.02))
    nll = DiscretisedDecoder().nll(values, torch.full_like(values, 0.1), log_variance)
    keep = mass > 1e-12
    torch.testing.assert_close(nll[keep], -mass[keep].log(), rtol=1e-6, atol=1e-6)


def test_discretised_decoder_stays_finite_in_float32():
    """A clean value forty deviations from the mean: a density would underflow to log 0."""
    nll = DiscretisedDecoder().nll(torch.tensor([0.5]), torch.tensor([0.1]), torch.tensor([-9.8]))
    assert torch.isfinite(nll).all() and float(nll) > 100


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [50, pytest.param(1000, marks=pytest.mark.long)])
def test_bound_with_the_exact_reverse_is_the_likelihood(name, steps):
    """With exact means and variances nothing is lost at any number of steps."""
    process = GaussianProcess(
        getattr(BetaSchedule, name)(steps), objective=HybridLoss(), learns_variance=True
    )
    denoiser = gaussian_data_with_variance(process, 0.5)
    x0 = draws(4000)
    bound = vlb(
        process,
        denoiser,
        x0,
        times=trailing_timesteps(steps),
        rng=torch.Generator().manual_seed(0),
        variance="learned",
        decoder=ContinuousDecoder(),
    )
    assert bound.steps.shape == (4000, steps)
    assert float(bound.total.mean()) == pytest.approx(float(exact_nll(x0)), abs=0.03)
    assert float(bound.bits_per_dim[0]) == pytest.approx(float(bound.total[0]) / math.log(2))


@pytest.mark.parametrize(("variance", "last_gap"), [("small", 0.25), ("large", 0.05)])
def test_bound_with_fixed_variances_lies_above_and_converges(variance, last_gap):
    """On levels that grow denser everywhere the fixed variances become exact."""
    process = GaussianProcess(LogSNRSchedule(12, -12))
    x0 = draws(20_000)
    gaps = []
    for steps in (10, 30, 100, 300):
        bound = vlb(
            process,
            gaussian_data(0.5),
            x0,
            times=uniform_timesteps(steps),
            rng=torch.Generator().manual_seed(0),
            variance=variance,
            decoder=ContinuousDecoder(),
        )
        gaps.append(float(bound.total.mean() - exact_nll(x0)))
    assert all(gap > 0 for gap in gaps)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < last_gap < gaps[0]


def test_small_variance_on_a_table_stays_above_by_a_constant():
    """Its first steps halve the noise however long the table is, so it never gets tight."""
    process = GaussianProcess(BetaSchedule.linear())
    x0 = draws(4000)
    bound = vlb(
        process,
        gaussian_data(0.5),
        x0,
        times=trailing_timesteps(1000),
        rng=torch.Generator().manual_seed(0),
        decoder=ContinuousDecoder(),
    )
    assert float(bound.total.mean() - exact_nll(x0)) == pytest.approx(0.45, abs=0.1)


def test_a_worse_denoiser_has_a_worse_bound():
    process = GaussianProcess(BetaSchedule.linear(100))
    x0 = draws(2000)

    def total(denoiser):
        return float(
            vlb(
                process,
                denoiser,
                x0,
                times=trailing_timesteps(100),
                rng=torch.Generator().manual_seed(0),
                variance="large",
                decoder=ContinuousDecoder(),
            ).total.mean()
        )

    best = gaussian_data(0.5)
    assert total(lambda *args: 0.9 * best(*args)) > total(best)
    assert total(gaussian_data(0.7)) > total(best)


def test_a_denoiser_that_knows_the_picture_pays_only_at_the_decoder():
    process = GaussianProcess(BetaSchedule.linear(200), "x0")
    x0 = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64).mul(255).round() / 255
    bound = vlb(process, lambda *_: x0, x0, times=trailing_timesteps(200))
    assert float(bound.steps[:, :-1].abs().max()) < 1e-12
    variance = last_variance_of(process.schedule, DiscretisedDecoder())
    nll = DiscretisedDecoder().nll(x0, x0, variance.log())
    assert float(bound.decoder) == pytest.approx(float(nll.mean()), rel=1e-9)


def test_bound_needs_two_steps():
    process = GaussianProcess(BetaSchedule.linear())
    with pytest.raises(ValueError, match="at least two"):
        vlb(process, gaussian_data(1.0), draws(2), times=trailing_timesteps(1))
