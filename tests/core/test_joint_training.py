"""Training on joint states, guidance towards parts, and what is refused."""

import math

import pytest
import torch
from joint_toy import MEAN, ExactJoint, P, draws, joint_process
from torch import nn

from multidiff.config.build import check_section
from multidiff.config.recipe import parse
from multidiff.config.registry import COMPONENTS
from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.samplers import AncestralSampler
from multidiff.core.discrete.schedules import PolynomialMasks
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM, DPMSolverPP
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.core.guidance import ClassifierFreeGuidance
from multidiff.core.joint.bound import joint_nelbo
from multidiff.core.joint.guidance import JointGuidance, MultiConditionGuidance
from multidiff.core.joint.level import Held, JointLevel, JointSchedule
from multidiff.core.joint.process import JointProcess
from multidiff.core.joint.sampler import JointSampler, sample_joint
from multidiff.core.joint.task import JointDomain, JointTask
from multidiff.core.protocols import Domain, Encoded, Process
from multidiff.core.sample import sample
from multidiff.training.trainer import Trainer
from multidiff.utils.errors import InputError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


GRID = uniform_timesteps(10)
BOTH = JointSchedule({"x": GRID, "c": GRID})
SAMPLER = JointSampler({"x": DPMSolverPP(), "c": AncestralSampler()})


class Number(Domain):
    def encode(self, batch, rng):
        return Encoded(batch["x"].float())

    def decode(self, state, condition=None):
        return state


class Category(Number):
    def encode(self, batch, rng):
        return Encoded(batch["c"])


class JointNet(nn.Module):
    """A perceptron that reads both parts and both levels."""

    def __init__(self, width=64):
        super().__init__()
        self.category = nn.Embedding(4, 8)
        self.layers = nn.Sequential(
            nn.Linear(11, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 4)
        )

    def forward(self, xt, level, condition=None):
        levels = torch.stack([level["x"].time, level["c"].time], dim=1).to(xt["x"])
        read = [xt["x"], self.category(xt["c"][:, 0]), levels]
        x, c = self.layers(torch.cat(read, dim=1)).split([1, 3], dim=1)
        return {"x": x, "c": c[:, None]}


def domain():
    return JointDomain({"x": Number(), "c": Category()})


# --------------------------------------------------------------------------- training


def test_the_one_trainer_trains_a_joint_state():
    torch.manual_seed(0)
    task = JointTask(domain(), joint_process(prediction="v", given=0.1), JointNet())
    data = draws(512)
    batches = [{name: one[n : n + 32] for name, one in data.items()} for n in range(0, 512, 32)]

    def losses():
        found = task.losses(data, seeded())
        return {name: float(one.mean()) for name, one in found.items()}

    before = losses()
    outcome = Trainer(steps=40, learning_rate=1e-2, ema_decay=0.8).fit(task, batches)
    assert set(outcome.losses) >= {"x", "c"}
    after = losses()
    assert after["x"] < 0.7 * before["x"] and after["c"] < 0.9 * before["c"], (before, after)
    decoded = task.domain.decode(data)
    assert torch.equal(decoded["c"], data["c"]) and decoded.keys() == {"x", "c"}


def test_parts_that_are_given_cost_nothing_and_one_is_always_noisy():
    process = joint_process(given=0.5, left_out=0.2)
    level = process.draw_level(4000, seeded())
    clean = torch.stack([level[name].time == 0 for name in ("x", "c")], dim=1)
    noise = torch.stack([level[name].time == 1 for name in ("x", "c")], dim=1)
    assert not bool(clean.all(dim=1).any())
    assert clean.double().mean(0).tolist() == pytest.approx([0.5 - 0.25 / 2] * 2, abs=0.03)
    assert noise.double().mean(0).tolist() == pytest.approx([0.2] * 2, abs=0.03)
    x0 = draws(4000)
    corrupted = process.corrupt(x0, level, seeded())
    for i, name in enumerate(("x", "c")):
        rows = clean[:, i]
        assert torch.equal(corrupted.xt[name][rows], x0[name][rows])
    outputs = {"x": torch.zeros(4000, 1).requires_grad_(), "c": torch.zeros(4000, 1, 3)}
    losses = process.losses(outputs, corrupted)
    assert bool((losses["x"][clean[:, 0]] == 0).all() and (losses["x"][~clean[:, 0]] > 0).all())
    losses["x"].sum().backward()
    assert bool(torch.isfinite(outputs["x"].grad).all())
    weighted = joint_process(weights={"c": 3.0}).losses(outputs, corrupted)["c"]
    torch.testing.assert_close(weighted, 3 * losses["c"])
    torch.testing.assert_close(process.loss(outputs, corrupted), losses["x"] + losses["c"])


