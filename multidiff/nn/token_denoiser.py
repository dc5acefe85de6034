"""Transformers that predict the tokens of partly masked sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.protocols import Condition, Level
from multidiff.nn.embeddings import LogSNREmbedding
from multidiff.nn.transformer import KVCache, Transformer


class SourceEncoder(nn.Module):
    """Transformer encoder of the source that a sample is generated from.

    Args:
        size: number of distinct source tokens.
        width: width of the output.
        layers: number of transformer blocks.
        heads: number of attention heads.
        length: length of the longest source.
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
        """Encode the positions and return a mask of those that exist: -1 is padding."""
        there = source >= 0
        positions = torch.arange(source.shape[1], device=source.device)
        x = self.words(source.clamp(min=0)) + self.positions(positions)
        # A source that is dropped as a whole has no keys; attending to itself keeps it finite.
        keys = there | ~there.any(dim=1, keepdim=True)
        return self.body(x, keys=keys), there


class TokenDenoiser(nn.Module):
    """Predicts the tokens of a partly masked sequence.

    For masks it needs no noise level: their number determines it, and a prediction holds for every
    level at which the same positions are masked (Ou et al. 2025, section 3). Uniform noise leaves
    no such trace: give ``embedding_width``. The condition is a
    dict: ``real`` (batch, length), false at padding, all true by default, and ``source``
    (batch, positions), source tokens, -1 where they are dropped or padding.

    Args:
        size: number of tokens; the mask is one more.
        width: width of the transformer.
        layers: number of blocks.
        heads: number of attention heads.
        length: length of the longest sequence.
        sources: number of distinct source tokens; 0 without sources.
        source_layers: number of blocks in the source encoder.
        source_length: length of the longest source.
        expansion: ratio of the MLPs' inner width to that of the blocks.
        dropout: dropout probability of each residual branch.
        block: number of positions in a block, for block diffusion (Arriola et al. 2025): a
            position attends to its own block and those before it, never to later ones. If the
            condition has ``x0`` (batch, length), earlier blocks are read from there as clean
            tokens, so that all blocks are trained at once. 0 for no blocks.
        embedding_width: width of the noise level's embedding; 0 to ignore the level.

    Raises:
        ValueError: if a network with blocks also has sources or reads the noise level.
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
        embedding_width: int = 0,
    ):
        if block and sources:
            raise ValueError(f"block {block} and sources {sources}: one of the two must be 0")
        if block and embedding_width:
            raise ValueError(
                f"block {block} and embedding_width {embedding_width}: one of the two must be 0"
            )
        super().__init__()
        self.size, self.block, self.length = size, block, length
        self.words = nn.Embedding(size + 1, width)
        self.positions = nn.Embedding(length, width)
        # Small, as in BERT; the embedding table is the head too, and gives it logits near 0.
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.body = Transformer(width, layers, heads, embedding_width, expansion, dropout)
        self.bias = nn.Parameter(torch.zeros(size))
        self.level = LogSNREmbedding(embedding_width) if embedding_width else None
        self.source = (
            SourceEncoder(sources, width, source_layers, heads, source_length) if sources else None
        )

    def forward(
        self, xt: Int[Tensor, "batch length"], level: Level, condition: Condition = None
    ) -> Float[Tensor, "batch length size"]:
        """Return token logits; see :class:`~multidiff.core.discrete.absorbing.MaskProcess`."""
        around = DecoderContext.of(condition, self.source, xt)
        if self.block:
            x0 = cast("dict[str, Tensor]", condition or {}).get("x0")
            if x0 is None:
                return self.after(KVCache(), xt, around.real)
            return self._beside(x0, xt, around.real)
        return self._head(self.hidden(xt, level, condition))

    def hidden(
        self, xt: Int[Tensor, "batch length"], level: Level, condition: Condition = None
    ) -> Float[Tensor, "batch length width"]:
        """Return the hidden states from which the logits are computed."""
        around = DecoderContext.of(condition, self.source, xt)
        if self.block:
            return self._after(KVCache(), xt, around.real)
        x, embedding = self._laid(xt), None if self.level is None else self.level(level)
        return self.body(x, embedding, around.context, around.keys(), around.positions)

    def after(
        self,
        memory: KVCache,
        tokens: Int[Tensor, "batch length"],
        real: Bool[Tensor, "batch length"],
    ) -> Float[Tensor, "batch length size"]:
        """Return the logits of tokens that follow cached ones, for networks with blocks.

        Args:
            memory: KV cache of the tokens before these, whole blocks; these are appended to it.
            tokens: the next tokens.
            real: false at padding.
        """
        return self._head(self._after(memory, tokens, real))

    def _after(self, memory: KVCache, tokens: Tensor, real: Tensor) -> Tensor:
        first, length = memory.positions, tokens.shape[1]
        keys = keys_after(first, self.block, real)
        positions = torch.arange(first, first + length, device=tokens.device)
        return self.body(self._laid(tokens, first), None, None, keys, positions, memory)

    def _beside(self, x0: Tensor, xt: Tensor, real: Tensor) -> Tensor:
        """Return the logits of all blocks at once, each conditioned on the clean ones before it."""
        length, keys = xt.shape[1], keys_beside(self.block, real)
        x = torch.cat([self._laid(x0), self._laid(xt)], dim=1)
        positions = torch.arange(length, device=xt.device).repeat(2)
        return self._head(self.body(x, None, None, keys, positions)[:, length:])

    def _laid(self, tokens: Tensor, first: int = 0) -> Tensor:
        return self.words(tokens) + self.positions.weight[first : first + tokens.shape[1]]

    def _head(self, found: Tensor) -> Tensor:
        return F.linear(found, self.words.weight[: self.size], self.bias)


def keys_after(
    first: int, block: int, real: Bool[Tensor, "batch length"]
) -> Bool[Tensor, "batch length all"]:
    """Return which positions those after some cached ones attend to, in networks with blocks.

    Args:
        first: number of cached positions, whole blocks, all of which are attended to.
        block: number of positions in a block.
        real: false at padding among the next positions.
    """
    _, sees = _block_order(first, real.shape[1], block, real.device)
    cached = torch.ones(*real.shape, first, dtype=torch.bool, device=real.device)
    return torch.cat([cached, sees & real[:, None]], dim=2)


def keys_beside(
    block: int, real: Bool[Tensor, "batch length"]
) -> Bool[Tensor, "batch twice twice"]:
    """Return which positions attend to which, of a clean text followed by the same one noisy.

    Clean positions attend to no noisy one, noisy ones not to the clean ones of their own block
    (Arriola et al. 2025).

    Args:
        block: number of positions in a block.
        real: false at padding.
    """
    earlier, sees = _block_order(0, real.shape[1], block, real.device)
    nothing, own = torch.zeros_like(sees), sees & ~earlier
    both = torch.cat([torch.cat([sees, nothing], 1), torch.cat([earlier, own], 1)])
    return both & real.repeat(1, 2)[:, None]


def _block_order(
    first: int, length: int, block: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return which positions lie in an earlier block, and which may be attended to."""
    number = torch.arange(first, first + length, device=device) // block
    return number[:, None] > number, number[:, None] >= number


