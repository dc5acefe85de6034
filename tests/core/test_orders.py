"""Every sampler's order of convergence, on a mixture whose probability flow is known exactly.

In one dimension the flow moves each quantile of the noisy law to the same quantile of the clean
one, so the exact end of every path is a quantile too.
"""

import itertools
import math

import pytest
import torch

from benchmarks.mixture import TUNED, even_quantiles
from multidiff.core.context import SamplerContext
from multidiff.core.gaussian.adaptive import RK45
from multidiff.core.gaussian.edm import VarianceExploding
from multidiff.core.gaussian.flow import RectifiedFlow
from multidiff.core.gaussian.multistep import (
    DEIS,
    AdamsBashforth,
    FlowABM,
    UniPC,
    interpolation_weights,
)
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM, DDPM, DPMSolverPP, Heun
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule
from multidiff.core.gaussian.stochastic import DPMSolverPPSDE, EDMChurn
from multidiff.core.gaussian.timesteps import uniform_timesteps

COUNT, ENDS = 100, (-8.0, 8.0)
PROBABILITIES = even_quantiles(COUNT)
SCHEDULE = LogSNRSchedule(*reversed(ENDS))


def context(schedule, calls=None):
    process = GaussianProcess(schedule, "x0")
    return SamplerContext(process, TUNED.denoiser(process, calls))


def levels(schedule, steps):
    log_snrs = torch.linspace(*ENDS, steps + 1, dtype=torch.float64)
    visits = schedule.at(schedule.time_at(log_snrs))
    return [visits[i : i + 1].expand(COUNT) for i in range(steps + 1)]


def quantiles(level):
    return TUNED.quantiles(PROBABILITIES, float(level.alpha[0]), float(level.sigma[0]))


def error(sampler, steps, schedule=SCHEDULE, calls=None):
    """Return the mean distance from the exact ends of the flow."""
    visited, asked = levels(schedule, steps), context(schedule, calls)
    state, memory = quantiles(visited[0])[:, None], None
    for level, next_level in itertools.pairwise(visited):
        state, memory = sampler.step(asked, state, level, next_level, memory, None)
    return float((state[:, 0] - quantiles(visited[-1])).abs().mean())


@pytest.mark.parametrize(
    ("sampler", "order", "off"),
    [
        (DDIM(), 1, 0.1),
        (Heun(), 2, 0.1),
        (DPMSolverPP(), 2, 0.1),
        (DPMSolverPPSDE(eta=0.0), 2, 0.1),
        (EDMChurn(gamma=0.0), 2, 0.1),
        (AdamsBashforth(2), 2, 0.1),
        (AdamsBashforth(3), 3, 0.1),
        (DEIS(2), 2, 0.1),
        (DEIS(3), 3, 0.1),
        (DEIS(2, rho=math.inf), 2, 0.1),
        (DEIS(2, rho=1.0), 2, 0.1),
        (FlowABM(2), 2, 0.15),
        (FlowABM(3), 3, 0.15),
        (UniPC(2), 3, 0.1),
        (UniPC(3), 3.8, 0.3),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "step") else str(value),
)
@pytest.mark.usefixtures("unchecked_signatures")
def test_order(sampler, order, off):
    errors = [error(sampler, steps) for steps in (160, 320)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=off)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), VarianceExploding()], ids=["flow", "ve"])
def test_errors_are_alike_on_every_path(schedule):
    for sampler in (DDIM(), DPMSolverPP(), UniPC(2), DEIS(3)):
        assert error(sampler, 20, schedule) == pytest.approx(error(sampler, 20), rel=0.05)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_adaptive_steps_keep_to_their_tolerance(tolerance):
    calls = []
    assert error(RK45(tolerance), 1, calls=calls) < 4 * tolerance
    assert len(calls) < (70 if tolerance == 1e-3 else 200)
    # Not more exact for its own sake, and no more steps where a grid visits levels between.
    again = []
    error(RK45(tolerance), 4, calls=again)
    assert len(again) < 2 * len(calls)


def test_adaptive_steps_are_each_samples_own():
    first, last = levels(SCHEDULE, 1)
    state = quantiles(first)[:, None]
    together, _ = RK45().step(context(SCHEDULE), state, first, last, None, None)
    alone, _ = RK45().step(context(SCHEDULE), state[7:8], first[7:8], last[7:8], None, None)
    torch.testing.assert_close(together[7:8], alone, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="did not reach the next level in 20 evaluations"):
        RK45(1e-6, most=20).step(context(SCHEDULE), state, first, last, None, None)


def test_interpolation_weights_integrate_polynomials_exactly():
    nodes = [torch.tensor([value]).double() for value in (0.0, -0.4, -1.1)]
    moments = [torch.tensor([2.0 ** (k + 1) / (k + 1)]).double() for k in range(3)]  # over 0 .. 2
    weights = interpolation_weights(nodes, moments)
    found = sum(w * (3 - 2 * x + x**2) for w, x in zip(weights, nodes, strict=True))
    assert float(found) == pytest.approx(3 * 2 - 4 + 8 / 3)


