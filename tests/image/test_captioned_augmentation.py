"""Edits of images and what their captions say: each attribute is measured on the output."""

import colorsys
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from multidiff.image.data.augmentation import (
    HUES,
    CaptionedAugmentation,
    background_of,
    on_background,
    recoloured,
    rgb_of,
)
from multidiff.image.data.images import Images
from multidiff.image.data.listing import ImageSource

SIZE = 32
NAMES = ("boat", "cat face", "red heart")


def drawn(name):
    """An off-centre shape with a hole: the hole is white, but no background."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    colour = (220, 40, 30) if name == "red heart" else (200, 150, 40)
    draw.ellipse((4, 6, 25, 27), fill=colour)
    draw.ellipse((9, 11, 14, 16), fill="white")
    return image


@pytest.fixture
def images(tmp_path):
    lines = ["file_name,text"]
    for name in NAMES:
        for style in ("flat", "ink"):
            file = f"{name}-{style}.png"
            drawn(name).save(tmp_path / file)
            lines.append(f'{file},"{name}, {style} style"')
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    return Images(ImageSource(str(tmp_path)))


def examples(images, count=40, **options):
    made = CaptionedAugmentation(images, **options)
    found = [made.example(n % len(images), np.random.default_rng(n)) for n in range(count)]
    return [(one["image"].permute(1, 2, 0).numpy(), one["caption"]) for one in found]


def hue_of(pixel):
    return 360 * colorsys.rgb_to_hsv(*(np.asarray(pixel) / 255))[0]


def apart(hue, other):
    return abs((hue - other + 180) % 360 - 180)


def test_without_edits_images_and_captions_stay(images):
    for (pixels, caption), index in zip(examples(images), range(40), strict=True):
        original = images.example(index % len(images), np.random.default_rng(0))
        assert caption == original["caption"]
        assert np.array_equal(pixels, original["image"].permute(1, 2, 0).numpy())


def test_a_colour_word_names_the_hue_of_the_object(images):
    seen = set()
    for pixels, caption in examples(images, recolour=1.0):
        word = caption.split()[0]
        if "heart" in caption:  # it has a colour in its name
            assert caption.startswith("red heart") and apart(hue_of(pixels[20, 20]), 0) < 10
            continue
        seen.add(word)
        assert apart(hue_of(pixels[20, 20]), HUES[word]) < 4
        assert (pixels[13, 11] == 255).all()  # white stays white
    assert seen == {*HUES}


def test_a_background_word_names_the_hue_around_the_object(images):
    for pixels, caption in examples(images, background=1.0):
        assert " on a" in caption and caption.endswith(" style")
        word = caption.split(" background")[0].split()[-1]
        assert apart(hue_of(pixels[0, 0]), HUES[word]) < 4
        assert (pixels[13, 11] == 255).all()  # the hole in the object is none


def test_size_and_place_are_where_the_object_is(images):
    for pixels, caption in examples(images, place=1.0):
        text, place, _ = caption.split(", ")
        there = np.argwhere(pixels.min(axis=2) < 250)
        assert text.startswith("small ") and np.ptp(there, axis=0).max() <= SIZE // 2
        below, right = there.mean(axis=0) > SIZE / 2
        assert place == f"{'bottom' if below else 'top'} {'right' if right else 'left'}"


def test_a_pair_has_both_objects_in_the_order_of_the_caption(images):
    for pixels, caption in examples(images, pair=1.0):
        text, style = caption.split(", ")
        first, second = text.split(" and ")
        assert first in NAMES and second in NAMES and style in ("flat style", "ink style")
        for name, half in ((first, pixels[:, : SIZE // 2]), (second, pixels[:, SIZE // 2 :])):
            inside = half[half.max(axis=2) - half.min(axis=2) > 120]
            red = apart(np.median([hue_of(one) for one in inside]), 4) < 10
            assert red == (name == "red heart")


def test_an_image_with_captions_of_several_styles_has_a_pair(tmp_path):
    drawn("boat").save(tmp_path / "boat.png")
    captions = ["boat, flat style", "boat, ink style", "boat"]
    lines = [json.dumps({"file_name": "boat.png", "text": captions})]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    found = {caption for _, caption in examples(Images(ImageSource(str(tmp_path))), pair=1.0)}
    assert found == {f"boat and {caption}" for caption in captions}


def test_a_background_does_not_reach_around_the_edges():
    pixels = np.full((8, 8, 3), 255, np.uint8)
    pixels[:, 4:] = 100
    painted = on_background(pixels, background_of(pixels), np.array([1.0, 0.0, 0.5]))
    assert (painted[:, :4] == (255, 0, 128)).all()
    assert (painted[:, 4] == (100, 0, 50)).all()  # a mixture beside the background
    assert (painted[:, 5:] == 100).all()
    turned = on_background(pixels.transpose(1, 0, 2), background_of(pixels).T, np.zeros(3))
    assert (turned[5:] == 100).all() and not turned[:5].any()


def test_only_listed_names_are_mirrored_and_say_where_they_face(images):
    told = set()
    for pixels, caption in examples(images, facing=1.0, faces_left=("Cat face",)):
        left = int(np.argwhere(pixels.min(axis=2) < 250)[:, 1].min())
        assert ("facing" in caption) == caption.startswith("cat face")
        assert left == (SIZE - 26 if "facing right" in caption else 4)
        told.add(caption)
    assert {one.split(",")[0] for one in told} > {"cat face facing left", "cat face facing right"}


def test_edits_follow_from_the_generator_alone(images):
    options = {"recolour": 0.5, "background": 0.5, "place": 0.5, "pair": 0.5}
    again = zip(examples(images, **options), examples(images, **options), strict=True)
    captions = set()
    for (one, caption), (other, same) in again:
        assert caption == same and np.array_equal(one, other)
        captions.add(caption)
    assert len(captions) > 30


def test_hues_and_backgrounds_are_what_they_claim():
    for name, hue in HUES.items():
        red, green, blue = rgb_of(hue, 0.6, 0.9)
        found = colorsys.rgb_to_hsv(red, green, blue)
        assert found == pytest.approx((hue / 360, 0.6, 0.9), abs=1e-6), name
    grey = np.full((4, 4, 3), 90, np.uint8)
    assert np.array_equal(recoloured(grey, 215), grey)
    assert not background_of(grey).any()


@pytest.mark.parametrize(
    "options", [{"recolour": 1.2}, {"pair": -0.1}, {"pair": 0.6, "place": 0.6}]
)
def test_probabilities_are_checked(images, options):
    with pytest.raises(ValueError, match=r"not in|sum above 1"):
        CaptionedAugmentation(images, **options)
