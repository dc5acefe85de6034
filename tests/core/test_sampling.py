"""The loop around the samplers: starting points, projections, guidance, progress."""

import pytest
import torch
from oracles import gaussian_data, known_pair

from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.samplers import AncestralSampler
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.core.discrete.unmasking import unmask
from multidiff.core.gaussian.likelihood import vlb
from multidiff.core.gaussian.predictions import spread
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM, DDPM, DPMSolverPP, Heun
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.gaussian.timesteps import trailing_timesteps, uniform_timesteps
from multidiff.core.guidance import (
    ClassifierFreeGuidance,
    drop_condition,
    map_condition,
    null_condition,
)
from multidiff.core.joint.guidance import MultiConditionGuidance
from multidiff.core.projections import clip, compose, inpaint
from multidiff.core.protocols import Domain, Encoded
from multidiff.core.sample import sample
from multidiff.core.task import DiffusionTask

LINEAR = BetaSchedule.linear()
PROCESS = GaussianProcess(LINEAR)
LEVEL = LINEAR.at(torch.tensor([0.5]))


def double(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_walk_from_a_middle_level_runs_exactly_its_steps():
    times = trailing_timesteps(20).tail(6)
    x0, noise = double(1, 4), double(1, 4, seed=1)
    level = PROCESS.levels(times)[0]
    start = spread(level.alpha, x0) * x0 + spread(level.sigma, x0) * noise
    calls = []
    oracle = known_pair(PROCESS, x0, noise)

    def denoiser(xt, level, condition):
        calls.append(float(level.time[0]))
        return oracle(xt, level)

    found = sample(PROCESS, denoiser, DDIM(), (1, 4), times, start=start)
    assert len(calls) == 6 and calls[0] == pytest.approx(0.3)
    torch.testing.assert_close(found, x0)


def test_a_start_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"start has shape \(2, 3\), not \(1, 3\)"):
        sample(
            PROCESS,
            gaussian_data(1.0),
            DDIM(),
            (1, 3),
            uniform_timesteps(2),
            start=torch.zeros(2, 3),
        )


def test_a_solver_not_made_and_times_not_chosen(unchecked_signatures):
    denoiser, shape = gaussian_data(1.0), (1, 3)
    with pytest.raises(TypeError, match=r"DDIM is a class: pass an instance, DDIM\(\)"):
        sample(PROCESS, denoiser, DDIM, shape, uniform_timesteps(2))
    with pytest.raises(TypeError, match=r"AncestralSampler is a class"):
        unmask(MaskProcess(3, LogLinearMasks()), denoiser, AncestralSampler, shape, steps=2)
    with pytest.raises(
        TypeError, match=r"times 50: pass a timestep schedule, such as uniform_timesteps"
    ):
        sample(PROCESS, denoiser, DDIM(), shape, 50)
    with pytest.raises(TypeError, match=r"times 50: pass a timestep schedule"):
        vlb(PROCESS, denoiser, torch.zeros(shape), times=50)


def test_progress_is_told_after_each_step():
    cond = []
    sample(PROCESS, gaussian_data(1.0), Heun(), (2, 3), uniform_timesteps(5), on_step=cond.append)
    assert [step.number for step in cond] == [1, 2, 3, 4, 5]
    assert {step.total for step in cond} == {5}
    assert float(cond[-1].level.sigma[0]) == 0 and cond[0].state.shape == (2, 3)


def test_the_denoiser_is_handed_levels_for_the_whole_batch():
    seen = []

    def denoiser(xt, level, condition):
        seen.append((level.alpha.shape, condition))
        return xt

    sample(PROCESS, denoiser, DDIM(), (3, 2), uniform_timesteps(2), condition="cond")
    assert seen == [((3,), "cond")] * 2


@pytest.mark.parametrize("sampler", [DDPM(), DDIM(), Heun(), DPMSolverPP()])
def test_clipping_keeps_the_result_in_bounds(sampler):
    rng = torch.Generator().manual_seed(0)
    found = sample(
        PROCESS,
        gaussian_data(3.0),
        sampler,
        (50, 4),
        uniform_timesteps(8),
        project=clip(-0.5, 0.5),
        rng=rng,
    )
    assert float(found.abs().max()) <= 0.5


@pytest.mark.parametrize("sampler", [DDPM(), DDIM(), Heun(), DPMSolverPP()])
def test_inpainting_keeps_the_known_to_the_bit(sampler):
    known = double(2, 6).float()
    mask = torch.tensor([1, 1, 0, 0, 1, 0])
    found = sample(
        PROCESS,
        gaussian_data(1.0),
        sampler,
        (2, 6),
        uniform_timesteps(7),
        project=compose(clip(-9, 9), inpaint(known, mask)),
        rng=torch.Generator().manual_seed(1),
    )
    kept = mask.bool().expand(2, 6)
    assert torch.equal(found[kept], known[kept])
    assert not torch.isclose(found[~kept], known[~kept]).any()


