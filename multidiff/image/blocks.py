"""Convolutional blocks that the UNet and the autoencoder are built from.

Parameters have the names of the published Stable Diffusion weights, so that those load by name.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.nn.attention import attention, merge_heads, split_heads


class ResnetBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with a residual connection (Ho et al. 2020, appendix B).

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        groups: number of groups of the group norms.
        norm_eps: epsilon of the norms: 1e-5 in the UNet of Stable Diffusion, 1e-6 in its
            autoencoder; with activations near zero the wrong one is visible.
        time_width: width of a time embedding that is added between the convolutions, or None.
        dropout: dropout probability before the second convolution.
        scale_shift: whether the time embedding scales and shifts the second norm's output instead
            of being added before it (Dhariwal & Nichol 2021, "adaptive group normalization").
        resample: whether the block halves ("down") or doubles ("up") height and width.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        norm_eps: float,
        time_width: int | None = None,
        dropout: float = 0.0,
        scale_shift: bool = False,
        resample: Literal["down", "up"] | None = None,
    ):
        super().__init__()
        self.scale_shift = scale_shift
        self.resample: Literal["down", "up"] | None = resample
        self.norm1 = nn.GroupNorm(groups, in_channels, norm_eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_width is not None:
            self.time_emb_proj = nn.Linear(time_width, (1 + scale_shift) * out_channels)
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
        """Return the output; the SiLU of the time embedding is already applied."""
        h = F.silu(self.norm1(x))
        if self.resample is not None:
            h, x = (_resampled(one, self.resample) for one in (h, x))
        h = self.conv1(h)
        moved = None if time is None else self.time_emb_proj(time)[:, :, None, None]
        if moved is not None and self.scale_shift:
            scale, shift = moved.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h if moved is None else h + moved)
        h = self.conv2(self.dropout(F.silu(h)))
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


def _resampled(x: Tensor, direction: Literal["down", "up"]) -> Tensor:
    if direction == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class SpatialAttention(nn.Module):
    """Self-attention over all positions of a feature map, with a residual connection.

    With a condition, its tokens are further keys and values (Saharia et al. 2022, appendix D.3.1:
    cheaper than a transformer with attention of its own to the text, and as good).

    Args:
        channels: number of channels of the map.
        groups: number of groups of the group norm.
        norm_eps: epsilon of the norm.
        heads: number of attention heads; one in the autoencoder and in the DDPM's UNet.
        condition_width: width of the condition's tokens; None without a condition.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        norm_eps: float,
        heads: int = 1,
        condition_width: int | None = None,
    ):
        super().__init__()
        self.heads = heads
        self.group_norm = nn.GroupNorm(groups, channels, norm_eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.reads_words = condition_width is not None
        if condition_width is not None:
            self.add_k_proj = nn.Linear(condition_width, channels)
            self.add_v_proj = nn.Linear(condition_width, channels)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        words: Float[Tensor, "batch words condition_width"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the map with the attention output added."""
        tokens = as_tokens(self.group_norm(x))
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        if self.reads_words:
            k = torch.cat([k, self.add_k_proj(words)], dim=1)
            v = torch.cat([v, self.add_v_proj(words)], dim=1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        gathered = merge_heads(attention(q, k, v))
        return x + self.to_out[0](gathered).transpose(1, 2).reshape(x.shape)


class WordAttention(nn.Module):
    """Attention of the positions of a feature map to a condition's tokens alone.

    Args:
        channels: number of channels of the map.
        groups: number of groups of the group norm.
        norm_eps: epsilon of the norm.
        heads: number of attention heads.
        condition_width: width of the condition's tokens.
    """

    def __init__(
        self, channels: int, groups: int, norm_eps: float, heads: int, condition_width: int
    ):
        super().__init__()
        self.heads = heads
        self.group_norm = nn.GroupNorm(groups, channels, norm_eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(condition_width, channels)
        self.to_v = nn.Linear(condition_width, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        words: Float[Tensor, "batch words condition_width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the map with the attention output added."""
        q = self.to_q(as_tokens(self.group_norm(x)))
        q, k, v = (split_heads(one, self.heads) for one in (q, self.to_k(words), self.to_v(words)))
        gathered = merge_heads(attention(q, k, v))
        return x + self.to_out[0](gathered).transpose(1, 2).reshape(x.shape)


def as_tokens(
    x: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch length channels"]:
    """Return the positions of a feature map, row by row.

    They are made contiguous once here; otherwise each layer that reads them would copy.
    """
    return x.flatten(2).transpose(1, 2).contiguous()


class Downsample(nn.Module):
    """Half the height and width by a strided convolution.

    Args:
        channels: number of channels of the map.
        one_sided: whether to pad only below and on the right, as the autoencoder does; the UNet
            pads on all sides. Both give the same shape and different images.
    """

    def __init__(self, channels: int, one_sided: bool = False):
        super().__init__()
        self.one_sided = one_sided
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if one_sided else 1)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels half_height half_width"]:
        """Return the smaller map; the UNet's rounds odd sizes up, the autoencoder's down."""
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.one_sided else x)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling, then a convolution.

    Args:
        channels: number of channels of the map.
        convolve_first: whether to convolve the smaller map instead, at a quarter of the cost
            (Saharia et al. 2022, appendix B.1).
    """

    def __init__(self, channels: int, convolve_first: bool = False):
        super().__init__()
        self.convolve_first = convolve_first
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "batch channels new_height new_width"]:
        """Return a map twice as large, or of the given height and width."""
        if size is None:
            size = (2 * x.shape[2], 2 * x.shape[3])
        if self.convolve_first:
            return F.interpolate(self.conv(x), size=size, mode="nearest")
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
