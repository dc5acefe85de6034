"""What once went wrong without a word in the core: refused with the fix, warned of, or right."""

import math
import warnings

import pytest
import torch
from oracles import gaussian_data

from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.samplers import MaskGITSampler
from multidiff.core.discrete.schedules import CosineMasks
from multidiff.core.discrete.unmasking import unmask
from multidiff.core.gaussian.likelihood import (
    ContinuousDecoder,
    DiscretisedDecoder,
    vlb,
)
from multidiff.core.gaussian.losses import HybridLoss
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM, DDPM, is_clean
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule, NoiseLevel
from multidiff.core.gaussian.time_laws import LogitNormalTimes
from multidiff.core.gaussian.timesteps import (
    leading_timesteps,
    log_snr_timesteps,
    trailing_timesteps,
    uniform_timesteps,
)
from multidiff.core.joint.bound import joint_nelbo
from multidiff.core.joint.level import JointSchedule
from multidiff.core.joint.process import JointProcess
from multidiff.core.projections import clip, compose, inpaint
from multidiff.core.random import generators, seeds_from
from multidiff.core.sample import sample

COSINE, LINEAR = BetaSchedule.cosine(), BetaSchedule.linear()


def zero(xt, level, condition=None):
    return 0 * xt


def zeros(xt, level, condition=None):
    return {name: 0 * one for name, one in xt.items()}


# ------------------------------------------------------------------- states and times


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_states_that_are_no_floating_point_numbers_are_refused(dtype, unchecked_signatures):
    process, states = GaussianProcess(COSINE), torch.ones(4, 2).to(dtype)
    level = COSINE.at(torch.full((4,), 0.5))
    with pytest.raises(TypeError, match="needs floating-point states"):
        process.corrupt(states, level, None)
    with pytest.raises(TypeError, match="floating-point numbers"):
        sample(process, zero, DDIM(), (4, 2), uniform_timesteps(3), start=states, project=clip())
    with pytest.raises(TypeError, match="needs floating-point states"):
        vlb(process, zero, states, times=uniform_timesteps(3), decoder=ContinuousDecoder())


@pytest.mark.parametrize("schedule", [LINEAR, LogSNRSchedule(), CosineMasks()])
def test_times_outside_the_schedule_are_refused(schedule, unchecked_signatures):
    for wrong in (500.0, -0.01, math.nan):
        with pytest.raises(ValueError, match=r"is not in \[0, 1\]; step k .* \(k \+ 1\) / T"):
            schedule.at(torch.tensor([0.5, wrong]))
    with pytest.raises(TypeError, match="floating point in"):
        schedule.at(torch.tensor([1]))
    schedule.at(torch.tensor([0.0, 1.0, 1 + 1e-9], dtype=torch.float64))  # rounding passes


def test_levels_of_several_times_are_no_level_of_a_walk():
    with pytest.raises(ValueError, match="1 of 2 rows are at the clean level"):
        is_clean(LINEAR.at(torch.tensor([0.0, 0.4])))
    assert is_clean(LINEAR.at(torch.zeros(2))) and not is_clean(LINEAR.at(torch.ones(2)))


def test_a_level_as_the_step_of_a_table():
    time = torch.tensor([0.0, 0.001, 0.5, 0.5004, 1.0], dtype=torch.float64)
    steps = LINEAR.at(time).timestep(1000)
    assert steps.dtype == torch.float32
    torch.testing.assert_close(steps, torch.tensor([0, 0, 499, 499.4, 999]))
    levels = trailing_timesteps(1000).levels(LINEAR)
    found = [float(level.timestep(1000)) for level in levels[:-1]]
    assert found == [*range(999, -1, -1)]  # exact on the table
    with pytest.raises(ValueError, match="0 steps"):
        LINEAR.at(time).timestep(0)


# ----------------------------------------------------------------------- names, batches


def test_names_in_place_of_objects(unchecked_signatures):
    process, shape, times = GaussianProcess(LINEAR), (2, 4), uniform_timesteps(3)
    with pytest.raises(TypeError, match=r"sampler 'ddim' has no step method: .* md.DDIM\(\)"):
        sample(process, zero, "ddim", shape, times, project=clip())
    with pytest.raises(TypeError, match=r"schedule 'cosine': .* md.BetaSchedule.cosine\(\)"):
        GaussianProcess("cosine")
    with pytest.raises(TypeError, match="give a schedule"):
        GaussianProcess(BetaSchedule)
    with pytest.raises(TypeError, match="give a process"):
        sample(LINEAR, zero, DDIM(), shape, times)


