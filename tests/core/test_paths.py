"""Gaussian paths other than the variance-preserving one, and every prediction on each of them."""

import math
import warnings

import pytest
import torch

from benchmarks.mixture import TUNED, even_quantiles
from multidiff.core.gaussian.edm import ScaledInput, VarianceExploding
from multidiff.core.gaussian.flow import RectifiedFlow, shift_times, shifted_timesteps
from multidiff.core.gaussian.likelihood import prior_kl
from multidiff.core.gaussian.linear_predictions import (
    PREDICTIONS,
    EDMPrediction,
    LinearPrediction,
    prediction_named,
    register_prediction,
)
from multidiff.core.gaussian.multistep import DEIS, AdamsBashforth, FlowABM, UniPC
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.sampler_registry import SAMPLERS
from multidiff.core.gaussian.samplers import DDIM, DPMSolverPP, Heun
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule, NoiseLevel
from multidiff.core.gaussian.stochastic import DPMSolverPPSDE
from multidiff.core.gaussian.time_laws import LogitNormalTimes, LogNormalSigmas
from multidiff.core.gaussian.timesteps import (
    explicit_log_snrs,
    karras_timesteps,
    log_snr_timesteps,
    uniform_timesteps,
)
from multidiff.core.protocols import Corrupted
from multidiff.core.sample import encode, sample
from multidiff.models.sampling_config import sampler_named
from multidiff.utils.errors import InputError

PATHS = {
    "vp": BetaSchedule.linear(),
    "flow": RectifiedFlow(),
    "ve": VarianceExploding(),
}


def double(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def one_level(alpha, sigma):
    time, a, s = (torch.tensor([value]).double() for value in (0.5, alpha, sigma))
    return NoiseLevel(time, a, s)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_target_is_read_as_the_pair_it_was_made_of(name, path):
    level = PATHS[path].at(torch.tensor([0.02, 0.3, 0.5, 0.97], dtype=torch.float64))
    clean, noise = double(4, 3), double(4, 3, seed=1)
    xt = level.alpha[:, None] * clean + level.sigma[:, None] * noise
    prediction = prediction_named(name)
    target = prediction.target(Corrupted(xt, clean, noise, level))
    found = prediction.estimate(target, xt, level)
    torch.testing.assert_close(found.x0, clean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.noise, noise, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "alpha", "sigma", "target", "error"),
    [
        ("epsilon", 0.8, 0.6, -0.5, 1.777778),
        ("v", 0.8, 0.6, -1.0, 2.777778),
        ("flow", 0.8, 0.6, -1.5, 5.444444),
        ("edm", 0.8, 0.6, 1.941451, 5.777778),
        ("epsilon", 1.0, 2.0, -0.5, 0.25),
        ("v", 1.0, 2.0, -2.5, 6.25),
        ("flow", 1.0, 2.0, -1.5, 2.25),
        ("edm", 1.0, 2.0, 2.061553, 4.25),
    ],
)
def test_targets_and_their_errors_by_number(name, alpha, sigma, target, error):
    level, clean, noise = one_level(alpha, sigma), double(1, 1) * 0 + 1, double(1, 1) * 0 - 0.5
    prediction = prediction_named(name)
    found = prediction.target(Corrupted(alpha * clean + sigma * noise, clean, noise, level))
    assert float(found) == pytest.approx(target, abs=1e-6)
    assert float(prediction.squared_error_per_x0(level)) == pytest.approx(error, abs=1e-6)


def test_edm_of_unit_data_is_minus_the_velocity():
    level = PATHS["vp"].at(torch.tensor([0.1, 0.6]))
    pair = Corrupted(double(2, 3), double(2, 3, seed=1), double(2, 3, seed=2), level)
    flipped = -prediction_named("v").target(pair)
    torch.testing.assert_close(EDMPrediction(1.0).target(pair), flipped, rtol=0, atol=1e-14)


