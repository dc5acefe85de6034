"""Schedules against the published tables and their own definitions."""

import math

import pytest
import torch

from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule, NoiseLevel, clean_level

REFERENCE = {
    # beta_0, beta_999, abar_0, abar_500, abar_999, small variance at step 1
    "linear": (1e-4, 0.02, 0.9999, 0.07779665837, 4.035829765e-5, 5.4531877e-5),
    "scaled_linear": (8.5e-4, 0.012, 0.99915, 0.2763326838, 0.004660098513, 4.2635313e-4),
    "cosine": (4.12842e-5, 0.999, 0.9999587158, 0.4922851724, 2.428766907e-9, 2.1789496e-5),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_published_tables(name):
    schedule = getattr(BetaSchedule, name)()
    betas, bars = schedule.betas, schedule.alphas_cumprod
    small = betas[1] * (1 - bars[0]) / (1 - bars[1])
    found = torch.stack([betas[0], betas[-1], bars[0], bars[500], bars[-1], small])
    assert found.dtype == torch.float64
    torch.testing.assert_close(
        found, torch.tensor(REFERENCE[name], dtype=torch.float64), rtol=1e-6, atol=1e-12
    )


def test_sqrt_schedule_as_the_published_code_has_it():
    """The table's ratios start at alpha-bar(0) = 0.99, not 1: index 0 is 0.98536, not 0.97551."""
    bars = BetaSchedule.sqrt().alphas_cumprod
    assert len(bars) == 2000
    wanted = {0: 0.985359, 1: 0.976600, 49: 0.850071, 499: 0.504950, 999: 0.295780}
    for step, value in wanted.items():
        assert float(bars[step]) == pytest.approx(value, abs=1e-6)
    assert float(bars[1998]) == pytest.approx(2.0204e-4, rel=1e-4)
    assert float(bars[1999]) == pytest.approx(2.0204e-7, rel=1e-4)


def test_zero_terminal_snr():
    bars = BetaSchedule.scaled_linear().with_zero_terminal_snr().alphas_cumprod
    assert float(bars[0]) == pytest.approx(0.99915, abs=1e-12)
    assert float(bars[500]) == pytest.approx(0.24101864, abs=1e-6)
    assert float(bars[999]) == 0


def test_linear_in_stable_diffusion_is_linear_in_the_roots():
    true_linear = BetaSchedule.linear(1000, 0.00085, 0.012).alphas_cumprod[-1]
    assert float(true_linear) == pytest.approx(0.0015790, abs=1e-7)
    assert float(BetaSchedule.scaled_linear().alphas_cumprod[-1]) == pytest.approx(
        0.0046601, abs=1e-7
    )


@pytest.mark.parametrize("steps", [10, 20])
def test_too_few_linear_steps_are_refused(steps):
    with pytest.raises(ValueError, match="use more steps"):
        BetaSchedule.linear(steps)


def test_linear_at_21_steps_still_has_signal():
    assert float(BetaSchedule.linear(21).betas[-1]) == pytest.approx(0.952381, abs=1e-6)


@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5, -0.1, math.nan])
def test_impossible_betas_are_named(beta):
    with pytest.raises(ValueError, match="at step 1 of 3"):
        BetaSchedule([0.1, beta, 0.2])


def test_no_betas():
    with pytest.raises(ValueError, match="empty"):
        BetaSchedule([])


@pytest.mark.parametrize("steps", [2, 7, 1000])
def test_table_times_hit_the_table(steps):
    schedule = BetaSchedule([0.5 * (k + 1) / steps for k in range(steps)])
    level = schedule.at((torch.arange(steps, dtype=torch.float64) + 1) / steps)
    torch.testing.assert_close(level.alpha**2, schedule.alphas_cumprod, rtol=1e-14, atol=0)
    torch.testing.assert_close(
        level.alpha**2 + level.sigma**2, torch.ones(steps, dtype=torch.float64)
    )


def test_between_table_times_alpha_is_linear():
    schedule = BetaSchedule.linear()
    level = schedule.at(torch.tensor([0.0, 0.4995, 0.499, 0.5], dtype=torch.float64))
    assert float(level.alpha[0]) == 1 and float(level.sigma[0]) == 0
    assert float(level.alpha[1]) == pytest.approx(float(level.alpha[2:].mean()), abs=1e-15)


def test_sigma_of_the_first_step_keeps_its_digits():
    """1 - abar_0 from a float32 table is off by 1.7e-4; here it is 1e-4 to twelve digits."""
    level = BetaSchedule.linear().at(torch.tensor([0.001]))
    assert float(level.sigma**2) == pytest.approx(1e-4, rel=1e-11)


@pytest.mark.parametrize(
    "schedule", [BetaSchedule.linear(), BetaSchedule.cosine(), LogSNRSchedule(9, -8)]
)
def test_time_at_undoes_at(schedule):
    time = torch.linspace(0.001, 1, 333, dtype=torch.float64)
    torch.testing.assert_close(
        schedule.time_at(schedule.at(time).log_snr), time, rtol=1e-7, atol=1e-9
    )


def test_levels_outside_a_schedule_are_refused():
    with pytest.raises(ValueError, match="noisier"):
        BetaSchedule.scaled_linear().time_at(torch.tensor([-20.0]))
    with pytest.raises(ValueError, match="leaves the schedule's range"):
        LogSNRSchedule(5, -5).time_at(torch.tensor([6.0]))
    with pytest.raises(ValueError, match="not below"):
        LogSNRSchedule(-5, 5)


def test_log_snr_schedule_is_linear_in_log_snr():
    level = LogSNRSchedule(8, -6).at(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(
        level.log_snr, torch.tensor([8.0, 1.0, -6.0], dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_a_level_can_be_expanded_sliced_and_moved():
    level = clean_level().expand(3)
    assert level.alpha.shape == (3,) and float(level.log_snr[0]) == math.inf
    assert isinstance(level[1:], NoiseLevel) and level[1:].sigma.shape == (2,)
    assert level.to("cpu").time.dtype == torch.float64
