"""Joint states: levels, training records, sampling of joint, conditionals and marginals, bound."""

import math
import warnings

import pytest
import torch
from joint_toy import ENTROPY, MEAN, STD, ExactJoint, P, draws, joint_process

from multidiff.core.discrete.samplers import AncestralSampler
from multidiff.core.discrete.uniform import UniformAncestralSampler
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM, DPMSolverPP, Heun
from multidiff.core.gaussian.schedules import LogSNRSchedule
from multidiff.core.gaussian.timesteps import TimestepSchedule, uniform_timesteps
from multidiff.core.joint.bound import joint_nelbo
from multidiff.core.joint.level import Held, JointSchedule
from multidiff.core.joint.process import JointProcess
from multidiff.core.joint.sampler import JointSampler, sample_joint
from multidiff.core.sample import sample


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def schedule(steps, **held):
    return JointSchedule({name: held.get(name, uniform_timesteps(steps)) for name in ("x", "c")})


# ------------------------------------------------------------------------------ bound


@pytest.mark.parametrize(
    ("category", "steps", "x", "c"),
    [
        ("mask", 10, 5.933665, 0.648618),
        ("mask", 50, 1.365258, 0.611008),
        ("uniform", 10, 6.807981, 0.374958),
    ],
)
def test_the_bound_has_its_exact_values(category, steps, x, c):
    process = joint_process(category)
    x0 = draws(20_000)
    found = joint_nelbo(process, ExactJoint(process), x0, schedule(steps), rng=seeded(1))
    for name, wanted in (("x", x), ("c", c)):
        values = found.per_part[name]
        assert float(values.mean()) == pytest.approx(wanted, abs=4 * float(values.std()) / 141)
    assert float(found.total.mean()) > ENTROPY


def test_the_bound_of_a_conditional_and_of_a_marginal():
    """Parts that are given or left out cost nothing; the rest is the bound of their question."""
    process = joint_process()
    exact, x0 = ExactJoint(process), draws(4000)
    given_x = joint_nelbo(process, exact, x0, schedule(20, x=Held(0)), rng=seeded(1))
    alone = joint_nelbo(process, exact, x0, schedule(20, x=Held(1)), rng=seeded(1))
    x, c = x0["x"], x0["c"]
    likelihood = P.log() - 0.5 * ((x - MEAN) / STD) ** 2 - STD.log()
    conditional = -torch.log_softmax(likelihood, 1).gather(1, c).mean()
    assert float(given_x.total.mean()) == pytest.approx(float(conditional), abs=0.01)
    assert float(alone.total.mean()) == pytest.approx(float(-P[c].log().mean()), abs=0.01)
    assert set(given_x.per_part) == set(alone.per_part) == {"c"}


# --------------------------------------------------------------------------- sampling

SAMPLERS = {"mask": AncestralSampler(), "uniform": UniformAncestralSampler()}
COUNT = 6000


def made(category, times, start=None, sampler=None, process=None, rng=None):
    process = process or joint_process(category)
    exact = ExactJoint(process)
    state = sample_joint(
        process,
        exact,
        JointSampler({"x": sampler or DPMSolverPP(), "c": SAMPLERS[category]}),
        {"x": (COUNT, 1), "c": (COUNT, 1)},
        times,
        start=start,
        rng=rng or seeded(),
    )
    return state["x"][:, 0], state["c"][:, 0], exact.calls


def cdf_distance(x, weights):
    """The largest difference to the distribution function of the mixture (Kolmogorov-Smirnov)."""
    ordered = x.double().sort().values
    wanted = (weights * torch.special.ndtr((ordered[:, None] - MEAN) / STD)).sum(1)
    return float((wanted - (torch.arange(len(x)) + 0.5) / len(x)).abs().max())


# Of 6000 draws the largest difference is below .026 (.037 of 3000) with chance 0.999.
@pytest.mark.parametrize("category", ["mask", "uniform"])
def test_the_joint_is_sampled(category):
    x, c, calls = made(category, schedule(20))
    assert calls == 20  # one evaluation for both parts of a step
    assert float((c.bincount(minlength=3) / COUNT - P).abs().max()) < 0.025
    for kind in range(3):
        weights = torch.eye(3, dtype=torch.float64)[kind]
        assert cdf_distance(x[c == kind], weights) < 1.9 / int((c == kind).sum()) ** 0.5 + 0.01


