"""The networks against diffusers' and transformers', and what they promise by themselves."""

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import (
    SMALL_1,
    SMALL_2,
    STABLE_1,
    STABLE_2,
    autoencoders,
    model_of,
    randomised,
    relative,
    text_encoders,
    unets,
)

from multidiff.core.gaussian.schedules import BetaSchedule, NoiseLevel
from multidiff.core.random import generators
from multidiff.core.sample import sample
from multidiff.image.diffusion.unet import UNet

CLOSE = 1e-4
LARGE = [pytest.mark.slow, pytest.mark.full_size]
SHAPES = [
    pytest.param(SMALL_1, id="small-1"),
    pytest.param(SMALL_2, id="small-2"),
    pytest.param(STABLE_1, id="stable-1.5", marks=LARGE),
    pytest.param(STABLE_2, id="stable-2.1", marks=LARGE),
]
SCHEDULE = BetaSchedule.scaled_linear(1000, 0.00085, 0.012)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def level_at(indices):
    return SCHEDULE.at((torch.tensor(indices, dtype=torch.float64) + 1) / 1000)


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_unet_equals_diffusers(shape):
    theirs, ours = unets(shape)
    xt, words = draw(2, 4, 16, 24), draw(2, shape.text["length"], shape.text["width"])
    wanted = theirs(xt, torch.tensor([981, 0]), words).sample
    assert relative(ours(xt, level_at([981, 0]), words), wanted) < CLOSE
    assert theirs.config.sample_size is None or wanted.std() > 0.05


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_autoencoder_equals_diffusers(shape):
    theirs, ours = autoencoders(shape)
    image, latent = draw(1, 3, 64, 96).clamp(-1, 1), draw(1, 4, 8, 12)
    wanted, found = theirs.encode(image).latent_dist, ours.encode(image)
    assert relative(found.mean, wanted.mean) < CLOSE
    assert relative(found.log_variance, wanted.logvar) < CLOSE
    assert torch.allclose(found.kl(), wanted.kl(), rtol=1e-4)
    assert relative(ours.decode(latent), theirs.decode(latent).sample) < CLOSE


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_text_encoder_equals_transformers(shape):
    theirs, ours = text_encoders(shape)
    tokens = torch.arange(2 * shape.text["length"]).reshape(2, -1) % shape.text["vocabulary"]
    wanted = theirs(input_ids=tokens, output_hidden_states=True)
    assert relative(ours(tokens), wanted.last_hidden_state) < CLOSE
    ours.skip = 1
    norm = getattr(theirs, "text_model", theirs).final_layer_norm
    assert relative(ours(tokens), norm(wanted.hidden_states[-2])) < CLOSE


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_a_guided_picture_equals_diffusers(shape):
    """Twenty DDIM steps with a doubled batch, from prompt to pixels."""
    (their_unet, unet), (their_vae, vae) = unets(shape), autoencoders(shape)
    their_text, text = text_encoders(shape)
    model = model_of(shape, unet, vae, text)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
        prediction_type={"epsilon": "epsilon", "v": "v_prediction"}[shape.prediction],
    )  # fmt: skip
    scheduler.set_timesteps(20)
    side = 128
    latent = torch.randn(
        model.domain.state_shape(1, (side, side))[1:], generator=torch.Generator().manual_seed(7)
    )[None]
    tokens = model.domain.tokenizer(["a red house", "fog"])
    words = their_text(input_ids=tokens).last_hidden_state
    for time in scheduler.timesteps:
        reported, uncond = their_unet(latent.repeat(2, 1, 1, 1), time, words).sample.chunk(2)
        guided = uncond + 7.5 * (reported - uncond)
        latent = scheduler.step(guided, time, latent).prev_sample
    wanted = their_vae.decode(latent / 0.18215).sample

    states = []
    made = model.generate(
        ["a red house"], negative_prompt="fog", size=(side, side), seed=7,
        on_step=lambda step: states.append(step.state),
    )  # fmt: skip
    assert len(states) == 20
    assert relative(states[-1], latent) < CLOSE
    assert relative(model.domain.to_image(states[-1], (side, side)), wanted) < CLOSE
    assert made.shape == (1, 3, side, side) and made.dtype == torch.uint8


