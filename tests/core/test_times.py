"""The times that training draws and that sampling visits."""

import itertools

import pytest
import torch
from diffusers import DDIMScheduler

from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule
from multidiff.core.gaussian.timesteps import (
    DiscreteTimes,
    ImportanceTimes,
    UniformTimes,
    betas_as_times,
    explicit_log_snrs,
    leading_timesteps,
    linspace_timesteps,
    log_snr_timesteps,
    trailing_timesteps,
    uniform_timesteps,
)
from multidiff.core.random import generators

LINEAR = BetaSchedule.linear()
COUNTS = [1, 2, 3, 7, 13, 30, 36, 37, 50, 101, 999, 1000]
TABLE_GRIDS = [leading_timesteps, trailing_timesteps, linspace_timesteps]


def steps_of(grid, schedule=LINEAR):
    """The places in the table that a grid visits."""
    return (grid.times(schedule) * schedule.num_steps - 1).round().long().tolist()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("grid", TABLE_GRIDS)
def test_exactly_the_number_of_steps_asked(grid, count):
    visited = steps_of(grid(count))
    assert len(visited) == count
    assert sorted(set(visited), reverse=True) == visited
    assert visited[-1] >= 0 and visited[0] <= 999


@pytest.mark.parametrize("grid", TABLE_GRIDS)
def test_all_steps_visits_each_once(grid):
    assert steps_of(grid(1000)) == list(range(999, -1, -1))


def test_the_grids_as_published():
    assert steps_of(leading_timesteps(10)) == [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    assert steps_of(trailing_timesteps(10)) == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert steps_of(linspace_timesteps(10)) == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]


def test_trailing_times_round_as_diffusers():
    """Halves too: 16 of 1000 visits 937, not 936."""
    for count in (3, 16, 48, 61, 103, 160, 999):
        peer = DDIMScheduler(timestep_spacing="trailing")
        peer.set_timesteps(count)
        # numpy.arange ends with one time too many for some counts, 61 and 103 among them.
        assert steps_of(trailing_timesteps(count)) == peer.timesteps[:count].tolist()


def test_released_stable_diffusion_starts_at_951_and_stops_short():
    grid = leading_timesteps(20, offset=1, stop_short=True)
    visited = steps_of(grid)
    assert visited[0] == 951 and visited[-1] == 1
    assert steps_of(leading_timesteps(50, offset=1))[0] == 981
    end = grid.levels(BetaSchedule.scaled_linear())[-1]
    assert float(end.alpha**2) == pytest.approx(0.99915, abs=1e-12)


@pytest.mark.parametrize("steps", [20, 1000])
def test_released_stable_diffusion_makes_as_many_steps_as_it_was_trained_with(steps):
    """There is no room for its offset then: other programs read past their table."""
    schedule = BetaSchedule.scaled_linear(steps, 0.01, 0.1)
    levels = leading_timesteps(steps, offset=1, stop_short=True).levels(schedule)
    times = [round(float(level.time) * steps) for level in levels]
    assert times == list(range(steps, -1, -1)) and float(levels[-1].sigma) == 0


@pytest.mark.parametrize("grid", [*TABLE_GRIDS, uniform_timesteps, log_snr_timesteps])
def test_walks_end_at_the_clean_level(grid):
    levels = grid(5).levels(LINEAR)
    assert len(levels) == 6
    assert float(levels[-1].sigma) == 0 and float(levels[-1].alpha) == 1


@pytest.mark.parametrize("grid", [*TABLE_GRIDS, uniform_timesteps, log_snr_timesteps])
def test_no_steps_are_refused(grid):
    with pytest.raises(ValueError, match="at least one"):
        grid(0)


@pytest.mark.parametrize("grid", TABLE_GRIDS)
def test_more_steps_than_the_table_has(grid):
    with pytest.raises(ValueError, match="schedule that has 1000"):
        grid(1001).times(LINEAR)


@pytest.mark.parametrize("grid", TABLE_GRIDS)
def test_table_grids_need_a_table(grid):
    with pytest.raises(ValueError, match="need a schedule with a table"):
        grid(5).times(LogSNRSchedule())


def test_log_snr_grid_is_even_in_log_snr():
    for schedule in (LINEAR, LogSNRSchedule(8, -6)):
        log_snr = schedule.at(log_snr_timesteps(9).times(schedule)).log_snr
        torch.testing.assert_close(
            log_snr.diff(), log_snr.diff()[:1].expand(8), rtol=1e-6, atol=1e-6
        )
    ends = LINEAR.at(torch.tensor([1.0, 0.001])).log_snr
    torch.testing.assert_close(LINEAR.at(log_snr_timesteps(4).times(LINEAR)).log_snr[[0, -1]], ends)


