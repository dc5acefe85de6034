"""Adaptive layer norm, conditioned on the noise level (Peebles & Xie 2023, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class AdaptiveNorm(nn.Module):
    """Layer norm whose scale and shift come from an embedding; initialised as the plain norm.

    Args:
        width: number of channels.
        embedding_width: size of the embedding.
    """

    def __init__(self, width: int, embedding_width: int):
        super().__init__()
        self.width = width
        self.modulation = nn.Linear(embedding_width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Float[Tensor, "batch frames width"], embedding: Float[Tensor, "batch emb"]
    ) -> Float[Tensor, "batch frames width"]:
        """Return the normalised and modulated frames."""
        scale, shift = self.modulation(embedding)[:, None].chunk(2, dim=-1)
        return torch.addcmul(shift, F.layer_norm(x, (self.width,)), 1 + scale)
