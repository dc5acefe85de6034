"""Inpainting networks: beside the noisy latents they read the mask and the rest of the image.

As Stable Diffusion's inpainting models (Rombach et al. 2022, section 4.5): the input has the
latents, a mask that is 1 where the image is inpainted, and the latents of the image whose masked
pixels are grey.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.core.protocols import Condition, Denoiser, Level
from multidiff.image.canvas import Canvas
from multidiff.image.data.image_files import pad_to_multiple, to_unit
from multidiff.image.diffusion.domains import PixelDomain

if TYPE_CHECKING:
    from multidiff.image.diffusion.model import ImageDiffusion


def input_channels(states: int) -> int:
    """Return the number of channels that an inpainting network reads for states of a number."""
    return 2 * states + 1


class InpaintingDenoiser:
    """A denoiser that reads further channels beside the noisy states.

    Args:
        denoiser: the network.
        beside: the further channels, ``(1 or batch, channels, height, width)``.
    """

    def __init__(self, denoiser: Denoiser, beside: Float[Tensor, "batch channels height width"]):
        self.denoiser, self.beside = denoiser, beside

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the prediction; guidance may have doubled the batch."""
        beside = self.beside.to(xt).repeat(len(xt) // len(self.beside), 1, 1, 1)
        return self.denoiser(torch.cat([xt, beside], dim=1), level, condition)


def mask_and_image(
    model: ImageDiffusion, canvas: Canvas | None, size: tuple[int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Return the mask and the masked image's latents that an inpainting network reads.

    Without a canvas all of the image is inpainted, and without a mask all of the canvas.

    Args:
        model: the model.
        canvas: image and mask.
        size: width and height of the images.
    """
    domain = model.domain
    assert not isinstance(domain, PixelDomain)
    if canvas is None:
        image = torch.zeros(1, domain.channels, size[1], size[0])
    else:
        image = to_unit(canvas.image)
    mask = torch.ones(image.shape[2:]) if canvas is None or canvas.mask is None else canvas.mask
    mask = mask.to(image)[None, None]
    # Grey is 0; the mean of the Gaussian, so that an image depends on its seed's noise alone.
    latents = domain.to_state((image * (1 - mask)).to(model.device)).float()
    small = F.interpolate(pad_to_multiple(mask, domain.pad_to), latents.shape[2:])
    return torch.cat([small.to(latents).expand(len(latents), -1, -1, -1), latents], dim=1)
