"""Images by masked tokens: tokens and back, walks, what is known, guidance, likelihood."""

import math
from typing import Any

import pytest
import torch
from shapes import unchecked
from torch import nn

import multidiff as md
from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.schedules import CosineMasks
from multidiff.core.random import generators
from multidiff.image.autoencoders.quantizers import FSQ, Quantized
from multidiff.image.autoencoders.vq import VQAutoencoder
from multidiff.image.maskgit.domain import ImageTokenDomain
from multidiff.image.maskgit.model import MaskGIT, TokenDraft
from multidiff.image.maskgit.sampling_config import (
    UNMASKING_SAMPLERS,
    MaskGITSamplingConfig,
    halton_order,
)
from multidiff.image.tokenizers import WordTokenizer
from multidiff.nn.token_denoiser import TokenDenoiser
from multidiff.utils.errors import InputError

CODES = 16
CLASSES = ("circle", "square", "star", "line")
WORDS = ("a", "red", "star")
GREY = 128  # of masks; no code is shown so


class Blocks(VQAutoencoder):
    """Each block of 4x4 pixels is one of sixteen greys: tokens that can be seen."""

    def __init__(self, channels: Any = 1):
        super().__init__(FSQ((4, 4)), channels, (4, 4, 4), 1, groups=2)

    def encode(self, image, training=False, rng=None):
        grey = nn.functional.avg_pool2d(image.mean(dim=1, keepdim=True), self.factor)
        tokens = ((grey[:, 0] + 1) / 2 * (CODES - 1)).round().long()
        return Quantized(grey, tokens)

    def lookup(self, tokens):
        return tokens[:, None] / (CODES - 1) * 2.0 - 1

    def decode(self, latents):
        wide = latents.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)
        return wide.expand(-1, self.image_channels, -1, -1)


def small_domain(size=(16, 16), channels=1, **options):
    torch.manual_seed(0)
    return ImageTokenDomain(Blocks(channels), size=size, **options)


def small_model(size=(16, 16), sampling=None, drop_condition=0.0, channels=1, **options):
    domain = small_domain(size, channels, **{"classes": CLASSES, **options})
    torch.manual_seed(1)
    sources = len(domain.classes) or (8 if domain.tokenizer else 0)
    denoiser = TokenDenoiser(CODES, 32, 2, 4, domain.length, sources)
    # From a table this small all tokens look alike: here they are to differ by what is read.
    with torch.no_grad():
        denoiser.words.weight.mul_(20)
    process = MaskProcess(CODES, CosineMasks(), masking="exact", objective="mean")
    return MaskGIT(domain, process, denoiser, sampling, drop_condition).eval()


def images(domain, count=3, seed=0):
    """Whose tokens are any, and which tokens tell whole."""
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randint(CODES, (count, domain.length), generator=rng)
    return tokens, domain.images(tokens)


def states_of(model, prompts, **how):
    """The tokens after each step, of all the images; and these."""
    seen = {}
    made = model.generate(
        prompts, on_step=lambda number, state: seen.setdefault(number, []).append(state), **how
    )
    return [torch.cat(parts) for parts in seen.values()], made


# ------------------------------------------------------------------------ tokens and back


def test_pictures_are_rows_of_tokens_from_the_top():
    domain = small_domain((24, 8))
    assert domain.grid == (2, 6) and domain.length == 12 and domain.codes == CODES
    image = torch.zeros(1, 1, 8, 24, dtype=torch.uint8)
    image[..., :4, 8:12] = 255
    image[..., 4:, 20:] = 255
    assert domain.tokens(image).nonzero()[:, 1].tolist() == [2, 11]
    tokens, made = images(domain)
    assert made.dtype == torch.uint8 and made.shape == (3, 1, 8, 24)
    assert torch.equal(domain.tokens(made), tokens)
    assert torch.equal(domain.kept(made)["tokens"], tokens.int())


def test_other_sizes_are_padded_and_cut_again():
    domain = small_domain((30, 26), channels=3)
    assert domain.grid == (7, 8)
    tokens, made = images(domain)
    assert made.shape == (3, 3, 26, 30)
    inner = domain.tokens(made).view(3, 7, 8)[:, 1:-1, 1:-1]
    assert torch.equal(inner, tokens.view(3, 7, 8)[:, 1:-1, 1:-1])
    assert small_domain((30, 26), pad_to=16).grid == (8, 8)