def test_edm_is_karras_preconditioning():
    """``D = c_skip xt + c_out F``, table 1, with the network's input scaled by c_in."""
    sigma, data, seen = 1.7, 0.5, []

    class Network(torch.nn.Module):
        def forward(self, xt, level, condition):
            seen.append(xt)
            return 0.3 * xt

    level, xt = one_level(1.0, sigma), double(1, 4)
    output = ScaledInput(Network(), data)(xt, level)
    total = math.hypot(sigma, data)
    torch.testing.assert_close(seen[0], xt / total)
    wanted = data**2 / total**2 * xt + sigma * data / total * output
    torch.testing.assert_close(EDMPrediction(data).estimate(output, xt, level).x0, wanted)


def test_attributes_of_a_network_are_found_through_its_scaling():
    network = torch.nn.Linear(2, 3)
    assert ScaledInput(network).out_features == 3
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ScaledInput(network).nonsense


@pytest.mark.parametrize("path", ["flow", "ve"])
def test_times_and_log_snrs_are_inverse(path):
    times = torch.tensor([0.01, 0.4, 0.99], dtype=torch.float64)
    found = PATHS[path].time_at(PATHS[path].at(times).log_snr)
    torch.testing.assert_close(found, times, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"time 1\.5 is not in"):
        PATHS[path].at(torch.tensor([1.5]))


def test_a_level_outside_the_exploding_path():
    with pytest.raises(ValueError, match="leaves the schedule's range"):
        PATHS["ve"].time_at(torch.tensor([20.0]))
    with pytest.raises(ValueError, match="0 < lowest < highest"):
        VarianceExploding(lowest=3, highest=2)


def test_shifted_times():
    """Esser et al. 2024, eq. 23: the middle of the path moves to 0.75 at a shift of 3."""
    times = shifted_timesteps(4, 3.0).times(PATHS["flow"])
    torch.testing.assert_close(times, torch.tensor([1, 0.9, 0.75, 0.5]).double())
    with pytest.raises(ValueError, match="must be above 0"):
        shifted_timesteps(4, 0.0)


def test_logit_normal_times_have_their_quartiles():
    times = LogitNormalTimes(0.5, 2.0, shift=3.0).draw(
        PATHS["flow"], 40_000, torch.Generator().manual_seed(0)
    )
    quartiles = torch.special.ndtri(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    plain = torch.sigmoid(0.5 + 2 * quartiles)
    wanted = 3 * plain / (1 + 2 * plain)
    found = times.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.01)
    assert float(LogitNormalTimes().weight(times[:3]).min()) == 1