def test_inpainting_follows_the_joint_distribution():
    """Two equal numbers: knowing one, sampling the other with its best denoiser finds it."""

    def denoiser(xt, level, condition=None):
        # x_1 = x_2 ~ N(0, 1): the mean of both noisy values carries all there is to know.
        mean = xt.mean(dim=1, keepdim=True)
        gain = level.alpha / (level.alpha**2 + level.sigma**2 / 2)
        x0 = spread(gain, xt) * mean
        return (xt - spread(level.alpha, xt) * x0) / spread(level.sigma, xt)

    known = torch.tensor([[1.3, 0.0]])
    found = sample(
        PROCESS,
        denoiser,
        DDPM(),
        (1, 2),
        trailing_timesteps(1000),
        project=inpaint(known, torch.tensor([1, 0])),
        rng=torch.Generator().manual_seed(0),
    )
    assert float(found[0, 1]) == pytest.approx(1.3, abs=0.15)


# -------------------------------------------------------------------------- guidance


def cond_and_uncond(xt, level, condition):
    """Predicts the condition itself; 0 where it is left out (-1)."""
    value = torch.where(condition >= 0, condition, 0).double()
    return value[:, None].expand(xt.shape).clone()


def guided(scale, **options):
    level = LINEAR.at(torch.tensor([0.5, 0.5]))
    return ClassifierFreeGuidance(cond_and_uncond, scale, **options)(
        double(2, 3), level, torch.tensor([2, 5])
    )


def test_guidance_is_untold_plus_scaled_difference():
    assert guided(3.0)[:, 0].tolist() == [6, 15]
    assert guided(0.0)[:, 0].tolist() == [0, 0]
    assert guided(2.0, negative=torch.tensor([1, 1]))[:, 0].tolist() == [3, 9]


def test_scale_one_is_the_conditional_pass_alone():
    sizes = []

    def denoiser(xt, level, condition):
        sizes.append(len(xt))
        return cond_and_uncond(xt, level, condition)

    level = LINEAR.at(torch.tensor([0.5]))
    one = ClassifierFreeGuidance(denoiser, 1.0)(double(1, 3), level, torch.tensor([2]))
    assert torch.equal(one, cond_and_uncond(double(1, 3), level, torch.tensor([2])))
    ClassifierFreeGuidance(denoiser, 2.0)(double(1, 3), level, torch.tensor([2]))
    assert sizes == [1, 2]  # one doubled batch, not two calls


def test_guidance_of_some_channels():
    found = guided(3.0, channels=2)
    assert found.tolist() == [[6, 6, 2], [15, 15, 5]]


def test_rescaled_guidance_has_the_conditional_deviation():
    def denoiser(xt, level, condition):
        return xt * (1 + condition.double())[:, None]

    xt, condition = double(2, 50), torch.tensor([2, 3])
    level = LINEAR.at(torch.tensor([0.5, 0.5]))
    full = ClassifierFreeGuidance(denoiser, 4.0, rescale=1.0)(xt, level, condition)
    cond = denoiser(xt, level, condition)
    torch.testing.assert_close(full.std(dim=1), cond.std(dim=1))
    none = ClassifierFreeGuidance(denoiser, 4.0)(xt, level, condition)
    half = ClassifierFreeGuidance(denoiser, 4.0, rescale=0.5)(xt, level, condition)
    torch.testing.assert_close(half, (full + none) / 2)


def test_rescaling_a_constant_prediction_is_finite():
    assert torch.isfinite(guided(3.0, rescale=0.7)).all()
    one = torch.ones(2, 1)  # of one value there is no deviation to bring back
    level, condition = LINEAR.at(torch.tensor([0.5, 0.5])), torch.tensor([2, 3])
    denoiser = ClassifierFreeGuidance(lambda x, _, c: x * c[:, None], 3.0, rescale=0.7)
    plain = ClassifierFreeGuidance(lambda x, _, c: x * c[:, None], 3.0)
    assert torch.equal(denoiser(one, level, condition), plain(one, level, condition))


def test_rescaling_looks_at_the_guided_channels_alone():
    """A learned variance rides along: it is neither guided nor counted."""

    def denoiser(xt, level, condition):
        means = xt * (1 + condition.double())[:, None, None]
        return torch.cat([means, 100 * xt.square()], dim=1)

    xt, condition = double(2, 1, 50), torch.tensor([2, 3])
    level = LINEAR.at(torch.tensor([0.5, 0.5]))
    guided_half = ClassifierFreeGuidance(denoiser, 4.0, rescale=1.0, channels=1)
    found, cond = guided_half(xt, level, condition), denoiser(xt, level, condition)
    torch.testing.assert_close(found[:, :1].std(dim=2), cond[:, :1].std(dim=2))
    assert torch.equal(found[:, 1:], cond[:, 1:])


