"""What an image model makes, from Python."""

import pytest
import torch

import multidiff as md
from multidiff.image.diffusion.domains import LatentDomain, PixelDomain
from multidiff.image.diffusion.model import Canvas
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.tokenizers import ClipTokenizer, WordTokenizer
from multidiff.models.sampling_config import SPACINGS
from multidiff.utils.errors import InputError

SEVEN = "a handwritten seven"


@pytest.fixture(scope="module")
def digits(small_digits):
    return md.load(small_digits)


@pytest.fixture(scope="module")
def pixels(small_pixels):
    return md.load(small_pixels)


@pytest.fixture(scope="module")
def color(small_color):
    return md.load(small_color)


def noise_image(*shape):
    rng = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng)


class Counted:
    """How often the network is evaluated, and on how many states."""

    def __init__(self, model):
        self.batches = []
        self.hook = model.denoiser.register_forward_pre_hook(
            lambda _, arguments: self.batches.append(len(arguments[0]))
        )

    def __enter__(self):
        return self.batches

    def __exit__(self, *_):
        self.hook.remove()


def test_pictures_have_the_originals_size(digits, pixels):
    for model, prompt in ((digits, SEVEN), (pixels, "seven")):
        made = model.generate([prompt] * 2, steps=2)
        assert made.shape == (2, 1, 28, 28) and made.dtype == torch.uint8


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "heun", "dpm++"])
def test_a_picture_depends_on_its_own_seed_alone(digits, sampler):
    together = digits.generate([SEVEN] * 5, seed=10, steps=3, sampler=sampler, batch_size=3)
    alone = digits.generate([SEVEN], seed=13, steps=3, sampler=sampler)
    named = digits.generate([SEVEN] * 2, seed=[13, 10], steps=3, sampler=sampler)
    assert (together[3].int() - alone[0].int()).abs().max() <= 1
    assert (named[0].int() - alone[0].int()).abs().max() <= 1
    assert not torch.equal(together[0], together[3])


def test_guidance_is_one_doubled_batch_a_step(digits):
    with Counted(digits) as batches:
        digits.generate([SEVEN] * 3, steps=4, sampler="ddim", guidance_scale=2.0)
    assert batches == [6] * 4
    with Counted(digits) as batches:
        digits.generate([SEVEN] * 3, steps=4, sampler="ddim", guidance_scale=1.0)
    assert batches == [3] * 4


def test_guidance_and_negative_prompts_change_pictures(digits):
    def made(**options):
        return digits.generate([SEVEN], steps=3, **options)

    plain = made(guidance_scale=3.0)
    assert torch.equal(plain, made(guidance_scale=3.0, negative_prompt=""))
    for other in (
        {"guidance_scale": 1.0},
        {"guidance_scale": 3.0, "negative_prompt": "a handwritten one"},
    ):
        assert not torch.equal(plain, made(**other))
    # Away from what is asked for: with and without are the same, whatever the scale.
    assert torch.equal(
        made(guidance_scale=3.0, negative_prompt=SEVEN),
        made(guidance_scale=7.0, negative_prompt=SEVEN),
    )


def test_classes_are_guided_too(pixels):
    one, other, free = (
        pixels.generate(["seven"], steps=3, guidance_scale=2.0),
        pixels.generate(["two"], steps=3, guidance_scale=2.0),
        pixels.generate([""], steps=3),
    )
    assert not torch.equal(one, other) and not torch.equal(one, free)
    with pytest.raises(InputError, match=r"no class 'eleven'.*zero, one"):
        pixels.generate(["eleven"])


def test_pixels_stay_in_bounds(pixels):
    """Estimates are clipped at every step, so states end within the range of bytes."""
    states = []
    pixels.generate(["one"], steps=5, sampler="ddim", on_step=lambda s: states.append(s.state))
    assert float(states[-1].abs().max()) <= 1


# ------------------------------------------------------------------------ from an image


