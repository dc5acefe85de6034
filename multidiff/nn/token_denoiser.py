"""Networks over tokens: which of them are masked is read, what they were is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.protocols import Condition, Level
from multidiff.nn.transformer import KVCache, Transformer


class SourceEncoder(nn.Module):
    """What a sample is made from, read once more by a transformer.

    Args:
        size: how many numbers a source is made of.
        width: of the outcome.
        layers: of the transformer.
        heads: of its attention.
        length: the longest source.
    """

    def __init__(self, size: int, width: int, layers: int, heads: int, length: int):
        super().__init__()
        self.size, self.length = size, length
        self.words = nn.Embedding(size, width)
        self.positions = nn.Embedding(length, width)
        self.body = Transformer(width, layers, heads)

    def forward(
        self, source: Int[Tensor, "batch length"]
    ) -> tuple[Float[Tensor, "batch length width"], Bool[Tensor, "batch length"]]:
        """What each place means, and which are there at all: -1 is left out."""
        there = source >= 0
        positions = torch.arange(source.shape[1], device=source.device)
        x = self.words(source.clamp(min=0)) + self.positions(positions)
        # A source that is left out whole has no keys; one that sees itself keeps it finite.
        keys = there | ~there.any(dim=1, keepdim=True)
        return self.body(x, keys=keys), there


class TokenDenoiser(nn.Module):
    """Predicts the tokens of a sequence of which some are masked.

    It is told no level: how many masks there are says it, and an answer then holds for every
    level at which the same places are masked (Ou et al. 2025, section 3). The condition is a dict:
    ``real`` (batch, length) where there is no padding, all where not given, and ``source``
    (batch, places), numbers of what a sample is made from, -1 where that is left out.

    Args:
        size: how many tokens there are; the mask is one more.
        width: of the transformer.
        layers: blocks.
        heads: of attention.
        length: the longest sequence.
        sources: how many numbers a source is made of; 0 without sources.
        source_layers: of the source's encoder.
        source_length: the longest source.
        expansion: inner width of the perceptrons over that of the blocks.
        dropout: share of each branch that training drops.
        block: places of a block, for texts that are found block by block (Arriola et al. 2025):
            a place reads its own block and those before it, none behind. The condition's
            ``x0`` (batch, length), where it is told, is what earlier blocks came out as; they
            are then read from there, so that all blocks are trained at once. 0 for no blocks.

    Raises:
        ValueError: if a network of blocks is to read sources.
    """

    def __init__(
        self,
        size: int,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        length: int = 64,
        sources: int = 0,
        source_layers: int = 1,
        source_length: int = 64,
        expansion: int = 4,
        dropout: float = 0.0,
        block: int = 0,
    ):
        if block and sources:
            raise ValueError(f"blocks of {block} places and {sources} sources: give one of the two")
        super().__init__()
        self.size, self.block = size, block
        self.words = nn.Embedding(size + 1, width)
        self.positions = nn.Embedding(length, width)
        # Small, as in BERT; the words' table is the head too, and gives it logits near 0.
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.body = Transformer(width, layers, heads, 0, expansion, dropout)
        self.bias = nn.Parameter(torch.zeros(size))
        self.source = (
            SourceEncoder(sources, width, source_layers, heads, source_length) if sources else None
        )

    def forward(
        self, xt: Int[Tensor, "batch length"], level: Level, condition: Condition = None
    ) -> Float[Tensor, "batch length size"]:
        """Logits of the tokens; see :class:`~multidiff.core.discrete.absorbing.MaskProcess`."""
        around = DecoderContext.of(condition, self.source, xt)
        if self.block:
            x0 = cast("dict[str, Tensor]", condition or {}).get("x0")
            if x0 is None:
                return self.after(KVCache(), xt, around.real)
            return self._beside(x0, xt, around.real)
        x = self._laid(xt)
        return self._head(self.body(x, None, around.context, around.keys(), around.positions))

    def after(
        self,
        memory: KVCache,
        tokens: Int[Tensor, "batch length"],
        real: Bool[Tensor, "batch length"],
    ) -> Float[Tensor, "batch length size"]:
        """Logits of tokens behind others that were read before, for networks of blocks.

        Args:
            memory: of the tokens before these, whole blocks; it comes to hold these too.
            tokens: the next ones.
            real: which of these are no padding.
        """
        first, length = memory.positions, tokens.shape[1]
        _, sees = self._order(first, length)
        cond = torch.ones(len(tokens), length, first, dtype=torch.bool, device=tokens.device)
        keys = torch.cat([cond, sees & real[:, None]], dim=2)
        positions = torch.arange(first, first + length, device=tokens.device)
        found = self.body(self._laid(tokens, first), None, None, keys, positions, memory)
        return self._head(found)

    def _beside(self, x0: Tensor, xt: Tensor, real: Tensor) -> Tensor:
        """Logits of all blocks at once, each told the clean ones before it."""
        length = xt.shape[1]
        earlier, sees = self._order(0, length)
        # The clean places read no noisy one, and a noisy one not its own block's clean ones.
        nothing, own = torch.zeros_like(sees), sees & ~earlier
        both = torch.cat([torch.cat([sees, nothing], 1), torch.cat([earlier, own], 1)])
        keys = both & real.repeat(1, 2)[:, None]
        x = torch.cat([self._laid(x0), self._laid(xt)], dim=1)
        positions = torch.arange(length, device=xt.device).repeat(2)
        return self._head(self.body(x, None, None, keys, positions)[:, length:])

    def _order(self, first: int, length: int) -> tuple[Tensor, Tensor]:
        """Of the places from the first: which lie in an earlier block, and which are read."""
        number = torch.arange(first, first + length, device=self.bias.device) // self.block
        return number[:, None] > number, number[:, None] >= number

    def _laid(self, tokens: Tensor, first: int = 0) -> Tensor:
        return self.words(tokens) + self.positions.weight[first : first + tokens.shape[1]]

    def _head(self, found: Tensor) -> Tensor:
        return F.linear(found, self.words.weight[: self.size], self.bias)


class BlockReader:
    """A denoiser of one block, which remembers those before it as they came out.

    Where they are more than the network reads, all but the last half of that are forgotten.

    Args:
        denoiser: a network of blocks.
    """

    def __init__(self, denoiser: TokenDenoiser):
        self.denoiser, self.memory = denoiser, KVCache()
        self.length = len(denoiser.positions.weight)
        self.before: list[Tensor] = []

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Logits of the next block."""
        real = cast("dict[str, Tensor]", condition)["real"]
        return self.denoiser.after(self.memory.copy(), xt, real)

    @torch.no_grad()
    def take(self, tokens: Int[Tensor, "batch block"]) -> None:
        """Remember a block."""
        self.before.append(tokens)
        most = self.length // self.denoiser.block
        if len(self.before) == most:  # no room for the next
            self.before = self.before[most - most // 2 :]
            self.memory, tokens = KVCache(), torch.cat([tokens[:, :0], *self.before], dim=1)
        if tokens.shape[1]:
            self.denoiser.after(self.memory, tokens, torch.ones_like(tokens, dtype=torch.bool))


@dataclass(frozen=True)
class DecoderContext:
    """What the places of some sequences read.

    Attributes:
        context: what they are made from; None where nothing is told of it.
        there: which of its places are there at all.
        real: which of the sequences' own are no padding.
        first: position of the first of their own: they stand behind the longest source that
            there can be, however far a batch pads its sources.
        positions: of the context's places and of their own, for attention.
    """

    context: Float[Tensor, "batch more width"] | None
    there: Bool[Tensor, "batch more"] | None
    real: Bool[Tensor, "batch length"]
    first: int
    positions: Int[Tensor, " all"]

    @classmethod
    def of(
        cls, condition: Condition, source: SourceEncoder | None, positions: Tensor
    ) -> DecoderContext:
        """What is told of sequences ``(batch, positions, ...)``.

        Args:
            condition: a dict with ``real`` and ``source``, each where it is told.
            source: reads sources, for networks that have one.
            positions: the sequences.
        """
        cond = cast("dict[str, Tensor]", condition or {})
        first = 0 if source is None else source.length
        own = first + torch.arange(positions.shape[1], device=positions.device)
        real = cond.get("real")
        if real is None:
            real = torch.ones(positions.shape[:2], dtype=torch.bool, device=positions.device)
        if source is None or "source" not in cond:
            return cls(None, None, real, first, own)
        context, there = source(cond["source"])
        before = torch.arange(context.shape[1], device=positions.device)
        return cls(context, there, real, first, torch.cat([before, own]))

    def keys(self, own: Bool[Tensor, "batch length"] | None = None) -> Bool[Tensor, "batch all"]:
        """Which of the context's places and of their own may be read; all that are no padding."""
        own = self.real if own is None else own
        return own if self.there is None else torch.cat([self.there, own], dim=1)