class BlockDenoiser(Protocol):
    """A network with blocks.

    Attributes:
        block: number of positions in a block.
        length: length of the longest sequence.
    """

    block: int
    length: int

    def after(
        self,
        memory: KVCache,
        tokens: Int[Tensor, "batch length"],
        real: Bool[Tensor, "batch length"],
    ) -> Float[Tensor, "batch length size"]:
        """Return the logits of tokens that follow cached ones; they are cached, too."""
        ...


class BlockReader:
    """Denoiser of one block that caches the clean blocks before it.

    When the cache exceeds the network's context length, all but its last half is dropped.

    Args:
        denoiser: a network with blocks.
    """

    def __init__(self, denoiser: BlockDenoiser):
        self.denoiser, self.memory = denoiser, KVCache()
        self.length = denoiser.length
        self.before: list[Tensor] = []

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the logits of the next block."""
        real = cast("dict[str, Tensor]", condition)["real"]
        return self.denoiser.after(self.memory.copy(), xt, real)

    @torch.no_grad()
    def append(self, tokens: Int[Tensor, "batch block"]) -> None:
        """Append a block to the cache."""
        self.before.append(tokens)
        most = self.length // self.denoiser.block
        if len(self.before) == most:  # no space for the next
            self.before = self.before[most - most // 2 :]
            self.memory, tokens = KVCache(), torch.cat([tokens[:, :0], *self.before], dim=1)
        if tokens.shape[1]:
            self.denoiser.after(self.memory, tokens, torch.ones_like(tokens, dtype=torch.bool))


@dataclass(frozen=True)
class DecoderContext:
    """Keys of some sequences beyond their own tokens, and all positions.

    Attributes:
        context: encoding of the source they are generated from; None without a source.
        there: mask of the context's positions that exist.
        real: mask of the sequences' own tokens, false at padding.
        first: index of their own first position: they follow the longest source that
            is possible, however far a batch pads its sources.
        positions: indices of the context's positions and of their own, for attention.
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
        """Return the context of sequences ``(batch, positions, ...)``.

        Args:
            condition: a dict with the optional keys ``real`` and ``source``.
            source: source encoder, for networks that have one.
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
        """Return the mask of positions, context first, that may be attended to: no padding."""
        own = self.real if own is None else own
        return own if self.there is None else torch.cat([self.there, own], dim=1)