@pytest.mark.parametrize("strength", [0.02, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("steps", [1, 7])
def test_a_walk_from_a_picture_has_the_steps_it_says(digits, strength, steps):
    done = []
    canvas = Canvas(noise_image(1, 1, 28, 28), strength)
    digits.generate([SEVEN], steps=steps, sampler="ddim", canvas=canvas, on_step=done.append)
    assert [one.number for one in done] == list(range(1, steps + 1))


def test_strength_0_is_the_picture_and_1_forgets_it(digits):
    first, second = noise_image(1, 1, 28, 28), 255 - noise_image(1, 1, 28, 28)
    with Counted(digits) as batches:
        assert torch.equal(digits.generate([SEVEN], canvas=Canvas(first, 0.0)), first)
    assert batches == []
    made = [digits.generate([SEVEN], steps=3, canvas=Canvas(p, 1.0)) for p in (first, second)]
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], digits.generate([SEVEN], steps=3))


def test_less_strength_keeps_more(pixels):
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[..., 8:20, 8:20] = 255

    def gap(strength):
        made = pixels.generate([""], steps=8, canvas=Canvas(image, strength))
        return float((made.float() - image.float()).abs().mean())

    assert gap(0.02) < gap(0.3) < gap(1.0)


@pytest.mark.parametrize("strength", [0.4, 1.0])
@pytest.mark.parametrize("which", ["digits", "pixels"])
def test_what_is_not_masked_comes_back_to_the_bit(which, strength, request):
    model = request.getfixturevalue(which)
    image, mask = noise_image(1, 1, 28, 28), torch.zeros(28, 28, dtype=torch.bool)
    mask[3:17, 9:] = True
    prompt = SEVEN if which == "digits" else "seven"
    made = model.generate([prompt] * 3, steps=3, canvas=Canvas(image, strength, mask))
    assert torch.equal(made[:, :, ~mask], image.expand(3, -1, -1, -1)[:, :, ~mask])
    assert not torch.equal(made[:, :, mask], image.expand(3, -1, -1, -1)[:, :, mask])


def test_the_painted_part_knows_the_rest(pixels):
    """Known pixels stand in every estimate, so the last one has them and the walk saw them."""
    image, mask = noise_image(1, 1, 28, 28), torch.zeros(28, 28, dtype=torch.bool)
    mask[:14] = True
    states = []
    canvas = Canvas(image, 1.0, mask)
    pixels.generate([""], steps=4, canvas=canvas, on_step=lambda s: states.append(s.state))
    unit = image.float() / 127.5 - 1
    assert torch.allclose(states[-1][:, :, 14:], unit[:, :, 14:], atol=1e-5)


def test_other_sizes(digits, color):
    assert digits.generate([SEVEN], steps=1, size=(45, 31)).shape == (1, 1, 31, 45)
    assert color.generate(["a nine"], steps=1, size=(72, 48)).shape == (1, 3, 48, 72)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": (70, 60)}, r"70x60.*multiples of 8.*72x64"),
        ({"size": (0, 64)}, "nearest is 8x64"),
        ({"steps": 0}, "--steps 0: from 1 to 1000"),
        ({"steps": 1001}, "--steps 1001"),
        ({"guidance_scale": -1.0}, "--guidance-scale -1"),
        ({"sampler": "eulr"}, "--sampler eulr: did you mean euler"),
        ({"canvas": Canvas(noise_image(1, 1, 64, 64))}, "has 1 channels, not 3"),
        ({"canvas": Canvas(noise_image(1, 3, 64, 60))}, "60x64 of the initial image.*64x64"),
        ({"canvas": Canvas(noise_image(1, 3, 64, 64)), "size": (32, 32)}, "--size 32x32"),
    ],
)
def test_what_cannot_be_made(color, options, reason):
    with pytest.raises(InputError, match=reason):
        color.generate(["a nine"], **options)


def test_no_prompts_are_no_pictures(digits):
    with pytest.raises(InputError, match="no prompts"):
        digits.generate([])


