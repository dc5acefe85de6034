"""The spectral envelope that a mel spectrogram implies for the lapped transform.

Speech spans 60 dB over time and frequency. Where white noise is added to it, loud vowels
drown in nothing and soft consonants in everything; and a network spends itself on loudness,
which the mel tells anyway. Dividing each coefficient by the deviation that the mel leads one
to expect makes states of even size (the idea of PriorGrad, Lee et al. 2022, and SpecGrad,
Koizumi et al. 2022, as a map outside the diffusion). Coefficients are scaled one by one, so
the map is undone exactly, however rough the envelope is.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel import MelPreset
from multidiff.audio.vocoder.projection import bin_ratios

# RMS over mean of a Rayleigh variable: what one bin of noise has more than the bands' mean.
RMS_OVER_MEAN = math.sqrt(4 / math.pi)
# Above the highest band the mel is silent. Sibilants peak there, and coefficients many times
# their expected size would rule the loss, so the guess is a loud one.
TOP_BANDS = 10
TOP_BOOST = 2.0
# Relative to full scale; below any recording's noise.
LEAST_MAGNITUDE = 1e-7


class Envelope:
    """Expected size of each coefficient of the lapped transform, given the mel.

    Args:
        preset: how the mel is made.
        hop: that of the lapped transform.

    Raises:
        ValueError: if the hop does not divide half the preset's transform.
    """

    def __init__(self, preset: MelPreset, hop: int):
        if (preset.n_fft // 2) % hop:
            raise ValueError(
                f"lapped transform of hop {hop}: half of the {preset.name} transform, "
                f"{preset.n_fft // 2}, is not a multiple of it"
            )
        self.preset, self.hop = preset, hop

    def __call__(self, mel: Float[Tensor, "batch mels frames"]) -> Tensor:
        """Deviations ``(batch, hop, state frames)``."""
        power = smooth_bands(self.preset.mean_magnitude(mel)).square()
        top = power[:, -TOP_BANDS:].mean(dim=1, keepdim=True) * TOP_BOOST**2
        logs = torch.cat([power, top], dim=1).clamp(min=LEAST_MAGNITUDE**2).log() / 2
        std = self._weights(mel) @ logs + math.log(RMS_OVER_MEAN)
        std = std - self.preset.window_norm(mel).log()
        return on_state_frames(std, self.preset, self.hop).exp()

    def _weights(self, like: Tensor) -> Float[Tensor, "hop bands_and_top"]:
        """From log band magnitudes (and that of the top) to the coefficients."""
        ratios = bin_ratios(self.preset, like)
        covered = ratios.sum(dim=1) > 0
        first, last = covered.nonzero()[[0, -1], 0].tolist()
        weights = F.pad(ratios, (0, 1))
        weights[:first] = weights[first].clone()
        weights[last - 1 :] = F.one_hot(torch.tensor(weights.shape[1] - 1)).to(weights)
        per_coefficient = (self.preset.n_fft // 2) // self.hop
        return weights[:-1].unflatten(0, (self.hop, per_coefficient)).mean(dim=1)


def smooth_bands(magnitude: Float[Tensor, "batch mels frames"]) -> Tensor:
    """Root mean square over each band and its two neighbours."""
    padded = F.pad(magnitude.square()[:, None], (0, 0, 1, 1), mode="replicate")
    return F.avg_pool2d(padded, (3, 1), stride=1)[:, 0].sqrt()


def on_state_frames(
    values: Float[Tensor, "batch channels frames"], preset: MelPreset, hop: int
) -> Tensor:
    """Values on mel frames, interpolated to the lapped transform's frames (``j * hop``)."""
    num_samples = preset.num_samples(values.shape[2])
    where = torch.arange(num_samples // hop + 1, device=values.device) * (hop / preset.hop_length)
    where = (where - (0.0 if preset.centred else 0.5)).clamp(0, values.shape[2] - 1)
    left = where.floor().long().clamp(max=max(values.shape[2] - 2, 0))
    right = (left + 1).clamp(max=values.shape[2] - 1)
    return torch.lerp(values[..., left], values[..., right], (where - left).to(values))
