"""A UNet that reads prompts: their words by attention, a pooled embedding and the style."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.image.diffusion.unet import UNet
from multidiff.nn.transformer import Transformer


class PromptUNet(nn.Module):
    """A denoiser of images that reads the condition of a ``PromptTokenizer``.

    Tokens pass through a small transformer. The UNet attends to them where its attention is
    "joint", "words" or "cross", and their mean is added to the embedding of the noise level, as
    that of the style is. Tokens and styles of -1, empty or dropped, add nothing.

    Args:
        network: UNet; its ``condition_width`` is the width of the tokens' embeddings.
        vocabulary: number of tokens, as the tokenizer's.
        styles: number of styles, as the tokenizer's.
        length: number of tokens of a prompt, as the tokenizer's.
        layers: number of blocks of the transformer.
        heads: number of its attention heads.

    Raises:
        ValueError: if the UNet reads no condition.
    """

    def __init__(
        self,
        network: UNet,
        vocabulary: int = 4096,
        styles: int = 8,
        length: int = 24,
        layers: int = 1,
        heads: int = 4,
    ):
        super().__init__()
        if network.condition_width is None:
            raise ValueError("network: set condition_width, the width of the tokens' embeddings")
        width = network.condition_width
        self.network, self.vocabulary, self.styles = network, vocabulary, styles
        self.length = length
        self.in_channels, self.out_channels = network.in_channels, network.out_channels
        # Row 0 begins each sequence, so that one without any token can be attended to.
        self.tokens = nn.Embedding(1 + vocabulary, width)
        self.text = Transformer(width, layers, heads, expansion=2)
        self.pooled = nn.Linear(width, network.time_width)
        self.style = nn.Embedding(styles, network.time_width)

    def forward(
        self,
        xt: Float[Tensor, "batch channels height width"],
        level: NoiseLevel,
        condition: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Return the prediction.

        Args:
            xt: states at ``level``.
            level: noise level.
            condition: token numbers ``words``, ``(batch, length)``, and ``style``, ``(batch,)``;
                -1 where empty or dropped; None drops both.
        """
        if condition is None:
            empty = torch.full((len(xt), self.length), -1, device=xt.device)
            condition = {"words": empty, "style": empty[:, 0]}
        words, style = (condition[key].to(xt.device) for key in ("words", "style"))
        begin = torch.zeros_like(words[:, :1])
        numbers = torch.cat([begin, 1 + words], dim=1)
        there = torch.cat([begin == 0, words >= 0], dim=1)
        text = self.text(self.tokens(numbers), keys=there)
        weight = there.to(text.dtype)[:, :, None]
        mean = (text * weight).sum(dim=1) / weight.sum(dim=1)
        named = (style >= 0).to(text.dtype)[:, None]
        embedding = self.pooled(mean) + named * self.style(style.clamp(min=0))
        return self.network(xt, level, text * weight, embedding)
