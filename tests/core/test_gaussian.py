"""Forward, posterior and predictions against the textbook, for any shape."""

import math
import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multidiff.core.gaussian.linear_predictions import PREDICTIONS
from multidiff.core.gaussian.losses import HybridLoss
from multidiff.core.gaussian.posterior import Transition
from multidiff.core.gaussian.predictions import noise_between, spread, with_x0
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule, clean_level
from multidiff.core.protocols import Corrupted, Estimate
from multidiff.core.random import generators

LINEAR = BetaSchedule.linear()
SHAPES = st.lists(st.integers(1, 4), min_size=0, max_size=4).map(tuple)


def table_level(*steps):
    return LINEAR.at((torch.tensor(steps, dtype=torch.float64) + 1) / 1000)


def double(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(1, 3), st.floats(0.001, 1))
def test_closed_form_of_any_shape(shape, batch, time):
    x0, noise = double(batch, *shape), double(batch, *shape, seed=1)
    level = LINEAR.at(torch.full((batch,), time, dtype=torch.float64))
    xt = GaussianProcess(LINEAR).corrupt(x0, level, None)
    assert xt.xt.shape == x0.shape and xt.xt.dtype == torch.float64
    alpha, sigma = float(level.alpha[0]), float(level.sigma[0])
    torch.testing.assert_close(xt.xt, alpha * x0 + sigma * xt.noise)
    assert noise.shape == xt.noise.shape


def test_single_steps_compose_to_the_closed_form():
    """Walking q(x_t | x_t-1) through the table has the mean and variance of q(x_t | x_0)."""
    mean, variance = 1.0, 0.0
    for step in range(1000):
        earlier = clean_level() if step == 0 else table_level(step - 1)
        one = Transition(table_level(step), earlier)
        assert float(one.variance_step) == pytest.approx(float(LINEAR.betas[step]), rel=1e-9)
        mean *= float(one.alpha_step)
        variance = float(one.alpha_step) ** 2 * variance + float(one.variance_step)
    last = table_level(999)
    assert mean == pytest.approx(float(last.alpha), rel=1e-10)
    assert variance == pytest.approx(float(last.sigma) ** 2, rel=1e-10)
    moved = Transition(table_level(5), table_level(4)).forward(double(2, 3), double(2, 3, seed=1))
    beta = float(LINEAR.betas[5])
    torch.testing.assert_close(
        moved, math.sqrt(1 - beta) * double(2, 3) + math.sqrt(beta) * double(2, 3, seed=1)
    )


@pytest.mark.parametrize("step", [1, 2, 10, 500, 999])
def test_posterior_is_the_formula_of_the_paper(step):
    betas, bars = LINEAR.betas, LINEAR.alphas_cumprod
    beta, bar, before = betas[step], bars[step], bars[step - 1]
    x0, xt = double(2, 5), double(2, 5, seed=1)
    one = Transition(table_level(step), table_level(step - 1))
    mean = ((1 - beta).sqrt() * (1 - before) * xt + before.sqrt() * beta * x0) / (1 - bar)
    torch.testing.assert_close(one.posterior_mean(x0, xt), mean, rtol=1e-12, atol=1e-12)
    variance = beta * (1 - before) / (1 - bar)
    torch.testing.assert_close(one.posterior_variance[0], variance, rtol=1e-9, atol=0)


@pytest.mark.parametrize("step", [1, 400, 999])
def test_posterior_mean_in_terms_of_the_noise(step):
    """(x_t - (1 - alpha_t) / sqrt(1 - abar_t) eps) / sqrt(alpha_t), as the notes have it."""
    beta, bar = LINEAR.betas[step], LINEAR.alphas_cumprod[step]
    level = table_level(step)
    xt, noise = double(1, 7), double(1, 7, seed=1)
    x0 = PREDICTIONS["epsilon"]().estimate(noise, xt, level).x0
    mean = Transition(level, table_level(step - 1)).posterior_mean(x0, xt)
    wanted = (xt - beta / (1 - bar).sqrt() * noise) / (1 - beta).sqrt()
    torch.testing.assert_close(mean, wanted, rtol=1e-10, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.02, 1), st.floats(0.0, 0.98), SHAPES)
