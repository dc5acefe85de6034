"""Check that a denoiser fits a domain: states, conditions and classes."""

from __future__ import annotations

from multidiff.core.gaussian.edm import ScaledInput
from multidiff.image.diffusion.domains import LatentDomain, PixelDomain
from multidiff.image.diffusion.prompt_unet import PromptUNet
from multidiff.image.diffusion.unet import UNet


def check_fit(
    domain: PixelDomain | LatentDomain,
    denoiser: UNet | ScaledInput | PromptUNet,
    learns_variance: bool = False,
) -> None:
    """Check that the denoiser fits the domain's states and conditions.

    Args:
        domain: the domain.
        denoiser: the denoiser.
        learns_variance: whether it returns twice the states' channels.

    Raises:
        ValueError: if it does not.
    """
    states = domain.state_shape(1, domain.size)[1]
    reads, prediction = denoiser.in_channels, denoiser.out_channels
    if (reads, prediction) != (states, states * (1 + learns_variance)):
        raise ValueError(
            f"a denoiser of in_channels {reads} and out_channels {prediction} for states of "
            f"{states} channels: make them alike"
            f"{', and out_channels twice that for a learned variance' if learns_variance else ''}"
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
    classes = len(domain.classes) if isinstance(domain, PixelDomain) else 0
    if denoiser.classes != classes:
        raise ValueError(
            f"a denoiser of {denoiser.classes} classes for a domain of {classes}: make them alike"
        )
