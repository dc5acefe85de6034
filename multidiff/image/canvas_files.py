"""Canvases from files: one initial image or a folder of them, and a mask, fitted to a size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor

from multidiff.config.option_set import flag
from multidiff.image.canvas import STRENGTH, Canvas, cut_mask
from multidiff.image.data.image_files import EXTENSIONS, read_image, resized, stretched
from multidiff.image.request import Fit, ImageRequest, Size, sides_of
from multidiff.utils.errors import InputError


def init_files(init_image: Path | None) -> list[Path]:
    """Return the files of initial images: one, those of a folder by name, or none.

    Raises:
        InputError: if the folder has no images.
    """
    if init_image is None or not init_image.is_dir():
        return [] if init_image is None else [init_image]
    files = sorted(p for p in init_image.iterdir() if p.suffix.lower() in EXTENSIONS)
    if not files:
        raise InputError(f"--init-image {init_image}: the folder has no images")
    return files


def canvas_of(
    files: list[Path],
    given: ImageRequest,
    channels: int,
    multiple: int = 1,
    latents: Callable[[Path], Canvas] | None = None,
) -> Canvas | None:
    """Return the canvas that options describe; None without an initial image.

    With a mask and no strength, the inpainted part begins from noise.

    Args:
        files: initial images.
        given: options.
        channels: number of channels of the images.
        multiple: number that width and height of fitted images are multiples of.
        latents: function that returns the canvas of a file of latents.

    Raises:
        InputError: if a mask or an option has no image, or they do not fit.
    """
    masked = given.mask_image is not None or any(sides_of(given.outpaint).values())
    usual = 1.0 if masked else STRENGTH
    strength = usual if given.strength is None else given.strength
    if given.init_latents is not None and latents is not None:
        if files or given.fit or given.outpaint:
            raise InputError("--init-latents: leave out --init-image, --fit and --outpaint")
        found = latents(given.init_latents)
        area = _mask_of(given, given.init_latents, found.image, found.image.shape[2:])
        return replace(found, strength=strength, mask=area, feather=given.feather)
    if not files:
        words = ("mask_image", "strength", "fit", "feather", "outpaint", "padding_mask_crop")
        wrong = [flag(one) for one in words if one in given.overrides]
        if wrong:
            raise InputError(f"{', '.join(wrong)}: changes an image: give it by --init-image")
        return None
    images = [read_image(path, channels=channels) for path in files]
    original = images[0].shape[1:]
    if given.fit is not None:
        size = fitted_size(given, original, multiple)
        images = [fitted(one, size, given.fit) for one in images]
    _check_alike(files, images)
    image = torch.stack(images)
    area = _mask_of(given, files[0], image, original)
    image, area = outpainted(image, area, sides_of(given.outpaint))
    rows, columns = image.shape[2:]
    grows = given.fit is None and any(sides_of(given.outpaint).values())
    if grows and given.pixels not in (None, (columns, rows)):
        raise InputError(
            f"--size {given.size}: with --outpaint the image has {columns}x{rows} pixels; "
            "leave --size out, or give --fit, which fits the image to it before"
        )
    return Canvas(image, strength, area, given.feather)


def _mask_of(
    given: ImageRequest, init: Path, image: Tensor, original: Sequence[int]
) -> Bool[Tensor, "height width"] | None:
    if given.mask_image is None:
        return None
    return painted(given.mask_image, init, image, tuple(original), given.fit)


def outpainted(
    image: UInt8[Tensor, "batch channels height width"],
    mask: Bool[Tensor, "height width"] | None,
    sides: Mapping[str, int],
) -> tuple[Tensor, Tensor | None]:
    """Return images with pixels added at their sides, and a mask that is true there.

    The edge's colours fill them before they are inpainted.

    Args:
        image: the images.
        mask: where they are inpainted as well; None for nowhere.
        sides: number of pixels added at the left, right, top and bottom.
    """
    edges = [sides[side] for side in ("left", "right", "top", "bottom")]
    if not any(edges):
        return image, mask
    own = torch.zeros(image.shape[2:], dtype=torch.bool) if mask is None else mask
    area = F.pad(own[None, None].float(), edges, value=1.0)[0, 0] > 0
    return F.pad(image.float(), edges, "replicate").to(torch.uint8), area


def fitted(
    image: UInt8[Tensor, "channels height width"], size: Size, fit: Fit
) -> UInt8[Tensor, "channels new_height new_width"]:
    """Return an image at a width and height.

    Args:
        image: the image.
        size: width and height.
        fit: "crop" cuts off what is beyond the shape, "stretch" changes the shape, "pad" puts
            the edge's colours beside it.
    """
    width, height = size
    _, rows, columns = image.shape
    if fit == "crop" or (columns, rows) == size:
        return resized(image, width, height)
    if fit == "stretch":
        return stretched(image, width, height)
    scale = min(width / columns, height / rows)
    inner = (max(round(columns * scale), 1), max(round(rows * scale), 1))
    whole = stretched(image, *inner)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    edges = (left, width - inner[0] - left, top, height - inner[1] - top)
    return F.pad(whole[None].float(), edges, "replicate")[0].to(torch.uint8)


def fitted_size(given: ImageRequest, original: Sequence[int], multiple: int) -> Size:
    """Return width and height to fit an image to: those asked for, or the nearest valid ones.

    Args:
        given: options.
        original: height and width of the image.
        multiple: number that both are multiples of.
    """
    own = None if given.padding_mask_crop is not None else given.pixels
    rows, columns = original
    return own or (_nearest(columns, multiple), _nearest(rows, multiple))


def _nearest(length: int, multiple: int) -> int:
    return max(round(length / multiple), 1) * multiple


def _check_alike(files: list[Path], images: list[Tensor]) -> None:
    for path, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            shown = [f"{one.shape[2]}x{one.shape[1]}" for one in (images[0], image)]
            raise InputError(
                f"{path}: has {shown[1]} pixels and {files[0]} {shown[0]}: fit them by --fit crop "
                "--size WIDTHxHEIGHT"
            )


def painted(
    mask_image: Path,
    init_image: Path,
    image: UInt8[Tensor, "batch channels height width"],
    original: tuple[int, ...] | None = None,
    fit: Fit | None = None,
) -> Bool[Tensor, "height width"]:
    """Return where a mask is white: there an image is inpainted.

    Transparent pixels count as black: editors export masks as white on transparency.

    Args:
        mask_image: mask file.
        init_image: file of the initial image.
        image: initial image.
        original: its height and width before it was fitted; the mask may have these too.
        fit: how the mask is fitted as well.

    Raises:
        InputError: if it is of another size, or black everywhere.
    """
    area = read_image(mask_image, channels=1, background="black")
    original = tuple(image.shape[2:]) if original is None else original
    if tuple(area.shape[1:]) not in (tuple(image.shape[2:]), tuple(original)):
        raise InputError(
            f"{mask_image}: has {area.shape[2]}x{area.shape[1]} pixels and {init_image} "
            f"{original[1]}x{original[0]}: resize one of them"
        )
    if fit is not None:
        area = fitted(area, (image.shape[3], image.shape[2]), fit)
    white = cut_mask(area[0], 255, f"--mask-image {mask_image}")
    if not bool(white.any()):
        raise InputError(
            f"{mask_image}: is black everywhere (transparent pixels count as black): make white "
            "what is to be inpainted"
        )
    return white