def test_samplers_of_another_kind_of_state():
    masks = MaskProcess(5, CosineMasks())
    with pytest.raises(
        TypeError, match=r"MaskGITSampler is not a sampler of this: call md\.unmask"
    ):
        sample(masks, zero, MaskGITSampler(), (2, 3), uniform_timesteps(2))
    with pytest.raises(TypeError, match="DDIM is not a sampler of this: unmask takes one of masks"):
        unmask(masks, zero, DDIM(), (2, 3), 2)


def test_an_empty_batch_is_refused():
    for shape in ((0, 4), ()):
        with pytest.raises(ValueError, match="a batch of at least one"):
            sample(GaussianProcess(LINEAR), zero, DDIM(), shape, uniform_timesteps(3))


# --------------------------------------------------------------------------- schedules


class Flow:
    """Rectified flow: clean at time 0, pure noise at time 1."""

    num_steps = None

    def at(self, time):
        time = time.double()
        return NoiseLevel(time, 1 - time, time)

    def time_at(self, log_snr):
        return torch.sigmoid(-log_snr / 2)


def test_log_snr_times_of_a_schedule_with_infinite_ends():
    times = log_snr_timesteps(5).times(Flow())
    assert times[0] == pytest.approx(0.999) and times[-1] == pytest.approx(0.001)
    data = torch.tensor([[0.5, -2.0]])
    process = GaussianProcess(Flow(), "x0")
    found = sample(process, lambda *_: data, DDIM(), (1, 2), log_snr_timesteps(5))
    torch.testing.assert_close(found, data)


