"""Check that a denoiser fits a domain: states, conditions and classes; and sizes of images."""

from __future__ import annotations

from multidiff.core.gaussian.edm import ScaledInput
from multidiff.image.canvas import Canvas
from multidiff.image.diffusion.dit import DiT
from multidiff.image.diffusion.domains import LatentDomain, PixelDomain
from multidiff.image.diffusion.inpainting import input_channels
from multidiff.image.diffusion.mmdit import MMDiT
from multidiff.image.diffusion.prompt_unet import PromptUNet
from multidiff.image.diffusion.unet import UNet
from multidiff.image.generation import warn_of_size
from multidiff.utils.errors import InputError

Size = tuple[int, int]


def check_fit(
    domain: PixelDomain | LatentDomain,
    denoiser: UNet | DiT | MMDiT | ScaledInput | PromptUNet,
    learns_variance: bool = False,
) -> None:
    """Check that the denoiser fits the domain's states and conditions.

    Args:
        domain: the domain.
        denoiser: the denoiser.
        learns_variance: whether half of its channels are variances.

    Raises:
        ValueError: if it does not.
    """
    states = domain.state_shape(1, domain.size)[1]
    reads, prediction = denoiser.in_channels, denoiser.out_channels
    wanted = (states, (1 + learns_variance) * states)
    inpaints = isinstance(domain, LatentDomain) and reads == input_channels(states)
    if (states if inpaints else reads, prediction) != wanted:
        variance = " with learned variances" if learns_variance else ""
        raise ValueError(
            f"a denoiser of in_channels {reads} and out_channels {prediction} for states of "
            f"{states} channels{variance}: set them to {wanted[0]} and {wanted[1]}"
        )
    prompts = domain.tokenizer if isinstance(domain, PixelDomain) else None
    if isinstance(denoiser, PromptUNet):
        own = (denoiser.vocabulary, denoiser.styles, denoiser.length)
        known = prompts and (prompts.vocabulary, prompts.max_styles, prompts.length)
        if known != own:
            raise ValueError(
                f"a PromptUNet of vocabulary, styles and length {own} for prompts of {known}: make "
                "the domain's tokenizer and the denoiser alike"
            )
        return
    if prompts is not None:
        raise ValueError("the domain has a PromptTokenizer: the denoiser must be a PromptUNet")
    encoder = domain.text_encoder if isinstance(domain, LatentDomain) else None
    described = None if encoder is None else encoder.width
    if denoiser.condition_width != described:
        raise ValueError(
            f"a denoiser of condition_width {denoiser.condition_width} for conditions of width "
            f"{described}: make them alike"
        )
    pooled = getattr(encoder, "pooled_width", None)
    if getattr(denoiser, "pooled_width", None) != pooled:
        raise ValueError(
            f"a denoiser whose pooled_width is not {pooled}, as that of the text encoder: make "
            "them alike"
        )
    classes = len(domain.classes)
    if denoiser.classes != classes:
        raise ValueError(
            f"a denoiser of {denoiser.classes} classes for a domain of {classes}: make them alike"
        )


def checked_size(
    domain: PixelDomain | LatentDomain, size: Size | None, canvas: Canvas | None
) -> Size:
    """Return the width and height of images: as given, the canvas's or the domain's.

    Raises:
        InputError: if the domain has no images of that size.
    """
    if canvas is not None:
        channels, height, width = canvas.image.shape[1:]
        if channels != domain.channels:
            raise InputError(f"the initial image has {channels} channels, not {domain.channels}")
        if size is not None and size != (width, height):
            raise InputError(
                f"--size {size[0]}x{size[1]}: the initial image has {width}x{height}; "
                "remove the size, or resize the image"
            )
        size = (width, height)
    size = domain.size if size is None else size
    multiple = domain.multiple
    of = "" if canvas is None else " of the initial image"
    if min(size) < 1 or any(length % multiple for length in size):
        near = "x".join(str(max(round(n / multiple), 1) * multiple) for n in size)
        raise InputError(
            f"size {size[0]}x{size[1]}{of}: width and height must be multiples of {multiple}; "
            f"the nearest is {near}"
        )
    warn_of_size(size, domain.size)
    return size
