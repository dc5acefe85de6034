"""Denoiser of text embeddings: a transformer over positions."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import Condition
from multidiff.nn.embeddings import LogSNREmbedding
from multidiff.nn.token_denoiser import DecoderContext, SourceEncoder
from multidiff.nn.transformer import Transformer


class TextDenoiser(nn.Module):
    """Predicts the clean embeddings of a text from noisy ones.

    The condition is a dict: ``real`` (batch, length), false at padding, and ``source``
    (batch, positions), source tokens, -1 where dropped or padding.

    Args:
        state_width: width of the embeddings.
        width: width of the transformer.
        layers: number of blocks.
        heads: number of attention heads.
        length: length of the longest text.
        self_conditioned: whether it reads its last estimate beside the noisy state.
        sources: number of distinct source tokens; 0 without sources.
        source_layers: number of blocks in the source encoder.
        source_length: length of the longest source.
        embedding_width: width of the noise level's embedding.
        expansion: ratio of the MLPs' inner width to that of the blocks.
        dropout: dropout probability of each residual branch.
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
        self.positions = nn.Embedding(length, width)
        # Small, as in BERT: larger ones drown the embeddings.
        nn.init.normal_(self.positions.weight, std=0.02)
        self.level = LogSNREmbedding(embedding_width)
        self.body = Transformer(width, layers, heads, embedding_width, expansion, dropout)
        self.say = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, state_width))
        self.source = (
            SourceEncoder(sources, width, source_layers, heads, source_length) if sources else None
        )

    def forward(
        self,
        xt: Float[Tensor, "batch length read"],
        level: NoiseLevel,
        condition: Condition = None,
    ) -> Float[Tensor, "batch length state"]:
        """Return the prediction; see :class:`~multidiff.core.protocols.Denoiser`."""
        around = DecoderContext.of(condition, self.source, xt)
        x = self.read(xt) + self.positions.weight[: xt.shape[1]]
        found = self.body(x, self.level(level), around.context, around.keys(), around.positions)
        return self.say(found)
