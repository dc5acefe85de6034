"""Objectives against their formulas, and the floor no network can go below."""

import pytest
import torch
from oracles import gaussian_data, gaussian_data_with_variance

from multidiff.core.gaussian.likelihood import ContinuousDecoder
from multidiff.core.gaussian.losses import HybridLoss, MinSNR, SimpleLoss, mean_over_state
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule
from multidiff.core.gaussian.timesteps import DiscreteTimes
from multidiff.core.protocols import Corrupted

LINEAR = BetaSchedule.linear()


def at_snr(snr):
    """A level of the given signal-to-noise ratio."""
    log_snr = torch.tensor([float(snr)], dtype=torch.float64).log()
    schedule = LogSNRSchedule(20, -20)
    return schedule.at(schedule.time_at(log_snr))


@pytest.mark.parametrize(
    ("name", "at_one", "at_hundred"),
    [("epsilon", 1, 0.05), ("x0", 1, 5), ("v", 0.5, 0.0495050)],
)
def test_min_snr_weights(name, at_one, at_hundred):
    process = GaussianProcess(LINEAR, name)
    assert float(MinSNR(5)(process, at_snr(1))) == pytest.approx(at_one, rel=1e-6)
    assert float(MinSNR(5)(process, at_snr(100))) == pytest.approx(at_hundred, rel=1e-5)


def test_min_snr_at_both_ends():
    ends = LINEAR.at(torch.tensor([0.0]))
    silent = BetaSchedule.linear().with_zero_terminal_snr().at(torch.tensor([1.0]))
    wanted = {"epsilon": (0, 1), "x0": (5, 0), "v": (0, 0)}
    for name, (clean_end, noisy_end) in wanted.items():
        process = GaussianProcess(LINEAR, name)
        assert float(MinSNR(5)(process, ends)) == clean_end
        assert float(MinSNR(5)(process, silent)) == noisy_end


@pytest.mark.parametrize(("distance", "wanted"), [("l2", 12.5), ("l1", 3.5)])
def test_simple_losses(distance, wanted):
    process = GaussianProcess(LINEAR, objective=SimpleLoss(distance))
    zero = torch.zeros(1, 2)
    corrupted = Corrupted(zero, zero, torch.tensor([[3.0, -4.0]]), at_snr(1))
    assert float(process.loss(zero, corrupted)) == wanted
    errors = process.objective.errors(process, zero, corrupted)
    assert errors.shape == zero.shape


def test_unknown_distance(unchecked_signatures):
    with pytest.raises(ValueError, match="one of l2, l1"):
        SimpleLoss("huber")  # type: ignore[arg-type]


def test_masked_places_do_not_count():
    values = torch.tensor([[1.0, 2.0, 100.0], [3.0, 100.0, 100.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert mean_over_state(values, mask).tolist() == [1.5, 3.0]
    wide = values[:, None].expand(2, 4, 3)
    assert mean_over_state(wide, mask[:, None]).tolist() == [1.5, 3.0]
    many = torch.ones(1, 70_000, dtype=torch.float16)  # more than the largest number of float16
    assert mean_over_state(many, many).tolist() == [1.0]
    assert mean_over_state(values, torch.zeros_like(mask)).tolist() == [0, 0]


@pytest.mark.parametrize(("name", "floor"), [("linear", 0.173053), ("cosine", 0.327653)])
def test_the_optimal_loss_is_the_floor(name, floor):
    """E |eps - eps*|^2 = abar s^2 / (abar s^2 + 1 - abar) for N(0, 0.5^2), mean over the table.

    A trained network below it would have seen the answer.
    """
    schedule = getattr(BetaSchedule, name)()
    bars = schedule.alphas_cumprod
    exact = bars * 0.25 / (bars * 0.25 + 1 - bars)
    assert float(exact.mean()) == pytest.approx(floor, abs=1e-6)
    process = GaussianProcess(schedule, times=DiscreteTimes())
    rng = torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(200_000, 1, generator=rng)
    corrupted = process.corrupt(x0, process.draw_level(len(x0), rng), rng)
    best = process.loss(gaussian_data(0.5)(corrupted.xt, corrupted.level), corrupted)
    assert float(best.mean()) == pytest.approx(floor, rel=0.01)
    for gain in (0.9, 1.1):
        worse = gain * gaussian_data(0.5)(corrupted.xt, corrupted.level)
        assert float(process.loss(worse, corrupted).mean()) > float(best.mean())


def hybrid_process(**options):
    return GaussianProcess(
        LINEAR,
        objective=HybridLoss(decoder=ContinuousDecoder(), **options),
        times=DiscreteTimes(),
        learns_variance=True,
    )


def test_hybrid_loss_teaches_only_the_variance():
    """The bound's gradient reaches the variance half of the output and not the mean half."""
    process = hybrid_process(simple=SimpleLoss(), bound_weight=1.0)
    corrupted = process.corrupt(torch.randn(2, 3, 4), LINEAR.at(torch.tensor([0.001, 0.7])), None)
    output = torch.zeros(2, 6, 4, requires_grad=True)
    bound = process.loss(output, corrupted) - SimpleLoss()(process, output, corrupted, None)
    bound.sum().backward()
    assert output.grad is not None
    assert float(output.grad[:, :3].abs().max()) == 0
    assert float(output.grad[:, 3:].abs().min()) > 0


@pytest.mark.parametrize("step", [1, 2, 5, 50])
def test_hybrid_loss_is_lowest_at_the_exact_variance(step):
    process = hybrid_process(bound_weight=1.0)
    exact = gaussian_data_with_variance(process, 0.5)
    rng = torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(100_000, 1, generator=rng)
    level = LINEAR.at(torch.full((len(x0),), step / 1000))
    corrupted = process.corrupt(x0, level, rng)
    output = exact(corrupted.xt, corrupted.level)
    best = float(process.loss(output, corrupted).mean())
    for change in (-0.3, 0.3):
        moved = output.clone()
        moved[:, 1:] += change
        assert float(process.loss(moved, corrupted).mean()) > best


def test_hybrid_loss_needs_a_learned_variance():
    process = GaussianProcess(LINEAR, objective=HybridLoss())
    zero = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="learns_variance=True"):
        process.loss(zero, Corrupted(zero, zero, zero, at_snr(1)))
    process = GaussianProcess(LINEAR, objective=HybridLoss(), learns_variance=True)
    with pytest.raises(ValueError, match="DiscreteTimes"):
        process.loss(torch.zeros(1, 4), Corrupted(zero, zero, zero, at_snr(1)))


def test_weighted_loss_multiplies_each_sample():
    process = GaussianProcess(LINEAR, objective=SimpleLoss(weight=MinSNR(5)))
    level = at_snr(100)
    ones = torch.ones(1, 2)
    corrupted = Corrupted(ones, ones, ones, level)
    assert float(process.loss(torch.zeros(1, 2), corrupted)) == pytest.approx(0.05, rel=1e-5)
