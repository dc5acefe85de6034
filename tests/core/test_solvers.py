"""Samplers: exact on a known pair, closed forms on Gaussian data, equality with diffusers."""

import itertools
import math

import pytest
import torch
from oracles import gaussian_data, known_pair

from multidiff.core.gaussian.losses import HybridLoss
from multidiff.core.gaussian.predictions import spread
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM, DDPM, DPMSolverPP, Heun
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule
from multidiff.core.gaussian.timesteps import (
    leading_timesteps,
    linspace_timesteps,
    log_snr_timesteps,
    trailing_timesteps,
    uniform_timesteps,
)
from multidiff.core.random import generators
from multidiff.core.sample import sample

LINEAR = BetaSchedule.linear()
COUNTS = [1, 2, 3, 7, 13, 30, 36, 37, 50, 101, 999, 1000]
GRIDS = [
    leading_timesteps,
    trailing_timesteps,
    linspace_timesteps,
    uniform_timesteps,
    log_snr_timesteps,
]
DETERMINISTIC = [DDIM(), Heun(), DPMSolverPP()]


def double(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=lambda s: type(s).__name__)
def test_true_noise_stays_on_the_path_and_returns_the_clean_signal(sampler, grid, count):
    """The oracle: constant strides where the grid's are not would leave the path."""
    process = GaussianProcess(LINEAR)
    x0, noise = double(2, 3), double(2, 3, seed=1)
    times = grid(count)
    first = process.levels(times)[0].expand(2)
    start = spread(first.alpha, x0) * x0 + spread(first.sigma, x0) * noise
    worst = []

    def on_step(step):
        path = spread(step.level.alpha, x0) * x0 + spread(step.level.sigma, x0) * noise
        worst.append(float((step.state - path).abs().max()))

    found = sample(
        process,
        known_pair(process, x0, noise),
        sampler,
        (2, 3),
        times,
        start=start,
        on_step=on_step,
    )
    assert len(worst) == count
    assert max(worst) < 1e-10
    torch.testing.assert_close(found, x0, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("sampler", "prediction"),
    [(sampler, name) for sampler in DETERMINISTIC for name in ("x0", "v")]
    + [(DDPM(), "x0")],  # its fresh noise is not the oracle's, so only "x0" stays true
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_oracle_without_final_signal(sampler, prediction):
    schedule = BetaSchedule.scaled_linear().with_zero_terminal_snr()
    process = GaussianProcess(schedule, prediction)
    x0, noise = 10 * double(1, 4), double(1, 4, seed=1)  # beyond any clipping: samplers have none
    denoiser = known_pair(process, x0, noise)
    found = sample(process, denoiser, sampler, (1, 4), trailing_timesteps(13), start=noise)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, x0, rtol=1e-8, atol=1e-8)


def walked(schedule, sampler, times, std=0.5):
    """What one unit at the start becomes: deterministic walks on this data are linear."""
    start = torch.ones(1, 1, dtype=torch.float64)
    process = GaussianProcess(schedule)
    return float(sample(process, gaussian_data(std), sampler, (1, 1), times, start=start))


@pytest.mark.parametrize(
    ("name", "grid", "wanted"),
    [
        ("linear", leading_timesteps, {10: 0.37413, 50: 0.47244, 1000: 0.49850}),
        ("linear", trailing_timesteps, {10: 0.36995, 50: 0.47140, 1000: 0.49850}),
        ("cosine", leading_timesteps, {10: 0.43355, 50: 0.48504, 1000: 0.49919}),
    ],
)
def test_ddim_deviation_in_closed_form(name, grid, wanted):
    for count, std in wanted.items():
        found = walked(getattr(BetaSchedule, name)(), DDIM(), grid(count))
        assert found == pytest.approx(std, abs=5e-6)


def gain_of_x0(level):
    """Best clean estimate over the noisy state, for N(0, 0.5^2)."""
    return float(level.alpha * 0.25 / (level.alpha**2 * 0.25 + level.sigma**2))


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("count", [2, 10, 50])
def test_dpm_solver_deviation_by_the_papers_recursion(name, count):
    """Lu et al. 2022, algorithm 2, written out for numbers."""
    schedule = getattr(BetaSchedule, name)()
    levels = trailing_timesteps(count).levels(schedule)
    x, last = 1.0, None
    half = [float(level.log_snr) / 2 for level in levels]
    for i in range(count - 1):
        here, there = levels[i], levels[i + 1]
        x0 = gain_of_x0(here) * x
        h = half[i + 1] - half[i]
        slope = x0
        if last is not None:
            r = (half[i] - half[i - 1]) / h
            slope = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * last
        x = float(there.sigma / here.sigma) * x - float(there.alpha) * math.expm1(-h) * slope
        last = x0
    x = gain_of_x0(levels[-2]) * x
    assert walked(schedule, DPMSolverPP(), trailing_timesteps(count)) == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("count", [2, 10, 50])
