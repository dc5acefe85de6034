"""The network of Diffusion-LM: a transformer over the places of a text."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.protocols import Condition
from multidiff.core.schedules import NoiseLevel
from multidiff.nn.embedding import LogSNREmbedding
from multidiff.nn.transformer import Transformer


class SourceEncoder(nn.Module):
    """What a text is made from, read once more by a transformer.

    Args:
        size: how many numbers a source is made of.
        width: of the outcome.
        layers: of the transformer.
        heads: of its attention.
        length: the longest source.
    """

    def __init__(self, size: int, width: int, layers: int, heads: int, length: int):
        super().__init__()
        self.size = size
        self.words = nn.Embedding(size, width)
        self.places = nn.Embedding(length, width)
        self.body = Transformer(width, layers, heads)

    def forward(
        self, source: Int[Tensor, "batch places"]
    ) -> tuple[Float[Tensor, "batch places width"], Bool[Tensor, "batch places"]]:
        """What each place means, and which are there at all: -1 is left out."""
        there = source >= 0
        places = torch.arange(source.shape[1], device=source.device)
        x = self.words(source.clamp(min=0)) + self.places(places)
        # A source that is left out whole has no keys; one that sees itself keeps it finite.
        keys = there | ~there.any(dim=1, keepdim=True)
        return self.body(x, keys=keys), there


class TextDenoiser(nn.Module):
    """Predicts the clean embeddings of a text from noisy ones.

    The condition is a dict: ``real`` (batch, length) where there is no padding, and ``source``
    (batch, places), numbers of what the text is made from, -1 where that is left out.

    Args:
        state_width: of the embeddings.
        width: of the transformer.
        layers: blocks.
        heads: of attention.
        length: the longest text.
        self_conditioned: reads its last estimate beside the noisy state.
        sources: how many numbers a source is made of; 0 without sources.
        source_layers: of the source's encoder.
        source_length: the longest source.
        embedding_width: of the level's embedding.
        expansion: inner width of the perceptrons over that of the blocks.
        dropout: share of each branch that training drops.
    """

    def __init__(
        self,
        state_width: int,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        length: int = 64,
        self_conditioned: bool = True,
        sources: int = 0,
        source_layers: int = 1,
        source_length: int = 64,
        embedding_width: int = 128,
        expansion: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.state_width, self.self_conditioned = state_width, self_conditioned
        read = state_width * (2 if self_conditioned else 1)
        self.read = nn.Sequential(nn.Linear(read, width), nn.Tanh(), nn.Linear(width, width))
        self.places = nn.Embedding(length, width)
        # Small, as in BERT: larger ones drown what is read.
        nn.init.normal_(self.places.weight, std=0.02)
        self.level = LogSNREmbedding(embedding_width)
        self.body = Transformer(width, layers, heads, embedding_width, expansion, dropout)
        self.say = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, state_width))
        self.source = (
            SourceEncoder(sources, width, source_layers, heads, source_length) if sources else None
        )

    def forward(
        self,
        noisy: Float[Tensor, "batch length read"],
        level: NoiseLevel,
        condition: Condition = None,
    ) -> Float[Tensor, "batch length state"]:
        """The prediction; see :class:`~multidiff.core.protocols.Denoiser`."""
        condition = cast("dict[str, Tensor]", condition or {})
        real = condition.get("real")
        if real is None:
            real = torch.ones(noisy.shape[:2], dtype=torch.bool, device=noisy.device)
        context, keys = None, real
        if self.source is not None and "source" in condition:
            context, there = self.source(condition["source"])
            keys = torch.cat([there, real], dim=1)
        x = self.read(noisy) + self.places.weight[: noisy.shape[1]]
        return self.say(self.body(x, self.level(level), context, keys))