def noisy_walk(schedule, sampler, steps, seed):
    visited, asked = levels(schedule, steps), context(schedule)
    state, memory = quantiles(visited[0])[:, None], None
    rng = torch.Generator().manual_seed(seed)
    for level, next_level in itertools.pairwise(visited):
        state, memory = sampler.step(asked, state, level, next_level, memory, rng)
    return state


def test_euler_ancestral_is_ddpm_on_every_path():
    for schedule in (SCHEDULE, RectifiedFlow(), VarianceExploding()):
        walks = [noisy_walk(schedule, one, 12, 3) for one in (DDIM(eta=1.0), DDPM("small"))]
        torch.testing.assert_close(*walks, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sampler", [EDMChurn(0.2), DPMSolverPPSDE(), DDPM()])
def test_stochastic_samplers_keep_the_distribution(sampler):
    draws = torch.cat([noisy_walk(SCHEDULE, sampler, 30, seed)[:, 0] for seed in range(5)])
    ends = draws.sort().values.reshape(COUNT, 5).mean(dim=1)
    assert float((ends - quantiles(levels(SCHEDULE, 1)[1])).abs().mean()) < 0.06


@pytest.mark.parametrize(
    "sampler",
    [UniPC(3), AdamsBashforth(3), DEIS(3), FlowABM(), EDMChurn(), DPMSolverPP(), DDPM(), RK45()],
)
def test_steps_from_pure_noise_are_finite(sampler):
    """A rectified flow begins without any signal, where half the log SNR is -inf."""
    schedule = RectifiedFlow()
    times = torch.linspace(1, 0, 6, dtype=torch.float64)[:-1]
    visits = [schedule.at(time[None]).expand(COUNT) for time in times]
    state, memory, asked = torch.randn(COUNT, 1).double(), None, context(schedule)
    for level, next_level in itertools.pairwise(visits):
        state, memory = sampler.step(asked, state, level, next_level, memory, None)
        assert torch.isfinite(state).all(), float(level.time[0])


def test_churn_stops_at_the_noisy_end_of_the_path():
    """At its first step there is no noisier level: nothing is added."""
    schedule = BetaSchedule.linear()
    asked = context(schedule)
    first = schedule.at(torch.ones(COUNT, dtype=torch.float64))
    assert torch.equal(asked.at_log_snr(first.log_snr - 1).sigma, first.sigma)
    with pytest.raises(TypeError, match="EDMChurn makes levels between those visited"):
        EDMChurn().step(asked.__call__, torch.zeros(1), first, first, None, None)


@pytest.mark.parametrize("steps", [5, 20])
def test_unipc_equals_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.UniPCMultistepScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", solver_order=2,
        prediction_type="sample", timestep_spacing="trailing", final_sigmas_type="sigma_min",
        lower_order_final=False,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    schedule = BetaSchedule.linear()
    asked = context(schedule)
    start = torch.linspace(-1.5, 1.5, COUNT, dtype=torch.float64)[:, None]
    theirs = start
    for step in scheduler.timesteps:
        level = schedule.at(((step.double() + 1) / 1000)[None]).expand(COUNT)
        theirs = scheduler.step(asked(theirs, level).x0, step, theirs).prev_sample
    times = (scheduler.timesteps.double() + 1) / 1000
    visits = [schedule.at(one[None]).expand(COUNT) for one in [*times, torch.tensor(1e-3).double()]]
    ours, memory = start, None
    for level, next_level in itertools.pairwise(visits):
        ours, memory = UniPC(2).step(asked, ours, level, next_level, memory, None)
    torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    "sampler",
    [DDPM(), DDIM(0.5), Heun(), DPMSolverPP(), DPMSolverPPSDE(), UniPC(3), DEIS(), FlowABM()],
)
@pytest.mark.parametrize("schedule", [BetaSchedule.linear(), RectifiedFlow()], ids=["vp", "flow"])
def test_no_step_looks_at_a_number(sampler, schedule):
    """Tensors without numbers go through: torch.compile(fullgraph=True) finds no break."""
    process = GaussianProcess(schedule, "v")
    asked = SamplerContext(process, lambda xt, level, condition=None: 0.5 * xt)
    visited = [
        one.expand(2)._each(lambda part: part.to("meta"))
        for one in process.levels(uniform_timesteps(4))
    ]
    state, memory = torch.zeros(2, 3, device="meta"), None
    for level, next_level in itertools.pairwise(visited):
        state, memory = sampler.step(asked, state, level, next_level, memory, None)
    assert state.shape == (2, 3)