@pytest.mark.parametrize("size", [(16, 16), (30, 26)])
def test_masks_are_seen_as_grey(size):
    domain = small_domain(size)
    tokens, plain = images(domain, 1)
    hidden = torch.arange(domain.length)[None] % 3 == 0
    shown = domain.images(tokens.masked_fill(hidden, CODES))
    grey = shown == GREY
    assert not bool((plain == GREY).any()) and torch.equal(shown[~grey], plain[~grey])
    rows, columns = domain.grid
    cells = hidden.view(1, 1, rows, columns).repeat_interleave(4, 2).repeat_interleave(4, 3)
    top, left = (rows * 4 - size[1]) // 2, (columns * 4 - size[0]) // 2
    assert torch.equal(grey, cells[..., top : top + size[1], left : left + size[0]])


def test_classes_are_a_number_and_left_out_where_empty():
    domain = small_domain(classes=CLASSES)
    assert domain.reads == "class"
    reported = domain.condition(["star", "", "circle"])
    assert torch.equal(reported["source"], torch.tensor([[2], [-1], [0]]))
    assert reported["source"].dtype == torch.int64 and domain.complaint("star") is None
    tokens, made = images(domain, 2)
    encoded = domain.encode({"image": made, "label": torch.tensor([3, 1])}, None)
    assert torch.equal(encoded.x0, tokens) and encoded.x0.dtype == torch.int64
    assert encoded.condition["source"].tolist() == [[3], [1]]
    kept = {**domain.kept(made), "label": torch.tensor([3, 1])}
    assert torch.equal(domain.encode(kept, None).x0, tokens)
    with pytest.raises(InputError, match="no class 'cube': one of circle, square, star, line"):
        domain.condition(["cube"])


def test_a_number_of_classes_names_them():
    domain = small_domain(classes=1000)
    assert domain.classes[:2] == ("0", "1") and domain.classes[-1] == "999"
    assert domain.condition(["207"])["source"].item() == 207
    with pytest.raises(InputError, match=r"no class '1000': one of 0, 1, .*, 19, \.\.\.$"):
        domain.condition(["1000"])
    assert small_domain(classes=0).reads == "nothing"
    with pytest.raises(ValueError, match="classes -1"):
        small_domain(classes=-1)


def test_captions_are_their_words():
    tokenizer = WordTokenizer(WORDS, 5)
    domain = small_domain(tokenizer=tokenizer)
    assert domain.reads == "prompt" and "does not know blue" in str(domain.complaint("a blue star"))
    reported = domain.condition(["a red star", ""])["source"]
    assert torch.equal(reported[0], tokenizer(["a red star"])[0]) and reported.dtype == torch.int64
    assert (reported[1] == -1).all() and reported.shape == (2, 5)
    batch = {"image": images(domain, 1)[1], "caption": ["a star"]}
    assert torch.equal(domain.encode(batch, None).condition["source"], tokenizer(["a star"]))
    assert small_domain().condition([""]) is None


def test_what_the_domain_refuses():
    with pytest.raises(ValueError, match="give one condition, not both"):
        small_domain(classes=CLASSES, tokenizer=WordTokenizer(WORDS))
    with pytest.raises(ValueError, match="pad_to 6"):
        small_domain(pad_to=6)
    with pytest.raises(ValueError, match="images of 20x16: this domain's have 16x16"):
        small_domain().tokens(torch.zeros(1, 1, 16, 20, dtype=torch.uint8))


# --------------------------------------------------------------------------------- orders


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (16, 16), (5, 8), (1, 3)])
def test_a_halton_order_is_where_the_sequence_goes(rows, columns):
    from scipy.stats import qmc

    points = qmc.Halton(d=2, scramble=False).random(60 * rows * columns)[1:]  # less the origin
    cells = (points * [rows, columns]).astype(int)
    wanted = list(dict.fromkeys((cells[:, 0] * columns + cells[:, 1]).tolist()))
    assert halton_order(rows, columns) == wanted
    assert sorted(wanted) == list(range(rows * columns))