def test_heun_deviation_by_its_trapezoid(name, count):
    """x / sigma over alpha / sigma, slopes at both ends averaged, written out for numbers."""
    schedule = getattr(BetaSchedule, name)()
    levels = trailing_timesteps(count).levels(schedule)
    x = 1.0
    for here, there in itertools.pairwise(levels[:-1]):
        scaled = x / float(here.sigma)
        step = float(there.alpha / there.sigma - here.alpha / here.sigma)
        slope = gain_of_x0(here) * x
        ahead = gain_of_x0(there) * (scaled + step * slope) * float(there.sigma)
        x = (scaled + step * (slope + ahead) / 2) * float(there.sigma)
    x = gain_of_x0(levels[-2]) * x
    assert walked(schedule, Heun(), trailing_timesteps(count)) == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "variance", "wanted"),
    [
        ("linear", "small", 0.49611),
        ("linear", "large", 0.50075),
        ("cosine", "small", 0.49799),
        ("cosine", "large", 0.50042),
    ],
)
def test_ddpm_deviation_after_a_thousand_steps(name, variance, wanted, monkeypatch):
    """Each step is x' = m x + d z: m and d are read off, and the variances added up exactly."""
    schedule = getattr(BetaSchedule, name)()
    process, sampler, one = GaussianProcess(schedule), DDPM(variance), torch.ones(1, 1).double()

    def estimate_at(xt, level):
        return process.estimate(gaussian_data(0.5)(xt, level), xt, level)

    def reach(state, draw, here, there):
        monkeypatch.setattr("multidiff.core.gaussian.samplers.draw_like", lambda *_: draw * one)
        return float(sampler.step(estimate_at, state * one, here, there, None, None)[0])

    levels = trailing_timesteps(1000).levels(schedule)
    total = 1.0
    for here, there in itertools.pairwise(levels):
        total = reach(1, 0, here, there) ** 2 * total + reach(0, 1, here, there) ** 2
    assert total**0.5 == pytest.approx(wanted, abs=6e-6)


@pytest.mark.parametrize("sampler", [Heun(), DPMSolverPP()], ids=lambda s: type(s).__name__)
def test_second_order_solvers_beat_ddim(sampler):
    """On a grid even in log SNR, halving the step divides the error by about four."""
    schedule = LogSNRSchedule(12, -12)
    errors = [abs(walked(schedule, sampler, uniform_timesteps(n)) - 0.5) for n in (40, 80, 160)]
    assert errors[0] / errors[1] > 3 and errors[1] / errors[2] > 3
    assert errors[0] < abs(walked(schedule, DDIM(), uniform_timesteps(40)) - 0.5) / 4


def test_ddpm_is_ddim_with_eta_one():
    process = GaussianProcess(LINEAR)
    rows = [
        sample(
            process,
            gaussian_data(0.5),
            sampler,
            (3, 5),
            leading_timesteps(50),
            rng=torch.Generator().manual_seed(7),
        )
        for sampler in (DDPM("small"), DDIM(eta=1.0))
    ]
    torch.testing.assert_close(rows[0], rows[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, DDPM(), DDIM(0.5)])
def test_a_sample_does_not_depend_on_its_batch(sampler):
    process = GaussianProcess(LINEAR)
    together = sample(
        process,
        gaussian_data(0.5),
        sampler,
        (4, 6),
        uniform_timesteps(9),
        rng=generators([5, 6, 7, 8]),
    )
    for row, seed in enumerate([5, 6, 7, 8]):
        alone = sample(
            process,
            gaussian_data(0.5),
            sampler,
            (1, 6),
            uniform_timesteps(9),
            rng=generators([seed]),
        )
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-6)


def test_learned_variance_is_used():
    process = GaussianProcess(LINEAR, objective=HybridLoss(), learns_variance=True)

    def denoiser(xt, level, condition=None):
        return torch.cat([gaussian_data(0.5)(xt, level), torch.ones_like(xt)], dim=1)

    def large(xt, level, condition=None):
        return gaussian_data(0.5)(xt, level)

    rng = torch.Generator()
    learned = sample(
        process, denoiser, DDPM("learned"), (2, 1), uniform_timesteps(20), rng=rng.manual_seed(1)
    )
    fixed = sample(
        GaussianProcess(LINEAR),
        large,
        DDPM("large"),
        (2, 1),
        uniform_timesteps(20),
        rng=rng.manual_seed(1),
    )
    torch.testing.assert_close(learned, fixed)
    with pytest.raises(ValueError, match="not learned"):
        sample(GaussianProcess(LINEAR), large, DDPM("learned"), (2, 1), uniform_timesteps(20))


