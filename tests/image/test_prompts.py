"""Prompts of a name and a style: grammar, vocabulary, guidance by parts, and wrong ones."""

import json
import random
import re

import numpy as np
import pytest
import torch
from commands import complains
from PIL import Image
from program import RECIPES

from multidiff.cli.main import run
from multidiff.core.gaussian.losses import FlowWeight
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import LogSNRSchedule
from multidiff.core.gaussian.time_laws import LogNormalSigmas
from multidiff.image.canvas import Canvas
from multidiff.image.data.listing import ImageSource
from multidiff.image.diffusion.domains import PixelDomain
from multidiff.image.diffusion.model import ImageDiffusion
from multidiff.image.diffusion.prompt_unet import PromptUNet
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.diffusion.unet import UNet
from multidiff.image.prompts import PROMPTS, PromptTokenizer, split_style
from multidiff.utils.errors import InputError

VOCABULARY = {
    "words": ["blue", "cat", "face", "heart", "red", "with", "tears"],
    "names": ["cat", "cat face", "red heart", "face with tears"],
    "styles": ["flat", "ink"],
}


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / PROMPTS).write_text(json.dumps(VOCABULARY))
    found = PromptTokenizer(vocabulary=11, styles=2, length=8)
    found.load_assets(tmp_path)
    return found


def spelled(tokenizer, numbers):
    entries = [*VOCABULARY["words"], *(name.upper() for name in VOCABULARY["names"])]
    return [entries[number] for number in numbers if number >= 0]


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("cat face, flat style", ("cat face", "flat")),
        ("Cat Face , INK Style", ("Cat Face", "ink")),
        ("cat face flat style", ("cat face", "flat")),
        ("style guide", ("style guide", None)),
        ("", ("", None)),
    ],
)
def test_the_style_is_named_at_the_end(prompt, parts):
    assert split_style(prompt) == parts


def test_a_prompt_is_split_as_by_the_plain_pattern():
    plain = re.compile(r"\s*,?\s*([^\s,]+)\s+style\s*$", re.IGNORECASE)
    rng = random.Random(0)
    parts = [" ", " ", "\n", "\t", ",", "a", "flat", "style", "Style", "\u00a0"]
    styled = 0
    for _ in range(600):
        prompt = "".join(rng.choices(parts, k=rng.randrange(9))) + rng.choice(["", " style", " "])
        found = plain.search(prompt)
        expected = (prompt, None) if found is None else (prompt[: found.start()], found[1].lower())
        assert split_style(prompt) == (expected[0].strip(), expected[1]), repr(prompt)
        styled += found is not None
    assert styled > 100


@pytest.mark.parametrize("blank", [" ", " \n", "\t"])
def test_a_prompt_of_many_spaces_is_split(blank):
    many = blank * 5000
    assert split_style(many) == ("", None)
    assert split_style(f"cat{many}face{many}") == (f"cat{many}face", None)
    assert split_style(f"cat{many},{many}ink{many}style{many}") == ("cat", "ink")


def test_names_follow_their_words_the_longest_first(tokenizer):
    found = spelled(tokenizer, tokenizer.tokens("a blue Cat-face and red heart"))
    assert found == ["blue", "cat", "face", "CAT FACE", "red", "heart", "RED HEART"]
    assert spelled(tokenizer, tokenizer.tokens("face cat")) == ["face", "cat", "CAT"]
    assert spelled(tokenizer, tokenizer.tokens("cat face", with_names=False)) == ["cat", "face"]


def test_training_drops_names_of_some_captions_and_sampling_of_none(tokenizer):
    prompts = ["cat face, ink style"] * 200
    rng = torch.Generator().manual_seed(0)
    rows = tokenizer(prompts, rng)["words"]
    named = (rows == 8).any(dim=1)
    assert 60 < int(named.sum()) < 140
    assert bool((tokenizer(prompts)["words"] == 8).any(dim=1).all())


