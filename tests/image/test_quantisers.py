"""Codebooks, grids and signs: rounding, what is learnt from it, and how it is counted."""

import itertools
import math
import multiprocessing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multidiff.core.random import generators
from multidiff.image.autoencoders.codebook import VectorQuantizerEMA
from multidiff.image.autoencoders.quantizers import FSQ, LFQ, perplexity, usage

LEVELS = [(3,), (4,), (8, 5), (8, 6, 5), (5, 5, 5, 5), (7, 5, 5, 5, 3)]


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codebook(codes, **options):
    """One that is in use: every code was chosen once and stands at its mean."""
    codes = torch.as_tensor(codes, dtype=torch.float32)
    made = VectorQuantizerEMA(*codes.shape, **options)
    made.codes.copy_(codes)
    made.sums.copy_(codes)
    made.counts.fill_(1)
    return made


def states(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


QUANTISERS = {
    "codebook": lambda: codebook(draw(16, 4)),
    "unit": lambda: codebook(torch.nn.functional.normalize(draw(16, 4), dim=1), unit=True),
    "levels": lambda: FSQ((8, 6, 5, 4)),
    "signs": lambda: LFQ(4, diversity=0.0),
}
every_quantiser = pytest.mark.parametrize("name", QUANTISERS)


# ---------------------------------------------------------------------------- all of them


@every_quantiser
def test_a_picture_does_not_depend_on_the_others(name):
    quantizer, latents = QUANTISERS[name](), draw(3, 4, 2, 5)
    whole, alone = quantizer(latents), quantizer(latents[1:2])
    assert torch.equal(whole.tokens[1:2], alone.tokens)
    assert torch.equal(whole.latents[1:2], alone.latents)
    for key, loss in whole.losses.items():
        assert loss.shape == (3,)
        assert torch.allclose(loss[1:2], alone.losses[key])


@every_quantiser
def test_latents_are_the_codes_of_their_tokens(name):
    quantizer = QUANTISERS[name]()
    found = quantizer(draw(2, 4, 3, 3))
    assert found.tokens.shape == (2, 3, 3)
    assert torch.allclose(quantizer.lookup(found.tokens), found.latents, atol=1e-6)
    again = quantizer.lookup(torch.arange(quantizer.size).reshape(1, 1, -1))
    assert again.shape == (1, quantizer.width, 1, quantizer.size)


@every_quantiser
def test_half_precision_does_not_change_tokens(name):
    quantizer, latents = QUANTISERS[name](), draw(2, 4, 8, 8)
    wanted = quantizer(latents)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(latents)
    assert found.latents.dtype == torch.float32
    assert torch.equal(found.tokens, wanted.tokens)


@every_quantiser
def test_only_training_changes_anything(name):
    quantizer = QUANTISERS[name]()
    before = states(quantizer)
    quantizer(draw(2, 4, 3, 3))
    assert same(states(quantizer), before)


@pytest.mark.parametrize("name", ["codebook", "signs"])
def test_gradients_pass_straight_through(name):
    latents, pull = draw(2, 4, 3, 3).requires_grad_(), draw(2, 4, 3, 3, seed=1)
    (QUANTISERS[name]()(latents).latents * pull).sum().backward()
    assert torch.equal(latents.grad, pull)


def test_gradients_of_levels_are_those_of_the_bound():
    quantizer, pull = FSQ((8, 5, 4)), draw(2, 3, 2, 2, seed=1)
    one, other = (draw(2, 3, 2, 2).requires_grad_() for _ in range(2))
    (quantizer(one).latents * pull).sum().backward()
    bounded = quantizer.bound(other.permute(0, 2, 3, 1)) / torch.tensor([4, 2, 2])
    (bounded.permute(0, 3, 1, 2) * pull).sum().backward()
    assert torch.allclose(one.grad, other.grad)
    assert bool(one.grad.abs().min() > 0)


# --------------------------------------------------------------------------------- levels


@pytest.mark.parametrize("levels", LEVELS)
def test_every_code_goes_round(levels):
    """Tokens to codes, to latents that are bounded there, to the same tokens."""
    quantizer = FSQ(levels)
    assert quantizer.size == math.prod(levels) and quantizer.width == len(levels)
    tokens = torch.arange(quantizer.size).reshape(1, 1, -1)
    codes = quantizer.lookup(tokens)
    assert len(codes.flatten(1).reshape(len(levels), -1).T.unique(dim=0)) == quantizer.size
    assert float(codes.min()) == -1 and float(codes.max()) <= 1
    count = torch.tensor(levels)[:, None, None]
    half, offset = (count - 1) * 0.999 / 2, torch.where(count % 2 == 0, 0.5, 0.0)
    aimed = (codes * (count // 2) + offset) / half
    latents = torch.atanh(aimed.clamp(-0.9999, 0.9999)) - torch.atanh(offset / half)
    found = quantizer(latents)
    assert torch.equal(found.tokens, tokens)
    assert torch.allclose(found.latents, codes)


def test_tokens_count_in_mixed_radix():
    """The first channel fastest: levels 0, 1, 2 of 3 and 0 .. 3 of 4, around zero."""
    codes = FSQ((3, 4)).lookup(torch.arange(12).reshape(1, 1, 12))[0, :, 0].T
    wanted = [[one, other] for other in (-1, -0.5, 0, 0.5) for one in (-1, 0, 1)]
    assert torch.equal(codes, torch.tensor(wanted).float())


@given(levels=st.lists(st.integers(3, 9), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_no_latent_leaves_the_grid(levels, seed):
    quantizer = FSQ(tuple(levels))
    found = quantizer(draw(2, len(levels), 3, 3, seed=seed) * 10.0 ** (seed % 7 - 3))
    assert int(found.tokens.min()) >= 0 and int(found.tokens.max()) < quantizer.size
    assert torch.allclose(quantizer.lookup(found.tokens), found.latents, atol=1e-6)


@pytest.mark.parametrize("level", [3, 4, 5, 8])
def test_every_level_is_reached_in_order_and_zero_is_one(level):
    line = torch.linspace(-9, 9, 2001).reshape(1, 1, 1, -1)
    found = FSQ((level,))(line)
    assert found.tokens.unique_consecutive().tolist() == list(range(level))
    assert float(FSQ((level,))(torch.zeros(1, 1, 1, 1)).latents) == 0


def test_levels_that_cannot_be():
    for levels in ((), (8, 2), (3,) * 40):
        with pytest.raises(ValueError, match="3 or more"):
            FSQ(levels)


# ------------------------------------------------------------------------------- codebook


@given(size=st.integers(1, 40), width=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_nearest_code_is_the_nearest(size, width, seed):
    made = codebook(draw(size, width, seed=seed))
    latents = draw(50, width, seed=seed + 1)
    apart = (latents[:, None].double() - made.codes[None].double()).square().sum(dim=-1)
    assert torch.equal(made.nearest(latents), apart.argmin(dim=1))


def test_near_codes_far_from_zero_are_told_apart():
    """As a difference of squares of a million their distance would be lost."""
    made = codebook([[1000.0], [1000.01]])
    assert made.nearest(torch.tensor([[1000.002], [1000.008]])).tolist() == [0, 1]


def test_one_update_by_hand():
    """Counts 1, 1 and new ones 2, 1; sums 0, 10 and new ones 3, 9; the means of both."""
    made = codebook([[0.0], [10.0]], decay=0.5, revive_below=0.0, smoothing=0.5)
    found = made(torch.tensor([1.0, 2.0, 9.0]).reshape(1, 1, 1, 3), training=True)
    assert found.tokens.flatten().tolist() == [0, 0, 1]
    assert found.latents.flatten().tolist() == [0, 0, 10]  # before it
    assert float(found.losses["commitment"]) == pytest.approx(0.25 * (1 + 4 + 1) / 3)
    assert made.counts.tolist() == [1.5, 1.0] and made.sums.flatten().tolist() == [1.5, 9.5]
    smooth = [(1.5 + 0.5) / (2.5 + 1) * 2.5, (1.0 + 0.5) / (2.5 + 1) * 2.5]
    assert made.codes.flatten().tolist() == pytest.approx([1.5 / smooth[0], 9.5 / smooth[1]])


def test_codes_come_to_the_means_of_their_latents():
    centres = torch.tensor([[0.0, 4.0], [4.0, 0.0], [-4.0, -4.0]])
    made = codebook(centres + 1, decay=0.9, revive_below=0.0)
    for step in range(80):
        latents = centres[torch.arange(60) % 3] + 0.1 * draw(60, 2, seed=step)
        made(latents.T.reshape(1, 2, 6, 10), training=True)
    assert torch.allclose(made.codes, centres, atol=0.05)


def trained(made, steps, shape=(8, 4, 4, 4)):
    for step in range(steps):
        seeds = [100 * step + row for row in range(shape[0])]
        made(draw(*shape, seed=step), training=True, rng=generators(seeds))
    return made


def test_dead_codes_come_back_and_else_they_stay_dead():
    far = torch.full((32, 4), 50.0)
    far[0] = 0
    left = trained(codebook(far, decay=0.8, revive_below=0.0), 20)
    assert float(perplexity(left(draw(8, 4, 4, 4)).tokens, 32)) == pytest.approx(1)
    helped = trained(codebook(far, decay=0.8), 20)
    tokens = helped(draw(8, 4, 4, 4)).tokens
    assert float(usage(tokens, 32)) > 0.9 and float(perplexity(tokens, 32)) > 20


def test_the_first_batch_gives_all_codes():
    latents = draw(8, 4, 4, 4)
    made = VectorQuantizerEMA(32, 4, decay=0.0, revive_below=0.0)
    tokens = made(latents, training=True, rng=torch.Generator().manual_seed(0)).tokens
    assert float(usage(tokens, 32)) == 1  # each stands at a latent of its own
    few = VectorQuantizerEMA(32, 4)
    few(latents[:1, :, :2, :2], training=True)
    assert bool(few.codes.isfinite().all())


def test_draws_are_the_generators_and_go_on_from_a_saved_state():
    def made():
        return VectorQuantizerEMA(16, 4, decay=0.5, revive_below=0.9)

    whole, half, other = trained(made(), 6), trained(made(), 3), made()
    other.load_state_dict(half.state_dict())
    for step in range(3, 6):
        seeds = [100 * step + row for row in range(8)]
        other(draw(8, 4, 4, 4, seed=step), training=True, rng=generators(seeds))
    assert same(states(other), states(whole))
    latents = draw(8, 4, 4, 4)
    one, two = made(), made()
    one(latents, training=True, rng=torch.Generator().manual_seed(0))
    two(latents, training=True, rng=torch.Generator().manual_seed(1))
    assert not torch.equal(one.codes, two.codes)


def _half_of_a_batch(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    made, signs = VectorQuantizerEMA(16, 4, decay=0.5, revive_below=0.9), LFQ(4)
    mine = slice(4 * rank, 4 * rank + 4)
    for step in range(4):
        rng = generators([100 * step + row for row in range(8)][mine])
        made(draw(8, 4, 4, 4, seed=step)[mine], training=True, rng=rng)
    entropy = signs.shared_entropy(draw(8, 4, 4, 4)[mine] / 100)
    torch.save([states(made), entropy], f"{folder}/{rank}.pt")


def test_two_processes_keep_the_codes_of_one(tmp_path):
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_half_of_a_batch, args=(n, str(tmp_path))) for n in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert [one.exitcode for one in both] == [0, 0]
    wanted = states(trained(VectorQuantizerEMA(16, 4, decay=0.5, revive_below=0.9), 4))
    entropy = LFQ(4).shared_entropy(draw(8, 4, 4, 4) / 100)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert same(found[0][0], found[1][0])
    for name, tensor in wanted.items():
        assert torch.allclose(found[0][0][name], tensor, atol=1e-5), name
    assert float(found[0][1]) == pytest.approx(float(entropy), abs=1e-5)


def test_unit_codes_see_angles_alone():
    made = trained(VectorQuantizerEMA(16, 4, unit=True), 5)
    assert torch.allclose(made.codes.norm(dim=1), torch.ones(16))
    latents = draw(2, 4, 3, 3)
    one, other = made(latents), made(7 * latents)
    assert torch.equal(one.tokens, other.tokens)
    assert torch.allclose(one.latents, other.latents, atol=1e-6)


def test_codebooks_that_cannot_be():
    for options in ({"size": 0}, {"width": 0}, {"decay": 1.0}, {"revive_below": 1.0}):
        with pytest.raises(ValueError, match="at least 1 code"):
            VectorQuantizerEMA(**options)


# ---------------------------------------------------------------------------------- signs


def test_tokens_are_signs_in_binary():
    found = LFQ(3)(torch.tensor([0.5, -2.0, 3.0]).reshape(1, 3, 1, 1))
    assert found.tokens.item() == 0b101
    assert found.latents.flatten().tolist() == [1, -1, 1]


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_entropies_are_those_of_all_codes(temperature):
    latents = draw(2, 3, 2, 4)
    last = latents.permute(0, 2, 3, 1)
    codes = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))
    apart = (last[..., None, :] - codes).square().sum(dim=-1)
    ratios = (-apart.double() / temperature).softmax(dim=-1)
    own = torch.special.entr(ratios).sum(dim=-1).mean(dim=(1, 2))
    shared = torch.special.entr(ratios.mean(dim=(0, 1, 2))).sum()
    signs = LFQ(3, temperature=temperature, diversity=0.7)
    assert torch.allclose(signs.own_entropy(last).double(), own, atol=1e-5)
    assert float(signs.shared_entropy(last)) == pytest.approx(float(shared), abs=1e-5)
    wanted = 0.1 * (own - 0.7 * shared)
    assert torch.allclose(signs(latents).losses["entropy"].double(), wanted, atol=1e-6)


def test_groups_bound_the_entropy_from_above():
    """And are exact where bits of different groups have nothing to do with each other."""
    latents = 0.3 * draw(2, 4, 5, 4)
    whole, parts = (LFQ(4, temperature=1.0, group=group) for group in (4, 2))
    assert float(parts.shared_entropy(latents)) > float(whole.shared_entropy(latents))
    halves = 0.3 * torch.tensor(list(itertools.product([-1.0, 2.0], repeat=4)))[None, None]
    assert float(parts.shared_entropy(halves)) == pytest.approx(
        float(whole.shared_entropy(halves)), abs=1e-5
    )


def test_a_quarter_million_codes_take_no_table():
    sizes = []

    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    signs, latents = LFQ(18), draw(2, 18, 4, 4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        found = signs(latents)
    sum(loss.sum() for loss in found.losses.values()).backward()
    assert signs.size == 2**18 and max(sizes) <= 32 * 2**9
    assert bool(latents.grad.isfinite().all())


def test_latents_far_from_zero_have_gradients():
    latents = torch.tensor([1e3, -1e3, 1e-3, 0.0]).reshape(1, 4, 1, 1).requires_grad_()
    losses = LFQ(4)(latents).losses
    sum(loss.sum() for loss in losses.values()).backward()
    assert bool(latents.grad.isfinite().all())


def test_signs_that_cannot_be():
    for options in ({"bits": 0}, {"bits": 40}, {"group": 0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="1 to 30 bits"):
            LFQ(**options)


# ------------------------------------------------------------------------------- measures


@given(size=st.integers(1, 300), used=st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_perplexity_counts_codes_used_alike(size, used):
    used = min(size, used)
    tokens = torch.arange(used).repeat(3).reshape(3, used, 1)
    assert float(perplexity(tokens, size)) == pytest.approx(used, rel=1e-5)
    assert float(usage(tokens, size)) == pytest.approx(used / size)


def test_perplexity_of_unequal_codes_by_hand():
    tokens = torch.tensor([0, 0, 0, 5])
    wanted = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert float(perplexity(tokens, 8)) == pytest.approx(wanted)
    assert float(usage(tokens, 8)) == 0.25