def test_one_mask_for_all_samples_beside_given_parts():
    parts = {name: GaussianProcess(BetaSchedule.linear()) for name in ("a", "b")}
    process, x0 = JointProcess(parts, given=0.5), {name: torch.zeros(9, 4) for name in ("a", "b")}
    corrupted = process.corrupt(x0, process.draw_level(9, seeded()), seeded())
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    one, each = (process.losses(x0, corrupted, {"a": rows}) for rows in (mask, mask.expand(9, 4)))
    assert torch.equal(one["a"], each["a"]) and bool((one["a"] == 0).any())


def test_a_share_of_the_samples_has_at_most_one_source_and_one_noisy_part():
    parts = {name: MaskProcess(3, PolynomialMasks(), objective="mean") for name in "abc"}
    level = JointProcess(parts, given=0.1, directed=0.6).draw_level(12000, seeded())
    times = torch.stack([level[name].time for name in "abc"], dim=1)
    clean, noise = times == 0, times == 1
    # Without `left_out` no other sample has a part at pure noise.
    rows = noise.any(dim=1)
    assert float(rows.double().mean()) == pytest.approx(0.6, abs=0.02)
    shares = {
        (1, 2): 1 / 4,  # one of three is clean, and drawn a second time
        (1, 1): 1 / 2,
        (0, 2): 1 / 4,  # none is clean
    }
    for (given, left_out), share in shares.items():
        found = (clean.sum(dim=1) == given) & (noise.sum(dim=1) == left_out)
        assert float(found[rows].double().mean()) == pytest.approx(share, abs=0.02)
    assert clean[rows].double().mean(0).tolist() == pytest.approx([1 / 4] * 3, abs=0.02)
    own = times[rows & ~(clean | noise)[:, 1], 1]
    assert float(own.mean()) == pytest.approx(0.5, abs=0.03)


def test_several_parts_of_a_condition_are_dropped_each_by_its_own_chance():
    class Molecule(JointDomain):
        def encode(self, batch, rng):
            found = super().encode(batch, rng)
            condition = {"edges": batch["edges"], "kind": batch["kind"], "text": batch["text"]}
            return Encoded(found.x0, condition)

    seen = []

    class Net(JointNet):
        def forward(self, xt, level, condition=None):
            seen.append(condition)
            return super().forward(xt, level)

    parts = {"x": Number(), "c": Category()}
    task = JointTask(Molecule(parts), joint_process(), Net(), {"kind": 0.2, "text": 0.5})
    count = 4000
    batch = {
        **draws(count), "edges": torch.ones(count, 5, dtype=torch.long),
        "kind": torch.ones(count, dtype=torch.long), "text": torch.ones(count, 4),
    }  # fmt: skip
    task.losses(batch, seeded())
    assert bool((seen[0]["edges"] == 1).all())
    kind, text = seen[0]["kind"] == -1, seen[0]["text"][:, 0] == 0
    assert float(kind.double().mean()) == pytest.approx(0.2, abs=0.03)
    assert float(text.double().mean()) == pytest.approx(0.5, abs=0.04)
    assert float((kind & text).double().mean()) == pytest.approx(0.1, abs=0.02)


# --------------------------------------------------------------------------- guidance