@pytest.mark.parametrize("category", ["mask", "uniform"])
def test_each_part_given_the_other(category):
    c = torch.full((COUNT, 1), 1)
    x, kept, _ = made(category, schedule(20, c=Held(0)), {"c": c})
    assert torch.equal(kept, c[:, 0])
    assert cdf_distance(x, torch.tensor([0.0, 1.0, 0.0])) < 0.03
    at = torch.full((COUNT, 1), 0.6)
    kept, c, _ = made(category, schedule(20, x=Held(0)), {"x": at})
    assert torch.equal(kept, at[:, 0])
    log_p = P.log() - 0.5 * ((0.6 - MEAN) / STD) ** 2 - STD.log()
    wanted = torch.softmax(log_p, 0)
    assert float((c.bincount(minlength=3) / COUNT - wanted).abs().max()) < 0.025


def test_a_marginal_leaves_the_other_at_noise():
    x, c, _ = made("mask", schedule(20, c=Held(1)))
    assert cdf_distance(x, P) < 0.035
    assert bool((c == 3).all())  # masked to the end


def test_the_one_loop_is_called_by_its_one_name():
    process = joint_process()
    exact, sampler = ExactJoint(process), JointSampler({"x": DDIM(), "c": AncestralSampler()})
    shape, steps = {"x": (3, 1), "c": (3, 1)}, []
    one, two = (
        run(
            process, exact, sampler, shape, schedule(4), rng=seeded(),
            on_step=lambda step: steps.append(step.number),
        )
        for run in (sample, sample_joint)
    )  # fmt: skip
    assert all(torch.equal(one[name], two[name]) for name in shape)
    assert steps == [1, 2, 3, 4] * 2
    with pytest.raises(ValueError, match="a joint state has masks by part"):
        sample(process, exact, sampler, shape, schedule(4), lengths=[1, 1, 1])


def test_a_sample_alone_is_the_sample_in_a_batch():
    process = joint_process("uniform")
    sampler = JointSampler({"x": DDIM(eta=1.0), "c": UniformAncestralSampler()})

    def of(seeds):
        rng = [seeded(one) for one in seeds]
        shape = {"x": (len(seeds), 1), "c": (len(seeds), 1)}
        return sample_joint(process, ExactJoint(process), sampler, shape, schedule(6), rng=rng)

    together, alone = of([1, 2, 3]), of([2])
    assert all(torch.equal(together[name][1], alone[name][0]) for name in ("x", "c"))


def test_a_sampler_that_asks_again_is_warned_of_unless_the_others_stand_still():
    with pytest.warns(UserWarning, match="'x' evaluates the network more than once"):
        made("mask", schedule(3), sampler=Heun())
    c = torch.full((COUNT, 1), 1)
    x, _, calls = made("mask", schedule(12, c=Held(0)), {"c": c}, Heun())
    assert calls == 23 and cdf_distance(x, torch.tensor([0.0, 1.0, 0.0])) < 0.03


def test_one_evaluation_a_step_keeps_the_order_of_each_part():
    """Two correlated Gaussians on schedules of their own; Heun asks twice and falls to 1."""
    parts = {
        "a": GaussianProcess(LogSNRSchedule(6.0, -6.0), "x0"),
        "b": GaussianProcess(LogSNRSchedule(4.0, -8.0), "x0"),
    }
    process, cov = JointProcess(parts), torch.tensor([[1.0, 0.8], [0.8, 1.0]]).double()

    def denoiser(xt, level, condition=None):
        a, s = (
            torch.stack([getattr(level[name], kind)[0] for name in parts])
            for kind in ("alpha", "sigma")
        )
        spread = a[:, None] * cov * a + torch.diag(s**2)
        x0 = torch.cat([xt["a"], xt["b"]], dim=1) @ torch.linalg.solve(spread, a[:, None] * cov)
        return {"a": x0[:, :1], "b": x0[:, 1:]}

    start = {
        name: torch.randn(64, 1, generator=seeded(i), dtype=torch.float64)
        for i, name in enumerate(parts)
    }

    def end(sampler, steps):
        grid = TimestepSchedule(
            steps,
            lambda _: torch.linspace(1, 0.02, steps + 1, dtype=torch.float64)[:-1],
            lambda _: 0.02,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = sample_joint(
                process, denoiser, JointSampler(dict.fromkeys(parts, sampler)), {},
                JointSchedule(dict.fromkeys(parts, grid)), start=start,
            )  # fmt: skip
        return torch.cat([*state.values()], dim=1)

    exact = end(DPMSolverPP(), 250)
    for sampler, order in ((DDIM(), 1.0), (DPMSolverPP(), 2.0), (Heun(), 1.0)):
        errors = [float((end(sampler, steps) - exact).abs().mean()) for steps in (25, 50)]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1), sampler
