"""A bidirectional transformer over sequences of any length (Vaswani et al. 2017).

Pre-norm blocks. A context (a source text, the values of a meaning representation) is read by
the same attention: its positions are further keys and values. Padding is masked out of the keys.
Queries and keys are rotated by their position (RoPE, rotary position embedding, Su et al. 2021),
so that attention depends on the distance between two positions; without it the order of words is
learned far later.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.draws import checkpointed
from multidiff.nn.attention import attention, merge_heads, split_heads
from multidiff.nn.norms import AdaptiveNorm


class PlainNorm(nn.LayerNorm):
    """Layer norm for blocks without a noise-level embedding."""

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Return the normalised positions."""
        return super().forward(x)


class KVCache:
    """KV cache: keys and values of earlier positions, for sequences that are extended.

    Attributes:
        pairs: keys and values of each block, rotated, ``(batch, heads, positions, channels)``;
            empty at the start.
    """

    def __init__(self) -> None:
        self.pairs: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    @property
    def positions(self) -> int:
        """Return the number of cached positions."""
        return next((key.shape[2] for key, _ in self.pairs.values()), 0)

    def append(self, reader: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append a block's new keys and values to its cached ones, and return all of them."""
        before = self.pairs.get(reader)
        if before is not None:
            key, value = torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)
        self.pairs[reader] = key, value
        return key, value

    def copy(self) -> KVCache:
        """Return a copy that is extended independently."""
        other = KVCache()
        other.pairs = {**self.pairs}
        return other

    def reorder(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep these rows of the batch, in this order; a row may repeat."""
        self.pairs = {
            reader: (key[rows], value[rows]) for reader, (key, value) in self.pairs.items()
        }


class Attention(nn.Module):
    """Multi-head attention of positions to each other and to a context.

    Args:
        width: number of channels.
        heads: number of attention heads.
    """

    def __init__(self, width: int, heads: int):
        if width % (2 * heads):
            raise ValueError(f"width {width} must be a multiple of 2 * heads, {2 * heads}")
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        context: Float[Tensor, "batch more width"] | None = None,
        keys: Bool[Tensor, "batch all"] | Bool[Tensor, "batch length all"] | None = None,
        turns: Float[Tensor, "2 *batch all channels"] | None = None,
        memory: KVCache | None = None,
    ) -> Float[Tensor, "batch length width"]:
        """Return the attention output of each position.

        Args:
            x: positions that attend and are attended to.
            context: positions that are only attended to; they come before the others.
            keys: mask of all these positions, for all queries or for each of them.
            turns: RoPE of all these positions, see :func:`rotary_embedding`; consecutive if None.
            memory: KV cache of earlier positions, which ``keys`` covers too.
        """
        asked = x if context is None else torch.cat([context, x], dim=1)
        key, value = (
            split_heads(part, self.heads) for part in self.key_value(asked).chunk(2, dim=-1)
        )
        query = split_heads(self.query(x), self.heads)
        if turns is None:
            turns = rotary_embedding(torch.arange(asked.shape[1], device=x.device), query.shape[-1])
        query, key = apply_rotary(query, turns[..., -x.shape[1] :, :]), apply_rotary(key, turns)
        if memory is not None:
            key, value = memory.append(self, key, value)
        mask = None if keys is None else keys[:, None].view(len(x), 1, -1, key.shape[2])
        found = attention(query, key, value, mask)
        return self.out(merge_heads(found))


def rotary_embedding(
    positions: Int[Tensor, " length"] | Int[Tensor, "batch length"],
    width: int,
    longest: float = 1000.0,
) -> Float[Tensor, "2 *batch length width"]:
    """Return cosines and sines of each channel's rotation angle at each position (RoPE).

    If each row of the batch has its own positions, the result has a dimension for heads after
    that of the batch.
    """
    rates = longest ** -(torch.arange(width // 2, device=positions.device) / (width // 2))
    angles = positions[..., None] * rates
    if positions.ndim == 2:
        angles = angles[:, None]
    cosine, sine = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)])


def apply_rotary(
    x: Float[Tensor, "batch heads length width"], turns: Float[Tensor, "2 *batch length width"]
) -> Float[Tensor, "batch heads length width"]:
    """Rotate channels in pairs, the first half with the second (RoPE)."""
    cosine, sine = turns.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cosine, torch.cat([second, first], dim=-1), sine)


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and with a residual connection.

    Args:
        width: number of channels.
        heads: number of attention heads.
        embedding_width: width of the noise level's embedding; 0 for blocks without one.
        expansion: ratio of the MLP's inner width to that of the block.
        dropout: dropout probability of each residual branch.
    """

    def __init__(
        self, width: int, heads: int, embedding_width: int, expansion: int, dropout: float
    ):
        super().__init__()
        self.norm1, self.norm2 = (norm(width, embedding_width) for _ in range(2))
        self.attention = Attention(width, heads)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        embedding: Tensor | None,
        context: Tensor | None,
        keys: Tensor | None,
        turns: Tensor | None = None,
        memory: KVCache | None = None,
    ) -> Tensor:
        """Return the positions after the block."""
        found = self.attention(self.norm1(x, embedding), context, keys, turns, memory)
        x = x + self.dropout(found)
        hidden = F.gelu(self.widen(self.norm2(x, embedding)))
        return x + self.dropout(self.narrow(hidden))


class Transformer(nn.Module):
    """Blocks one after the other, and a final norm.

    Attributes:
        gradient_checkpointing: whether training recomputes each block's activations in the backward
            pass.

    Args:
        width: number of channels.
        layers: number of blocks.
        heads: number of attention heads.
        embedding_width: width of the noise level's embedding; 0 for a network without one.
        expansion: ratio of the MLPs' inner width to that of the blocks.
        dropout: dropout probability of each residual branch.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        embedding_width: int = 0,
        expansion: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.heads, self.gradient_checkpointing = heads, False
        self.blocks = nn.ModuleList(
            Block(width, heads, embedding_width, expansion, dropout) for _ in range(layers)
        )
        self.norm = norm(width, embedding_width)

    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        embedding: Float[Tensor, "batch emb"] | None = None,
        context: Float[Tensor, "batch more width"] | None = None,
        keys: Bool[Tensor, "batch all"] | Bool[Tensor, "batch length all"] | None = None,
        positions: Int[Tensor, " all"] | Int[Tensor, "batch all"] | None = None,
        memory: KVCache | None = None,
    ) -> Float[Tensor, "batch length width"]:
        """Return the hidden state of each position.

        Args:
            x: embedded positions.
            embedding: embedding of the noise level.
            context: further positions that are only attended to.
            keys: mask of the context's positions and of these, in this order, false at padding;
                or one such mask for each query.
            positions: indices of the context's positions and of these, from 0 by default. Where a
                context is padded, explicit indices keep the padding from shifting the rest.
            memory: KV cache of earlier positions; these are appended to it. ``keys`` then covers
                all of them, ``positions`` only the new ones.
        """
        if positions is None:
            length = x.shape[1] + (0 if context is None else context.shape[1])
            positions = torch.arange(length, device=x.device)
        turns = rotary_embedding(positions, x.shape[2] // self.heads)
        for block in self.blocks:
            if self.gradient_checkpointing and memory is None:
                x = checkpointed(block, x, embedding, context, keys, turns)
            else:
                x = block(x, embedding, context, keys, turns, memory)
        return self.norm(x, embedding)


def norm(width: int, embedding_width: int) -> nn.Module:
    """Return an adaptive norm for an embedding of that width, or a plain norm for width 0."""
    return AdaptiveNorm(width, embedding_width) if embedding_width else PlainNorm(width)