def test_canvases_that_cannot_be():
    image = noise_image(1, 1, 8, 9)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="--strength"):
            Canvas(image, strength)
    with pytest.raises(InputError, match=r"9x9.*9x8"):
        Canvas(image, 0.5, torch.ones(9, 9, dtype=torch.bool))
    for other, reason in (
        (image / 255, "torch.float32: give bytes"),
        (image.long() * 2, "outside 0 to 255"),
        (image[0, 0], r"the shape \(8, 9\)"),
        (None, "is a NoneType: pass a tensor"),
    ):
        with pytest.raises(InputError, match=reason):
            Canvas(other)
    for mask, reason in (
        (torch.full((8, 9), 1.5), "from 1.5 to 1.5"),
        (torch.full((8, 9), float("nan")), "from nan to nan"),
        (torch.full((8, 9), 256), "from 256 to 256"),
        ("mask.png", "is a str: pass a tensor"),
    ):
        with pytest.raises(InputError, match=reason):
            Canvas(image, 1.0, mask)


HALVES = torch.zeros(28, 28, dtype=torch.bool)
HALVES[:, :14] = True


@pytest.mark.parametrize(
    "mask",
    [HALVES, HALVES.float(), HALVES.double().numpy(), HALVES.byte(), HALVES.byte() * 255,
     HALVES.long() * 255, HALVES[None, None]],
    ids=["bool", "float", "numpy", "byte 0 and 1", "byte 0 and 255", "long", "more axes"],
)  # fmt: skip
@pytest.mark.parametrize("which", ["digits", "pixels"])
def test_masks_of_every_type_mean_the_same(which, mask, request):
    """Black is kept to the bit whatever the numbers are; 255 once blended instead."""
    model, image = request.getfixturevalue(which), noise_image(1, 1, 28, 28)
    prompts = ["" if which == "pixels" else SEVEN]
    made = model.generate(prompts, steps=1, canvas=Canvas(image, 1.0, mask))
    assert made.dtype == torch.uint8
    wanted = model.generate(prompts, steps=1, canvas=Canvas(image, 1.0, HALVES))
    assert torch.equal(made, wanted)
    assert torch.equal(made[..., 14:], image[..., 14:])
    assert not torch.equal(made[..., :14], image[..., :14])


@pytest.mark.parametrize(("soft", "count"), [(HALVES.float() * 0.7, 392), (HALVES * 200, 392)])
def test_the_cut_of_a_soft_mask_is_announced(soft, count, caplog):
    canvas = Canvas(noise_image(1, 1, 28, 28), 1.0, soft)
    assert torch.equal(canvas.mask, HALVES)
    assert f"the mask: {count} of 784 pixels are neither black nor white" in caplog.text


def test_a_canvas_for_each_prompt_in_batches(pixels):
    """More images than are made at a time; each walk begins from its own."""
    images = noise_image(5, 1, 28, 28)
    canvas = Canvas(images, 0.4, HALVES)
    made = pixels.generate([""] * 5, steps=2, seed=3, canvas=canvas, batch_size=2)
    assert torch.equal(made[..., 14:], images[..., 14:])
    alone = pixels.generate([""], steps=2, seed=7, canvas=Canvas(images[4], 0.4, HALVES))
    assert (made[4].int() - alone[0].int()).abs().max() <= 1
    with pytest.raises(InputError, match="5 images for 3 prompts"):
        pixels.generate([""] * 3, canvas=canvas)


def test_batches_are_handed_out_as_they_are_made(pixels):
    seen = []
    made = pixels.generate([""] * 5, steps=1, batch_size=2, on_batch=lambda *one: seen.append(one))
    assert [first for first, _ in seen] == [0, 2, 4]
    assert torch.equal(torch.cat([part for _, part in seen]), made)


def test_one_text_is_one_prompt(digits):
    made = digits.generate(SEVEN, steps=1)
    assert torch.equal(made, digits.generate([SEVEN], steps=1)) and len(made) == 1