@torch.no_grad()
def test_pixel_unet_equals_diffusers():
    """The UNet of DDPM: attention among the places of one level and in the middle."""
    theirs = diffusers.UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=2,
        block_out_channels=(32, 64, 64), norm_num_groups=8, attention_head_dim=None,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        flip_sin_to_cos=False, freq_shift=1, downsample_padding=1,
    )  # fmt: skip
    ours = UNet(
        3, 3, (32, 64, 64), 2, ("none", "self", "none"), (1, 1, 1), groups=8,
        flip_sin_to_cos=False, freq_shift=1,
    ).eval()  # fmt: skip
    ours.load_state_dict(randomised(theirs).state_dict())
    xt = draw(2, 3, 16, 16)
    wanted = theirs(xt, torch.tensor([500, 3])).sample
    assert relative(ours(xt, level_at([500, 3])), wanted) < CLOSE


@torch.no_grad()
def test_norms_have_the_published_epsilon():
    """With activations near zero another epsilon shows, and nowhere else."""
    faint = 1e-3 * draw(1, 32, 8, 8)
    their_unet, unet = unets(SMALL_1)
    for path in ("down_blocks.0.attentions.0.norm", "down_blocks.0.resnets.0.norm1"):
        assert unet.get_submodule(path).eps == their_unet.get_submodule(path).eps
        wanted = their_unet.get_submodule(path)(faint)
        assert relative(unet.get_submodule(path)(faint), wanted) < CLOSE
    their_vae, vae = autoencoders(SMALL_1)
    wanted = their_vae.encoder.down_blocks[0].resnets[0](faint[:, :16], None)
    assert relative(vae.encoder.down_blocks[0].resnets[0](faint[:, :16]), wanted) < CLOSE


@torch.no_grad()
def test_encoder_pads_below_and_on_the_right_only():
    _, ours = autoencoders(SMALL_1)
    down = ours.encoder.down_blocks[0].downsamplers[0]
    impulse = torch.zeros(1, 16, 8, 8)
    impulse[:, :, 0, 0] = 1
    response = down(impulse) - down(torch.zeros_like(impulse))
    # The kernel's first tap meets the first pixel; padding on all sides would meet its centre.
    assert torch.allclose(response[0, :, 0, 0], down.conv.weight[:, :, 0, 0].sum(1), atol=1e-5)


@given(height=st.integers(3, 19), width=st.integers(3, 19), batch=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_unet_takes_any_size(height, width, batch):
    net = _tiny_unet()
    xt = draw(batch, 4, height, width)
    alone = net(xt[:1], level_at([10]), draw(1, 5, 8))
    together = net(xt, level_at([10] * batch), draw(1, 5, 8).expand(batch, -1, -1))
    assert together.shape == xt.shape
    assert torch.allclose(together[:1], alone, atol=1e-4)


def _tiny_unet(**options):
    shape = {"channels": (16, 16, 32), "layers": 1, "attention": ("cross", "none", "cross")}
    return randomised(UNet(4, 4, **shape, heads=(2, 2, 2), condition_width=8, groups=8, **options))


def test_the_layout_in_memory_changes_nothing_else():
    xt, level, words = draw(2, 4, 8, 8), level_at([5, 900]), draw(2, 5, 8)
    plain, net = _tiny_unet(), _tiny_unet(channels_last=True)
    net.load_state_dict(plain.state_dict())
    wanted = plain(xt, level, words)
    assert net.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(net(xt, level, words), wanted, atol=1e-4)


def test_saved_memory_costs_nothing_but_time():
    losses = []
    for save_memory in (False, True):
        net = _tiny_unet(save_memory=save_memory).train().requires_grad_(True)
        net(draw(2, 4, 8, 8), level_at([5, 900]), draw(2, 5, 8)).square().mean().backward()
        losses.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(*losses, strict=True))


