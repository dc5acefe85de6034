"""Published schedulers: twenty guided steps as diffusers makes them, from its configuration."""

from itertools import pairwise

import diffusers
import pytest
import torch
from torch import nn

from multidiff.config.build import Checker
from multidiff.config.recipe import parse
from multidiff.core.gaussian.flow import RectifiedFlow, flow_match_timesteps
from multidiff.core.gaussian.multistep import DEIS
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.published_samplers import TCD
from multidiff.core.gaussian.samplers import DDIM
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.gaussian.table_timesteps import lcm_timesteps, table_timesteps
from multidiff.core.guidance import ClassifierFreeGuidance
from multidiff.core.random import generators
from multidiff.core.sample import sample
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.stable_diffusion.schedulers import (
    as_stable_diffusion,
    rescales,
    sampling_of,
)
from multidiff.utils.errors import InputError

TABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SEEDS, SHAPE, SCALE = [3, 4], (2, 4, 4, 4), 5.0


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(16,),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
    ).eval()


class Ours(nn.Module):
    """Their network as a denoiser."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, xt, level, condition=None):
        return self.unet(xt, level.timestep(1000), condition).sample


def words(count=2):
    return torch.randn(2 * count, 3, 8, generator=torch.Generator().manual_seed(1)).chunk(2)


@torch.no_grad()
def theirs(unet, config, num_steps):
    """Twenty steps of a pipeline, without its text encoder and autoencoder."""
    kind = getattr(diffusers, config["_class_name"])
    scheduler = kind.from_config({**TABLE, **config})
    scheduler.set_timesteps(num_steps)
    rng = generators(SEEDS)
    start = torch.stack([torch.randn(SHAPE[1:], generator=one) for one in rng])
    state, (cond, uncond) = start * scheduler.init_noise_sigma, words()
    draws = "generator" in kind.step.__code__.co_varnames
    for time in scheduler.timesteps:
        twice = scheduler.scale_model_input(torch.cat([state, state]), time)
        away, towards = unet(twice, time, torch.cat([uncond, cond])).sample.chunk(2)
        output = away + SCALE * (towards - away)
        options = {"generator": rng} if draws else {}
        state = scheduler.step(output, time, state, **options).prev_sample
    return state


def ours(unet, config, num_steps):
    """The same from the scheduler's configuration, by way of a recipe's section."""
    found = sampling_of("scheduler_config.json", config)
    assert not found.replaces
    sampling = sampling_from(found).replace(steps=num_steps)
    schedule = BetaSchedule.scaled_linear()
    if rescales("scheduler_config.json", config):
        schedule = schedule.with_zero_terminal_snr()
    prediction = {"v_prediction": "v"}.get(config.get("prediction_type"), "epsilon")
    process = GaussianProcess(schedule, prediction)
    times = sampling.times(schedule)
    rng, (cond, uncond) = generators(SEEDS), words()
    return sample(
        process,
        ClassifierFreeGuidance(Ours(unet), SCALE, negative=uncond),
        sampling.build_sampler(),
        SHAPE,
        times,
        condition=cond,
        project=sampling.projection(None),
        rng=rng,
        start=process.prior(SHAPE, rng) * sampling.start_scale(process.levels(times)[0]),
    )


def sampling_from(found):
    """What the recipe of a converted folder says of sampling."""
    section = {"sampler": found.sampler, "timestep_spacing": found.grid}
    section |= {"scheduler": dict(found.scheduler)} if found.scheduler else {}
    checker = Checker({})
    spec = checker.part(
        parse(str({"sampling": section}), "r").value["sampling"], ImageSamplingConfig
    )
    assert not checker.faults
    return spec.build()


KARRAS = {"use_karras_sigmas": True}
V_ZERO = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True,
          "timestep_spacing": "trailing"}  # fmt: skip
DPM, PLMS = {"_class_name": "DPMSolverMultistepScheduler"}, {"_class_name": "PNDMScheduler",
                                                             "skip_prk_steps": True}  # fmt: skip
EULER, UNIPC = {"_class_name": "EulerDiscreteScheduler"}, {"_class_name": "UniPCMultistepScheduler"}
CASES = [
    ({"_class_name": "DDIMScheduler", "set_alpha_to_one": False}, 20),
    ({"_class_name": "DDIMScheduler", "thresholding": True, "sample_max_value": 2.0}, 8),
    ({"_class_name": "DDIMScheduler", **V_ZERO}, 8),
    ({"_class_name": "DDPMScheduler"}, 20),
    ({"_class_name": "DDPMScheduler", "timestep_spacing": "trailing"}, 8),
    (PLMS, 20),
    ({**PLMS, "set_alpha_to_one": True, "prediction_type": "v_prediction"}, 8),
    (EULER, 20),
    ({**EULER, "timestep_spacing": "leading"}, 8),
    ({**EULER, "timestep_spacing": "trailing"}, 1),  # SD-Turbo
    ({**EULER, **KARRAS, "final_sigmas_type": "sigma_min"}, 8),
    ({**EULER, **V_ZERO}, 8),
    ({"_class_name": "EulerAncestralDiscreteScheduler"}, 20),
    ({"_class_name": "HeunDiscreteScheduler"}, 20),
    ({"_class_name": "HeunDiscreteScheduler", **KARRAS, "timestep_spacing": "leading"}, 7),
    ({"_class_name": "LMSDiscreteScheduler"}, 20),
    ({"_class_name": "LMSDiscreteScheduler", **KARRAS}, 8),
    (DPM, 20),
    ({**DPM, **KARRAS}, 8),
    ({**DPM, "final_sigmas_type": "sigma_min", "timestep_spacing": "leading"}, 8),
    ({**DPM, "final_sigmas_type": "sigma_min", "timestep_spacing": "leading"}, 16),
    ({**DPM, **V_ZERO, "euler_at_final": True, "final_sigmas_type": "sigma_min"}, 8),
    ({**DPM, "algorithm_type": "sde-dpmsolver++", "timestep_spacing": "trailing"}, 20),
    ({**DPM, "algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min"}, 8),
    ({**DPM, "thresholding": True}, 8),
    (UNIPC, 20),
    ({**UNIPC, **KARRAS, "final_sigmas_type": "sigma_min"}, 8),
    ({**UNIPC, "timestep_spacing": "leading", "lower_order_final": False,
      "final_sigmas_type": "sigma_min"}, 8),
    ({"_class_name": "DEISMultistepScheduler"}, 20),
    ({"_class_name": "DEISMultistepScheduler", **KARRAS}, 8),
    ({"_class_name": "LCMScheduler"}, 20),
    ({"_class_name": "LCMScheduler"}, 3),
    ({"_class_name": "TCDScheduler"}, 6),
]  # fmt: skip


@pytest.mark.parametrize(("config", "num_steps"), CASES, ids=str)
@pytest.mark.usefixtures("unchecked_signatures")
def test_steps_are_those_of_diffusers(unet, config, num_steps):
    config = as_stable_diffusion({**config, "beta_schedule": "scaled_linear"})
    wanted, found = theirs(unet, config, num_steps), ours(unet, config, num_steps)
    scale = float(wanted.abs().max())
    assert 0.1 < scale < 1e3
    assert float((found - wanted).abs().max()) / scale < 1e-4


@torch.no_grad()
def test_flow_matching_steps_are_those_of_diffusers(unet):
    """Stable Diffusion 3's scheduler, whose shift acts twice; the network receives 1000 sigma."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(20)
    start, cond = torch.randn(SHAPE, generator=generators([0])[0]), words()[0]
    state = start
    for time in scheduler.timesteps:
        velocity = unet(state, time, cond).sample
        state = scheduler.step(velocity, time, state).prev_sample

    def network(xt, level, condition):
        return unet(xt, 1000 * level.time.float(), condition).sample

    process = GaussianProcess(RectifiedFlow(), "flow")
    times = flow_match_timesteps(20, 3.0)
    found = sample(process, network, DDIM(), SHAPE, times, condition=cond, start=start)
    torch.testing.assert_close(found, state, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="both must be above 0"):
        flow_match_timesteps(0)