def test_bayes_holds_for_any_two_levels(time, ratio, shape):
    """q(x_t|x_t') q(x_t'|x_0) = q(x_t'|x_t,x_0) q(x_t|x_0): their log densities agree."""
    level = LINEAR.at(torch.tensor([time], dtype=torch.float64))
    earlier = LINEAR.at(torch.tensor([max(time * ratio, 0.001)], dtype=torch.float64))
    step = Transition(level, earlier)
    x0, between, xt = (double(1, *shape, seed=k) for k in range(3))

    def log_density(x, mean, variance):
        return torch.distributions.Normal(mean, variance.sqrt()).log_prob(x).sum()

    left = log_density(xt, spread(step.alpha_step, between) * between, step.variance_step)
    left += log_density(between, spread(earlier.alpha, x0) * x0, earlier.sigma**2)
    right = log_density(
        between, step.posterior_mean(x0, xt), step.posterior_variance
    ) + log_density(xt, spread(level.alpha, x0) * x0, level.sigma**2)
    torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


def test_posterior_variance_to_the_clean_level_is_zero():
    assert float(Transition(table_level(0), clean_level()).posterior_variance) == 0


def test_log_variances_of_the_reverse_step():
    step = Transition(table_level(1), table_level(0))
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    learned = [Estimate(one, one, fraction) for fraction in (zero, one, one / 2)]
    small, large = step.log_variance("small", learned[0]), step.log_variance("large", learned[0])
    assert float(small.exp()) == pytest.approx(5.4531877e-5, rel=1e-7)
    assert float(large.exp()) == pytest.approx(float(LINEAR.betas[1]), rel=1e-9)
    assert float(step.log_variance("learned", learned[0])) == pytest.approx(float(small))
    assert float(step.log_variance("learned", learned[1])) == pytest.approx(float(large))
    middle = float(step.log_variance("learned", learned[2]))
    assert middle == pytest.approx((float(small) + float(large)) / 2)
    with pytest.raises(ValueError, match="not learned"):
        step.log_variance("learned", Estimate(one, one))


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("schedule", [LINEAR, BetaSchedule.cosine(), LogSNRSchedule(9, -8)])
def test_every_prediction_gives_back_the_pair(name, schedule):
    prediction = PREDICTIONS[name]()
    x0, noise = double(5, 3, 2), double(5, 3, 2, seed=1)
    level = schedule.at(torch.tensor([0.01, 0.3, 0.5, 0.8, 0.95], dtype=torch.float64))
    xt = spread(level.alpha, x0) * x0 + spread(level.sigma, x0) * noise
    target = prediction.target(Corrupted(xt, x0, noise, level))
    found = prediction.estimate(target, xt, level)
    torch.testing.assert_close((found.x0, found.noise), (x0, noise), rtol=1e-10, atol=1e-10)


def test_velocity_identities():
    level = table_level(321)
    x0, noise = double(1, 50), double(1, 50, seed=1)
    xt = level.alpha * x0 + level.sigma * noise
    velocity = level.alpha * noise - level.sigma * x0
    found = PREDICTIONS["v"]().estimate(velocity, xt, level)
    torch.testing.assert_close(found.x0, x0, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.noise, noise, rtol=1e-12, atol=1e-12)


def test_velocity_without_signal_is_minus_the_clean_state():
    schedule = BetaSchedule.scaled_linear().with_zero_terminal_snr()
    process = GaussianProcess(schedule, "v")
    output, xt = double(1, 4), double(1, 4, seed=1)
    estimate = process.estimate(output, xt, schedule.at(torch.ones(1)))
    torch.testing.assert_close(estimate.x0, -output)
    torch.testing.assert_close(estimate.noise, xt)


def test_noise_prediction_without_final_signal_is_refused():
    schedule = BetaSchedule.linear().with_zero_terminal_snr()
    with pytest.raises(ValueError, match="zero terminal SNR"):
        GaussianProcess(schedule, "epsilon")
    GaussianProcess(schedule, "x0")


