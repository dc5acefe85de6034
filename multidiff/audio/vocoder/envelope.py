"""Spectral envelope of the MDCT coefficients, estimated from a mel spectrogram.

Speech spans 60 dB over time and frequency. White noise of one level hardly affects loud vowels
and drowns soft consonants; and the network spends capacity on loudness,
which the mel determines anyway. Dividing each coefficient by the standard deviation that the mel
implies gives states of even size (the idea of PriorGrad, Lee et al. 2022, and SpecGrad,
Koizumi et al. 2022, as a map outside the diffusion). Coefficients are scaled one by one, so
the map is inverted exactly, however rough the envelope is.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel import MelPreset
from multidiff.audio.vocoder.projection import bin_ratios

# RMS over mean of a Rayleigh variable: ratio of one noise bin's RMS to the bands' mean.
RMS_OVER_MEAN = math.sqrt(4 / math.pi)
# Above the highest band the mel has no information. Sibilants peak there, and coefficients many
# times their expected size would dominate the loss, so the estimate is a loud one.
TOP_BANDS = 10
TOP_BOOST = 2.0
# Relative to full scale; below any recording's noise.
LEAST_MAGNITUDE = 1e-7


class Envelope:
    """Expected size of each MDCT coefficient, given the mel.

    Args:
        preset: preset of the mel.
        hop: hop of the MDCT.

    Raises:
        ValueError: if the hop does not divide half the preset's FFT size.
    """

    def __init__(self, preset: MelPreset, hop: int):
        if (preset.n_fft // 2) % hop:
            raise ValueError(
                f"MDCT hop {hop}: must divide half of the FFT size of {preset.name}, "
                f"{preset.n_fft // 2}"
            )
        self.preset, self.hop = preset, hop

    def __call__(self, mel: Float[Tensor, "batch mels frames"]) -> Tensor:
        """Return standard deviations ``(batch, hop, state frames)``."""
        return on_state_frames(self.log_std(mel), self.preset, self.hop).exp()

    def log_std(self, mel: Float[Tensor, "batch mels frames"]) -> Tensor:
        """Return log standard deviations on the mel's frames, ``(batch, hop, frames)``."""
        power = smooth_bands(self.preset.mean_magnitude(mel)).square()
        top = power[:, -TOP_BANDS:].mean(dim=1, keepdim=True) * TOP_BOOST**2
        logs = torch.cat([power, top], dim=1).clamp(min=LEAST_MAGNITUDE**2).log() / 2
        std = self._weights(mel) @ logs + math.log(RMS_OVER_MEAN)
        return std - self.preset.window_norm(mel).log()

    def _weights(self, like: Tensor) -> Float[Tensor, "hop bands_and_top"]:
        """Return the map from log band magnitudes (and that of the top) to the coefficients."""
        ratios = bin_ratios(self.preset, like)
        covered = ratios.sum(dim=1) > 0
        first, last = covered.nonzero()[[0, -1], 0].tolist()
        weights = F.pad(ratios, (0, 1))
        weights[:first] = weights[first].clone()
        weights[last - 1 :] = F.one_hot(torch.tensor(weights.shape[1] - 1)).to(weights)
        per_coefficient = (self.preset.n_fft // 2) // self.hop
        return weights[:-1].unflatten(0, (self.hop, per_coefficient)).mean(dim=1)


def smooth_bands(magnitude: Float[Tensor, "batch mels frames"]) -> Tensor:
    """Return the root mean square over each band and its two neighbours."""
    padded = F.pad(magnitude.square()[:, None], (0, 0, 1, 1), mode="replicate")
    return F.avg_pool2d(padded, (3, 1), stride=1)[:, 0].sqrt()


def on_state_frames(
    values: Float[Tensor, "batch channels frames"], preset: MelPreset, hop: int
) -> Tensor:
    """Interpolate values on mel frames to the MDCT frames (``j * hop``)."""
    count = preset.num_samples(values.shape[2]) // hop + 1
    return lerp_frames(values, state_positions(preset, hop, count, values.shape[2], values.device))


def state_positions(
    preset: MelPreset,
    hop: int,
    count: int,
    frames: int,
    device: torch.device | None = None,
) -> Float[Tensor, " count"]:
    """Return where the first MDCT frames lie on the axis of that many mel frames."""
    where = torch.arange(count, device=device) * (hop / preset.hop_length)
    return (where - (0.0 if preset.centred else 0.5)).clamp(0, frames - 1)


def lerp_frames(
    values: Float[Tensor, "batch channels frames"], where: Float[Tensor, " count"]
) -> Float[Tensor, "batch channels count"]:
    """Interpolate values on frames linearly, at positions between the first and the last frame."""
    left = where.floor().long().clamp(max=max(values.shape[2] - 2, 0))
    right = (left + 1).clamp(max=values.shape[2] - 1)
    return torch.lerp(values[..., left], values[..., right], (where - left).to(values))