@pytest.mark.parametrize("config", [EULER, DPM, {"_class_name": "DDIMScheduler"}], ids=str)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_one_to_all_steps_are_accepted(config, spacing):
    """Where others read past their table, or visit a step twice, every step is visited once."""
    config = as_stable_diffusion({**config, "timestep_spacing": spacing})
    found = sampling_from(sampling_of("scheduler_config.json", config))
    schedule = BetaSchedule.scaled_linear()
    for count in (1, 2, 999, 1000):
        levels = found.replace(steps=count).times(schedule).levels(schedule)
        assert len(levels) == count + 1
        assert all(a.log_snr < b.log_snr for a, b in pairwise(levels))
    assert float(levels[0].time) == 1 and float(levels[-2].time) == 1 / 1000
    assert float(levels[-1].sigma) == 0
    with pytest.raises(InputError, match="1001 steps"):
        found.replace(steps=1001).times(schedule)


def test_levels_that_are_given_end_like_others():
    times = table_timesteps(10, "trailing", final="first")
    schedule = BetaSchedule.scaled_linear()
    whole, tail = times.levels(schedule), times.tail(3).levels(schedule)
    assert [float(one.time) for one in tail] == [float(one.time) for one in whole[-4:]]
    assert float(tail[-1].time) == 1 / 1000
    for wrong in (0, 11):
        with pytest.raises(ValueError, match="do not exist"):
            times.tail(wrong)
    with pytest.raises(ValueError, match="at least one"):
        table_timesteps(0, "leading")
    with pytest.raises(ValueError, match="1 to 50"):
        lcm_timesteps(51)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda: TCD(2.0), "eta"),
        (lambda: DEIS(5), "2 to 4"),
        (lambda: DEIS(2, rho=float("inf"), extrapolates_to_clean=True), "logarithm"),
    ],
)
def test_wrong_samplers(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        wrong()
