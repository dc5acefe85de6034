"""An initial image and its mask: what users hand over, checked and brought to one form."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

# Strength of an initial image that is given without one.
STRENGTH = 0.8
# Grey levels of a mask from here on are repainted.
HALF = 128


@dataclass(frozen=True)
class Canvas:
    """An image to begin from.

    Attributes:
        image: bytes ``(1 or batch, channels, height, width)``; one image may come without the
            first axis.
        strength: how much of it is lost before the walk back, 0 to 1.
        mask: ``(height, width)``, true where it is repainted; everywhere where not given. Masks of
            numbers are converted as :func:`checked_mask` says.

    Raises:
        InputError: if image, strength or mask are none, or do not fit each other.
    """

    image: UInt8[Tensor, "batch channels height width"]
    strength: float = STRENGTH
    mask: Bool[Tensor, "height width"] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise InputError(f"--strength {self.strength:g}: from 0 (as it is) to 1 (all anew)")
        object.__setattr__(self, "image", checked_image(self.image))
        if self.mask is not None:
            object.__setattr__(self, "mask", checked_mask(self.mask, self.image))

    def rows(self, rows: slice) -> Canvas:
        """Return the canvas of some images of a batch; one image serves all."""
        if len(self.image) == 1:
            return self
        return Canvas(self.image[rows], self.strength, self.mask)

    def check_count(self, count: int) -> None:
        """Check that there is one image for all prompts, or one for each.

        Raises:
            InputError: if there is neither.
        """
        if len(self.image) not in (1, count):
            raise InputError(
                f"the canvas has {len(self.image)} images for {count} prompts: give one for "
                "all, or one for each"
            )


def checked_image(image: Any) -> UInt8[Tensor, "batch channels height width"]:
    """Return an image as bytes with a batch axis.

    Whole numbers from 0 to 255 are converted. Fractions are refused: nothing in them says whether
    they go from 0 to 1 or from -1 to 1.

    Raises:
        InputError: if it is no tensor or array, has other values, or another number of axes.
    """
    found = _as_tensor(image, "image", "read_image(path) makes one")
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise InputError(
            f"the initial image has values of {found.dtype}: give bytes, torch.uint8 from 0 to "
            "255; (image * 255).round().to(torch.uint8) makes them of values from 0 to 1"
        )
    if found.dtype != torch.uint8:
        if found.numel() and (int(found.min()) < 0 or int(found.max()) > 255):
            raise InputError("the initial image has values beyond 0 to 255: give bytes")
        found = found.to(torch.uint8)
    if found.ndim == 3:
        found = found[None]
    if found.ndim != 4 or 0 in found.shape:
        raise InputError(
            f"the initial image has the shape {tuple(image.shape)}: give (colours, height, "
            "width), or a batch of these"
        )
    return found


def checked_mask(mask: Any, image: Tensor, name: str = "the mask") -> Bool[Tensor, "height width"]:
    """Return a mask as true (repainted) and false.

    Numbers 0 and 1 are false and true, of any type; bytes are grey levels, where 128 and more are
    true, fractions are true from 0.5 on. A warning gives the number of pixels between black and
    white, which lie on one side of the cut or the other.

    Args:
        mask: ``(height, width)``, perhaps with further axes of length 1 before.
        image: the image that it belongs to, ``(batch, channels, height, width)``.
        name: what messages call it.

    Raises:
        InputError: if it has another size, or values outside of these ranges.
    """
    found = _as_tensor(mask, "mask", "torch.zeros(height, width, dtype=torch.bool) makes one")
    while found.ndim > 2 and len(found) == 1:
        found = found[0]
    if found.shape != image.shape[2:]:
        own = "x".join(str(side) for side in reversed(image.shape[2:]))
        theirs = "x".join(str(side) for side in reversed(found.shape))
        raise InputError(f"{name} has {theirs} pixels, the image {own}: make them the same")
    if found.dtype == torch.bool or not found.numel():
        return found.bool()
    low, high = float(found.min()), float(found.max())
    top = 1 if found.is_floating_point() or high <= 1 else 255
    if not (low >= 0 and high <= top):  # a NaN is neither
        raise InputError(
            f"{name} has values from {low:g} to {high:g}: give true and false, numbers from 0 to "
            "1, or bytes from 0 (kept) to 255 (repainted)"
        )
    return cut_mask(found, top, name)


def cut_mask(levels: Tensor, top: int, name: str) -> Bool[Tensor, "height width"]:
    """Return where a mask's levels are half of white or more, and warn of what lies between.

    Args:
        levels: ``(height, width)``, from 0 to ``top``.
        top: the level of white, 1 or 255.
        name: what the warning calls it.
    """
    between = int(((levels > 0) & (levels < top)).sum())
    if between:
        logger.warning(
            "%s: %d of %d pixels are neither black nor white; those of half and more are repainted",
            name, between, levels.numel(),
        )  # fmt: skip
    return levels >= (HALF if top == 255 else 0.5)


def _as_tensor(value: Any, what: str, how: str) -> Tensor:
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        raise InputError(f"the {what} is a {type(value).__name__}: give a tensor; {how}")
    return value
