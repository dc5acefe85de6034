"""Inpainting of a region at full size: cropped, enlarged, inpainted and pasted back.

A small region of a large image is then painted with all the pixels that the model was trained for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor

from multidiff.image.canvas import Canvas
from multidiff.image.data.image_files import stretched
from multidiff.image.diffusion.model import ImageDiffusion
from multidiff.image.generation import OnBatch
from multidiff.image.request import Size
from multidiff.utils.errors import InputError


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; the right and the bottom are beyond it."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, x: Tensor) -> Tensor:
        """Return this part of images or masks ``(..., height, width)``."""
        return x[..., self.top : self.bottom, self.left : self.right]


def crop_region(mask: Bool[Tensor, "height width"], size: Size, padding: int) -> Box:
    """Return the box around a mask, padded, and widened to a shape as far as the image allows.

    Args:
        mask: true where it is inpainted, somewhere at least.
        size: width and height whose ratio the box gets.
        padding: number of pixels around the mask.
    """
    rows, columns = mask.shape
    (top, bottom), (left, right) = (
        _padded(mask.any(dim=1 - axis), padding) for axis in range(mask.ndim)
    )
    width, height = size
    if (right - left) * height > (bottom - top) * width:
        top, bottom = _widened(top, bottom, int((right - left) / (width / height)), rows)
    else:
        left, right = _widened(left, right, int((bottom - top) * (width / height)), columns)
    return Box(left, top, right, bottom)


def _padded(there: Bool[Tensor, " length"], padding: int) -> tuple[int, int]:
    found = there.nonzero()
    first, last = int(found[0]), int(found[-1])
    return max(first - padding, 0), min(last + 1 + padding, len(there))


def _widened(start: int, stop: int, length: int, most: int) -> tuple[int, int]:
    """Return a range of a length around another one, moved inside if it can be."""
    more = max(length - (stop - start), 0)
    start, stop = start - more // 2, stop + more - more // 2
    beyond = max(stop - most, 0)
    start, stop = start - beyond, stop - beyond
    start, stop = max(start, 0), stop - min(start, 0)
    return start, min(stop, most)


def inpaint_region(
    model: ImageDiffusion,
    prompts: Sequence[str],
    padding: int,
    size: Size | None,
    make: Mapping[str, Any],
    on_batch: OnBatch | None = None,
) -> UInt8[Tensor, "count channels height width"]:
    """Inpaint the region around a canvas's mask, at another size, and paste it back.

    Args:
        model: the model.
        prompts: prompt of each image.
        padding: number of pixels around the mask that are seen as well.
        size: width and height at which the region is inpainted; the model's by default.
        make: further arguments of ``model.generate``, with the canvas of the whole image.
        on_batch: function called with each batch of whole images.

    Raises:
        InputError: if there is no mask, or the model cannot fulfil the request.
    """
    canvas: Canvas | None = make["canvas"]
    opacity = None if canvas is None else canvas.opacity()
    if canvas is None or canvas.mask is None or opacity is None or canvas.latents is not None:
        raise InputError("--padding-mask-crop: needs --init-image and --mask-image or --outpaint")
    size = model.domain.size if size is None else size
    box = crop_region(opacity > 0, size, padding)
    region = box.of(canvas.image)
    images = torch.stack([stretched(one, *size) for one in region])
    # Where any of its pixels is masked, so that nothing thin is lost.
    area = F.adaptive_max_pool2d(box.of(canvas.mask)[None].float(), (size[1], size[0]))[0] > 0
    part = replace(canvas, image=images, mask=area, feather=0)

    def paste(first: int, made: Tensor) -> None:
        own = canvas.rows(slice(first, first + len(made))).image
        whole = own.expand(len(made), -1, -1, -1).clone()
        if canvas.strength > 0:  # else unchanged, not even by being resized twice
            small = torch.stack([stretched(one, region.shape[3], region.shape[2]) for one in made])
            mixed = torch.lerp(box.of(whole).float(), small.float(), box.of(opacity))
            box.of(whole).copy_(mixed.round().to(torch.uint8))
        pasted.append(whole)
        if on_batch is not None:
            on_batch(first, whole)

    pasted: list[Tensor] = []
    model.generate(prompts, **{**make, "canvas": part, "size": None, "on_batch": paste})
    return torch.cat(pasted)
