"""One bidirectional transformer over the concatenated tokens of all media."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from multidiff.core.joint.level import JointLevel
from multidiff.core.protocols import Condition
from multidiff.nn.transformer import Transformer


class JointTokenDenoiser(nn.Module):
    """Predicts the masked tokens of every medium from the visible tokens of all.

    Each medium has its own table of tokens, also its output layer, and learned positions. With
    masks the network needs no noise level: which tokens are visible determines it (Ou et al.
    2025, section 3).

    Args:
        parts: number of tokens, without the mask, and length of each medium, by its name.
        width: width of the transformer.
        layers: number of blocks.
        heads: number of attention heads.
        expansion: ratio of the MLPs' inner width to that of the blocks.
        dropout: dropout probability of each residual branch.
    """

    def __init__(
        self,
        parts: dict[str, tuple[int, int]],
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        expansion: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.parts = dict(parts)
        self.words = nn.ModuleDict(
            {n: nn.Embedding(size + 1, width) for n, (size, _) in parts.items()}
        )
        self.positions = nn.ModuleDict(
            {n: nn.Embedding(long, width) for n, (_, long) in parts.items()}
        )
        for table in (*self.words.values(), *self.positions.values()):
            nn.init.normal_(table.weight, std=0.02)  # pyright: ignore[reportArgumentType]
        self.bias = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(size)) for name, (size, _) in parts.items()}
        )
        self.body = Transformer(width, layers, heads, 0, expansion, dropout)

    def forward(
        self,
        xt: Mapping[str, Int[Tensor, "batch length"]],
        level: JointLevel,
        condition: Condition = None,
    ) -> dict[str, Float[Tensor, "batch length size"]]:
        """Return the token logits of each medium."""
        tables, positions = self.words, self.positions
        parts = [tables[name](xt[name]) + positions[name].weight for name in self.parts]  # pyright: ignore[reportOperatorIssue]
        hidden = self.body(torch.cat(parts, dim=1))
        found = hidden.split([length for _, length in self.parts.values()], dim=1)
        return {
            name: F.linear(one, tables[name].weight[:size], self.bias[name])  # pyright: ignore[reportIndexIssue, reportArgumentType]
            for one, (name, (size, _)) in zip(found, self.parts.items(), strict=True)
        }
