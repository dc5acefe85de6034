"""The uniform process: its two readings, the step, the bounds, and samples of a known joint."""

import itertools

import numpy as np
import pytest
import torch

from multidiff.core.discrete.absorbing import MaskProcess, nelbo
from multidiff.core.discrete.samplers import TokenDraw
from multidiff.core.discrete.schedules import LogLinearMasks, MaskLevel, PolynomialMasks
from multidiff.core.discrete.uniform import (
    RandomisedTokens,
    UniformAncestralSampler,
    UniformProcess,
    discrete_bound,
)
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.core.random import generators
from multidiff.core.sample import sample

SIZE, LENGTH = 4, 2
LINEAR = PolynomialMasks()
M = torch.tensor([[[0.1, 0.2, 0.3, 0.4]]], dtype=torch.float64)
W = torch.tensor([[[0.114458, 0.084337, 0.343373, 0.457831]]], dtype=torch.float64)
STEP = torch.tensor([0.105263, 0.469925, 0.190977, 0.233835], dtype=torch.float64)
AT_ONE = torch.tensor([[1]])

# The toy: a joint of two tokens, of which every state can be enumerated.
JOINT = torch.rand(4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64) ** 2
JOINT = JOINT / JOINT.sum()
STATES = torch.tensor(list(itertools.product(range(SIZE), repeat=LENGTH)))
ENTROPY = float(-torch.special.xlogy(JOINT, JOINT).sum())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def level_at(alpha):
    alpha = torch.tensor([alpha], dtype=torch.float64)
    return MaskLevel(1 - alpha, alpha, torch.full_like(alpha, -1.0))


def kernel(alpha):
    """q(z | x) of one token, eq. (1): rows x, columns z."""
    rest = ((1 - alpha) / SIZE).expand(SIZE, SIZE)
    return alpha * torch.eye(SIZE, dtype=torch.float64) + rest


class Exact:
    """The network that knows the joint, as posterior or as leave-one-out logits."""

    def __init__(self, prediction="leave_one_out"):
        self.prediction = prediction

    def __call__(self, xt, level, condition=None):
        alpha = level.alpha.double()[:, None, None]
        eye = torch.eye(SIZE, dtype=torch.float64)
        one, two = (alpha * eye[xt] + (1 - alpha) / SIZE).unbind(1)  # q(z_i | x) for each x
        first = torch.einsum("ab,nb->na", JOINT, two)
        second = torch.einsum("ab,na->nb", JOINT, one)
        if self.prediction == "posterior":
            first, second = first * one, second * two
        return torch.log_softmax(torch.stack([first, second], dim=1).log(), dim=-1)


def exact_bound(process, denoiser, times, weights, steps=None):
    """E over x ~ p, every z and the given times of the process's own terms."""
    nodes = len(times)
    x0 = STATES.repeat_interleave(16, 0).repeat(nodes, 1)
    z = STATES.repeat(16 * nodes, 1)
    time = times.repeat_interleave(256)
    level = process.schedule.at(time)
    earlier = None if steps is None else process.schedule.at(time - 1 / steps)
    terms = process.errors(denoiser(z, level), RandomisedTokens(z, x0, level, earlier, steps or 1))
    q = torch.where(x0 == z, 1 + (SIZE - 1) * level.alpha[:, None], 1 - level.alpha[:, None])
    chance = JOINT[x0[:, 0], x0[:, 1]] * (q / SIZE).prod(dim=1)
    return float((chance * terms.sum(dim=1) * weights.repeat_interleave(256)).sum())


def continuous_value(process, denoiser):
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(200))
    return exact_bound(process, denoiser, (nodes + 1) / 2, weights / 2)


def discrete_value(process, denoiser, steps):
    times = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return exact_bound(process, denoiser, times, torch.full_like(times, 1 / steps), steps)


# --------------------------------------------------------------------------- formulas


def test_both_readings_of_a_network_give_the_published_step():
    level, earlier = level_at(0.3), level_at(0.6)
    for prediction, probs in (("posterior", M), ("leave_one_out", W)):
        process = UniformProcess(SIZE, LINEAR, prediction=prediction)
        m = process.estimate(probs.log(), AT_ONE, level).exp()
        torch.testing.assert_close(m, M, rtol=0, atol=1e-6)
        w = process.leave_one_out(probs.log(), AT_ONE, level).exp()
        torch.testing.assert_close(w, W, rtol=0, atol=1e-6)
        found = process.step_probs(m, AT_ONE, level, earlier)[0, 0]
        torch.testing.assert_close(found, STEP, rtol=0, atol=1e-6)
    wrong = UniformProcess(SIZE, LINEAR, prediction="leave_one_out")
    m = wrong.estimate(M.log(), AT_ONE, level).exp()
    found = wrong.step_probs(m, AT_ONE, level, earlier)[0, 0]
    mistaken = torch.tensor([0.085106, 0.585106, 0.148936, 0.180851]).double()
    torch.testing.assert_close(found, mistaken, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("now", "then"), [(0.3, 0.6), (0.0, 0.4), (0.7, 1.0), (0.0, 1.0)])