def test_the_vocabulary_is_that_of_the_captions_and_is_kept(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    rows = ['a.png,"Big cat, ink style"', "a.png,boat"]
    (tmp_path / "metadata.csv").write_text("file_name,text\n" + "\n".join(rows))
    made = PromptTokenizer(ImageSource(str(tmp_path)), words=("red",), vocabulary=6, styles=1)
    kept = json.loads(made.assets()[PROMPTS])
    assert kept["styles"] == ["ink"] and sorted(kept["names"]) == ["big cat", "boat"]
    assert sorted(kept["words"]) == ["big", "boat", "cat", "red"]
    small = PromptTokenizer(ImageSource(str(tmp_path)), vocabulary=3)
    with pytest.raises(InputError, match="set vocabulary: 5"):
        small(["boat"])


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "is empty"),
        (" , flat style", "is empty"),
        ("xyzzy", "knows none of these words"),
        ("cat, fllat style", "no style 'fllat'; one of flat, ink"),
        ("cat, flat style, ink style", "names two styles, flat and ink"),
    ],
)
def test_wrong_prompts_say_what_is_wrong(tokenizer, prompt, reason):
    with pytest.raises(InputError, match=reason):
        tokenizer.check_prompt(prompt)


def test_unknown_words_are_named(tokenizer):
    assert "does not know blurry, wide" in tokenizer.complaint("blurry wide cat, flat style")
    assert tokenizer.complaint("blue cat, flat style") is None


def toy(tokenizer, seed=0, size=(16, 16), **options):
    torch.manual_seed(seed)
    network = UNet(
        *(3, 3, (8, 16), 1, ("none", "joint"), (1, 2)), condition_width=16, groups=4, patch=2
    )
    denoiser = PromptUNet(network, 11, 2, 8, layers=1, heads=2)
    process = GaussianProcess(
        LogSNRSchedule(),
        "x0",
        times=LogNormalSigmas(0.4, 1.2),
    )
    return ImageDiffusion(
        PixelDomain(size, 3, tokenizer=tokenizer, **options),
        process,
        denoiser,
        ImageSamplingConfig(steps=3, guidance_scale=2.0),
        drop_condition={"words": 0.1, "style": 0.1},
    )


def test_dropped_parts_are_those_of_an_empty_prompt(tokenizer):
    model = toy(tokenizer)
    xt, level = torch.randn(2, 3, 16, 16), model.process.schedule.at(torch.tensor([0.3, 0.6]))
    empty = model.domain.condition(["", ""])
    found = model.denoiser(xt, level, empty)
    assert torch.allclose(found, model.denoiser(xt, level, None), atol=1e-6)
    told = model.domain.condition(["cat, ink style", "cat"])
    assert not torch.allclose(found, model.denoiser(xt, level, told), atol=1e-4)
    dropped = {"words": empty["words"], "style": told["style"]}
    styled = model.denoiser(xt, level, dropped)
    assert not torch.allclose(styled[0], found[0], atol=1e-4)
    assert torch.allclose(styled[1], found[1], atol=1e-6)


def test_word_order_is_read_and_case_is_not(tokenizer):
    model = toy(tokenizer)
    one, other = model.generate(["red cat blue heart", "blue cat red heart"], seed=[0, 0])
    assert not torch.equal(one, other)
    assert torch.equal(model.generate("Red CAT"), model.generate("red cat"))


def test_a_picture_depends_on_its_own_prompt_and_seed_alone(tokenizer):
    model = toy(tokenizer)
    together = model.generate(["cat, ink style", "red heart"], seed=[3, 4])
    assert torch.equal(model.generate("red heart", seed=4)[0], together[1])
    assert not torch.equal(model.generate("cat, flat style", seed=3)[0], together[0])


def test_a_negative_prompt_equal_to_the_prompt_cancels_guidance(tokenizer):
    model = toy(tokenizer)
    plain = model.generate("cat, ink style", guidance_scale=1.0)
    away = model.generate("cat, ink style", guidance_scale=7.0, negative_prompt="cat, ink style")
    assert int((plain.int() - away.int()).abs().max()) <= 1


