"""The exact likelihood of the probability flow, beside densities that are known."""

import pytest
import torch

from benchmarks.mixture import TUNED, even_quantiles
from multidiff.core.gaussian.edm import VarianceExploding
from multidiff.core.gaussian.flow import RectifiedFlow
from multidiff.core.gaussian.flow_likelihood import flow_log_likelihood
from multidiff.core.gaussian.predictions import spread
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule
from multidiff.core.gaussian.timesteps import log_snr_timesteps, uniform_timesteps

PATHS = {
    "log snr": LogSNRSchedule(12, -12),
    "vp": BetaSchedule.linear(),
    "flow": RectifiedFlow(),
    "edm": VarianceExploding(),
}
COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
VALUES, VECTORS = torch.linalg.eigh(COVARIANCE)


def pair_denoiser(xt, level, condition=None):
    a, s = spread(level.alpha, xt), spread(level.sigma, xt)
    values, vectors = VALUES.to(xt), VECTORS.to(xt)
    return (xt @ vectors) * a * values / (a**2 * values + s**2) @ vectors.T


@pytest.mark.parametrize("path", PATHS)
def test_the_mixtures_mean_density(path):
    x0 = TUNED.quantiles(even_quantiles(32))[:, None]
    process = GaussianProcess(PATHS[path], "x0")
    found = flow_log_likelihood(process, TUNED.denoiser(process), x0, times=log_snr_timesteps(50))
    truth = TUNED.log_density(x0[:, 0])
    assert float(found.mean()) == pytest.approx(float(truth.mean()), abs=1e-3)
    assert float((found - truth).abs().max()) < 0.02


def test_a_correlated_pair_and_its_traces():
    rng = torch.Generator().manual_seed(0)
    x0 = (
        torch.randn(64, 2, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(COVARIANCE).T
    )
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), COVARIANCE)
    process = GaussianProcess(PATHS["log snr"], "x0")

    def off(**options):
        times = log_snr_timesteps(25)
        found = flow_log_likelihood(process, pair_denoiser, x0, times=times, **options)
        return float((found - normal.log_prob(x0)).square().mean().sqrt())

    assert off() < 2e-4
    one = off(probes=1, rng=torch.Generator().manual_seed(1))
    assert 0.8 < one < 1.4  # nats of a sample, as its probe has it
    assert off(probes=16, rng=torch.Generator().manual_seed(1)) < 1.6 * one / 4


def test_what_the_flows_likelihood_refuses():
    process, x0 = GaussianProcess(PATHS["log snr"], "x0"), torch.zeros(2, 40, 40)
    with pytest.raises(ValueError, match="give probes=8"):
        flow_log_likelihood(process, pair_denoiser, x0)
    with pytest.raises(ValueError, match="at least two levels"):
        flow_log_likelihood(process, pair_denoiser, x0, times=uniform_timesteps(1), probes=1)
    with pytest.raises(ValueError, match="0 probes"):
        flow_log_likelihood(process, pair_denoiser, x0, probes=0)
