"""Augmentation that changes an image and says so in its caption.

Captions have the form ``NAME, STYLE style``. An attribute that the data lack is made by an edit of
the image and described by words before or after the name, so that a model learns what the words
mean and can combine them with any name:

    blue cat face, noto style                             hue
    cat face on a red background, noto style              background
    small cat face, top left, noto style                  size and position
    cat face and red heart, noto style                    two images of one style side by side
    whale facing right, noto style                        mirrored
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from multidiff.image.data.images import Images
from multidiff.image.prompts import split_style
from multidiff.image.tokenizers import words_of
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint

# Hues in degrees.
HUES = {
    "red": 0,
    "orange": 28,
    "yellow": 52,
    "green": 125,
    "blue": 215,
    "purple": 275,
    "pink": 325,
}
# An image whose caption has one of these is not recoloured: two colour words would contradict.
COLOUR_WORDS = {*HUES, "black", "white", "brown", "grey", "light", "rainbow"}
PLACES = ("top left", "top right", "bottom left", "bottom right")
WHITE = 250
# Pixels of at least this saturation, of 255, have a hue; of the object this ratio must have one.
SATURATED, LEAST_COLOURED = 60, 0.4
# An image whose background is a smaller ratio of its pixels is not given another one.
LEAST_BACKGROUND = 0.12
MOST_JITTER = 4

Pixels = UInt8[ndarray, "height width 3"]


class CaptionedAugmentation:
    """Images with captions, some of them edited and described accordingly.

    Every draw comes from the example's own generator. Recolouring, mirroring, size or a pair, and
    a background are drawn independently, and may coincide.

    Args:
        images: colour images on white, all of one size, with captions.
        recolour: probability of one hue for all colours of an image.
        background: probability of a coloured background.
        place: probability of half the size at a corner.
        pair: probability of a second image of the same style beside the first.
        facing: probability that an image of ``faces_left`` says where it faces; half of these
            are mirrored.
        faces_left: names whose images face left; letters, arrows and clocks must not be among
            them.

    Raises:
        ValueError: if a probability is not in [0, 1], or the images are grey.
        InputError: if the images are read by row groups.
    """

    def __init__(
        self,
        images: Images,
        recolour: float = 0.0,
        background: float = 0.0,
        place: float = 0.0,
        pair: float = 0.0,
        facing: float = 0.0,
        faces_left: tuple[str, ...] = (),
    ):
        for name, ratio in (
            ("recolour", recolour),
            ("background", background),
            ("place", place),
            ("pair", pair),
            ("facing", facing),
        ):
            if not 0 <= ratio <= 1:
                raise ValueError(f"{name} {ratio:g} is not in [0, 1]")
        if place + pair > 1:
            raise ValueError(f"place {place:g} and pair {pair:g} exclude each other: sum above 1")
        if images.channels != 3:
            raise ValueError("captioned augmentation changes colours: channels must be 3")
        if images.grouping is not None:
            raise InputError(
                f"{images.source.path}: captioned augmentation reads all captions; name local data"
            )
        self.images, self.recolour, self.background = images, recolour, background
        self.place, self.pair, self.facing = place, pair, facing
        self.faces_left = {" ".join(words_of(name)) for name in faces_left}
        self._by_style: dict[str | None, list[int]] = defaultdict(list)
        for index in range(len(images)):
            caption = images.caption_of(index, np.random.default_rng(0))
            self._by_style[split_style(caption)[1]].append(index)

    def __len__(self) -> int:
        return len(self.images)

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`."""
        example = self.images.example(index, rng)
        text, style = split_style(example["caption"])
        if not words_of(text):
            return example
        pixels, text = self._object(as_pixels(example["image"]), text, rng)
        draw = rng.random()
        if draw < self.place:
            place = PLACES[rng.integers(len(PLACES))]
            jitter = rng.integers(0, MOST_JITTER + 1, size=2)
            pixels, text = placed(pixels, place, jitter), f"small {text}, {place}"
        elif draw < self.place + self.pair:
            # Of an image's captions only one was read beforehand, maybe of another style.
            others = self._by_style.get(style) or [index]
            other = self.images.example(others[rng.integers(len(others))], rng)
            second = split_style(other["caption"])[0]
            right, second = self._object(as_pixels(other["image"]), second, rng)
            pixels, text = side_by_side(pixels, right), f"{text} and {second}"
        if rng.random() < self.background:
            pixels, text = self._on_background(pixels, text, rng)
        image = torch.from_numpy(np.ascontiguousarray(pixels))
        example["image"] = image.permute(2, 0, 1).contiguous()
        example["caption"] = text if style is None else f"{text}, {style} style"
        return example

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of the images."""
        return self.images.data_fingerprint()

    def _object(self, pixels: Pixels, text: str, rng: np.random.Generator) -> tuple[Pixels, str]:
        """Return an image, recoloured or mirrored, and its text."""
        name = " ".join(words_of(text))
        if rng.random() < self.recolour and not COLOUR_WORDS & {*words_of(text)}:
            colour = [*HUES][rng.integers(len(HUES))]
            if coloured_ratio(pixels) >= LEAST_COLOURED:
                pixels, text = recoloured(pixels, HUES[colour]), f"{colour} {text}"
        if name in self.faces_left and rng.random() < self.facing:
            mirrored = bool(rng.random() < 0.5)
            pixels = pixels[:, ::-1] if mirrored else pixels
            text = f"{text} facing {'right' if mirrored else 'left'}"
        return pixels, text

    def _on_background(
        self, pixels: Pixels, text: str, rng: np.random.Generator
    ) -> tuple[Pixels, str]:
        colour = [*HUES][rng.integers(len(HUES))]
        saturation, value = rng.uniform(0.35, 0.8), rng.uniform(0.85, 1.0)
        mask = background_of(pixels)
        if mask.mean() < LEAST_BACKGROUND:
            return pixels, text
        paint = rgb_of(HUES[colour], saturation, value)
        article = "an" if colour[0] in "aeiou" else "a"
        return on_background(pixels, mask, paint), f"{text} on {article} {colour} background"


def as_pixels(image: UInt8[Tensor, "3 height width"]) -> Pixels:
    """Return an image with its channels last."""
    return image.permute(1, 2, 0).numpy()


def recoloured(pixels: Pixels, hue: float) -> Pixels:
    """Return an image whose colours all have one hue, in degrees; greys stay."""
    hsv = np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert("HSV"))
    hsv[..., 0] = round(hue / 360 * 255)
    return np.array(Image.fromarray(hsv, "HSV").convert("RGB"))


def coloured_ratio(pixels: Pixels) -> float:
    """Return the ratio of an object's pixels, those that are not white, that have a hue."""
    saturation = np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert("HSV"))[..., 1]
    there = pixels.min(axis=2) < WHITE
    return float((saturation >= SATURATED)[there].mean()) if there.any() else 0.0


