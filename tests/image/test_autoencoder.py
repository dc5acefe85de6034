"""The autoencoder: Gaussians, tiles, half precision, training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import SMALL_1, autoencoders, relative

import multidiff as md
from multidiff.image.autoencoders.discriminator import PatchDiscriminator, balance
from multidiff.image.autoencoders.kl import AutoencoderKL, LatentGaussian
from multidiff.image.autoencoders.perceptual import STAGES, PerceptualDistance
from multidiff.image.autoencoders.tiling import Tiles
from multidiff.image.autoencoders.training import ImageAutoencoder
from multidiff.models.weights import save_tensors
from multidiff.utils.errors import InputError


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small(**options):
    torch.manual_seed(0)
    return AutoencoderKL(1, (8, 16), 1, 2, 1.0, groups=4, **options).eval().requires_grad_(False)


def test_kl_equals_torchs():
    gaussian = LatentGaussian(draw(3, 2, 4, 4), draw(3, 2, 4, 4, seed=1))
    one = torch.distributions.Normal(gaussian.mean, (0.5 * gaussian.log_variance).exp())
    wanted = torch.distributions.kl_divergence(one, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(gaussian.kl(), wanted.sum(dim=(1, 2, 3)), rtol=1e-4)


def test_draws_have_the_gaussians_moments():
    gaussian = LatentGaussian(torch.full((1, 1, 300, 300), 3.0), torch.full((1, 1, 300, 300), -2.0))
    drawn = gaussian.sample(torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(3, abs=0.01)
    assert drawn.std().item() == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.02)


def test_states_are_scaled_latents_and_back():
    net = AutoencoderKL(1, (8, 16), 1, 2, groups=4)
    latent = draw(1, 2, 4, 4)
    assert torch.allclose(net.to_state(latent), 0.18215 * latent)
    assert torch.allclose(net.to_latent(net.to_state(latent)), latent)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"10x9.*multiples of 2"):
        small().encode(draw(1, 1, 9, 10))


# ------------------------------------------------------------------------------- tiles


@given(height=st.integers(1, 9), width=st.integers(1, 9), size=st.integers(4, 8))
@settings(max_examples=40, deadline=None)
def test_tiles_of_a_local_function_are_its_whole(height, width, size):
    """Where no place looks at another, tiling changes nothing."""
    image = draw(2, 3, 4 * height, 4 * width)
    tiles = Tiles(4 * size, 4)
    smaller = tiles.encoded(lambda x: torch.nn.functional.avg_pool2d(x, 4), image)
    assert torch.allclose(smaller, torch.nn.functional.avg_pool2d(image, 4), atol=1e-5)
    larger = tiles.decoded(lambda x: x.repeat_interleave(4, 2).repeat_interleave(4, 3), smaller)
    wanted = smaller.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(larger, wanted, atol=1e-5)


@torch.no_grad()
def test_a_picture_of_one_tile_is_the_whole_to_the_bit():
    whole, tiled = small(), small(tile=32)
    image = draw(1, 1, 32, 32)
    assert torch.equal(tiled.encode(image).mean, whole.encode(image).mean)
    latent = draw(1, 2, 16, 16)
    assert torch.equal(tiled.decode(latent), whole.decode(latent))


@torch.no_grad()
def test_tiles_come_close_to_the_whole():
    """Norms and attention see a tile alone, so near, not equal; and no seam stands out."""
    theirs, whole = autoencoders(SMALL_1)
    _, tiled = autoencoders(SMALL_1)
    tiled.tiles = Tiles(64, whole.factor)
    latent = whole.encode(draw(1, 3, 128, 96).clamp(-1, 1)).mean
    one, other = whole.decode(latent), tiled.decode(latent)
    assert one.shape == other.shape
    assert 0 < float((one - other).abs().mean() / one.abs().mean()) < 0.25
    assert theirs.config.norm_num_groups == 8


@torch.no_grad()
def test_tiles_need_less_memory_at_once():
    sizes = []
    net = small(tile=32)
    net.decoder.register_forward_hook(lambda _, given, made: sizes.append(made.shape[2:]))
    assert net.decode(draw(1, 2, 64, 48)).shape == (1, 1, 128, 96)
    assert len(sizes) > 1 and all(max(size) <= 32 for size in sizes)


def test_tiles_that_cannot_be():
    for size in (-8, 4, 30):
        with pytest.raises(ValueError, match=f"tile {size}"):
            Tiles(size, 8)


# ----------------------------------------------------------------------- half precision


def overflowing():
    """An autoencoder whose decoder leaves float16's range, as some published weights do."""
    net = small()
    with torch.no_grad():
        net.decoder.conv_in.weight.mul_(3e5)
        net.decoder.conv_in.bias.zero_()
    return net


@torch.no_grad()
def test_overflow_in_half_precision_is_mended_in_full():
    net, latent = overflowing(), draw(2, 2, 4, 4)
    wanted = net.decode(latent)
    halved = net.half()
    halved.decoder.conv_in.weight.clamp_(-6e4, 6e4)
    assert not bool(halved._images(latent.half()).isfinite().all())
    made = halved.decode(latent.half())
    assert bool(made.isfinite().all()) and made.std() > 0
    assert next(halved.parameters()).dtype == torch.float16
    assert bool(wanted.isfinite().all())


@torch.no_grad()
def test_what_no_precision_can_hold_is_no_black_picture():
    net = small()
    net.decoder.conv_out.weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="not finite"):
        net.decode(draw(1, 2, 4, 4))