def test_compiles_without_graph_breaks():
    net = _tiny_unet()
    counted = torch._dynamo.explain(net)(draw(2, 4, 8, 8), level_at([5, 900]), draw(2, 5, 8))
    assert counted.graph_break_count == 0, counted.break_reasons


def test_upcast_attention_is_finite_in_half_precision():
    """Queries and keys whose products leave float16's range."""
    from multidiff.image.diffusion.transformer import CrossAttention

    layer = CrossAttention(16, None, 1, upcast=True).half()
    with torch.no_grad():
        layer.to_q.weight.fill_(1.0)
        layer.to_k.weight.fill_(1.0)
    tokens = 200 * draw(1, 6, 16).half()
    products = layer.to_q(tokens) @ layer.to_k(tokens).transpose(1, 2)
    assert not bool(products.isfinite().all())
    assert bool(layer(tokens).isfinite().all()) and layer(tokens).dtype == torch.float16


def test_classes_are_told_apart_and_left_out():
    net = randomised(UNet(1, 1, (16, 16), 1, ("none", "self"), (1, 1), classes=3, groups=8))
    xt = draw(1, 1, 8, 8).expand(4, -1, -1, -1)
    made = net(xt, level_at([50] * 4), torch.tensor([0, 1, 2, -1]))
    assert len({tuple(one.flatten().tolist()) for one in made}) == 4
    assert torch.allclose(made[3:], net(xt[:1], level_at([50]), None), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"heads": (1,)}, "give one for each level"),
        ({"attention": ("cross", "none"), "heads": (1, 1)}, "condition_width"),
    ],
)
def test_unets_that_cannot_be(options, reason):
    with pytest.raises(ValueError, match=reason):
        UNet(channels=(8, 8), groups=4, **{"attention": ("none", "none"), **options})


def test_a_batch_equals_its_rows_in_the_whole_loop():
    """One generator for each sample: sample i alone is sample i in a batch."""
    from multidiff import DDPM, GaussianProcess, uniform_timesteps

    net, process = _tiny_unet(), GaussianProcess(SCHEDULE)
    words = draw(3, 5, 8)

    def walked(rows):
        rng = generators([10 + row for row in rows])
        shape = (len(rows), 4, 8, 8)
        return sample(
            process, net, DDPM(), shape, uniform_timesteps(4), condition=words[list(rows)], rng=rng
        )

    together = walked(range(3))
    for row in range(3):
        assert torch.allclose(walked([row])[0], together[row], atol=1e-4)


def test_levels_between_two_entries_are_embedded_between():
    net = _tiny_unet()
    between, clean = SCHEDULE.at(torch.tensor([0.5005])), SCHEDULE.at(torch.tensor([0.5]))
    later = SCHEDULE.at(torch.tensor([0.501]))
    waves = [net.time_embedding(one) for one in (clean, between, later)]
    assert (waves[0] - waves[1]).norm() < (waves[0] - waves[2]).norm()
    assert isinstance(between, NoiseLevel)


@pytest.mark.gpu
def test_compiled_in_bfloat16_on_a_gpu():
    """The GPU recipes' way: channels last, compiled, autocast; near the plain network."""
    net = _tiny_unet(channels_last=True).cuda()
    xt, level, words = draw(2, 4, 16, 16).cuda(), level_at([5, 900]).to("cuda"), draw(2, 5, 8)
    wanted = net(xt, level, words.cuda())
    fast = torch.compile(net, fullgraph=True)
    with torch.autocast("cuda", torch.bfloat16):
        found = fast(xt, level, words.cuda())
    assert relative(found.float(), wanted) < 0.05