def test_words_and_style_are_guided_apart(tokenizer):
    model = toy(tokenizer)
    made = {
        (words, style): model.generate("cat, ink style", guidance_scale=words, **options)
        for words, style, options in [
            (1.0, 1.0, {}),
            (3.0, 3.0, {}),
            (3.0, 3.0001, {"style_guidance_scale": 3.0001}),
            (3.0, 1.0, {"style_guidance_scale": 1.0}),
            (1.0, 3.0, {"style_guidance_scale": 3.0}),
        ]
    }
    both = made[3.0, 3.0].int()
    assert int((both - made[3.0, 3.0001].int()).abs().max()) <= 1
    assert len({one.numpy().tobytes() for one in made.values()}) >= 4
    # Without a style there is none to be guided by.
    plain = model.generate("cat", guidance_scale=3.0)
    styled = model.generate("cat", guidance_scale=3.0, style_guidance_scale=9.0)
    assert int((plain.int() - styled.int()).abs().max()) <= 1


def test_the_flow_weight_is_that_of_its_velocity():
    process = GaussianProcess(LogSNRSchedule(), "x0")
    level = process.schedule.at(process.schedule.time_at(torch.tensor([0.0, 4.0, 20.0 - 10.0])))
    ratio = level.sigma / level.alpha
    # On the flow xt / (alpha + sigma) = (1 - s) x0 + s noise the velocity is (x - x0) / s.
    expected = 1 / (ratio / (1 + ratio)).clamp(min=0.05) ** 2
    assert torch.allclose(FlowWeight()(process, level), expected)
    assert float(FlowWeight()(process, level)[-1]) == pytest.approx(400)


def test_one_batch_can_be_learnt(tokenizer):
    model = toy(tokenizer)
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    images[0, 0], images[1, :, :8] = 255, 200
    batch = {"image": images, "caption": ["cat, ink style", "red heart, ink style"]}
    task, rng = model.task(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(task.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = task.losses(batch, rng)["denoising"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.4 * np.mean(losses[:10])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emoji") / "run"
    steps = ("steps=2", "validate_every=2", "save_every=2")
    recipe = RECIPES / "smoke" / "emoji.yaml"
    assert run(["train", str(recipe), "--out", str(folder), *(f"trainer.{s}" for s in steps)]) == 0
    return folder


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "is empty"),
        ("qwerty, noto style", "knows none of these words"),
        ("rocket, notto style", "no style 'notto'; one of noto, openmoji, outline, twemoji"),
        ("rocket, noto style, outline style", "names two styles"),
    ],
)
def test_the_command_refuses_wrong_prompts_and_writes_nothing(
    trained, tmp_path, capsys, prompt, reason
):
    out = tmp_path / "out"
    assert reason in complains(capsys, "sample", trained, "--prompt", prompt, "-o", out)
    assert not out.exists()


def test_the_command_names_unknown_words_and_draws_the_rest(trained, tmp_path, caplog):
    words = ["sample", trained, "--prompt", "shiny rocket, noto style", "--style-guidance-scale", 3]
    assert run([*map(str, words), "--steps", "2", "-o", str(tmp_path)]) == 0
    assert "does not know shiny, which is ignored" in caplog.text
    assert len(list(tmp_path.glob("000-shiny-rocket-noto-style-0.png"))) == 1


def test_other_models_have_no_style_to_be_guided_by(capsys, tmp_path):
    words = ("sample", "digits", "--prompt", "3", "--style-guidance-scale", 3, "-o", tmp_path)
    assert "prompts have no styles" in complains(capsys, *words)


def test_a_network_of_half_the_size_makes_and_paints_images_of_the_whole(tokenizer):
    model = toy(tokenizer, size=(32, 32), pad_to=16, factor=2)
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    area = torch.zeros(32, 32, dtype=torch.bool)
    area[5:14, 9:20] = True
    made = model.generate(["cat, ink style"], canvas=Canvas(image, mask=area))
    assert torch.equal(made[..., ~area], image[..., ~area])
    assert not torch.equal(made[..., area], image[..., area])
    states = []
    for one in (model, toy(tokenizer)):
        one.generate(["cat, ink style"], on_latents=lambda _, state: states.append(state))
    torch.testing.assert_close(*states)
