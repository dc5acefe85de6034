"""MDCT: an orthonormal lapped transform of a waveform to time and frequency.

The modified discrete cosine transform with a sine window (Princen & Bradley 1987) maps
``n * hop`` samples to ``n + 1`` frames of ``hop`` coefficients. It preserves lengths and angles,
so white noise stays white: Gaussian diffusion of the coefficients is Gaussian diffusion of
the waveform. Unlike a short-time Fourier transform it has no redundancy, so scaling single
coefficients can be undone exactly.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.core.tensor_cache import cached_tensors


class MDCT:
    """MDCT with frames of ``2 * hop`` samples; frame i is centred on sample ``i * hop``.

    Args:
        hop: number of coefficients of a frame, and of samples between frames.
    """

    def __init__(self, hop: int):
        if hop < 2 or hop % 2:
            raise ValueError(f"MDCT hop {hop} must be even and positive")
        self.hop = hop

    def forward(self, wave: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch hop frames"]:
        """Return the coefficients of waveforms whose length is a multiple of the hop."""
        frames = F.pad(wave, (self.hop, self.hop)).unfold(1, 2 * self.hop, self.hop)
        return (frames @ _basis(self.hop).to(wave)).transpose(1, 2)

    def inverse(self, coefficients: Float[Tensor, "batch hop frames"]) -> Tensor:
        """Return the waveform ``(batch, samples)``; inverts :meth:`forward` exactly."""
        halves = coefficients.transpose(1, 2) @ _basis(self.hop).to(coefficients).T
        first, second = halves[..., : self.hop], halves[..., self.hop :]
        # The outer halves of the outer frames lie outside the waveform.
        return (first[:, 1:] + second[:, :-1]).flatten(1)


@cached_tensors
def _basis(hop: int) -> Float[Tensor, "length hop"]:
    sample = torch.arange(2 * hop, dtype=torch.float64)[:, None]
    band = torch.arange(hop, dtype=torch.float64)
    window = torch.sin(math.pi * (sample + 0.5) / (2 * hop))
    cosine = torch.cos(math.pi / hop * (sample + 0.5 + hop / 2) * (band + 0.5))
    return window * math.sqrt(2 / hop) * cosine