def test_unknown_predictions_are_refused(unchecked_signatures):
    with pytest.raises(ValueError, match="no prediction 'score': one of epsilon, x0, v, flow, edm"):
        GaussianProcess(LINEAR, "score")  # type: ignore[arg-type]


def test_a_schedule_that_ends_far_from_noise_warns():
    with pytest.warns(UserWarning, match="ends at alpha"):
        GaussianProcess(BetaSchedule([1e-4] * 10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussianProcess(LINEAR)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_noise_at_every_step(dtype):
    """A table cast to bfloat16 first would leave no noise at all in the first ten steps."""
    process = GaussianProcess(LINEAR)
    level = LINEAR.at((torch.arange(1000, dtype=torch.float64) + 1) / 1000)
    corrupted = process.corrupt(torch.zeros(1000, 8, dtype=dtype), level, None)
    assert corrupted.xt.dtype == dtype
    ratio = corrupted.xt.float() / corrupted.noise.float()
    torch.testing.assert_close(ratio.mean(1), level.sigma.float(), rtol=0.01, atol=0)
    assert float(ratio[0].mean()) == pytest.approx(0.01, rel=0.01)


def test_a_projected_estimate_still_fits_its_noisy_state():
    level = table_level(500)
    xt, x0 = double(2, 3), double(2, 3, seed=1)
    moved = with_x0(Estimate(double(2, 3), double(2, 3)), x0, xt, level.expand(2))
    torch.testing.assert_close(level.alpha * moved.x0 + level.sigma * moved.noise, xt)


def test_noise_at_a_clean_level_is_zero_not_nan():
    state = double(1, 3)
    assert torch.equal(noise_between(state, state, clean_level()), torch.zeros_like(state))


def test_corruption_of_a_sample_does_not_depend_on_its_batch():
    process = GaussianProcess(LINEAR)
    x0 = double(3, 4).float()
    levels = process.draw_level(3, generators(range(3)))
    together = process.corrupt(x0, levels, generators(range(3)))
    alone = process.corrupt(x0[1:2], levels[1:2], generators([1]))
    assert torch.equal(together.xt[1:2], alone.xt)
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        process.corrupt(x0, levels, generators(range(2)))


def test_offset_noise_is_shared_by_a_channel():
    """Variance 1 + o^2 at each place, covariance o^2 between places of a channel, none between."""
    offset, count = 0.5, 40_000
    process = GaussianProcess(BetaSchedule.linear(1000), offset_noise=offset)
    level = process.draw_level(count, torch.Generator().manual_seed(0))
    corrupted = process.corrupt(
        torch.zeros(count, 2, 2, 1), level, torch.Generator().manual_seed(1)
    )
    found = torch.cov(corrupted.noise.flatten(1).T)
    same, none = 1 + offset**2, offset**2
    wanted = torch.tensor([
        [same, none, 0, 0], [none, same, 0, 0], [0, 0, same, none], [0, 0, none, same]
    ])  # fmt: skip
    assert torch.allclose(found, wanted, atol=0.04)
    plain = GaussianProcess(BetaSchedule.linear(1000))
    again = plain.corrupt(torch.zeros(4, 2, 2, 1), level[:4], torch.Generator().manual_seed(1))
    assert torch.equal(
        again.noise, torch.randn(4, 2, 2, 1, generator=torch.Generator().manual_seed(1))
    )


@pytest.mark.parametrize(("learns", "asked"), [(False, (2, 3, 8)), (True, (2, 6, 8))])
def test_an_output_that_would_only_broadcast_is_refused(learns, asked):
    process = GaussianProcess(
        LINEAR, objective=HybridLoss() if learns else None, learns_variance=learns
    )
    state, level = torch.zeros(2, 3, 8), table_level(500, 501)
    cond = re.escape(f"returned (2, 1, 8), but states of (2, 3, 8) ask for {asked}")
    with pytest.raises(ValueError, match=cond):
        process.loss(torch.zeros(2, 1, 8), Corrupted(state, state, state, level))
    with pytest.raises(ValueError, match=cond):
        process.estimate(torch.zeros(2, 1, 8), state, level)
