"""Initial image (img2img) and mask (inpainting) of a request, checked and normalised."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

# Default strength of an initial image.
STRENGTH = 0.8
# Grey levels of a mask from here on are inpainted.
HALF = 128


@dataclass(frozen=True)
class Canvas:
    """An initial image for img2img or inpainting.

    Attributes:
        image: bytes ``(1 or batch, channels, height, width)``; one image may come without the
            first axis.
        strength: fraction of the noising that is applied before sampling, 0 to 1.
        mask: ``(height, width)``, true where it is inpainted; everywhere if None. Numeric masks
            are converted by :func:`checked_mask`.
        feather: number of pixels beyond the mask over which the inpainted part fades out.
        latents: latents of the image, ``(1 or batch, channels, rows, columns)``, scaled as a
            model's states; encoded from the image if None.

    Raises:
        InputError: if image, strength or mask are invalid, or do not fit each other.
    """

    image: UInt8[Tensor, "batch channels height width"]
    strength: float = STRENGTH
    mask: Bool[Tensor, "height width"] | None = None
    feather: int = 0
    latents: Float[Tensor, "batch channels rows columns"] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise InputError(f"--strength {self.strength:g}: must be in 0 (unchanged) to 1 (new)")
        if self.feather < 0 or (self.feather and self.mask is None):
            raise InputError(f"--feather {self.feather}: 0 or more pixels around a mask")
        object.__setattr__(self, "image", checked_image(self.image))
        if self.mask is not None:
            object.__setattr__(self, "mask", checked_mask(self.mask, self.image))

    def rows(self, rows: slice) -> Canvas:
        """Return the canvas of some images of a batch; one image serves all."""
        if len(self.image) == 1:
            return self
        latents = None if self.latents is None else self.latents[rows]
        return replace(self, image=self.image[rows], latents=latents)

    def opacity(self) -> Float[Tensor, "height width"] | None:
        """Return how much of each pixel is inpainted, 0 to 1: the mask, fading out around it."""
        if self.mask is None:
            return None
        return feathered(self.mask, self.feather)

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


def feathered(mask: Bool[Tensor, "height width"], pixels: int) -> Float[Tensor, "height width"]:
    """Return a mask that falls from 1 to 0 over a number of pixels around it.

    A mean over squares of the mask grown by half the number: 1 inside, and 0 beyond the number.
    """
    grow, blur = pixels - pixels // 2, pixels // 2
    area = mask.float()[None, None]
    if grow:
        area = F.max_pool2d(area, 2 * grow + 1, stride=1, padding=grow)
    if blur:
        area = F.avg_pool2d(F.pad(area, [blur] * 4, "replicate"), 2 * blur + 1, stride=1)
    return area[0, 0]


def checked_image(image: Any) -> UInt8[Tensor, "batch channels height width"]:
    """Return an image as bytes with a batch axis.

    Integers from 0 to 255 are converted. Floating-point values are rejected: it is unknown whether
    they range from 0 to 1 or from -1 to 1.

    Raises:
        InputError: if it is not a tensor or array, has other values, or another number of axes.
    """
    found = _as_tensor(image, "image", "read_image(path) returns one")
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise InputError(
            f"the initial image has values of {found.dtype}: give bytes, torch.uint8 from 0 to "
            "255; (image * 255).round().to(torch.uint8) converts values from 0 to 1"
        )
    if found.dtype != torch.uint8:
        if found.numel() and (int(found.min()) < 0 or int(found.max()) > 255):
            raise InputError("the initial image has values outside 0 to 255: give bytes")
        found = found.to(torch.uint8)
    if found.ndim == 3:
        found = found[None]
    if found.ndim != 4 or 0 in found.shape:
        raise InputError(
            f"the initial image has the shape {tuple(image.shape)}: give (channels, height, "
            "width), or a batch of these"
        )
    return found


def checked_mask(mask: Any, image: Tensor, name: str = "the mask") -> Bool[Tensor, "height width"]:
    """Return a mask as booleans, true where the image is inpainted.

    Numbers 0 and 1 of any type are false and true; bytes are grey levels, where 128 and more are
    true; fractions are true from 0.5 on. A warning gives the number of pixels between black and
    white, which are assigned to one side.

    Args:
        mask: ``(height, width)``, optionally with leading axes of length 1.
        image: the image that it belongs to, ``(batch, channels, height, width)``.
        name: name in messages.

    Raises:
        InputError: if it has another size, or values outside these ranges.
    """
    found = _as_tensor(mask, "mask", "torch.zeros(height, width, dtype=torch.bool) returns one")
    while found.ndim > 2 and len(found) == 1:
        found = found[0]
    if found.shape != image.shape[2:]:
        own = "x".join(str(side) for side in reversed(image.shape[2:]))
        theirs = "x".join(str(side) for side in reversed(found.shape))
        raise InputError(f"{name} has {theirs} pixels, the image {own}: resize one of them")
    if found.dtype == torch.bool or not found.numel():
        return found.bool()
    low, high = float(found.min()), float(found.max())
    top = 1 if found.is_floating_point() or high <= 1 else 255
    if not (low >= 0 and high <= top):  # also catches NaN
        raise InputError(
            f"{name} has values from {low:g} to {high:g}: give booleans, numbers from 0 to "
            "1, or bytes from 0 (kept) to 255 (inpainted)"
        )
    return cut_mask(found, top, name)


def cut_mask(levels: Tensor, top: int, name: str) -> Bool[Tensor, "height width"]:
    """Return where a mask's levels are at least half of white, and warn about levels in between.

    Args:
        levels: ``(height, width)``, from 0 to ``top``.
        top: level of white, 1 or 255.
        name: name in the warning.
    """
    between = int(((levels > 0) & (levels < top)).sum())
    if between:
        logger.warning(
            "%s: %d of %d pixels are neither black nor white; those of at least half are inpainted",
            name, between, levels.numel(),
        )  # fmt: skip
    return levels >= (HALF if top == 255 else 0.5)


def _as_tensor(value: Any, what: str, how: str) -> Tensor:
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        raise InputError(f"the {what} is a {type(value).__name__}: pass a tensor; {how}")
    return value