def test_wrong_options():
    with pytest.raises(ValueError, match="not in"):
        DDIM(eta=1.5)


def test_unknown_variance(unchecked_signatures):
    with pytest.raises(ValueError, match="one of small, large, learned"):
        DDPM("medium")  # type: ignore[arg-type]


# ------------------------------------------------------------------------- diffusers

diffusers = pytest.importorskip("diffusers")
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def in_diffusers(scheduler, count, start, **step_options):
    """The walk of a diffusers scheduler with the same denoiser."""
    scheduler.set_timesteps(count)
    state = start
    for step in scheduler.timesteps:
        level = LINEAR.at((step.double()[None] + 1) / 1000)
        output = gaussian_data(0.5)(state, level)
        state = scheduler.step(output, step, state, **step_options).prev_sample
    return state


@pytest.mark.parametrize(
    ("spacing", "grid", "counts"),
    [
        ("leading", leading_timesteps, [1, 2, 7, 13, 50, 101, 1000]),
        ("trailing", trailing_timesteps, [1, 2, 10, 50, 1000]),  # right where 1000 / n is whole
    ],
)
def test_ddim_equals_diffusers_where_its_strides_are_right(spacing, grid, counts):
    start = double(1, 5).float()
    for count in counts:
        scheduler = diffusers.DDIMScheduler(
            **BETAS, timestep_spacing=spacing, clip_sample=False, set_alpha_to_one=True
        )
        theirs = in_diffusers(scheduler, count, start)
        ours = sample(
            GaussianProcess(LINEAR), gaussian_data(0.5), DDIM(), (1, 5), grid(count), start=start
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("spacing", "grid", "count"),
    [("trailing", trailing_timesteps, 13), ("linspace", linspace_timesteps, 13)],
)
def test_where_diffusers_ddim_differs(spacing, grid, count):
    """Its previous step is t - 1000 // n, which is not the next of these grids (issue 9261).

    Ours passes the oracle test above for the same grids. When this fails, they fixed it.
    """
    start = double(1, 5).float()
    scheduler = diffusers.DDIMScheduler(
        **BETAS, timestep_spacing=spacing, clip_sample=False, set_alpha_to_one=True
    )
    theirs = in_diffusers(scheduler, count, start)
    ours = sample(
        GaussianProcess(LINEAR), gaussian_data(0.5), DDIM(), (1, 5), grid(count), start=start
    )
    assert float((ours - theirs).abs().max()) > 1e-3


@pytest.mark.parametrize(("theirs", "ours"), [("fixed_small", "small"), ("fixed_large", "large")])
def test_ddpm_equals_diffusers(theirs, ours):
    """Same mean and variance: the same standard normal draws give the same walk."""
    scheduler = diffusers.DDPMScheduler(**BETAS, variance_type=theirs, clip_sample=False)
    start = double(1, 5).float()
    rng = torch.Generator()
    there = in_diffusers(scheduler, 50, start, generator=rng.manual_seed(0))
    here = sample(
        GaussianProcess(LINEAR),
        gaussian_data(0.5),
        DDPM(ours),
        (1, 5),
        leading_timesteps(50),
        start=start,
        rng=rng.manual_seed(0),
    )
    torch.testing.assert_close(here, there, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("count", [2, 10, 50])
def test_dpm_solver_equals_diffusers(count):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
        lower_order_final=True,
    )
    start = double(1, 5).float()
    theirs = in_diffusers(scheduler, count, start)
    ours = sample(
        GaussianProcess(LINEAR),
        gaussian_data(0.5),
        DPMSolverPP(),
        (1, 5),
        trailing_timesteps(count),
        start=start,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_forward_and_velocity_equal_diffusers(prediction):
    name = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}[prediction]
    scheduler = diffusers.DDIMScheduler(**BETAS, prediction_type=prediction)
    process = GaussianProcess(LINEAR, name)
    x0 = double(3, 4).float()
    steps = torch.tensor([0, 500, 999])
    level = LINEAR.at((steps.double() + 1) / 1000)
    corrupted = process.corrupt(x0, level, torch.Generator().manual_seed(0))
    theirs = scheduler.add_noise(x0, corrupted.noise, steps)
    torch.testing.assert_close(corrupted.xt, theirs, rtol=1e-5, atol=1e-6)
    if name == "v":
        velocity = scheduler.get_velocity(x0, corrupted.noise, steps)
        torch.testing.assert_close(
            process.prediction.target(corrupted), velocity, rtol=1e-5, atol=1e-5
        )