def test_log_snr_grid_on_a_schedule_without_final_signal():
    schedule = BetaSchedule.scaled_linear().with_zero_terminal_snr()
    assert float(log_snr_timesteps(4).times(schedule)[0]) == pytest.approx(0.999)


def test_explicit_levels_come_back():
    wanted = [-6.0, -1.5, 3.0]
    found = LINEAR.at(explicit_log_snrs(wanted).times(LINEAR)).log_snr
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    with pytest.raises(ValueError, match="do not fit"):
        explicit_log_snrs([3.0, -1.0]).times(LINEAR)


def test_few_step_betas_are_found_on_the_training_schedule():
    """WaveGrad's six published betas; their noisiest level is alpha 0.964, far from noise."""
    betas = [1e-6, 1.8929e-5, 1e-4, 1e-3, 1.11e-2, 6e-2]
    training = BetaSchedule(torch.linspace(1e-6, 0.01, 1000, dtype=torch.float64))
    alpha = training.at(betas_as_times(betas).times(training)).alpha
    wanted = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0).sqrt().flip(0)
    torch.testing.assert_close(alpha, wanted, rtol=1e-9, atol=0)
    assert float(alpha[0]) == pytest.approx(0.964, abs=1e-3)


def test_the_tail_of_a_grid():
    assert steps_of(trailing_timesteps(10).tail(3)) == [299, 199, 99]
    with pytest.raises(ValueError, match="do not exist"):
        trailing_timesteps(10).tail(11)


def test_uniform_times_cover_the_paper_law():
    """A step uniformly, then a level uniformly between it and the one before (KS test)."""
    schedule = BetaSchedule([0.1, 0.3, 0.6])
    time = UniformTimes().draw(schedule, 20_000, torch.Generator().manual_seed(0))
    alpha = schedule.at(time).alpha.sort().values
    knots = torch.cat([torch.ones(1), schedule.alphas_cumprod.sqrt()]).double()
    assert float(alpha[-1]) <= 1 and float(alpha[0]) >= float(knots[-1])
    law = torch.zeros_like(alpha)
    for high, low in itertools.pairwise(knots):
        law += ((alpha - low) / (high - low)).clamp(0, 1) / 3
    empirical = torch.arange(1, 20_001, dtype=torch.float64) / 20_000
    assert float((law - empirical).abs().max()) < 1.95 / 20_000**0.5  # p = 0.001


def test_time_bounds():
    time = UniformTimes(0.25, 0.5).draw(LINEAR, 1000, None)
    assert float(time.min()) >= 0.25 and float(time.max()) <= 0.5
    with pytest.raises(ValueError, match="first < last"):
        UniformTimes(0.5, 0.5)


def test_discrete_times_are_table_times():
    time = DiscreteTimes().draw(LINEAR, 5000, torch.Generator().manual_seed(0))
    positions = time * 1000
    torch.testing.assert_close(positions, positions.round(), rtol=0, atol=1e-9)
    assert float(positions.min()) >= 1 and float(positions.max()) <= 1000


def test_importance_times_follow_the_losses_without_bias():
    steps = 4
    schedule = BetaSchedule([0.1, 0.2, 0.3, 0.4])
    times = ImportanceTimes(steps, history=2)
    assert torch.equal(times.probabilities(), torch.full((4,), 0.25, dtype=torch.float64))
    table = (torch.arange(steps, dtype=torch.float64) + 1) / steps
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0])
    for _ in range(2):
        times.observe(table, losses)
    torch.testing.assert_close(times.probabilities(), losses.double() / 10, rtol=0, atol=0.001)
    drawn = times.draw(schedule, 40_000, torch.Generator().manual_seed(0))
    ratios = torch.bincount((drawn * 4).round().long() - 1, minlength=4) / 40_000
    torch.testing.assert_close(ratios.double(), times.probabilities(), rtol=0, atol=0.01)
    weighted = (times.weight(drawn) * losses[(drawn * 4).round().long() - 1]).mean()
    assert float(weighted) == pytest.approx(2.5, rel=0.01)


def test_importance_times_travel_in_checkpoints():
    times, other = ImportanceTimes(3, history=1), ImportanceTimes(3, history=1)
    times.observe(torch.tensor([1 / 3, 2 / 3, 1.0]), torch.tensor([1.0, 5.0, 2.0]))
    other.load_state_dict(times.state_dict())
    assert torch.equal(times.probabilities(), other.probabilities())
    with pytest.raises(ValueError, match="3 steps, a schedule of 1000"):
        times.draw(LINEAR, 2, None)


def test_a_sample_draws_the_same_time_alone_and_in_a_batch():
    schedule = BetaSchedule([0.1, 0.2, 0.3])
    for times in (UniformTimes(), DiscreteTimes(), ImportanceTimes(3)):
        together = times.draw(schedule, 4, generators(range(4)))
        alone = times.draw(schedule, 1, generators([2]))
        assert float(together[2]) == float(alone)