def test_the_step_is_bayes_rule(now, then):
    """Of every x and z: q(z_t | z_s) q(z_s | x) / q(z_t | x), with the last step exact."""
    process = UniformProcess(SIZE, LINEAR, prediction="posterior")
    level, earlier = level_at(now), level_at(then)
    forward = kernel(level.alpha[0] / earlier.alpha[0])
    for x, z in itertools.product(range(SIZE), repeat=2):
        if now == 0 or kernel(level.alpha[0])[x, z] > 0:
            wanted = forward[:, z] * kernel(earlier.alpha[0])[x]
            truth = torch.eye(SIZE, dtype=torch.float64)[x].view(1, 1, -1)
            found = process.step_probs(truth, torch.tensor([[z]]), level, earlier)[0, 0]
            torch.testing.assert_close(found, wanted / wanted.sum(), rtol=1e-12, atol=1e-12)


def test_the_corruption_keeps_its_share_and_the_padding():
    process = UniformProcess(SIZE, LINEAR)
    x0 = torch.full((2, 20_000), 3)
    real = torch.ones_like(x0, dtype=torch.bool)
    real[:, -100:] = False
    level = LINEAR.at(torch.tensor([0.25, 0.8]))
    corrupted = process.corrupt(x0, level, generators([1, 2]), real)
    assert bool((corrupted.xt[:, -100:] == 3).all())
    for row, alpha in enumerate(level.alpha):
        shares = corrupted.xt[row, :-100].bincount(minlength=4) / 19_900
        torch.testing.assert_close(shares.double(), kernel(alpha)[3], rtol=0, atol=0.015)
    alone = process.corrupt(x0[1:], level[1:], generators([2]), real[1:])
    assert torch.equal(alone.xt[0], corrupted.xt[1])


# ----------------------------------------------------------------------------- bounds


def test_the_continuous_bound_is_the_entropy_and_the_wrong_reading_is_not():
    assert abs(ENTROPY - 2.379751) < 1e-6
    right = UniformProcess(SIZE, LINEAR)
    assert continuous_value(right, Exact()) == pytest.approx(2.379727, abs=2e-6)
    assert continuous_value(right, Exact("posterior")) == pytest.approx(3.663456, abs=2e-6)
    square = UniformProcess(SIZE, PolynomialMasks(2.0), prediction="posterior")
    assert continuous_value(square, Exact("posterior")) == pytest.approx(2.379751, abs=2e-6)


@pytest.mark.parametrize(
    ("steps", "value", "mistaken"), [(1, 2.629666, 2.629666), (5, 2.451928, 3.335540)]
)
def test_the_bound_of_a_walk(steps, value, mistaken):
    process = UniformProcess(SIZE, LINEAR)
    assert discrete_value(process, Exact(), steps) == pytest.approx(value, abs=1e-6)
    assert discrete_value(process, Exact("posterior"), steps) == pytest.approx(mistaken, abs=1e-6)


def test_the_drawn_bounds_agree_and_leave_padding_out():
    process = UniformProcess(SIZE, LINEAR)
    tokens = STATES[torch.multinomial(JOINT.flatten(), 300, True, generator=seeded())]
    nll = -float(JOINT[tokens[:, 0], tokens[:, 1]].log().mean())
    found = nelbo(process, Exact(), tokens, num_times=20, rng=seeded(1)).total
    assert float(found.mean()) == pytest.approx(nll, abs=4 * float(found.std()) / 300**0.5)
    one_step = nelbo(process, Exact(), tokens, num_times=1, form=discrete_bound(1), rng=seeded(1))
    a, b = JOINT.sum(1).log(), JOINT.sum(0).log()  # from pure noise each token is drawn apart
    torch.testing.assert_close(one_step.total, -(a[tokens[:, 0]] + b[tokens[:, 1]]))
    real = torch.tensor([[True, False]]).expand_as(tokens)
    half = nelbo(process, Exact(), tokens, num_times=1, form=discrete_bound(1), real=real)
    torch.testing.assert_close(half.total, -a[tokens[:, 0]])


