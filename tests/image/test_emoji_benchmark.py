"""The benchmark of emoji by prompt: its judges are right where the answer is known."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.emoji import FEATURES, Emoji, Wanted, copies_of, nearest, ranks
from benchmarks.emoji_data import HELD_OUT, cleaned, held_out_of

SIZE = 64


def shape(sides, colour=(230, 160, 30)):
    image = Image.new("RGB", (SIZE, SIZE), "white")
    ImageDraw.Draw(image).regular_polygon((32, 32, 26), sides, fill=colour)
    return np.array(image)


def as_images(*arrays):
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"hue": "blue", "ground": "green"},
        {"hue": "purple", "place": "bottom left"},
        {"place": "top right", "ground": "yellow"},
        {"hue": "red", "beside": shape(3)},
    ],
)
def test_attributes_hold_on_edited_images_alone(options):
    wanted = Wanted("any", "prompt", "name", "style", **options)
    others = [shape(5), shape(5, (20, 20, 20)), np.full((SIZE, SIZE, 3), 255, np.uint8)]
    assert wanted.holds(wanted.edited(shape(5)))
    assert not any(wanted.holds(one) for one in others)


@pytest.mark.parametrize("name", FEATURES)
def test_the_true_image_is_the_nearest_even_when_noisy(name):
    pool = as_images(*(shape(sides) for sides in (3, 4, 5, 8)))
    noise = 12 * torch.randn(pool.shape, generator=torch.Generator().manual_seed(0))
    noisy = (pool + noise).clamp(0, 255).to(torch.uint8)
    describe = FEATURES[name]
    assert ranks(describe(noisy), describe(pool), range(4)).tolist() == [0, 0, 0, 0]
    assert ranks(describe(pool[:1]), describe(pool), [3])[0] > 0


def test_copies_are_other_styles_of_the_name_and_repeats_have_no_distance():
    images = as_images(shape(3), shape(4), shape(5))
    trained = Emoji(images, ["a, flat style", "a, ink style", "b, ink style"])
    copies = copies_of(trained[[0, 2]], trained)
    assert [len(one) for one in copies] == [1, 0] and torch.equal(copies[0][0], images[1])
    assert nearest(images[:1], images)[0] == 0 and nearest(images[:1], images[1:])[0] > 0.05


def test_flags_and_repeats_are_left_out_and_shared_drawings_held_out_together():
    rows = [
        {"name": f"n{n}", "style": style, "group": "objects", "pixels": f"{n} {style}"}
        for n in range(130)
        for style in ("noto", "twemoji", "openmoji", "outline")
    ]
    flag = {"name": "flag", "style": "noto", "group": "flags", "pixels": "flag"}
    repeat = {**rows[0], "name": "z", "pixels": rows[0]["pixels"]}
    assert cleaned([*rows, flag, repeat]) == rows
    held_out = held_out_of(rows)
    assert len(held_out) == sum(count * len(group) for group, count in HELD_OUT) == 150
    drawn = {style: {n for n, s in held_out if s == style} for _, style in held_out}
    assert drawn["openmoji"] == drawn["outline"] and not drawn["noto"] & drawn["twemoji"]
    assert held_out == held_out_of(rows)