def test_seeds_of_every_type(pixels):
    import numpy as np

    wanted = pixels.generate(["", ""], seed=3, steps=1)
    for seed in (np.int64(3), torch.tensor(3), [3, np.uint8(4)], np.array([3, 4])):
        assert torch.equal(pixels.generate(["", ""], seed=seed, steps=1), wanted)
    before = torch.get_rng_state()
    one, other = (pixels.generate([""], seed=None, steps=1) for _ in range(2))
    assert not torch.equal(one, other) and torch.equal(torch.get_rng_state(), before)
    with pytest.raises(InputError, match="2 seeds for 1 samples"):
        pixels.generate([""], seed=[1, 2])
    with pytest.raises(InputError, match="batch_size 0"):
        pixels.generate([""], batch_size=0)


def test_a_precision_that_a_model_has_not_says_what_to_do(small_digits, small_tokens):
    for folder, kind in ((small_digits, torch.float64), (small_tokens, torch.float16)):
        model = md.load(folder).to(kind)
        with pytest.raises(InputError, match=r"are float\d\d: .*call model\.float\(\) first"):
            model.generate([""])
        assert len(model.float().generate([""], steps=1)) == 1


def test_sizes_far_from_the_trained_one_are_warned_of(pixels, caplog):
    for size, warned in (((28, 28), 0), ((32, 32), 0), ((64, 64), 1), ((28, 64), 1), ((14, 28), 1)):
        caplog.clear()
        pixels.generate([""] * 3, steps=1, size=size, batch_size=1)
        assert caplog.text.count("the model was trained at 28x28") == warned, size


# ------------------------------------------------------------------------------ its parts


@pytest.mark.parametrize("spacing", sorted(SPACINGS))
@pytest.mark.parametrize("steps", [1, 3, 20, 999, 1000])
def test_every_spacing_has_the_steps_it_says(spacing, steps):
    schedule = md.BetaSchedule.scaled_linear(1000, 0.00085, 0.012)
    sampling = ImageSamplingConfig(steps, timestep_spacing=spacing)
    assert len(sampling.times(schedule).times(schedule)) == steps
    assert len(sampling.times_from(0.3, schedule).times(schedule)) == steps


def test_dropped_captions_are_empty_ones(digits):
    """The empty caption stands for none, as in the published models."""
    domain = digits.domain
    batch = {"image": noise_image(64, 1, 28, 28), "caption": [SEVEN] * 64}
    drop, domain.drop_caption = domain.drop_caption, 0.5
    encoded = domain.encode(batch, torch.Generator().manual_seed(0))
    domain.drop_caption = drop
    full, empty = domain.condition([SEVEN, ""])
    is_full = (encoded.condition == full).flatten(1).all(dim=1)
    is_empty = (encoded.condition == empty).flatten(1).all(dim=1)
    assert bool((is_full ^ is_empty).all()) and 16 < int(is_empty.sum()) < 48


def test_the_autoencoder_is_left_alone_and_the_text_encoder_learns(digits, small_digits):
    task = md.load(small_digits).requires_grad_(True).task()
    task.domain.autoencoder.requires_grad_(False)
    batch = {"image": noise_image(4, 1, 28, 28), "caption": [SEVEN] * 4}
    losses = task.losses(batch, torch.Generator().manual_seed(0))
    losses["denoising"].mean().backward()
    assert task.domain.text_encoder.transformer.embeddings.token_embedding.weight.grad.any()
    assert all(p.grad is None for p in task.domain.autoencoder.parameters())


def test_states_and_pictures_are_inverse_in_pixels():
    domain = PixelDomain((5, 7), 1, pad_to=4)
    image = torch.rand(2, 1, 7, 5) * 2 - 1
    state = domain.to_state(image)
    assert state.shape == domain.state_shape(2, (5, 7)) == (2, 1, 8, 8)
    assert torch.equal(domain.decode(state), image)


