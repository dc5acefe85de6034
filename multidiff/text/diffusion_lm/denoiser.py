"""The network of texts as embeddings: a transformer over their places."""

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
        self.positions = nn.Embedding(length, width)
        # Small, as in BERT: larger ones drown what is read.
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
        """The prediction; see :class:`~multidiff.core.protocols.Denoiser`."""
        around = DecoderContext.of(condition, self.source, xt)
        x = self.read(xt) + self.positions.weight[: xt.shape[1]]
        found = self.body(x, self.level(level), around.context, around.keys(), around.positions)
        return self.say(found)