@pytest.mark.parametrize("path", PATHS)
def test_log_normal_sigmas_have_their_quartiles_on_every_path(path):
    schedule = PATHS[path]
    times = LogNormalSigmas().draw(schedule, 20_000, torch.Generator().manual_seed(0))
    ratios = -schedule.at(times).log_snr / 2
    found = ratios.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    quartiles = torch.special.ndtri(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    torch.testing.assert_close(found, -1.2 + 1.2 * quartiles, rtol=0, atol=0.04)


def test_a_prediction_from_outside():
    register_prediction(
        "sum", lambda x: torch.ones_like(x.alpha), lambda x: torch.ones_like(x.alpha)
    )
    try:
        pair = Corrupted(
            double(1, 2), double(1, 2, seed=1), double(1, 2, seed=2), one_level(1.0, 3.0)
        )
        prediction = prediction_named("sum")
        torch.testing.assert_close(prediction.target(pair), pair.x0 + pair.noise)
        with pytest.raises(ValueError, match="exists already"):
            register_prediction("sum", lambda x: x.alpha, lambda x: x.sigma)
        with pytest.raises(ValueError, match=r"'sum' does not determine x0 at time 0\.5"):
            prediction.estimate(pair.xt, pair.xt, one_level(0.7, 0.7))
    finally:
        del PREDICTIONS["sum"]
    with pytest.raises(ValueError, match="no prediction 'epsilom': one of epsilon"):
        prediction_named("epsilom")
    assert isinstance(prediction_named("flow"), LinearPrediction)


def test_karras_grid_by_number():
    """Karras et al. 2022, eq. 5, for 10 steps from 80 to 0.002."""
    levels = karras_timesteps(10).levels(PATHS["ve"])
    wanted = [80, 42.415189, 21.108677, 9.723201, 4.066124, 1.501742, 0.469979, 0.116639, 0.020435]
    assert [float(one.sigma) for one in levels] == pytest.approx(
        [*wanted, 0.002, 0], rel=1e-6, abs=1e-6
    )
    with pytest.raises(ValueError, match="rho 0"):
        karras_timesteps(3, 0.0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "grid", [uniform_timesteps, log_snr_timesteps, karras_timesteps, shifted_timesteps]
)
@pytest.mark.parametrize("steps", [1, 2, 13, 600])
def test_grids_visit_every_path_in_order(grid, steps, path):
    levels = grid(steps).levels(PATHS[path])
    ratios = torch.cat([one.sigma / one.alpha for one in levels])
    assert len(levels) == steps + 1 and float(ratios[-1]) == 0
    assert bool((ratios[1:] < ratios[:-1]).all())


def test_the_shifted_grid_is_one_of_noise_to_signal_ratios():
    for steps in (4, 20):
        times = shifted_timesteps(steps, 0.7).times(PATHS["flow"])
        plain = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]
        torch.testing.assert_close(times, shift_times(plain, 0.7))
        for path in ("vp", "ve"):
            level = PATHS[path].at(shifted_timesteps(steps, 0.7).times(PATHS[path]))
            flow_time = level.sigma / (level.alpha + level.sigma)
            torch.testing.assert_close(flow_time[1:], times[1:], rtol=0.02, atol=0)


def test_sampling_starts_at_the_scale_of_the_schedule():
    """Noise of deviation 1 at a level of sigma 80 made samples of almost nothing but the mean."""
    process, rng = GaussianProcess(PATHS["ve"], "x0"), torch.Generator().manual_seed(0)
    assert float(process.prior((4000, 1), rng).std()) == pytest.approx(80, rel=0.05)
    found = sample(process, gaussian_x0, DDIM(), (4000, 1), log_snr_timesteps(300), rng=rng)
    assert float(found.std()) == pytest.approx(0.5, rel=0.05)
    # A grid that begins at another level begins at its scale.
    grid = log_snr_timesteps(300, lowest=-2 * math.log(20))
    found = sample(process, gaussian_x0, DDIM(), (4000, 1), grid, rng=rng)
    assert float(found.std()) == pytest.approx(0.5, rel=0.05)


def gaussian_x0(xt, level, condition=None):
    """The best x0 estimate for data from N(0, 0.5^2)."""
    gain = level.alpha * 0.25 / (level.alpha**2 * 0.25 + level.sigma**2)
    return xt * gain.to(xt)[:, None]


def test_warnings_are_right_on_each_path():
    """Only the share of the signal at the noisy end counts, and no path of these has much."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for schedule in PATHS.values():
            GaussianProcess(schedule, "v")
    with pytest.warns(UserWarning, match=r"ends at alpha 1\.000, sigma 1\.000"):
        GaussianProcess(VarianceExploding(highest=1.0), "v")
    with pytest.raises(ValueError, match="'epsilon': the schedule ends with zero terminal SNR"):
        GaussianProcess(PATHS["flow"], "epsilon")
    with pytest.raises(ValueError, match=r"step 1, from alpha 0\.001 .* error by 208"):
        process = GaussianProcess(LogSNRSchedule(10, 2 * math.log(0.001)), "epsilon")
        sample(process, gaussian_x0, DDIM(), (1, 1), explicit_log_snrs([2 * math.log(0.001), -3.1]))


def test_the_bound_on_the_exploding_path_starts_at_its_own_scale():
    level = PATHS["ve"].at(torch.ones(3, dtype=torch.float64))
    assert float(prior_kl(double(3, 4), level).max()) < 1e-3


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["x0", "v", "flow", "edm"])
def test_every_prediction_samples_the_same_on_a_path(name, path):
    """An exact network's output is only another way to write the pair."""
    process = GaussianProcess(PATHS[path], name)

    def denoiser(xt, level, condition=None):
        x0 = gaussian_x0(xt, level)
        noise = (xt - level.alpha[:, None] * x0) / level.sigma[:, None]
        return process.prediction.target(Corrupted(xt, x0, noise, level))

    start = process.start_scale() * torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    found = sample(process, denoiser, UniPC(), (2, 1), shifted_timesteps(20), start=start)
    torch.testing.assert_close(found, start / process.start_scale() / 2, rtol=0.02, atol=0)