def test_rescaling_leaves_padding_out():
    """A padded sample is guided as it would be alone, whatever stands in its padding."""

    def denoiser(xt, level, condition):
        return xt * (1 + condition.double())[:, None]

    xt, condition = double(2, 50), torch.tensor([2, 3])
    xt[1, 20:] = 1e3
    mask = (torch.arange(50) < torch.tensor([[50], [20]])).double()
    level = LINEAR.at(torch.tensor([0.5, 0.5]))
    found = ClassifierFreeGuidance(denoiser, 4.0, rescale=1.0, mask=mask)(xt, level, condition)
    plain = ClassifierFreeGuidance(denoiser, 4.0, rescale=1.0)
    alone = plain(xt[1:, :20], level[1:], condition[1:])
    torch.testing.assert_close(found[1:, :20], alone)
    torch.testing.assert_close(found[:1], plain(xt[:1], level[:1], condition[:1]))
    joint = ClassifierFreeGuidance(
        lambda xt, level, condition: {"a": denoiser(xt, level, condition), "b": xt},
        4.0, rescale=1.0, mask={"a": mask},
    )(xt, level, condition)  # fmt: skip
    assert torch.equal(joint["a"], found)
    with pytest.raises(ValueError, match=r"mask: its shape \(2, 7\) does not broadcast"):
        ClassifierFreeGuidance(denoiser, 4.0, rescale=1.0, mask=mask[:, :7])(xt, level, condition)


def test_guidance_of_any_prediction_is_the_same():
    """Noise, clean and velocity are affine in each other: so are their guided versions."""
    xt, level = double(1, 4), LINEAR.at(torch.tensor([0.4]))
    noises = {1: double(1, 4, seed=3), -1: double(1, 4, seed=4)}
    found = []
    for name in ("epsilon", "x0", "v"):
        process = GaussianProcess(LINEAR, name)

        def denoiser(xt, level, condition, process=process):
            rows = []
            for x, a, s, c in zip(xt, level.alpha, level.sigma, condition, strict=True):
                noise = noises[int(c)][0]
                x0 = (x - s * noise) / a
                pair = {"epsilon": noise, "x0": x0, "v": a * noise - s * x0}
                rows.append(pair[name])  # noqa: B023
            return torch.stack(rows)

        output = ClassifierFreeGuidance(denoiser, 2.5)(xt, level, torch.tensor([1]))
        found.append(process.estimate(output, xt, level).x0)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_wrong_scales():
    with pytest.raises(ValueError, match="scale -1"):
        ClassifierFreeGuidance(cond_and_uncond, -1.0)


def test_conditions_left_out():
    condition = {"class": torch.tensor([3, 4]), "text": (torch.ones(2, 5), [torch.ones(2, 1)])}
    null = null_condition(condition, ["class", "text"])
    assert null["class"].tolist() == [-1, -1] and float(null["text"][0].sum()) == 0
    some = drop_condition(condition, torch.tensor([False, True]), ["class", "text"])
    assert some["class"].tolist() == [3, -1]
    assert some["text"][0].sum(dim=1).tolist() == [5, 0]
    assert some["text"][1][0].tolist() == [[1], [0]]
    assert null_condition(None) is None
    with pytest.raises(TypeError, match="not <class 'str'>"):
        map_condition(torch.clone, "prompt")


def test_a_domain_that_returns_a_bare_tensor_is_told_what_to_return():
    class Bare(Domain):
        def encode(self, batch, rng):
            return batch

    task = DiffusionTask(Bare(), PROCESS, torch.nn.Linear(3, 3))
    with pytest.raises(TypeError, match=r"Bare.encode returned a Tensor: return Encoded\("):
        task.losses(torch.zeros(1, 3), None)


def test_a_domain_says_what_it_lacks():
    with pytest.raises(NotImplementedError, match="does not implement encode"):
        Domain().encode({}, None)
    with pytest.raises(NotImplementedError, match="does not implement decode"):
        Domain().decode(torch.zeros(1))