def state_at(time, count=64):
    process = joint_process()
    x0 = draws(count)
    level = JointLevel(
        {
            "x": process.parts["x"].schedule.at(torch.full((count,), time)),
            "c": Held(0).level(process.parts["c"]).expand(count),
        }
    )
    return process, process.corrupt(x0, level, seeded()).xt, level


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_towards_a_part_contrasts_given_with_left_out(scale):
    process, xt, level = state_at(0.5)
    exact = ExactJoint(process)
    found = JointGuidance(exact, process, {"c": scale})(xt, level)["x"]
    cond = exact(xt, level)["x"]
    noise = Held(1).level(process.parts["c"]).expand(64)
    masked = {**xt, "c": torch.full_like(xt["c"], 3)}
    uncond = exact(masked, level.replaced("c", noise))["x"]
    torch.testing.assert_close(found, uncond + scale * (cond - uncond))
    assert float((cond - uncond).abs().max()) > 0.1


def test_guided_samples_move_towards_the_category():
    process = joint_process()
    exact, c = ExactJoint(process), torch.full((500, 1), 1)
    times = JointSchedule({"x": GRID, "c": Held(0)})
    means = []
    for scale in (0.0, 1.0, 3.0):
        denoiser = JointGuidance(exact, process, {"c": scale})
        state = sample_joint(
            process, denoiser, SAMPLER, {"x": (500, 1)}, times, start={"c": c}, rng=seeded()
        )
        means.append(float(state["x"].mean()))
        if scale == 1:
            plain = sample_joint(
                process, exact, SAMPLER, {"x": (500, 1)}, times, start={"c": c}, rng=seeded()
            )
            assert torch.equal(plain["x"], state["x"])
    assert means[0] == pytest.approx(float(P @ MEAN), abs=0.15)
    assert means[1] == pytest.approx(0.3, abs=0.05) and means[2] > means[0] + 0.3


def test_a_condition_beside_the_state_guides_all_parts():
    """Guidance by a caption around guidance towards a part: the two compose."""
    process, xt, level = state_at(0.5)
    exact = ExactJoint(process)

    def captioned(xt, level, condition):
        found = exact(xt, level)
        return {
            name: one + condition.view(-1, *[1] * (one.ndim - 1)) for name, one in found.items()
        }

    caption = torch.arange(64.0)
    towards = JointGuidance(captioned, process, {"c": 2.0})
    found = ClassifierFreeGuidance(towards, 3.0)(xt, level, caption)
    plain = JointGuidance(exact, process, {"c": 2.0})(xt, level)
    assert found.keys() == {"x", "c"}
    torch.testing.assert_close(found["x"], plain["x"] + 3 * caption[:, None].double())


def linear(xt, level, condition):
    """A network that adds what each part of its condition says, and how they meet."""
    kind, text = condition["kind"].float()[:, None] + 1, condition["text"]
    return xt + kind + 10 * text + 100 * kind * text + condition["edges"].float()


def test_several_scales_compose_and_structure_stays():
    level = BetaSchedule.linear().at(torch.tensor([0.5, 0.5]))
    xt = torch.zeros(2, 1)
    condition = {
        "kind": torch.tensor([1, 2]), "text": torch.tensor([[3.0], [4.0]]),
        "edges": torch.tensor([[7], [8]]),
    }  # fmt: skip
    none = {**condition, "kind": torch.tensor([-1, -1]), "text": torch.zeros(2, 1)}
    one = {**none, "kind": condition["kind"]}
    f0, f1, f2 = (linear(xt, level, c) for c in (none, one, condition))
    guided = MultiConditionGuidance(linear, {"kind": 2.0, "text": 5.0})
    torch.testing.assert_close(guided(xt, level, condition), f0 + 2 * (f1 - f0) + 5 * (f2 - f1))
    off = MultiConditionGuidance(linear, {"kind": 1.0, "text": 1.0})
    assert torch.equal(off(xt, level, condition), f2)
    single = MultiConditionGuidance(linear, {"text": 3.0})(xt, level, condition)
    plain = ClassifierFreeGuidance(linear, 3.0, parts=["text"])(xt, level, condition)
    torch.testing.assert_close(single, plain)
    with pytest.raises(ValueError, match="no part 'txt'"):
        MultiConditionGuidance(linear, {"txt": 3.0})(xt, level, condition)
    for without in (None, condition["text"]):  # the scales would have no effect, or another one
        with pytest.raises(
            ValueError, match=r"guidance by parts \['kind', 'text'\]: the condition"
        ):
            guided(xt, level, without)
    with pytest.raises(ValueError, match="give at least one, and none below 0"):
        MultiConditionGuidance(linear, {"text": -1.0})