def test_reduced_states_are_means_of_squares_and_images_keep_their_size():
    domain = PixelDomain((6, 10), 1, pad_to=4, factor=2)
    image = torch.rand(2, 1, 10, 6) * 2 - 1
    state = domain.to_state(image)
    assert state.shape == domain.state_shape(2, (6, 10)) == (2, 1, 6, 4)
    whole = PixelDomain((6, 10), 1, pad_to=4).to_state(image)
    squares = whole.unfold(2, 2, 2).unfold(3, 2, 2)
    torch.testing.assert_close(state, squares.mean(dim=(4, 5)))
    flat = torch.full((2, 1, 6, 4), 0.25)
    torch.testing.assert_close(domain.decode(flat), torch.full_like(image, 0.25))
    with pytest.raises(ValueError, match="pad_to 3: must be a multiple of the factor 2"):
        PixelDomain((6, 10), 1, pad_to=3, factor=2)


def test_a_tokenizer_and_a_text_encoder_go_together(digits):
    with pytest.raises(ValueError, match="go together"):
        LatentDomain(digits.domain.autoencoder, None, WordTokenizer(("a",)))


# --------------------------------------------------------------------------- tokenizers


def test_word_tokens():
    tokenizer = WordTokenizer(("a", "seven"), length=6)
    begin, end, unknown = tokenizer.BEGIN, tokenizer.END, tokenizer.UNKNOWN
    assert tokenizer(["A seven!", "", "a purple seven a seven"]).tolist() == [
        [begin, 3, 4, end, end, end],
        [begin, end, end, end, end, end],
        [begin, 3, unknown, 4, 3, end],
    ]
    assert tokenizer.complaint("A seven!") is None
    assert "cut off: 'seven'" in tokenizer.complaint("a purple seven a seven")
    assert "does not know purple" in tokenizer.complaint("a purple seven")
    with pytest.raises(ValueError, match="duplicates"):
        WordTokenizer(("a", "a"))


VOCABULARY = ["a</w>", "b</w>", "a", "b", "ab</w>", "<|startoftext|>", "<|endoftext|>"]


@pytest.fixture
def clip_files(tmp_path):
    import json

    numbers = {token: number for number, token in enumerate(VOCABULARY)}
    (tmp_path / "vocab.json").write_text(json.dumps(numbers))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    return tmp_path


def test_clip_tokens(clip_files):
    tokenizer = ClipTokenizer(str(clip_files), length=6, pad=0)
    assert tokenizer(["ab a", ""]).tolist() == [[5, 4, 0, 6, 0, 0], [5, 6, 0, 0, 0, 0]]
    assert tokenizer.complaint("ab a") is None
    reported = tokenizer.complaint("a b a b ab ab")
    assert "6 tokens, 4 fit" in reported and "ab ab" in reported
    again = ClipTokenizer(length=6, pad=0)
    again.take(tokenizer.assets())
    assert torch.equal(again(["b ab"]), tokenizer(["b ab"]))


def test_clip_tokens_without_their_files(tmp_path):
    tokenizer = ClipTokenizer(str(tmp_path))
    with pytest.raises(InputError, match=r"vocab\.json and merges\.txt"):
        tokenizer(["a"])


def test_labels_that_a_model_with_classes_needs():
    domain = PixelDomain((5, 7), 1, classes=("circle", "square"))
    batch = {"image": noise_image(2, 1, 7, 5)}
    with pytest.raises(InputError, match="2 classes, but the images have no labels: set label_col"):
        domain.encode(batch, None)
    batch["label"] = torch.tensor([1, 0])
    assert domain.encode(batch, None).condition.tolist() == [1, 0]
    batch |= {"label": torch.tensor([1, 2]), "name": ["a.png", "b.png"]}
    with pytest.raises(InputError, match=r"b\.png: has label 2, but the model has 2 classes"):
        domain.encode(batch, None)