def test_structure_in_a_condition_is_never_left_out():
    """A mask of ones as numbers is no condition: it stays, or it has to be said."""
    condition = {"kind": torch.tensor([3, 4]), "mask": torch.ones(2, 5)}
    rows = torch.tensor([True, True])
    for call in (
        lambda: null_condition(condition),
        lambda: drop_condition(condition, rows),
        lambda: ClassifierFreeGuidance(cond_and_uncond, 2.0)(double(2, 3), LEVEL, condition),
    ):
        with pytest.raises(ValueError, match="several parts, \\['kind', 'mask'\\]"):
            call()
    null = null_condition(condition, ["kind"])
    assert null["kind"].tolist() == [-1, -1] and null["mask"] is condition["mask"]
    some = drop_condition(condition, {"kind": torch.tensor([True, False])})
    assert some["kind"].tolist() == [-1, 4] and some["mask"] is condition["mask"]
    with pytest.raises(ValueError, match="no part 'word'"):
        null_condition(condition, ["word"])
    with pytest.raises(ValueError, match=r"names parts, \['kind'\], but the condition is a Tensor"):
        drop_condition(condition["kind"], {"kind": rows})
    truth = null_condition({"kind": torch.tensor([3]), "real": torch.ones(1, 5, dtype=torch.bool)})
    assert truth["kind"].tolist() == [-1] and bool(truth["real"].all())
    pair = null_condition((torch.ones(2), torch.ones(2)), [1])
    assert pair[0].tolist() == [1, 1] and pair[1].tolist() == [0, 0]


def test_guidance_without_a_condition_is_refused():
    with pytest.raises(ValueError, match="no condition to guide by"):
        ClassifierFreeGuidance(cond_and_uncond, 5.0)(double(1, 3), LEVEL)
    assert ClassifierFreeGuidance(lambda x, *_: x, 1.0)(double(1, 3), LEVEL).shape == (1, 3)


@pytest.mark.parametrize(
    ("condition", "parts"),
    [
        ({"real": torch.ones(1, 3, dtype=torch.bool), "text": None}, None),
        ({"real": torch.ones(1, 3, dtype=torch.bool), "kind": torch.tensor([3])}, ["real"]),
        ((None, torch.ones(1, 3, dtype=torch.bool)), None),
        (torch.ones(1, 3, dtype=torch.bool), None),
        ({}, None),
    ],
)
def test_guidance_that_would_do_nothing_is_refused(condition, parts):
    def network(xt, level, condition):
        return xt

    guided = ClassifierFreeGuidance(network, 5.0, parts=parts)
    with pytest.raises(ValueError, match=r"would do nothing: .* only masks or None"):
        guided(double(1, 3), LEVEL, condition)
    several = MultiConditionGuidance(network, {"real": 2.0})
    if isinstance(condition, dict) and condition:
        with pytest.raises(ValueError, match=r"condition of \['real', .* would do nothing"):
            several(double(1, 3), LEVEL, condition)


class Labelled(Domain):
    """States with a condition of two parts and a mask of numbers."""

    droppable = ("kind", "word")

    def encode(self, batch, rng):
        return Encoded(batch["x"], {name: batch[name] for name in ("kind", "word", "mask")})


class Recording(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x, level, condition=None):
        self.read = condition
        return self.scale * x


@pytest.mark.parametrize(
    ("drop", "seen"),
    [
        (0.4, {(False, False), (True, True)}),
        ({"kind": 0.4, "word": 0.4}, {(a, b) for a in (False, True) for b in (False, True)}),
        ({"kind": 0.4}, {(False, False), (True, False)}),
    ],
)
def test_parts_of_a_condition_drop_together_or_apart(drop, seen):
    batch = {"x": torch.randn(200, 3), "mask": torch.ones(200, 5)}
    batch |= {name: torch.zeros(200, dtype=torch.int64) for name in ("kind", "word")}
    network = Recording()
    DiffusionTask(Labelled(), PROCESS, network, drop_condition=drop).losses(batch, None)
    pairs = zip(
        (network.read["kind"] < 0).tolist(), (network.read["word"] < 0).tolist(), strict=True
    )
    assert set(pairs) == seen
    assert bool((network.read["mask"] == 1).all())
    with pytest.raises(ValueError, match=r"drop_condition word 2 is not in \[0, 1\]"):
        DiffusionTask(Labelled(), PROCESS, network, drop_condition={"word": 2.0})


def test_training_that_would_drop_nothing_is_refused():
    class Masked(Domain):
        def encode(self, batch, rng):
            return Encoded(batch["x"], {"mask": batch["mask"] > 0})

    batch = {"x": torch.randn(4, 3), "mask": torch.ones(4, 3)}
    DiffusionTask(Masked(), PROCESS, Recording()).losses(batch, None)
    with pytest.raises(ValueError, match=r"drop_condition: training without .* would do nothing"):
        DiffusionTask(Masked(), PROCESS, Recording(), drop_condition=0.1).losses(batch, None)
