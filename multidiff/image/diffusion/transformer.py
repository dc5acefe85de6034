"""Transformer blocks on feature maps, with cross-attention to a condition.

Rombach et al. 2022, section 3.3 and appendix E.2.1; parameters have the names of the published
weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.image.blocks import as_tokens
from multidiff.nn.attention import attention, merge_heads, split_heads

# Epsilon of the transformers' first norm, whatever that of the UNet's other norms.
ENTRY_NORM_EPS = 1e-6


class CrossAttention(nn.Module):
    """Attention from tokens to a condition's tokens, or among themselves.

    Args:
        width: width of the tokens.
        condition_width: width of the condition's tokens; that of the tokens by default.
        heads: number of attention heads.
        upcast: whether to compute attention in float32 regardless of the precision, which the
            768-pixel model of Stable Diffusion 2.1 needs in float16.
    """

    def __init__(self, width: int, condition_width: int | None, heads: int, upcast: bool = False):
        super().__init__()
        self.heads, self.upcast = heads, upcast
        source = width if condition_width is None else condition_width
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(source, width, bias=False)
        self.to_v = nn.Linear(source, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        condition: Float[Tensor, "batch words condition_width"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the attention output of each token."""
        source = x if condition is None else condition
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
        if self.upcast:
            q, k, v = q.float(), k.float(), v.float()
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        gathered = merge_heads(attention(q, k, v))
        return self.to_out[0](gathered.to(x.dtype))


class GEGLU(nn.Module):
    """``value * gelu(gate)``, both linear in the input, with the exact gelu (Shazeer 2020)."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows inner"]:
        """Return the gated values."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """A gated layer four times as wide, and a projection back."""

    def __init__(self, width: int):
        super().__init__()
        inner = 4 * width
        self.net = nn.ModuleList([GEGLU(width, inner), nn.Identity(), nn.Linear(inner, width)])

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Return the layer's output."""
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each with a residual connection."""

    def __init__(self, width: int, condition_width: int, heads: int, upcast: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = CrossAttention(width, None, heads, upcast)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = CrossAttention(width, condition_width, heads, upcast)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        condition: Float[Tensor, "batch words condition_width"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the tokens after attention to each other and to the condition."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), condition)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks on the positions of a feature map, with a residual connection.

    Args:
        channels: number of channels of the map.
        condition_width: width of the condition's tokens.
        heads: number of attention heads.
        groups: number of groups of the first norm.
        linear: whether the projections in and out are linear layers (Stable Diffusion 2) or 1x1
            convolutions (1.x): the same map, with weights of another shape.
        upcast: see :class:`CrossAttention`.
        blocks: number of blocks.
    """

    def __init__(
        self,
        channels: int,
        condition_width: int,
        heads: int,
        groups: int,
        linear: bool,
        upcast: bool,
        blocks: int = 1,
    ):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, ENTRY_NORM_EPS)
        self.proj_in = _projection(channels, linear)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, condition_width, heads, upcast) for _ in range(blocks)
        )
        self.proj_out = _projection(channels, linear)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        condition: Float[Tensor, "batch words condition_width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the map after attention to the condition."""
        tokens = self.proj_in(as_tokens(self.norm(x)))
        for block in self.transformer_blocks:
            tokens = block(tokens, condition)
        tokens = self.proj_out(tokens)
        return x + tokens.transpose(1, 2).reshape(x.shape)


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution on positions in a row: a linear layer with a convolution's weights."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 1)

    def forward(
        self, x: Float[Tensor, "batch length channels"]
    ) -> Float[Tensor, "batch length channels"]:
        """Return the layer's output."""
        return F.linear(x, self.weight.flatten(1), self.bias)


def _projection(channels: int, linear: bool) -> nn.Module:
    return nn.Linear(channels, channels) if linear else PointwiseConv(channels)