def test_encoding_returns_the_noise():
    process = GaussianProcess(LogSNRSchedule(8, -8), "x0")
    denoiser = TUNED.denoiser(process)
    data = TUNED.quantiles(even_quantiles(50))[:, None]
    noise = encode(process, denoiser, UniPC(3), data, uniform_timesteps(80))
    exact = TUNED.quantiles(even_quantiles(50), *(float(one) for one in process.levels(
        uniform_timesteps(80))[0].parts()[1:]))  # fmt: skip
    torch.testing.assert_close(noise[:, 0], exact, rtol=0, atol=0.02)
    again = sample(process, denoiser, UniPC(3), (50, 1), uniform_timesteps(80), start=noise)
    torch.testing.assert_close(again, data, rtol=0, atol=0.01)
    with pytest.raises(ValueError, match="encoding needs a deterministic sampler"):
        encode(process, denoiser, DDIM(eta=1.0), data, uniform_timesteps(8))
    with pytest.raises(ValueError, match="at least two steps"):
        encode(process, denoiser, UniPC(), data, uniform_timesteps(1))


@pytest.mark.parametrize(
    "sampler",
    [DPMSolverPP(), AdamsBashforth(), UniPC(), DEIS(), Heun("noise"), DPMSolverPPSDE(eta=0.0)],
    ids=lambda one: type(one).__name__,
)
def test_a_level_without_signal_is_left_and_reached(sampler):
    """Sampling of a flow starts there, and encoding ends there."""
    process = GaussianProcess(PATHS["flow"], "x0")
    data = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
    noise = encode(process, gaussian_x0, sampler, data, uniform_timesteps(50))
    torch.testing.assert_close(noise, 2 * data, rtol=0.06, atol=0)
    again = sample(process, gaussian_x0, sampler, (2, 1), uniform_timesteps(50), start=noise)
    torch.testing.assert_close(again, data, rtol=0.06, atol=0)


def test_nan_names_the_step_where_the_network_returned_it():
    process = GaussianProcess(PATHS["vp"], "v")

    def denoiser(xt, level, condition=None):
        return xt * (math.nan if float(level.time[0]) < 0.35 else 1.0)

    with pytest.raises(ValueError, match="step 8 of 10: the state is not finite"):
        sample(process, denoiser, DDIM(), (2, 3), uniform_timesteps(10))


# The estimates of a denoiser are means, which only its student's are not: tests of distillation.
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "lcm"])
@pytest.mark.parametrize("path", PATHS)
def test_every_named_sampler_keeps_the_data_on_every_path(name, path):
    process, rng = GaussianProcess(PATHS[path], "x0"), torch.Generator().manual_seed(0)
    found = sample(process, gaussian_x0, SAMPLERS[name](), (500, 1), shifted_timesteps(12), rng=rng)
    assert float(found.std()) == pytest.approx(0.5, rel=0.25)


def test_a_sampler_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"--sampler unpic: did you mean unipc\?"):
        sampler_named("unpic")
    assert isinstance(sampler_named("abm"), FlowABM)
