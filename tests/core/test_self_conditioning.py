"""Self-conditioning: a denoiser that reads its last estimate."""

import pytest
import torch
from torch import nn
from toys import Points

from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM
from multidiff.core.gaussian.schedules import BetaSchedule, clean_level
from multidiff.core.gaussian.self_conditioning import SelfConditionedDenoiser, SelfConditioning
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.core.projections import clip
from multidiff.core.random import generators
from multidiff.core.sample import sample
from multidiff.core.task import DiffusionTask


class Recorder(nn.Module):
    """Notes what it reads, and predicts a clean state from both halves."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.read = []

    def forward(self, xt, level, condition=None):
        self.read.append((xt.detach().clone(), torch.is_grad_enabled(), condition))
        state, last = xt.chunk(2, dim=-1)
        return self.scale * state + 0.1 * last


def task(ratio):
    process = GaussianProcess(BetaSchedule.linear(100), "x0")
    return DiffusionTask(Points(), process, Recorder(), self_conditioning=SelfConditioning(ratio))


def test_training_tells_some_samples_a_first_estimate_without_gradients():
    whole = task(0.5)
    points = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    whole.losses({"points": points}, generators(range(16)))["denoising"].sum().backward()
    (first, first_grad, _), (second, second_grad, _) = whole.denoiser.read
    assert not first_grad and second_grad
    assert 0 < len(first) < 16 and len(second) == 16
    assert first[:, 2:].abs().max() == 0  # the first evaluation reads zeros
    cond = second[:, 2:].abs().sum(dim=1) > 0
    assert int(cond.sum()) == len(first)
    torch.testing.assert_close(second[cond][:, :2], first[:, :2])
    torch.testing.assert_close(second[cond][:, 2:], 0.5 * first[:, :2])


def test_whether_a_sample_is_told_depends_on_its_own_generator():
    points = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    together, alone = task(0.5), task(0.5)
    losses = together.losses({"points": points}, generators(range(8)))["denoising"]
    for row in range(8):
        one = alone.losses({"points": points[row : row + 1]}, generators([row]))["denoising"]
        torch.testing.assert_close(one, losses[row : row + 1])


def test_a_walk_is_told_the_projected_estimate_of_the_step_before():
    recorder, how = Recorder(), SelfConditioning()
    seen = []

    def bounds(estimate, xt, level):
        seen.append(clip(-0.2, 0.2)(estimate, xt, level))
        return seen[-1]

    known = torch.full((3, 2), 7.0)
    memory = SelfConditionedDenoiser(recorder, how, bounds, first=known)
    process = GaussianProcess(BetaSchedule.linear(100), "x0")
    found = sample(
        process, memory, DDIM(), (3, 2), uniform_timesteps(5), project=memory.project,
        rng=torch.Generator().manual_seed(0),
    )  # fmt: skip
    cond = [read[:, 2:] for read, _, _ in recorder.read]
    torch.testing.assert_close(cond[0], known)
    for step in range(1, 5):
        torch.testing.assert_close(cond[step], seen[step - 1].x0)
    torch.testing.assert_close(found, seen[-1].x0)


def test_without_a_first_estimate_nothing_is_told():
    recorder = Recorder()
    SelfConditionedDenoiser(recorder, SelfConditioning())(torch.ones(2, 2), clean_level(2))
    assert recorder.read[0][0][:, 2:].abs().max() == 0


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.5])
def test_shares_that_are_none(ratio):
    with pytest.raises(ValueError, match="is not in"):
        SelfConditioning(ratio)


def test_a_known_part_is_told_as_it_is_before_and_beside_the_first_estimate():
    process = GaussianProcess(BetaSchedule.linear(100), "x0")
    how = SelfConditioning(0.5, known=0.5)
    points = torch.randn(64, 7, 2, generator=torch.Generator().manual_seed(0)) + 3
    whole = DiffusionTask(Points(), process, Recorder(), self_conditioning=how)
    whole.losses({"points": points}, generators(range(64)))["denoising"].sum().backward()
    (first, _, _), (second, _, _) = whole.denoiser.read
    known = (second[..., 2:] == points).all(dim=-1)
    assert ((second[..., 2:] == points).any(dim=-1) == known).all()  # whole places
    ratio = known.any(dim=1).double().mean()
    assert 0.3 < ratio < 0.7
    assert known[known.any(dim=1)].double().mean() == pytest.approx(0.5, abs=0.15)
    cond = (second[..., 2:].abs().sum(dim=-1) > 0).all(dim=1)
    assert (second[~cond][..., 2:][~known[~cond]] == 0).all()
    # The first evaluation reads the known positions, and zeros elsewhere.
    looked = torch.stack([(second[..., :2] == one[..., :2]).flatten(1).all(1) for one in first])
    rows = looked.int().argmax(dim=1)
    assert torch.equal(first[..., 2:], points[rows] * known[rows][..., None])


@pytest.mark.parametrize("known", [-0.1, 1.1])
def test_a_known_share_is_a_share(known):
    with pytest.raises(ValueError, match="known"):
        SelfConditioning(known=known)