def test_its_first_quarter_is_all_over_the_picture():
    touched = {(cell // 16 // 4, cell % 16 // 4) for cell in halton_order(16, 16)[:64]}
    assert len(touched) == 16


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        (8, [251, 236, 212, 181, 142, 97, 49, 0]),
        (12, [253, 247, 236, 221, 203, 181, 155, 128, 97, 66, 33, 0]),
    ],
)
@pytest.mark.parametrize("sampler", ["confidence", "random", "halton", "remasking"])
def test_masks_left_are_those_of_the_released_sampler(steps, left, sampler):
    model = small_model((64, 64))
    states, _ = states_of(model, ["star", ""], steps=steps, sampler=sampler)
    for state, count in zip(states, left, strict=True):
        assert (state == CODES).sum(dim=1).tolist() == [count] * 2


def test_the_halton_walk_fills_its_first_cells_first():
    model = small_model((64, 64))
    states, _ = states_of(model, ["star"], steps=8, sampler="halton")
    order = halton_order(16, 16)
    for state in states:
        filled = (state[0] != CODES).nonzero()[:, 0].tolist()
        assert sorted(order[: len(filled)]) == filled


def test_training_masks_the_cosine_of_a_uniform_draw():
    length, batch = 49, 4000
    process = MaskProcess(CODES, CosineMasks(), masking="exact", objective="mean")
    rng = torch.Generator().manual_seed(0)
    level = process.draw_level(batch, rng)
    x0 = torch.randint(CODES, (batch, length), generator=rng)
    corrupted = process.corrupt(x0, level, rng)
    counts = corrupted.masked.sum(dim=1)
    wanted = torch.ceil(torch.cos(math.pi / 2 * (1 - level.time)) * length - 1e-9)
    assert torch.equal(counts, wanted.clamp(min=1).long())
    assert torch.equal(corrupted.masked, corrupted.xt == CODES) and int(counts.min()) >= 1
    ratio = 2 / math.pi * math.acos((length - 1) / length)
    spread = math.sqrt(ratio * (1 - ratio) / batch)
    assert abs(float((counts == length).double().mean()) - ratio) < 3 * spread + 1e-3
    assert float((counts < length / 4).double().mean()) > 0.1  # few masks are seen as well


# ----------------------------------------------------------------------- what stays as it is


@pytest.mark.parametrize("sampler", UNMASKING_SAMPLERS)
@pytest.mark.parametrize("size", [(32, 24), (30, 26)])
def test_what_is_not_painted_stays_to_the_bit(sampler, size):
    model = small_model(size)
    rng = torch.Generator().manual_seed(3)
    image = torch.randint(256, (1, 1, size[1], size[0]), generator=rng, dtype=torch.uint8)
    mask = torch.zeros(size[1], size[0], dtype=torch.bool)
    mask[5:14, 6:19] = True
    known = model.known(TokenDraft(image, mask))
    hidden = known == CODES
    states, made = states_of(
        model, ["star"] * 3, draft=TokenDraft(image, mask), steps=5, sampler=sampler, batch_size=2
    )
    assert len(states) == 5 and 0 < int(hidden.sum()) < model.domain.length
    for state in states:
        assert torch.equal(state[:, ~hidden[0]], known[:, ~hidden[0]].expand(3, -1))
    assert not bool((states[-1] == CODES).any())
    assert torch.equal(made[..., ~mask], image[..., ~mask].expand(3, -1, -1))
    assert not torch.equal(made, image.expand_as(made))
    assert torch.equal(
        made[..., mask], model.domain.images(states[-1])[..., mask]
    )  # and the rest is what was made