def test_what_a_schedule_keeps_at_its_end_is_charged():
    process = UniformProcess(SIZE, LogLinearMasks(0.2))
    q = kernel(torch.tensor(0.2, dtype=torch.float64))[0]
    wanted = float((q * (q * SIZE).log()).sum())
    assert float(process.prior_kl(process.schedule.at(torch.ones(1)))) == pytest.approx(
        wanted, rel=1e-12
    )
    assert float(UniformProcess(SIZE, LINEAR).prior_kl(LINEAR.at(torch.ones(1)))) == 0


@pytest.mark.parametrize("prediction", ["posterior", "leave_one_out"])
@pytest.mark.parametrize("objective", ["bound", "cross_entropy"])
def test_each_loss_is_least_at_its_exact_network(prediction, objective):
    """Trained tables of logits, on every state and token at one level, find the exact ones."""
    process = UniformProcess(SIZE, LINEAR, prediction=prediction, objective=objective)
    level = level_at(0.4).expand(256)
    x0, z = STATES.repeat_interleave(16, 0), STATES.repeat(16, 1)
    q = kernel(level.alpha[0])
    chance = JOINT[x0[:, 0], x0[:, 1]] * q[x0[:, 0], z[:, 0]] * q[x0[:, 1], z[:, 1]]
    exact = Exact(prediction)(STATES, level[:16]).requires_grad_()
    loss = process.loss(exact.repeat(16, 1, 1), RandomisedTokens(z, x0, level))
    (gradient,) = torch.autograd.grad((loss * chance).sum(), exact)
    assert float(gradient.abs().max()) < 1e-12
    other = Exact("posterior" if prediction == "leave_one_out" else "leave_one_out")
    mistaken = process.loss(other(z, level), RandomisedTokens(z, x0, level))
    assert float((mistaken * chance - loss.detach() * chance).sum()) > 0.01


# --------------------------------------------------------------------------- sampling


def total_variation(tokens):
    found = (tokens @ torch.tensor([SIZE, 1])).bincount(minlength=16).double() / len(tokens)
    return float((found - JOINT.flatten()).abs().sum()) / 2


def test_samples_come_from_the_joint_unless_the_reading_is_wrong():
    process = UniformProcess(SIZE, LINEAR)
    sampler, times = UniformAncestralSampler(), uniform_timesteps(50)
    found = [
        sample(process, denoiser, sampler, (2000, 2), times, rng=seeded())
        for denoiser in (Exact(), Exact("posterior"))
    ]
    assert total_variation(found[0]) < 0.04  # 0.007 exactly, and 0.025 of 2000 draws
    assert total_variation(found[1]) > 0.2  # 0.251 exactly


def test_a_sample_alone_is_the_sample_in_a_batch_and_draws_can_be_sharpened():
    process = UniformProcess(SIZE, LINEAR)

    def made(seeds, sampler):
        rng = generators(seeds)
        return sample(process, Exact(), sampler, (len(seeds), 2), uniform_timesteps(5), rng=rng)

    together = made([1, 2, 3], UniformAncestralSampler())
    assert torch.equal(made([2], UniformAncestralSampler())[0], together[1])
    # In one step from pure noise, temperature 0 takes the likeliest token of each marginal.
    greedy = sample(
        process, Exact(), UniformAncestralSampler(TokenDraw(temperature=0)), (20, 2),
        uniform_timesteps(1), rng=seeded(),
    )  # fmt: skip
    wanted = torch.stack([JOINT.sum(1).argmax(), JOINT.sum(0).argmax()])
    assert torch.equal(greedy, wanted.expand(20, 2))


def test_sampling_goes_on_from_noisy_tokens():
    """From a middle level of a corrupted joint draw, the joint comes out again."""
    process, steps = UniformProcess(SIZE, LINEAR), uniform_timesteps(20)
    x0 = STATES[torch.multinomial(JOINT.flatten(), 2000, True, generator=seeded())]
    level = LINEAR.at(torch.full((2000,), 0.5))
    start = process.corrupt(x0, level, seeded(1)).xt
    found = sample(
        process, Exact(), UniformAncestralSampler(), (2000, 2), steps.tail(10), start=start,
        rng=seeded(2),
    )  # fmt: skip
    assert total_variation(found) < 0.05 < total_variation(start)


def test_wrong_settings_and_shapes():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        discrete_bound(0)
    with pytest.raises(ValueError, match="returns 3 logits for each position"):
        UniformProcess(SIZE, LINEAR).estimate(torch.zeros(1, 1, 3), AT_ONE, level_at(0.5))
    with pytest.raises(ValueError, match="size 0 is under 1"):
        MaskProcess(0, LINEAR)
