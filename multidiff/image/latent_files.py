"""Latents in files, between two runs: sampled ones, scaled as the network sees them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from multidiff.image.canvas import Canvas
from multidiff.image.data.image_files import from_unit
from multidiff.image.diffusion.domains import LatentDomain
from multidiff.image.request import Size
from multidiff.models.weights import check_finite, read_tensors, save_tensors
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write

if TYPE_CHECKING:
    from multidiff.image.diffusion.model import ImageDiffusion

NAME = "latents"  # as pipelines of diffusers call their argument


def write_latents(latents: Tensor, path: Path, facts: Mapping[str, str]) -> None:
    """Write the latents of an image, ``(channels, height, width)``, atomically."""
    with atomic_write(path) as partial:
        save_tensors({NAME: latents[None].float()}, partial, {"format": "pt", **facts})


@torch.no_grad()
def canvas_of_latents(path: Path, model: ImageDiffusion, size: Size | None = None) -> Canvas:
    """Return the canvas of a file of latents, with the image that they are decoded to.

    Args:
        path: safetensors file with ``latents`` of one image.
        model: the model.
        size: width and height that they are enlarged or reduced to, bilinearly; None keeps theirs.

    Raises:
        InputError: if the file has none, or those of another model.
    """
    domain = latent_domain(model, "--init-latents")
    tensors, _ = read_tensors(path)
    found = tensors.get(NAME, next(iter(tensors.values())) if len(tensors) == 1 else None)
    channels = domain.autoencoder.latent_channels
    if found is None or found.shape[:-2] not in ((channels,), (1, channels)):
        shape = "none" if found is None else tuple(found.shape)
        raise InputError(
            f"--init-latents {path}: its latents are {shape}; this model's are "
            f"(1, {channels}, height, width)"
        )
    check_finite({NAME: found}, path)
    latents = found.reshape(1, *found.shape[-3:]).float()
    if size is not None:
        latents = F.interpolate(latents, domain.state_shape(1, size)[2:], mode="bilinear")
    factor = domain.autoencoder.factor
    height, width = (factor * side for side in latents.shape[2:])
    image = from_unit(domain.to_image(latents.to(model.device), size or (width, height))).cpu()
    return Canvas(image, latents=latents)


def latent_domain(model: ImageDiffusion, option: str) -> LatentDomain:
    """Return a model's domain for an option that needs latents.

    Raises:
        InputError: if the model has none.
    """
    if not isinstance(model.domain, LatentDomain):
        raise InputError(f"{option}: this model works in pixels, without latents")
    return model.domain
