"""A bidirectional transformer over sequences of any length (Vaswani et al. 2017).

Pre-norm blocks. A context (a source text, the values of a meaning representation) is read by
the same attention: its places are further keys and values. Places that are padding are no keys.
Queries and keys are turned by their place, so that attention sees how far two places lie apart
(rotary embedding, Su et al. 2021); without it the order of words is learned far later.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.nn.norms import AdaptiveNorm


class PlainNorm(nn.LayerNorm):
    """Layer norm for blocks that are told no level."""

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """The normalised places."""
        return super().forward(x)


class KVCache:
    """Keys and values of places that were read before, for sequences that are written on.

    Attributes:
        pairs: those of each block, turned, ``(batch, heads, positions, channels)``; none before
            anything was read.
    """

    def __init__(self) -> None:
        self.pairs: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    @property
    def positions(self) -> int:
        """How many places are remembered."""
        return next((key.shape[2] for key, _ in self.pairs.values()), 0)

    def grown(self, reader: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What a block's attention remembers, with what it reads now behind that."""
        before = self.pairs.get(reader)
        if before is not None:
            key, value = torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)
        self.pairs[reader] = key, value
        return key, value

    def copy(self) -> KVCache:
        """One that grows by itself from here."""
        other = KVCache()
        other.pairs = {**self.pairs}
        return other

    def take(self, rows: Int[Tensor, " rows"]) -> None:
        """Go on with these rows of the batch, some of them several times."""
        self.pairs = {
            reader: (key[rows], value[rows]) for reader, (key, value) in self.pairs.items()
        }


class Attention(nn.Module):
    """Attention of places to places and to a context.

    Args:
        width: channels.
        heads: that share them.
    """

    def __init__(self, width: int, heads: int):
        if width % (2 * heads):
            raise ValueError(f"width {width} is no multiple of twice the {heads} heads")
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
        """What each place finds.

        Args:
            x: the places that ask, and are asked.
            context: places that are asked alone; they come before the others.
            keys: which of all these places count, for all that ask or for each of them.
            turns: of all these places, see :func:`rotary_embedding`; counted where not given.
            memory: of places that were read before these, which count among the keys too.
        """
        asked = x if context is None else torch.cat([context, x], dim=1)
        key, value = map(self._split, self.key_value(asked).chunk(2, dim=-1))
        query = self._split(self.query(x))
        if turns is None:
            turns = rotary_embedding(torch.arange(asked.shape[1], device=x.device), query.shape[-1])
        query, key = apply_rotary(query, turns[..., -x.shape[1] :, :]), apply_rotary(key, turns)
        if memory is not None:
            key, value = memory.grown(self, key, value)
        mask = None if keys is None else keys[:, None].view(len(x), 1, -1, key.shape[2])
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(found.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def rotary_embedding(
    positions: Int[Tensor, " length"] | Int[Tensor, "batch length"],
    width: int,
    longest: float = 1000.0,
) -> Float[Tensor, "2 *batch length width"]:
    """Cosines and sines of the angle that each channel is turned by at each position.

    Positions of each row of a batch have turns with a dimension for heads behind the batch's.
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
    """Channels turned in pairs, the first half with the second."""
    cosine, sine = turns.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cosine, torch.cat([second, first], dim=-1), sine)


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a residual.

    Args:
        width: channels.
        heads: of attention.
        embedding_width: of the level's embedding; 0 for blocks that are told none.
        expansion: inner width of the perceptron over that of the block.
        dropout: share of each branch that training drops.
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
        """The places after the block."""
        found = self.attention(self.norm1(x, embedding), context, keys, turns, memory)
        x = x + self.dropout(found)
        hidden = F.gelu(self.widen(self.norm2(x, embedding)))
        return x + self.dropout(self.narrow(hidden))


class Transformer(nn.Module):
    """Blocks one after the other, and a norm.

    Args:
        width: channels.
        layers: blocks.
        heads: of attention.
        embedding_width: of the level's embedding; 0 for a network that is told none.
        expansion: inner width of the perceptrons over that of the blocks.
        dropout: share of each branch that training drops.
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
        self.heads = heads
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
        """What each place has come to mean among the others.

        Args:
            x: the places.
            embedding: of the noise level.
            context: further places that are read and not written.
            keys: which of the context's places and of these, in this order, are no padding;
                or which of them each place may read.
            positions: of the context's places and of these, counted from 0 where not given.
                Where a context is padded, those of its rows keep padding from moving the rest.
            memory: of places that were read before these; it comes to hold these too. ``keys``
                are then of all of them, ``positions`` of those that are read now.
        """
        if positions is None:
            length = x.shape[1] + (0 if context is None else context.shape[1])
            positions = torch.arange(length, device=x.device)
        turns = rotary_embedding(positions, x.shape[2] // self.heads)
        for block in self.blocks:
            x = block(x, embedding, context, keys, turns, memory)
        return self.norm(x, embedding)


def norm(width: int, embedding_width: int) -> nn.Module:
    """A norm that is told an embedding, or a plain one."""
    return AdaptiveNorm(width, embedding_width) if embedding_width else PlainNorm(width)
