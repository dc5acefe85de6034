"""Gaussian noise in a subspace: points around their centre of mass, against coordinates."""

import itertools

import pytest
import torch

from multidiff.core.gaussian.flow_likelihood import flow_log_likelihood
from multidiff.core.gaussian.likelihood import ContinuousDecoder, vlb
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM, DDPM, DPMSolverPP, Heun
from multidiff.core.gaussian.schedules import LogSNRSchedule
from multidiff.core.gaussian.self_conditioning import SelfConditioning
from multidiff.core.gaussian.subspace import LinearSubspace, SubspaceProcess, ZeroMean
from multidiff.core.gaussian.timesteps import log_snr_timesteps, uniform_timesteps
from multidiff.core.projections import clip, inpaint
from multidiff.core.protocols import Domain, Encoded
from multidiff.core.sample import sample
from multidiff.core.task import DiffusionTask

SCHEDULE = LogSNRSchedule()
STD = 0.5


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def gaussian(xt, level, condition=None):
    """The best noise prediction for N(0, STD^2), and something outside the subspace."""
    gain = level.sigma / ((level.alpha * STD) ** 2 + level.sigma**2)
    return xt * gain.to(xt).view(-1, *[1] * (xt.ndim - 1)) + 3.0


@pytest.mark.parametrize("sampler", [DDPM(), DDIM(), DDIM(eta=0.7), Heun(), DPMSolverPP()])
def test_samples_stay_in_the_subspace_and_have_its_deviation(sampler):
    process = SubspaceProcess(SCHEDULE, ZeroMean(1))
    found = sample(process, gaussian, sampler, (2000, 4, 3), uniform_timesteps(25), rng=seeded())
    assert float(found.mean(dim=1).abs().max()) < 1e-5
    # 4 points around their mean: variance (1 - 1/4) of each coordinate.
    plain = sample(
        GaussianProcess(SCHEDULE), lambda xt, level, condition: gaussian(xt, level) - 3.0, sampler,
        (2000, 4, 3), uniform_timesteps(25), rng=seeded(),
    )  # fmt: skip
    assert float(found.std()) == pytest.approx(float(plain.std()) * 0.75**0.5, rel=0.03)


@pytest.mark.parametrize("project", [clip(-0.3, 0.3), inpaint(torch.ones(3), torch.ones(3))])
def test_projections_do_not_lead_out_of_the_subspace(project):
    process = SubspaceProcess(SCHEDULE, ZeroMean(1))
    found = sample(
        process, gaussian, DPMSolverPP(), (50, 4, 3), uniform_timesteps(8), project=project,
        rng=seeded(),
    )  # fmt: skip
    assert float(found.mean(dim=1).abs().max()) < 1e-5


def test_noise_training_and_the_output_stay_inside():
    process = SubspaceProcess(SCHEDULE, ZeroMean(1), prediction="v")
    x0 = process.subspace.project(normal(3, 5, 2))
    level = SCHEDULE.at(torch.tensor([0.1, 0.5, 0.9]))
    corrupted = process.corrupt(x0, level, seeded())
    for state in (corrupted.xt, corrupted.noise, process.prior((3, 5, 2), seeded())):
        assert float(state.mean(dim=1).abs().max()) < 1e-6
    target = process.prediction.target(corrupted)
    off = target + normal(3, 1, 2)  # what the network adds to all points costs nothing
    torch.testing.assert_close(process.loss(off, corrupted), torch.zeros(3).double())
    torch.testing.assert_close(process.estimate(off, corrupted.xt, level).x0, x0)
    with pytest.raises(ValueError, match="the states leave the subspace of the process by"):
        process.corrupt(x0 + 1, level, seeded())


def helmert(n):
    """An orthonormal basis of vectors of mean zero."""
    rows = torch.zeros(n - 1, n, dtype=torch.float64)
    for k in range(1, n):
        rows[k - 1, :k], rows[k - 1, k] = 1, -k
    return rows / rows.norm(dim=1, keepdim=True)


class Coordinates(GaussianProcess):
    """The same process in coordinates of the subspace, with the noise that belongs to it."""

    def noise(self, shape, rng):
        return torch.randn(shape[0], 4, generator=rng) @ helmert(4).float().T


def test_the_bound_is_that_of_coordinates():
    """Of 4 points on a line: 3 dimensions, neither 4 nor a density that is not normalised."""
    basis = helmert(4)
    x0 = ZeroMean(1).project(STD * normal(50, 4))
    options = {"times": uniform_timesteps(12), "decoder": ContinuousDecoder()}
    inside = SubspaceProcess(SCHEDULE, ZeroMean(1))
    found = vlb(inside, gaussian, x0, rng=seeded(), **options)
    wanted = vlb(
        Coordinates(SCHEDULE), lambda xt, level, condition: gaussian(xt, level) - 3.0,
        x0 @ basis.T, rng=seeded(), **options,
    )  # fmt: skip
    torch.testing.assert_close(found.total, wanted.total, rtol=1e-6, atol=1e-6)
    plain = vlb(GaussianProcess(SCHEDULE), gaussian, x0, rng=seeded(), **options)
    assert float((plain.total - wanted.total).abs().min()) > 0.1


