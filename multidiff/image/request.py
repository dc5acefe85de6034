"""Options of images besides those of sampling: size, inputs and what is loaded for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from multidiff.config.option_set import OptionSet, option
from multidiff.utils.errors import InputError

Size = tuple[int, int]
Fit = Literal["crop", "stretch", "pad"]
SIDES: tuple[str, ...] = ("left", "right", "top", "bottom")
INPUTS = "Inputs"
MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class ImageRequest(OptionSet):
    """Options of images besides those of sampling. Images' files record them.

    Attributes:
        size: ``WIDTHxHEIGHT`` in pixels.
        init_image: initial image (img2img), or a folder of them.
        init_latents: initial latents in place of an image.
        strength: fraction of the initial image that noise replaces; by default 0.8, and 1 with a
            mask.
        mask_image: image that is white where the initial one is inpainted.
        fit: how initial images and masks are brought to the size, or to the nearest valid one.
        feather: number of pixels around the mask over which the inpainted part fades out.
        outpaint: pixels added at sides of the initial image, which are inpainted: ``left=64``.
        padding_mask_crop: number of pixels around the mask's bounding box; only that region is
            inpainted, at the full size. None inpaints within the whole image.
        lora: LoRA files to merge, each optionally followed by ``:weight``.
        embedding: textual inversions, each optionally followed by ``:token``.
        vae: another autoencoder, a folder or a file.
        hires: factor by which images are enlarged and then repainted.
        hires_strength: fraction of the enlarged image that noise replaces.
        variation_seed: random seed of the noise that a variation's is mixed with; by default the
            next one.
        variation_strength: fraction of the way to it.
        attention_slicing: whether attention computes a part of the heads at a time.
        vae_tiling: edge in pixels of the tiles of the autoencoder; 0 is off.
    """

    size: str | None = option(None, "WIDTHxHEIGHT in pixels", group=INPUTS)
    init_image: Path | None = option(
        None, "initial image (img2img), or a folder: each prompt is made from each", group=INPUTS
    )
    init_latents: Path | None = option(
        None, "initial latents of --save-latents, in place of an image", group=INPUTS
    )
    strength: float | None = option(
        None,
        "fraction of the initial image that noise replaces",
        group=INPUTS,
        least=0,
        most=1,
        note="by default 0.8, and 1 with a mask",
    )
    mask_image: Path | None = option(
        None, "image that is white where the initial one is inpainted", group=INPUTS
    )
    fit: Fit | None = option(
        None, "how inputs are brought to the size, or the nearest valid one", group=INPUTS
    )
    feather: int = option(
        0, "pixels around the mask over which the inpainted part fades out", group=INPUTS
    )
    outpaint: tuple[str, ...] = option(
        (), "pixels added at sides, such as left=64,right=64; also top, bottom", group=INPUTS
    )
    padding_mask_crop: int | None = option(
        None,
        "inpaint only the mask's region with this margin in pixels, at full size",
        group=INPUTS,
        least=0,
    )
    lora: tuple[str, ...] = option((), "LoRA to merge, FILE or FILE:WEIGHT", group=INPUTS)
    embedding: tuple[str, ...] = option((), "textual inversion, FILE or FILE:TOKEN", group=INPUTS)
    vae: Path | None = option(None, "another autoencoder, a folder or a file", group=INPUTS)
    hires: float = option(
        1.0, "factor by which images are enlarged, then repainted", group=INPUTS, note="1 is off"
    )
    hires_strength: float = option(
        0.5, "fraction of the enlarged image that noise replaces", group=INPUTS
    )
    variation_seed: int | None = option(
        None,
        "seed of the noise that variations are mixed with; image i uses the i-th from it",
        group=INPUTS,
        least=-MOST_SEED,
        most=MOST_SEED,
        note="by default --seed + 1",
    )
    variation_strength: float = option(
        0.0, "fraction of the way to that noise", group=INPUTS, least=0, most=1, note="0 is off"
    )
    attention_slicing: bool = option(
        False, "compute attention of a part of the heads at a time, in less memory", group=INPUTS
    )
    vae_tiling: int = option(
        0, "edge in pixels of tiles in which images are decoded", group=INPUTS, note="0 is off"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        sides_of(self.outpaint)
        if self.size is not None:
            size_of(self.size)

    @property
    def pixels(self) -> Size | None:
        """Return width and height; None without a size."""
        return None if self.size is None else size_of(self.size)


def size_of(text: str) -> Size:
    """Return width and height from ``WIDTHxHEIGHT``.

    Raises:
        InputError: if it has another form.
    """
    found = re.fullmatch(r"0*([1-9]\d{0,5})[xX]0*([1-9]\d{0,5})", text)
    if found is None:
        raise InputError(f"--size {text}: write WIDTHxHEIGHT, such as 512x512")
    return int(found[1]), int(found[2])


def sides_of(words: tuple[str, ...]) -> dict[str, int]:
    """Return the number of pixels added at each side, from words such as ``left=64``.

    Raises:
        InputError: if a word has another form, or a side is given twice.
    """
    found: dict[str, int] = dict.fromkeys(SIDES, 0)
    for word in words:
        side, _, pixels = word.partition("=")
        if side not in SIDES or not re.fullmatch(r"\d{1,5}", pixels) or found[side]:
            raise InputError(
                f"--outpaint {','.join(words)}: write sides and pixels, such as left=64,right=64; "
                f"sides are {', '.join(SIDES)}"
            )
        found[side] = int(pixels)
    return found
