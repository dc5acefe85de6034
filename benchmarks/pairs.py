"""Networks of diffusers and ours, with the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from multidiff.image.diffusion.unet import Attention, UNet

THEIR_DOWN = {"none": "DownBlock2D", "self": "AttnDownBlock2D", "cross": "CrossAttnDownBlock2D"}
THEIR_UP = {"none": "UpBlock2D", "self": "AttnUpBlock2D", "cross": "CrossAttnUpBlock2D"}
# Shape of an image UNet: channels, widths of the levels, residual blocks, attention.
Shape = tuple[int, tuple[int, ...], int, tuple[Attention, ...]]
HEAD_WIDTH = 8  # width of each attention head in UNet2DModel


def pixel_unet(
    channels: int, widths: Sequence[int], layers: int, attention: Sequence[Attention]
) -> UNet:
    """Return an unconditional image UNet, shaped as :func:`their_pixel_unet`'s."""
    heads = tuple(width // HEAD_WIDTH for width in widths)
    return UNet(channels, channels, tuple(widths), layers, tuple(attention), heads)


def their_pixel_unet(
    channels: int, widths: Sequence[int], layers: int, attention: Sequence[Attention], side: int
) -> Any:
    """Return diffusers' UNet2DModel."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=layers,
        block_out_channels=tuple(widths),
        down_block_types=tuple(THEIR_DOWN[kind] for kind in attention),
        up_block_types=tuple(THEIR_UP[kind] for kind in reversed(attention)),
        attention_head_dim=HEAD_WIDTH,
    )


def latent_unet(widths: Sequence[int], heads: int, words_width: int) -> UNet:
    """Return a caption-conditional latent UNet, with attention at all levels but the coarsest."""
    levels = len(widths)
    attention: tuple[Attention, ...] = ("cross",) * (levels - 1) + ("none",)
    return UNet(4, 4, tuple(widths), 2, attention, (heads,) * levels, words_width)


def their_latent_unet(widths: Sequence[int], heads: int, words_width: int, side: int) -> Any:
    """Return diffusers' UNet2DConditionModel, shaped as :func:`latent_unet`."""
    from diffusers import UNet2DConditionModel

    attention = ("cross",) * (len(widths) - 1) + ("none",)
    return UNet2DConditionModel(
        sample_size=side,
        layers_per_block=2,
        block_out_channels=tuple(widths),
        down_block_types=tuple(THEIR_DOWN[kind] for kind in attention),
        up_block_types=tuple(THEIR_UP[kind] for kind in reversed(attention)),
        attention_head_dim=heads,
        cross_attention_dim=words_width,
    )


def copy_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Load our weights into theirs."""
    theirs.load_state_dict({name: w.detach().clone() for name, w in ours.state_dict().items()})


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())
