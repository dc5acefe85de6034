"""ConvNeXt blocks over time with noise-level conditioning (Liu et al. 2022; Peebles & Xie 2023)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.nn.cpu_kernels import depthwise, linear_gelu
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
        dropout: probability that a channel of the bottleneck is zeroed in training, over all
            frames of a sample.
    """

    def __init__(
        self,
        width: int,
        embedding_width: int,
        kernel: int = 7,
        expansion: int = 3,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.mix = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = AdaptiveNorm(width, embedding_width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.gate = nn.Linear(embedding_width, width)
        self.dropout = dropout
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 0.3)

    def forward(
        self, x: Float[Tensor, "batch frames width"], embedding: Float[Tensor, "batch emb"]
    ) -> Float[Tensor, "batch frames width"]:
        """Return the frames after the block."""
        return self.residual(x, depthwise(self.mix, x), embedding)

    def residual(
        self,
        x: Float[Tensor, "batch frames width"],
        mixed: Float[Tensor, "batch frames width"],
        embedding: Float[Tensor, "batch emb"],
    ) -> Float[Tensor, "batch frames width"]:
        """Return the frames after the block, given them mixed over time; frames do not mix here."""
        hidden = linear_gelu(self.widen, self.norm(mixed, embedding))
        hidden = channel_dropout(hidden, self.dropout, self.training)
        return x + self.gate(embedding)[:, None] * self.narrow(hidden)


def bottlenecks(network: nn.Module, name: str) -> tuple[str, ...]:
    """Return beginnings of names: of weights of a network's blocks that may have half precision.

    Most of the products are theirs. Frames between them keep the network's precision.

    Args:
        network: network with blocks.
        name: name of the network in the model.
    """
    return tuple(
        f"{name}.{place}.{layer}."
        for place, block in network.named_modules()
        if isinstance(block, ConvNeXtBlock)
        for layer in ("widen", "narrow")
    )


def channel_dropout(
    x: Float[Tensor, "batch frames width"], probability: float, training: bool
) -> Float[Tensor, "batch frames width"]:
    """Return a sequence with some channels of each sample zeroed over all its frames.

    The draws of :func:`torch.nn.functional.dropout1d` for channels that are last, at the cost of
    one draw a channel.

    Args:
        x: the sequence.
        probability: that a channel is zeroed; the others are scaled up for it.
        training: False returns ``x`` as it is.
    """
    if not training or probability == 0:
        return x
    return x * F.dropout(x.new_ones(len(x), 1, x.shape[-1]), probability, True)
