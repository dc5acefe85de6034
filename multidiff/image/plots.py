"""Grids over one or two sampling options (X/Y plots): an image of each pair, a labelled sheet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from multidiff.config.option_set import flag, options_in
from multidiff.config.options import values_from_text
from multidiff.image.data.image_files import channels_first
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion

FONT_SIZE, MARGIN, GAP = 12, 4, 2


@dataclass(frozen=True)
class XYPlot:
    """Sampling options along the axes of a sheet.

    Attributes:
        columns: label of each column.
        rows: label of each row.
        configs: options of each image, row by row.
    """

    columns: list[str]
    rows: list[str]
    configs: list[ImageSamplingConfig]


def xy_plot(words: Sequence[str], config: ImageSamplingConfig) -> XYPlot:
    """Return the plot that words describe.

    Args:
        words: ``NAME=VALUE`` begins the columns, and a second one the rows; words without a name
            are further values, as in ``guidance-scale=3``, ``7``, ``steps=10``, ``20``.
        config: options that are shared.

    Raises:
        InputError: if a name or a value is wrong, or there are more than two names.
    """
    axes: dict[str, list[str]] = {}
    known = {flag(one).removeprefix("--"): one for one in options_in(type(config))}
    for word in words:
        name, equals, value = word.rpartition("=")
        if equals:
            name = name.removeprefix("--").replace("_", "-")
            if name not in known or known[name] in axes:
                raise InputError(f"--xy-plot {word}: {suggestion(name, [*known])}, each once")
            axes[known[name]] = []
        if not axes:
            raise InputError(f"--xy-plot {word}: write NAME=VALUE,VALUE such as steps=10,20")
        [*axes.values()][-1].append(value)
    if not 1 <= len(axes) <= 2:
        raise InputError(f"--xy-plot: {len(axes)} options; name one, or two")
    columns, *more = [_axis(name, values, config) for name, values in axes.items()]
    rows = more[0] if more else [("", {})]
    return XYPlot(
        [label for label, _ in columns],
        [label for label, _ in rows],
        [config.replace(**row, **column) for _, row in rows for _, column in columns],
    )


def _axis(
    name: str, values: Sequence[str], config: ImageSamplingConfig
) -> list[tuple[str, dict[str, object]]]:
    """Return label and option for each value."""
    words = re.sub("_", " ", name)
    return [(f"{words} {one}", values_from_text(type(config), {name: one})) for one in values]


def sheet(
    images: UInt8[Tensor, "count channels height width"], columns: list[str], rows: list[str]
) -> UInt8[Tensor, "channels sheet_height sheet_width"]:
    """Return images in rows and columns with their labels.

    Args:
        images: images, row by row.
        columns: label of each column.
        rows: label of each row.
    """
    _, channels, height, width = images.shape
    font = ImageFont.load_default(FONT_SIZE)
    side = max(int(font.getlength(one)) for one in rows)
    side += 2 * MARGIN if side else 0
    line = FONT_SIZE + 2 * MARGIN
    step = max(width, *(int(font.getlength(one)) for one in columns)) + GAP
    size = (side + len(columns) * step, line + len(rows) * (height + GAP))
    drawn = Image.new("L" if channels == 1 else "RGB", size, "white")
    pen = ImageDraw.Draw(drawn)
    for number, label in enumerate(columns):
        pen.text((side + number * step, MARGIN), label, "black", font)
    for number, label in enumerate(rows):
        top = line + number * (height + GAP) + (height - FONT_SIZE) // 2
        pen.text((MARGIN, top), label, "black", font)
    found = channels_first(np.array(drawn))
    for number, image in enumerate(images.cpu()):
        row, column = divmod(number, len(columns))
        top, left = line + row * (height + GAP), side + column * step
        found[:, top : top + height, left : left + width] = image
    return found