def test_a_cell_is_known_if_none_of_its_pixels_is_painted():
    model = small_model((16, 12))
    tokens, image = images(model.domain, 1)
    for row, column in ((0, 0), (3, 4), (11, 15), (7, 8)):
        mask = torch.zeros(12, 16, dtype=torch.bool)
        mask[row, column] = True
        known = model.known(TokenDraft(image, mask))
        assert (known == CODES).nonzero()[:, 1].tolist() == [row // 4 * 4 + column // 4]
        assert torch.equal(known[known != CODES], tokens[known != CODES])
    whole = model.known(TokenDraft(image, torch.ones(12, 16, dtype=torch.bool)))
    assert (whole == CODES).all()


def test_drafts_that_do_not_fit():
    model = small_model((16, 12))
    _, image = images(model.domain, 1)
    with pytest.raises(InputError, match="the mask has 12x16 pixels, the image 16x12"):
        TokenDraft(image, torch.zeros(16, 12, dtype=torch.bool))
    for shape in ((1, 1, 16, 16), (1, 3, 12, 16)):
        wrong = TokenDraft(torch.zeros(shape, dtype=torch.uint8), torch.ones(shape[2:]).bool())
        with pytest.raises(InputError, match="this model generates 16x12 with 1; resize it"):
            model.generate(["star"], draft=wrong)


# ------------------------------------------------------------------------ seeds and guidance


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("sampler", UNMASKING_SAMPLERS)
def test_a_picture_alone_is_the_one_in_a_batch(sampler, guidance_scale):
    model = small_model((28, 28))
    how = {"sampler": sampler, "guidance_scale": guidance_scale, "steps": 6}
    prompts = ["star", "line", "star", "circle"]
    states, together = states_of(model, prompts, seed=5, **how)
    assert torch.equal(model.generate(prompts[::-1], seed=[8, 7, 6, 5], batch_size=3, **how),
                       together.flip(0))  # fmt: skip
    for row, prompt in enumerate(prompts):
        found, alone = states_of(model, [prompt], seed=5 + row, **how)
        for one, other in zip(found, states, strict=True):
            assert torch.equal(one[0], other[row])
        assert torch.equal(alone[0], together[row])
    assert not torch.equal(together[0], together[2])


class Counted:
    """How large the batches were that a denoiser was asked for."""

    def __init__(self, denoiser):
        self.sizes = []
        denoiser.register_forward_pre_hook(lambda module, given: self.sizes.append(len(given[0])))


def test_guidance_is_one_doubled_batch_a_step():
    model = small_model()
    counted = Counted(model.denoiser)
    plain = model.generate(["star", "line"], steps=4)
    assert counted.sizes == [2] * 4
    assert torch.equal(model.generate(["star", "line"], steps=4, guidance_scale=1), plain)
    assert counted.sizes == [2] * 8
    guided = model.generate(["star", "line"], steps=4, guidance_scale=3)
    assert counted.sizes[8:] == [4] * 4 and not torch.equal(guided, plain)
    # Without a condition there is nothing to guide by.
    uncond = model.generate(["", ""], steps=4, guidance_scale=3)
    assert counted.sizes[12:] == [2] * 4
    assert torch.equal(model.generate(["", ""], steps=4), uncond)


def test_the_walk_is_the_default():
    sampling = MaskGITSamplingConfig(
        steps=3, sampler="halton", guidance_scale=2.0, temperature=0.5, noise=0.0
    )
    model, plain = small_model(sampling=sampling), small_model()
    how = {"steps": 3, "sampler": "halton", "guidance_scale": 2.0, "temperature": 0.5, "noise": 0.0}
    assert torch.equal(model.generate(["star"] * 3), plain.generate(["star"] * 3, **how))


# --------------------------------------------------------------------- learning, likelihood


def test_a_network_that_knows_nothing_costs_all_codes_alike():
    model = small_model()
    with torch.no_grad():
        model.denoiser.words.weight.zero_()
    _, image = images(model.domain, 5)
    cost = model.nats_per_token(image, ["star"] * 5, looks=16)
    # Each draw of the masks counts its l of L tokens L / l times.
    assert torch.allclose(cost, torch.full_like(cost, math.log(CODES)), atol=1e-6)


def test_the_cost_of_a_picture_is_its_own():
    model = small_model()
    _, image = images(model.domain, 3)
    prompts = ["star", "", "line"]
    whole = model.nats_per_token(image, prompts, seed=4)
    alone = model.nats_per_token(image[2:], prompts[2:], seed=6)
    assert torch.allclose(whole[2:], alone, atol=1e-5)


@pytest.fixture(scope="module")
def learned():
    """A model that knows four images by heart, one of each class."""
    model = small_model(drop_condition=0.2)
    tokens, image = images(model.domain, 4, seed=9)
    batch = {"image": image.repeat(2, 1, 1, 1), "label": torch.arange(4).repeat(2)}
    trainer = md.Trainer(
        steps=150, learning_rate=5e-3, warmup_steps=10, decay="linear", ema_decay=0.9,
        precision="fp32", threads=1, log_every=1000, save_every=1000,
    )  # fmt: skip
    with unchecked():
        trainer.fit(model.task(), [batch])
    return model.eval(), tokens, image


@pytest.mark.parametrize("sampler", UNMASKING_SAMPLERS)
def test_one_batch_is_learned_by_heart(learned, sampler):
    model, tokens, image = learned
    states, made = states_of(model, CLASSES, sampler=sampler, steps=8, temperature=0)
    assert torch.equal(states[-1], tokens) and torch.equal(made, image)


def test_what_was_learned_costs_little_where_it_is_told(learned):
    model, _, image = learned
    reported = model.nats_per_token(image, CLASSES)
    other = model.nats_per_token(image, CLASSES[::-1])
    uncond = model.nats_per_token(image, [""] * 4)
    assert float(reported.max()) < 0.03 < math.log(4) / 16 - 0.02 < float(uncond.min())
    assert float(other.min()) > float(uncond.max())


def test_training_leaves_the_autoencoder_as_it_is(learned):
    model, _, _ = learned
    fresh = small_domain(classes=CLASSES).state_dict()
    for name, value in model.domain.state_dict().items():
        assert torch.equal(value, fresh[name]), name
    assert not any(one.requires_grad for one in model.domain.parameters())


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"steps": 0}, "--steps 0"),
        ({"steps": -3}, "--steps -3"),
        ({"sampler": "ddim"}, "--sampler ddim: expected one of confidence, random, halton"),
        ({"noise": -1.0}, "--noise -1"),
        ({"noise": math.nan}, "--noise nan"),
        ({"temperature": -0.1}, "--temperature -0.1"),
        ({"temperature": math.inf}, "--temperature inf"),
        ({"guidance_scale": -1.0}, "--guidance-scale -1"),
    ],
    ids=str,
)
def test_what_is_refused(how, reason):
    with pytest.raises(InputError, match=reason):
        small_model().generate(["star"], **how)