def test_two_parts_of_a_state_are_guided_by_scales_of_their_own():
    """Three parts, two given: off at 1, one network call in a batch of three."""
    parts = {name: GaussianProcess(BetaSchedule.linear()) for name in ("a", "b", "out")}
    process, calls = JointProcess(parts), []

    def denoiser(xt, level, condition=None):
        calls.append(len(xt["a"]))
        shown = [xt[n] * level[n].alpha[:, None].float() for n in ("a", "b")]
        mixed = shown[0] + 10 * shown[1] + xt["out"]
        return {"a": xt["a"], "b": xt["b"], "out": mixed}

    xt = {name: torch.full((2, 1), float(i + 1)) for i, name in enumerate(parts)}
    clean = Held(0).level(parts["a"]).expand(2)
    level = JointLevel({"a": clean, "b": clean, "out": BetaSchedule.linear().at(torch.ones(2))})
    alpha = float(level["out"].alpha[0])
    guided = JointGuidance(denoiser, process, {"a": 2.0, "b": 3.0}, rng=seeded())
    found = guided(xt, level)["out"]
    rng = seeded()
    b, a = (torch.randn(2, 1, generator=rng) for _ in range(2))
    f0, f1, f2 = (
        first + 10 * second + 3
        for first, second in ((alpha * a, alpha * b), (xt["a"], alpha * b), (xt["a"], xt["b"]))
    )
    torch.testing.assert_close(found, f0 + 2 * (f1 - f0) + 3 * (f2 - f1))
    assert calls == [6]
    for wrong, message in (
        ({"aa": 1.0}, "no part 'aa'"), ({}, "give at least one, and none below 0"),
        ({"a": 1.0, ("a", "b"): 1.0}, "each part once"),
        ({("a", "b", "out"): 2.0}, "leave at least one to be generated"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            JointGuidance(denoiser, process, wrong)


# -------------------------------------------------------------------------- bad input


def sampled(process=None, denoiser=None, sampler=SAMPLER, shape=None, times=BOTH, **options):
    process = process or joint_process()
    shape = shape or {"x": (4, 1), "c": (4, 1)}
    return sample_joint(process, denoiser or ExactJoint(process), sampler, shape, times, **options)


C = torch.ones(4, 1, dtype=torch.long)
GIVEN = JointSchedule({"x": GRID, "c": Held(0)})
REFUSED = {
    "a part without a shape": ({"shape": {"x": (4, 1)}}, "shape: part 'c' is missing"),
    "another batch size": ({"shape": {"x": (4, 1), "c": (3, 1)}}, "one batch size .* x 4, c 3"),
    "a given part without data": ({"times": GIVEN}, r"part 'c' is held at time 0: give its state"),
    "data of another shape": (
        {"times": GIVEN, "start": {"c": C[:3]}},
        r"'c' has shape \(3, 1",
    ),
    "an unknown part": ({"start": {"cc": C}}, "start: the process has no part 'cc': the parts are"),
    "no sampler": ({"sampler": JointSampler({"x": DDIM()})}, "sampler: part 'c' is missing"),
    "no times": ({"times": JointSchedule({"x": GRID})}, "times: part 'c' is missing"),
    "no output": ({"denoiser": lambda *_: {"x": torch.zeros(4, 1)}}, "output: part 'c' is missing"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sampled(**options)


@pytest.mark.usefixtures("unchecked_signatures")
def test_what_is_not_of_a_joint_state_is_refused():
    process, shape = joint_process(), {"x": (4, 1), "c": (4, 1)}
    for options, message in (
        (
            (process.parts["x"], SAMPLER, shape, BOTH),
            "process is a GaussianProcess: .* Joint",
        ),
        ((process, DDIM(), shape, BOTH), "sampler is a DDIM: .* needs a JointSampler"),
        ((process, SAMPLER, (4, 1), BOTH), "shape is a tuple: .* needs a dict by part"),
        ((process, SAMPLER, shape, GRID), "times is a TimestepSchedule: .* needs a JointSchedule"),
    ):
        with pytest.raises(TypeError, match=message):
            sample(options[0], ExactJoint(process), *options[1:])


def test_more_that_is_refused():
    with pytest.raises(TypeError, match="the network returned a Tensor: return a dict"):
        sampled(denoiser=lambda *_: torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"step 4 of 10: part 'x' is not finite"):
        calls = []

        def broken(xt, level, condition=None):
            calls.append(1)
            worth = math.nan if len(calls) == 4 else 0.0
            return {"x": torch.full((4, 1), worth), "c": torch.zeros(4, 1, 3)}

        sampled(denoiser=broken)
    with pytest.raises(ValueError, match=r"Held\(1.5\): time must be in \[0, 1\]"):
        Held(1.5)
    with pytest.raises(ValueError, match="every part is held"):
        JointSchedule({"x": Held(0), "c": Held(1)})
    with pytest.raises(ValueError, match="differ in their steps: x 10, c 5"):
        JointSchedule({"x": GRID, "c": uniform_timesteps(5)})
    process, x0 = joint_process(), draws(4)
    level = process.draw_level(4, seeded())
    swapped = JointLevel({"x": level["c"], "c": level["x"]})
    with pytest.raises(TypeError, match="part 'x' has a MaskLevel, but its GaussianProcess takes"):
        process.corrupt(x0, swapped, seeded())
    with pytest.raises(ValueError, match="corrupt: part 'c' is missing"):
        process.corrupt({"x": x0["x"]}, level, seeded())
    with pytest.raises(ValueError, match="one batch size, not x 4, c 2"):
        joint_nelbo(process, ExactJoint(process), {**x0, "c": x0["c"][:2]}, BOTH)
    with pytest.raises(ValueError, match="weights: the process has no part 'y'"):
        joint_process(weights={"y": 1.0})
    with pytest.raises(ValueError, match=r"given 0\.7 and left_out 0\.5"):
        joint_process(given=0.7, left_out=0.5)
    with pytest.raises(ValueError, match=r"directed 1\.2: a share from 0 to 1"):
        joint_process(directed=1.2)
    with pytest.raises(ValueError, match="a part is named 'step'"):
        JointTask(domain(), JointProcess({"step": process.parts["x"]}), JointNet())
    exact = MaskProcess(3, PolynomialMasks(), masking="exact", objective="mean")
    with pytest.raises(ValueError, match="part 'c' masks exact counts"):
        JointProcess({"c": exact}, given=0.1)


# ---------------------------------------------------------------------------- recipes

RECIPE = """
process:
  use: JointProcess
  parts:
    atoms:
      use: SubspaceProcess
      schedule: {use: BetaSchedule.cosine}
      subspace: {use: ZeroMean, dim: 1}
      prediction: v
    kinds: {use: UniformProcess, size: 5, schedule: {use: PolynomialMasks}, prediction: posterior}
  weights: {kinds: 0.1}
  given: 0.1
"""


def test_a_recipe_names_joint_processes():
    part = check_section(parse(RECIPE, "r.yaml"), {"process": Process}, COMPONENTS)["process"]
    process = part.build()
    x0 = {"atoms": torch.randn(3, 4, 3, generator=seeded()), "kinds": torch.ones(3, 4).long()}
    x0["atoms"] -= x0["atoms"].mean(dim=1, keepdim=True)
    corrupted = process.corrupt(x0, process.draw_level(3, seeded()), seeded())
    assert float(corrupted.xt["atoms"].mean(dim=1).abs().max()) < 1e-6
    assert process.weights == {"atoms": 1.0, "kinds": 0.1}


def test_a_wrong_part_of_a_recipe_is_named_with_its_line():
    text = RECIPE.replace("UniformProcess, size", "UniformProces, size")
    with pytest.raises(InputError, match=r"r\.yaml:10: unknown component 'UniformProces'"):
        check_section(parse(text, "r.yaml"), {"process": Process}, COMPONENTS)
    text = RECIPE.replace("{use: ZeroMean, dim: 1}", "{use: PolynomialMasks}")
    with pytest.raises(InputError, match=r"r\.yaml:8: PolynomialMasks is not a Subspace"):
        check_section(parse(text, "r.yaml"), {"process": Process}, COMPONENTS)
