"""A network of diffusers, given levels as the steps it embeds."""

import pytest
import torch

from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.gaussian.timesteps import trailing_timesteps
from multidiff.core.projections import clip
from multidiff.core.random import generators
from multidiff.core.sample import sample
from multidiff.nn.timesteps import TimestepDenoiser

LINEAR = BetaSchedule.linear()


def unet(**options):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8),
        norm_num_groups=4, layers_per_block=1, attention_head_dim=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"), **options,
    ).eval()  # fmt: skip


@torch.no_grad()
def test_the_network_sees_the_step_of_the_table():
    network = unet()
    denoiser = TimestepDenoiser(network)
    xt = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    level = LINEAR.at(torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64))
    wanted = network(xt, torch.tensor([0, 499, 999])).sample
    assert torch.equal(denoiser(xt, level), wanted)
    assert not torch.allclose(network(xt, level.time.float()).sample, wanted)


@torch.no_grad()
def test_a_walk_equals_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    network = unet()
    scheduler = diffusers.DDIMScheduler(
        1000, clip_sample=True, timestep_spacing="trailing", set_alpha_to_one=True
    )
    scheduler.set_timesteps(10)
    theirs = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    for step in scheduler.timesteps:
        output = network(theirs, step).sample
        theirs = scheduler.step(output, step, theirs, use_clipped_model_output=True).prev_sample
    ours = sample(
        GaussianProcess(LINEAR), TimestepDenoiser(network), DDIM(), (1, 1, 8, 8),
        trailing_timesteps(10), project=clip(), rng=generators([5]),
    )  # fmt: skip
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_conditions_by_the_names_of_the_network():
    network = unet(num_class_embeds=4)
    xt, level = torch.zeros(2, 1, 8, 8), LINEAR.at(torch.tensor([0.5, 0.5]))
    denoiser = TimestepDenoiser(network, condition="class_labels", left_out=3)
    wanted = network(xt, torch.tensor(499), class_labels=torch.tensor([1, 3])).sample
    assert torch.equal(denoiser(xt, level, torch.tensor([1, -1])), wanted)
    named = {"class_labels": torch.tensor([1, 3])}
    assert torch.equal(TimestepDenoiser(network)(xt, level, named), wanted)
    with pytest.raises(TypeError, match="argument name for it is not set"):
        TimestepDenoiser(network)(xt, level, torch.tensor([1, 3]))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        TimestepDenoiser(network, steps=0)


def test_networks_that_return_tensors_and_tuples():
    level = LINEAR.at(torch.tensor([1.0]))
    for network in (lambda x, t: x + t, lambda x, t: (x + t, None)):
        module = torch.nn.Module()
        module.forward = network
        assert float(TimestepDenoiser(module)(torch.zeros(1), level)) == 999