def test_the_flow_likelihood_is_that_of_coordinates():
    x0 = ZeroMean(1).project(STD * normal(5, 4))
    options = {"times": log_snr_timesteps(20)}
    found = flow_log_likelihood(SubspaceProcess(SCHEDULE, ZeroMean(1)), gaussian, x0, **options)
    exact = torch.distributions.Normal(0.0, STD).log_prob(x0 @ helmert(4).T).sum(dim=1)
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3)


def test_a_linear_subspace_agrees_with_the_mean():
    vectors = torch.kron(helmert(4), torch.eye(2, dtype=torch.float64)) * 3
    one, two = LinearSubspace(vectors), ZeroMean(1)
    state = normal(5, 4, 2)
    torch.testing.assert_close(one.project(state), two.project(state))
    assert one.dimension(state).tolist() == two.dimension(state).tolist() == [6.0] * 5
    processes = [SubspaceProcess(SCHEDULE, subspace) for subspace in (one, two)]
    x0 = two.project(state)
    bounds = [
        vlb(
            process, gaussian, x0, times=uniform_timesteps(3), decoder=ContinuousDecoder(),
            rng=seeded(),
        )
        for process in processes
    ]  # fmt: skip
    torch.testing.assert_close(bounds[0].total, bounds[1].total)
    with pytest.raises(ValueError, match="3 vectors that are linearly dependent"):
        LinearSubspace(torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]]))
    with pytest.raises(ValueError, match="dim 0: 1 or more"):
        ZeroMean(0)


def test_states_of_different_sizes():
    """A mask of 4 and of 2 real points: each is as its own state alone, padding stays zero."""
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])[:, :, None].double()
    process = SubspaceProcess(SCHEDULE, ZeroMean(1)).masked(mask)
    x0 = process.subspace.project(normal(2, 4, 3))
    assert process.subspace.dimension(x0).tolist() == [9, 3]
    level = SCHEDULE.at(torch.tensor([0.4, 0.4]))
    corrupted = SubspaceProcess(SCHEDULE, ZeroMean(1)).corrupt(x0, level, seeded(), mask)
    for state in (x0, corrupted.xt, sample(
        process, gaussian, DDPM(), (2, 4, 3), uniform_timesteps(5), rng=seeded()
    )):  # fmt: skip
        assert float(state[1, 2:].abs().max()) == 0
        assert float((state * mask.to(state)).sum(dim=1).abs().max()) < 1e-6
    earlier = SCHEDULE.at(torch.tensor([0.2, 0.2]))
    output = gaussian(corrupted.xt, level)
    both = process.step_nats(output, corrupted, earlier)
    small = SubspaceProcess(SCHEDULE, ZeroMean(1))
    rows = type(corrupted)(
        *(one[1:, :2] for one in (corrupted.xt, corrupted.x0, corrupted.noise)), level[1:]
    )
    torch.testing.assert_close(
        both[1:], small.step_nats(output[1:, :2], rows, earlier[1:]), rtol=1e-6, atol=1e-9
    )
    loss = small.loss(output, corrupted, mask)
    torch.testing.assert_close(loss[1:], small.loss(output[1:, :2], rows))
    assert all(a is not b for a, b in itertools.combinations([process, small], 2))


def test_training_reads_estimates_of_the_real_points_alone():
    """Those of extra losses and of self-conditioning, whatever the network makes of padding."""
    real = torch.ones(2, 5, 1)
    real[1, 3:] = 0
    states = ZeroMean(1, real).project(normal(2, 5, 3)).float()
    seen = []

    class Points(Domain):
        def encode(self, batch, rng):
            return Encoded(states, mask=real)

        def extra_losses(self, encoded, corrupted, estimate, process):
            seen.append(estimate.x0)
            return {"extra": estimate.x0.flatten(1).sum(dim=1)}

        def project(self, estimate, xt, level, condition=None):
            seen.append(estimate.x0)
            return estimate

    class Network(torch.nn.Linear):
        def forward(self, xt, level, condition=None):
            return super().forward(xt) + torch.where(real > 0, 0.0, 99.0)

    process = SubspaceProcess(LogSNRSchedule(), ZeroMean(1), "x0")
    task = DiffusionTask(
        Points(), process, Network(6, 3), self_conditioning=SelfConditioning(ratio=1.0)
    )
    task.losses(None, seeded())
    assert len(seen) == 2
    for x0 in seen:
        torch.testing.assert_close(x0, ZeroMean(1, real).project(x0), rtol=0, atol=1e-5)
