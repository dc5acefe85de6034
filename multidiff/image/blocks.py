"""Convolutional blocks that the UNet and the autoencoder are built from.

Parameters are called as in the published Stable Diffusion weights, so that those load by name.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ResnetBlock(nn.Module):
    """Norm, SiLU, convolution, twice, around a shortcut (Ho et al. 2020, appendix B).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        groups: of the group norms.
        norm_eps: keeps the norms finite. 1e-5 in the UNet of Stable Diffusion, 1e-6 in its
            autoencoder; with activations near zero the wrong one shows.
        time_width: width of a time embedding that is added between the convolutions.
        dropout: before the second convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        norm_eps: float,
        time_width: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, norm_eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_width is not None:
            self.time_emb_proj = nn.Linear(time_width, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        time: Float[Tensor, "batch time_width"] | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        """The time embedding comes with its SiLU already applied."""
        h = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            h = h + self.time_emb_proj(time)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class SpatialAttention(nn.Module):
    """Self-attention over all places of a feature map, around a shortcut.

    Args:
        channels: of the map.
        groups: of the group norm.
        norm_eps: keeps the norm finite.
        heads: attention heads; one in the autoencoder and in the DDPM's UNet.
    """

    def __init__(self, channels: int, groups: int, norm_eps: float, heads: int = 1):
        super().__init__()
        self.heads = heads
        self.group_norm = nn.GroupNorm(groups, channels, norm_eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The map with what each place gathered from the others added."""
        tokens = as_tokens(self.group_norm(x))
        q, k, v = (split_heads(to(tokens), self.heads) for to in (self.to_q, self.to_k, self.to_v))
        gathered = merge_heads(F.scaled_dot_product_attention(q, k, v))
        return x + self.to_out[0](gathered).transpose(1, 2).reshape(x.shape)


def as_tokens(
    x: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch length channels"]:
    """The places of a feature map, row by row.

    They are laid side by side in memory once here; otherwise each layer that reads them would.
    """
    return x.flatten(2).transpose(1, 2).contiguous()


def split_heads(
    x: Float[Tensor, "batch tokens width"], heads: int
) -> Float[Tensor, "batch heads tokens part"]:
    """Widths cut into heads."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(
    x: Float[Tensor, "batch heads tokens part"],
) -> Float[Tensor, "batch tokens width"]:
    """Heads laid side by side."""
    return x.transpose(1, 2).flatten(2)


class Downsample(nn.Module):
    """Half the height and width by a strided convolution.

    Args:
        channels: of the map.
        one_sided: pad below and on the right only, as the autoencoder does; the UNet pads on
            all sides. Both give the same shape and different images.
    """

    def __init__(self, channels: int, one_sided: bool = False):
        super().__init__()
        self.one_sided = one_sided
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if one_sided else 1)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels half_height half_width"]:
        """The smaller map; odd sizes are rounded up by the UNet's, down by the other."""
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.one_sided else x)


class Upsample(nn.Module):
    """Larger by repetition of the nearest place, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "batch channels new_height new_width"]:
        """Twice as large, or of the given height and width."""
        if size is None:
            size = (2 * x.shape[2], 2 * x.shape[3])
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
