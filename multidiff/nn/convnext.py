"""ConvNeXt blocks over time with noise-level conditioning (Liu et al. 2022; Peebles & Xie 2023)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.nn.norms import AdaptiveNorm


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, adaptive norm, inverted bottleneck, gated residual.

    Frames are normalised one by one: the convolution alone sets the receptive field, so long
    inputs can be cut into pieces.

    Args:
        width: number of channels.
        embedding_width: size of the noise level's embedding.
        kernel: length of the convolution, odd.
        expansion: ratio of the bottleneck's width to that of the block.
    """

    def __init__(self, width: int, embedding_width: int, kernel: int = 7, expansion: int = 3):
        super().__init__()
        self.mix = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = AdaptiveNorm(width, embedding_width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.gate = nn.Linear(embedding_width, width)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 0.3)

    def forward(
        self, x: Float[Tensor, "batch frames width"], embedding: Float[Tensor, "batch emb"]
    ) -> Float[Tensor, "batch frames width"]:
        """Return the frames after the block."""
        mixed = self.mix(x.transpose(1, 2)).transpose(1, 2)
        hidden = F.gelu(self.widen(self.norm(mixed, embedding)), approximate="tanh")
        return x + self.gate(embedding)[:, None] * self.narrow(hidden)