def test_noise_prediction_from_almost_no_signal():
    """One percent of error made samples of deviation 155 for data of deviation 1."""
    process = GaussianProcess(COSINE)
    bias = 0.01 * torch.randn(500, 1, generator=torch.Generator().manual_seed(0))

    def denoiser(xt, level, condition=None):
        return level.sigma.to(xt)[:, None] * xt + bias

    def made(times, **options):
        rng = torch.Generator().manual_seed(1)
        return sample(process, denoiser, DDIM(), (500, 1), times, rng=rng, **options)

    known = inpaint(torch.zeros(500, 1), torch.zeros(500, 1))
    for project in (None, known, compose(known)):
        with pytest.raises(ValueError, match="multiplies the network's error by 632"):
            made(uniform_timesteps(50), project=project)
    with pytest.warns(UserWarning, match="by 32"):
        made(uniform_timesteps(1000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for times in (leading_timesteps(50), log_snr_timesteps(50)):
            assert 0.9 < float(made(times).std()) < 1.1
        assert float(made(uniform_timesteps(50), project=compose(clip(), known)).abs().max()) <= 1
        sample(GaussianProcess(COSINE, "v"), zero, DDIM(), (2, 1), uniform_timesteps(50))


# ------------------------------------------------------------------ variance, likelihood


def test_a_learned_variance_that_nothing_trains_is_refused():
    with pytest.raises(ValueError, match=r"objective=HybridLoss\(\)"):
        GaussianProcess(COSINE, "v", learns_variance=True)
    GaussianProcess(COSINE, "v", objective=HybridLoss(), learns_variance=True)


def test_a_variance_of_another_name_is_refused(unchecked_signatures):
    process, states = GaussianProcess(LINEAR), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="variance 'typo': one of small, large, learned"):
        vlb(process, zero, states, times=uniform_timesteps(3), variance="typo")
    with pytest.raises(ValueError, match="variance 'typo'"):
        DDPM("typo")


def test_real_numbers_are_not_measured_as_grey_levels():
    process, times = GaussianProcess(COSINE, "v"), uniform_timesteps(100)
    rng = torch.Generator().manual_seed(0)
    wide, narrow = torch.randn(500, 2, generator=rng), torch.rand(500, 2, generator=rng)

    def bound(states, decoder=None, mask=None):
        found = vlb(
            process, zero, states, times=times, variance="large", decoder=decoder, mask=mask,
            rng=torch.Generator().manual_seed(0),
        )  # fmt: skip
        return float(found.total.mean())

    for decoder in (None, DiscretisedDecoder()):
        with pytest.raises(ValueError, match=r"outside the grid .*ContinuousDecoder\(\)"):
            bound(wide, decoder)
    with pytest.raises(ValueError, match="between the 256 grey levels"):
        bound(narrow)
    assert bound(wide, ContinuousDecoder()) == pytest.approx(1.4189, abs=0.03)
    grey = torch.randint(256, (500, 2), generator=rng) / 127.5 - 1
    assert bound(grey) == bound(grey, DiscretisedDecoder())
    outside = torch.where(torch.arange(2) == 1, 7.0, grey)
    assert math.isfinite(bound(outside, mask=torch.tensor([1, 0])))  # padding does not count


# --------------------------------------------------------------------- noise and padding


class Centred(GaussianProcess):
    """States whose points have their centre at zero."""

    def noise(self, shape, rng):
        drawn = super().noise(shape, rng)
        return drawn - drawn.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("sampler", [DDPM(), DDPM("large"), DDIM(1.0)])
def test_steps_draw_the_noise_of_their_process(sampler):
    process = Centred(COSINE, "v")
    found = sample(
        process, zero, sampler, (3, 5, 2), uniform_timesteps(20), rng=generators([1, 2, 3])
    )
    assert float(found.mean(dim=1).abs().max()) < 1e-5
    level = COSINE.at(torch.full((3,), 0.5))
    noise = process.corrupt(torch.zeros(3, 5, 2), level, None).noise
    assert float(noise.mean(dim=1).abs().max()) < 1e-6


def test_a_prior_of_ones_own_without_noise_of_ones_own_is_refused():
    with pytest.raises(TypeError, match="override noise"):

        class Prior(GaussianProcess):
            def prior(self, shape, rng):
                return torch.zeros(shape)

    class Meant(GaussianProcess):
        noise = lambda self, shape, rng: torch.ones(shape)  # noqa: E731
        prior = lambda self, shape, rng: torch.zeros(shape)  # noqa: E731


@pytest.mark.parametrize("sampler", [DDIM(), DDPM()])
def test_padding_does_not_change_a_seeds_sample(sampler):
    process = GaussianProcess(LINEAR)

    def made(size, lengths, seeds):
        shape, data = (len(seeds), size, 3), gaussian_data(0.5)
        rng = generators(seeds)
        return sample(
            process, data, sampler, shape, uniform_timesteps(10), rng=rng, lengths=lengths
        )

    alone, padded = made(5, [5], [3]), made(21, [21, 5], [4, 3])
    torch.testing.assert_close(padded[1, :5], alone[0], rtol=0, atol=1e-6)
    rest = padded[1, 5:]
    assert 0.2 < float(rest.std()) < 0.9 and rest.unique().numel() == rest.numel()
    with pytest.raises(ValueError, match="one each"):
        sample(process, zero, sampler, (2, 5, 3), uniform_timesteps(10), lengths=[5, 2])


# --------------------------------------------------------------------------------- seeds


def test_seeds_of_any_integer_kind():
    np = pytest.importorskip("numpy")
    assert seeds_from(np.int64(3), 2) == seeds_from(3, 2) == seeds_from(torch.tensor(3), 2)
    assert seeds_from(np.array([5, 9]), 2) == [5, 9]
    one, other = seeds_from(None, 2), seeds_from(None, 2)
    assert one[1] == one[0] + 1 and one != other
    for wrong in (1.5, "3", [1.5, 2.0], object()):
        with pytest.raises(TypeError, match="must be an integer, a list with one each"):
            seeds_from(wrong, 2)
    with pytest.raises(ValueError, match="3 seeds for 2 samples"):
        seeds_from([1, 2, 3], 2)
    with pytest.raises(ValueError, match="64 bits"):
        seeds_from(2**63, 1)


# ----------------------------------------------------------------------------- bounds


def test_a_bound_without_its_last_term_is_refused():
    states, short = torch.zeros(2, 3), leading_timesteps(50, offset=1, stop_short=True)
    process = GaussianProcess(COSINE, "v")
    with pytest.raises(ValueError, match=r"times end at time 0\.001: a bound needs a walk"):
        vlb(process, zero, states, times=short, decoder=ContinuousDecoder())
    joint = JointProcess({"a": process})
    with pytest.raises(ValueError, match=r"part 'a' ends at time 0\.001; a bound needs a walk"):
        joint_nelbo(joint, zeros, {"a": states}, JointSchedule({"a": short}))


def test_grey_levels_without_a_step_before_the_last_are_refused():
    """Their likelihood was 1 at the mean, and 0 elsewhere."""
    joint = JointProcess({"a": GaussianProcess(COSINE, "v")})
    options = {"a": {"decoder": DiscretisedDecoder()}}
    with pytest.raises(ValueError, match="DiscretisedDecoder takes its variance from the step"):
        joint_nelbo(
            joint, zeros, {"a": torch.zeros(2, 3)}, JointSchedule({"a": uniform_timesteps(1)}),
            options=options,
        )  # fmt: skip


def test_a_table_bound_at_times_between_its_entries_is_refused():
    process = GaussianProcess(
        COSINE, objective=HybridLoss(), learns_variance=True, times=LogitNormalTimes()
    )
    corrupted = process.corrupt(torch.zeros(2, 3), process.draw_level(2, None), None)
    with pytest.raises(ValueError, match=r"times=DiscreteTimes\(\)"):
        process.loss(torch.zeros(2, 6), corrupted)