def test_other_prompts_are_refused():
    with pytest.raises(InputError, match="no class 'cube'"):
        small_model().generate(["cube"])
    with pytest.raises(InputError, match="no prompts"):
        small_model().generate([])
    plain = small_model(classes=())
    with pytest.raises(InputError, match="--guidance-scale 2: this model reads no prompt"):
        plain.generate([""], guidance_scale=2.0)
    assert plain.generate(["", ""], steps=2).shape == (2, 1, 16, 16)


def test_more_steps_than_tokens_are_not_made(caplog):
    states, made = states_of(small_model(), ["star"], steps=40, seed=2)
    assert len(states) == 16 and "an image has 16 tokens, so 16 steps are made" in caplog.text
    assert torch.equal(small_model().generate(["star"], steps=16, seed=2), made)


def test_parts_that_do_not_fit():
    domain = small_domain(classes=CLASSES)
    process = MaskProcess(CODES, CosineMasks())

    def build(domain=domain, process=process, size=CODES, length=16, sources=4, **more):
        denoiser = TokenDenoiser(size, 32, 1, 2, length, sources, **more)
        return MaskGIT(domain, process, denoiser)

    build()
    build(sources=9)
    with pytest.raises(ValueError, match="a codebook of 16 for a process of size 12"):
        build(process=MaskProcess(12, CosineMasks()))
    with pytest.raises(ValueError, match="and a denoiser of size 17"):
        build(size=17)
    with pytest.raises(ValueError, match="length 15 for images of 16 tokens"):
        build(length=15)
    for sources in (0, 3):
        with pytest.raises(ValueError, match=f"sources {sources} for 4 classes: set sources: 4"):
            build(sources=sources)
    with pytest.raises(ValueError, match="sources 4 for 0 classes: set sources: 0"):
        build(domain=small_domain())
    with pytest.raises(ValueError, match="sources 0 for captions"):
        build(domain=small_domain(tokenizer=WordTokenizer(WORDS)), sources=0)
    with pytest.raises(ValueError, match="source_length 1 for captions of 16 tokens"):
        build(domain=small_domain(tokenizer=WordTokenizer(WORDS)), source_length=1)


def test_drawn_tokens_are_those_of_the_core_walk():
    """Nothing lies between a model and the walk that the core tests."""
    from multidiff.core.discrete.samplers import MaskGITSampler
    from multidiff.core.discrete.unmasking import unmask

    model = small_model()
    wanted = unmask(
        model.process, model.denoiser, MaskGITSampler(noise=4.5), (2, 16), 8,
        condition=model.domain.condition(["star", "line"]), rng=generators([0, 1]),
    )  # fmt: skip
    states, _ = states_of(model, ["star", "line"])
    assert torch.equal(states[-1], wanted)
