"""Images as a request wants them: generated once, enlarged and repainted, or one region of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from multidiff.image.crops import inpaint_region
from multidiff.image.diffusion.model import ImageDiffusion
from multidiff.image.generation import OnBatch
from multidiff.image.hires import enlarged
from multidiff.image.request import ImageRequest
from multidiff.utils.errors import InputError


def requested_images(
    model: ImageDiffusion,
    prompts: Sequence[str],
    request: ImageRequest,
    make: Mapping[str, Any],
    on_batch: OnBatch | None = None,
    on_latents: OnBatch | None = None,
) -> UInt8[Tensor, "count channels height width"]:
    """Generate an image for each prompt.

    Args:
        model: the model.
        prompts: prompt of each image.
        request: options that choose the way: ``hires`` and ``padding_mask_crop``.
        make: further arguments of ``model.generate``.
        on_batch: see :meth:`ImageDiffusion.generate`; of the finished images.
        on_latents: see there.

    Raises:
        InputError: if options do not go together, or the model cannot fulfil the request.
    """
    last: dict[str, Any] = {"on_batch": on_batch, "on_latents": on_latents}
    if request.padding_mask_crop is not None:
        if request.hires != 1 or on_latents is not None:
            raise InputError("--padding-mask-crop: leave out --hires and --save-latents beside it")
        padding = request.padding_mask_crop
        return inpaint_region(model, prompts, padding, request.pixels, make, on_batch)
    if request.hires == 1:
        return model.generate(prompts, **make, **last)
    again = {k: v for k, v in make.items() if k not in ("size", "canvas", "variation")}
    strength = request.hires_strength
    return enlarged(model, prompts, request.hires, strength, make, {**again, **last})
