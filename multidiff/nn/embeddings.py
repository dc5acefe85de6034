"""Embeddings of the noise level."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.gaussian.schedules import NoiseLevel


class LogSNREmbedding(nn.Module):
    """Sines and cosines of the log signal-to-noise ratio, through a small MLP.

    Args:
        width: size of the embedding.
        num_waves: number of frequencies, spaced geometrically.
        longest: longest period, in nats of log SNR.
        shortest: shortest period, in nats of log SNR.
    """

    def __init__(
        self, width: int, num_waves: int = 32, longest: float = 120.0, shortest: float = 2.0
    ):
        super().__init__()
        self.rates: Tensor
        periods = torch.logspace(math.log10(longest), math.log10(shortest), num_waves)
        self.register_buffer("rates", 2 * math.pi / periods, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * num_waves, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, level: NoiseLevel) -> Float[Tensor, "batch width"]:
        """Return the embedding of each sample's level."""
        # Beyond +-20 the level is clean, or pure noise, in float32.
        angles = level.log_snr.clamp(-20, 20).to(self.rates)[:, None] * self.rates
        return self.layers(torch.cat([angles.sin(), angles.cos()], dim=1))


def sinusoid(
    position: Float[Tensor, " batch"],
    width: int,
    *,
    scale: float = 1.0,
    order: Literal["sin-cos", "cos-sin"] = "sin-cos",
    last_rate: Literal["half", "half-minus-one"] = "half",
) -> Float[Tensor, "batch width"]:
    """Return the sinusoidal embedding of a number: sines and cosines at ``10000^(-j / n)``.

    Implementations differ: with ``width / 2`` rates, the Ho et al. code divides ``j`` by one less
    than that and puts sines first; Stable Diffusion divides by it and puts cosines first.
    WaveGrad multiplies its noise level by 5000 before; lmnt's code does not.
    """
    half = width // 2
    count = half if last_rate == "half" else half - 1
    rates = torch.exp(-math.log(10000) / count * torch.arange(half, device=position.device))
    angles = (scale * position).to(rates)[:, None] * rates
    parts = [angles.sin(), angles.cos()]
    return torch.cat(parts if order == "sin-cos" else parts[::-1], dim=1)