@torch.no_grad()
def test_bfloat16_is_near_float32():
    net, image = small(), draw(1, 1, 32, 32).clamp(-1, 1)
    wanted = net.decode(net.encode(image).mean)
    found = net.bfloat16().decode(net.encode(image.bfloat16()).mean)
    assert relative(found.float(), wanted) < 0.1


# ------------------------------------------------------------------------------ training


def squares(count=8, side=16):
    rng = torch.Generator().manual_seed(0)
    image = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    for one in image:
        left, top = torch.randint(0, side - 6, (2,), generator=rng).tolist()
        one[:, top : top + 6, left : left + 6] = 255
    return {"image": image}


@pytest.mark.usefixtures("unchecked_signatures")
def test_it_learns_a_batch_by_heart():
    torch.manual_seed(0)
    model = ImageAutoencoder(
        AutoencoderKL(1, (16, 32), 1, 4, 1.0, groups=8),
        discriminator=PatchDiscriminator(1, 8, 1),
        adversarial_from=60,
    )
    before = float(model.losses(squares(), None)["reconstruction"].mean())
    md.Trainer(steps=120, learning_rate=3e-3, ema_decay=0.9).fit(model, [squares()])
    losses = model.losses(squares(), None)
    assert set(losses) == {"reconstruction", "kl", "adversarial", "discriminator"}
    assert float(losses["reconstruction"].mean()) < 0.1 * before
    error = (model.reconstruct(squares()["image"]).float() - squares()["image"]).abs().mean()
    assert float(error) < 20


def test_the_players_do_not_reach_each_other():
    model = ImageAutoencoder(small().requires_grad_(True), discriminator=PatchDiscriminator(1, 8))
    losses = model.losses(squares(2, 32), None)
    discriminator = list(model.discriminator.parameters())
    maker = list(model.autoencoder.decoder.parameters())

    def reached(loss, weights):
        pulls = torch.autograd.grad(loss.sum(), weights, allow_unused=True, retain_graph=True)
        return sum(pull is not None and bool(pull.any()) for pull in pulls)

    assert (
        reached(losses["adversarial"], discriminator) == 0 < reached(losses["adversarial"], maker)
    )
    assert (
        reached(losses["discriminator"], maker)
        == 0
        < reached(losses["discriminator"], discriminator)
    )


def test_every_weight_has_a_gradient_before_the_game_begins():
    """Of none, several processes would wait for each other: all share gradients of all weights."""
    discriminator = PatchDiscriminator(1, 8)
    model = ImageAutoencoder(
        small().requires_grad_(True), discriminator=discriminator, adversarial_from=1
    )
    losses = model.losses(squares(2, 32), None)
    assert "adversarial" not in losses
    sum(losses.values()).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert not any(weight.grad.any() for weight in discriminator.parameters())


def test_balance_makes_both_pulls_equal():
    weight = torch.ones(3, requires_grad=True)
    first, second = (weight * draw(3)).sum(), 50 * (weight * draw(3, seed=1)).sum()
    factor = balance(first, second, weight)
    pulls = [torch.autograd.grad(x, weight)[0].norm() for x in (first, factor * second)]
    assert torch.allclose(*pulls, rtol=1e-3)


def test_scores_do_not_depend_on_the_batch():
    discriminator = PatchDiscriminator(1, 8, 2)
    image = draw(4, 1, 32, 32)
    assert torch.allclose(discriminator(image)[2:3], discriminator(image[2:3]), atol=1e-5)


@pytest.fixture
def vgg(tmp_path):
    tensors, position, wide = {}, 0, 3
    for number, (count, width) in enumerate(STAGES):
        position += number > 0
        for _ in range(count):
            tensors[f"features.{position}.weight"] = draw(width, wide, 3, 3) / (9 * wide) ** 0.5
            tensors[f"features.{position}.bias"] = torch.zeros(width)
            position, wide = position + 2, width
    path = tmp_path / "vgg.safetensors"
    save_tensors(tensors, path)
    return path, tensors


def test_perceptual_distance(vgg, tmp_path):
    path, tensors = vgg
    distance = PerceptualDistance(str(path))
    one, other = draw(2, 1, 32, 32), draw(2, 1, 32, 32, seed=1)
    assert torch.equal(distance(one, one), torch.zeros(2))
    apart = distance(one, other)
    assert bool((apart > distance(one, one + 0.05 * other)).all())
    torch.save(tensors, tmp_path / "vgg.pth")
    assert torch.equal(PerceptualDistance(str(tmp_path / "vgg.pth"))(one, other), apart)
    model = ImageAutoencoder(small(), perceptual=distance)
    assert "perceptual" in model.losses(squares(2, 32), None)
    assert not any("perceptual" in name for name in model.state_dict())


def test_perceptual_weights_that_are_none(vgg, tmp_path):
    path, tensors = vgg
    image = draw(1, 3, 32, 32)
    with pytest.raises(InputError, match="no such file"):
        PerceptualDistance(str(tmp_path / "no.pth"))(image, image)
    save_tensors({k: v for k, v in tensors.items() if "28" not in k}, path)
    with pytest.raises(InputError, match=r"features\.28"):
        PerceptualDistance(str(path))(image, image)
    torch.save(torch.nn.Linear(1, 1), tmp_path / "code.pth")
    with pytest.raises(InputError, match="besides tensors"):
        PerceptualDistance(str(tmp_path / "code.pth"))(image, image)
