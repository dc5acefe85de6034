"""Embeddings that the published denoisers of images add to their layers: timesteps, captions."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.nn.embeddings import sinusoid

NUM_SIZES = 6  # numbers that describe how an image was cropped


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of the timestep index, through a small MLP.

    Args:
        num_waves: number of sines and cosines together.
        width: width of the embedding.
        time_steps: number of timesteps.
        flip_sin_to_cos: whether cosines come first.
        freq_shift: 1 for the frequencies of Ho et al.
    """

    def __init__(
        self, num_waves: int, width: int, time_steps: int, flip_sin_to_cos: bool, freq_shift: int
    ):
        super().__init__()
        self.num_waves, self.time_steps = num_waves, time_steps
        self.order: Literal["cos-sin", "sin-cos"] = "cos-sin" if flip_sin_to_cos else "sin-cos"
        self.last_rate: Literal["half", "half-minus-one"] = (
            "half-minus-one" if freq_shift else "half"
        )
        self.linear_1 = nn.Linear(num_waves, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, level: NoiseLevel) -> Float[Tensor, "batch width"]:
        """Return the embedding; a time between two timesteps is interpolated."""
        index = level.time * self.time_steps - 1
        waves = sinusoid(index, self.num_waves, order=self.order, last_rate=self.last_rate)
        return self.linear_2(F.silu(self.linear_1(waves.to(self.linear_1.weight.dtype))))


class CaptionEmbedding(nn.Module):
    """Embedding of a caption and of sizes in pixels (Podell et al. 2023, section 2.2).

    Args:
        pooled_width: width of the caption's embedding.
        waves: number of sines and cosines of each size.
        width: width of the output.
    """

    def __init__(self, pooled_width: int, waves: int, width: int):
        super().__init__()
        self.waves = waves
        self.linear_1 = nn.Linear(pooled_width + NUM_SIZES * waves, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(
        self, pooled: Float[Tensor, "batch pooled_width"], sizes: Float[Tensor, "batch sizes"]
    ) -> Float[Tensor, "batch width"]:
        """Return the embedding.

        Args:
            pooled: embeddings of the captions.
            sizes: height and width of the original image, top and left edge of the crop, height
                and width of the result.
        """
        waves = sinusoid(sizes.flatten(), self.waves, order="cos-sin").view(len(sizes), -1)
        both = torch.cat([pooled, waves.to(pooled)], dim=1).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(both)))
