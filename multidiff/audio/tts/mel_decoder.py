"""The diffusion decoder: noisy mel frames to a prediction, given what the text says of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.nn.convnext import ConvNeXtBlock
from multidiff.nn.embeddings import LogSNREmbedding


class MelDecoder(nn.Module):
    """ConvNeXt blocks over pairs of frames, which read the noisy mel, the mean and the text.

    Args:
        n_mels: bands of the mel.
        text_width: channels of the text encoder.
        width: channels.
        depth: number of blocks.
        kernel: positions that each block's convolution sees.
        expansion: width of the blocks' bottleneck over ``width``.
        embedding_width: size of the noise level's embedding.
        dropout: dropout probability of the blocks.
    """

    def __init__(
        self,
        n_mels: int = 80,
        text_width: int = 192,
        width: int = 256,
        depth: int = 8,
        kernel: int = 7,
        expansion: int = 2,
        embedding_width: int = 128,
        dropout: float = 0.05,
    ):
        super().__init__()
        self.n_mels = n_mels
        self.level = LogSNREmbedding(embedding_width)
        self.read = nn.Linear(4 * n_mels + text_width, width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(width, embedding_width, kernel, expansion, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, 2 * n_mels)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(
        self,
        xt: Float[Tensor, "batch frames mels"],
        level: NoiseLevel,
        condition: dict[str, Tensor],
    ) -> Float[Tensor, "batch frames mels"]:
        """Return the prediction.

        Args:
            xt: noisy standardised mels, an even number of frames.
            level: noise level of each sample.
            condition: ``mean`` (batch, frames, mels), ``text`` (batch, pairs, width) and
                ``mask`` (batch, frames), 1 at frames and 0 at padding.
        """
        batch, frames, _ = xt.shape
        pairs = (batch, frames // 2, 2 * self.n_mels)
        frame_mask = condition["mask"].to(xt)[..., None]
        mask = frame_mask[:, ::2]
        # The second frame of the last pair may be padding.
        frames_in = (xt * frame_mask, condition["mean"].to(xt) * frame_mask)
        parts = [*(one.reshape(pairs) for one in frames_in), condition["text"].to(xt)]
        x = self.read(torch.cat(parts, dim=-1))
        embedding = self.level(level)
        for block in self.blocks:
            x = block(x * mask, embedding)
        return self.write(self.norm(x)).reshape(batch, frames, self.n_mels)