def background_of(pixels: Pixels) -> Bool[ndarray, "height width"]:
    """Return where white is connected to the image's border."""
    from scipy.ndimage import label  # takes a moment to import

    white = np.pad(pixels.min(axis=2) >= WHITE, 1, constant_values=True)
    regions = np.asarray(label(white)[0])  # pyright: ignore[reportIndexIssue]
    return (regions == regions[0, 0])[1:-1, 1:-1]


def on_background(
    pixels: Pixels, mask: Bool[ndarray, "height width"], colour: Float[ndarray, " 3"]
) -> Pixels:
    """Return an image whose white background has a colour, in [0, 1].

    Pixels next to the background are mixtures with white: they are multiplied by the colour too.
    """
    framed = np.pad(mask, 1)  # the opposite edges of an image are no neighbours
    near = framed.copy()
    for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        near |= np.roll(framed, shift, axis=(0, 1))
    return np.where(near[1:-1, 1:-1, None], pixels * colour, pixels).round().astype(np.uint8)


def rgb_of(hue: float, saturation: float, value: float) -> Float[ndarray, " 3"]:
    """Return the red, green and blue in [0, 1] of a hue in degrees, a saturation and a value."""
    distance = np.abs((np.array([0, 120, 240]) - hue + 180) % 360 - 180)
    pure = np.clip(2 - distance / 60, 0, 1)
    return value * (1 - saturation * (1 - pure))


def halved(pixels: Pixels) -> Pixels:
    """Return an image at half its size."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX))


def placed(pixels: Pixels, place: str, jitter: Any = (0, 0)) -> Pixels:
    """Return an image at half its size in a corner of white.

    Args:
        pixels: the image.
        place: corner, one of ``PLACES``.
        jitter: distance in pixels from the corner's two edges, vertically and horizontally.
    """
    small, canvas = halved(pixels), np.full_like(pixels, 255)
    height, width = small.shape[:2]
    row, column = place.split()
    top = jitter[0] if row == "top" else canvas.shape[0] - height - jitter[0]
    left = jitter[1] if column == "left" else canvas.shape[1] - width - jitter[1]
    canvas[top : top + height, left : left + width] = small
    return canvas


def side_by_side(left: Pixels, right: Pixels) -> Pixels:
    """Return two images at half their size beside each other on white."""
    canvas = np.full_like(left, 255)
    top = canvas.shape[0] // 4
    for number, one in enumerate((left, right)):
        small = halved(one)
        start = number * (canvas.shape[1] - small.shape[1])
        canvas[top : top + small.shape[0], start : start + small.shape[1]] = small
    return canvas
