"""Distance between two sounds' magnitude spectra at several resolutions.

Spectral convergence plus the mean difference of log magnitudes, at the three window lengths
of Parallel WaveGAN (Yamamoto et al. 2020, eq. 4 to 6): the measure that BigVGAN and others
report as M-STFT. Short windows resolve the pulses of a voice, long ones its harmonics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel import window_like

# (transform, hop, window) in samples.
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
FLOOR = 1e-5
# Short windows that resolve single pulses of a voice, and the number of them whose fluctuation is
# analysed: 5.8 ms, every 1.5 ms, for 93 ms at 22.05 kHz.
PULSE_WINDOW, PULSE_HOP, PULSE_FRAMES = 128, 32, 64


def spectral_distance(
    sound: Float[Tensor, "batch samples"], reference: Float[Tensor, "batch samples"]
) -> Float[Tensor, " batch"]:
    """Return the distance of each sound from its reference, a mean over the resolutions."""
    total = torch.zeros(len(sound), dtype=sound.dtype, device=sound.device)
    for n_fft, hop, window in RESOLUTIONS:
        found = magnitude(sound, n_fft, hop, window)
        wanted = magnitude(reference, n_fft, hop, window)
        convergence = (found - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
        log_difference = (found.log() - wanted.log()).abs().flatten(1).mean(dim=1)
        total = total + convergence + log_difference
    return total / len(RESOLUTIONS)


def magnitude(wave: Float[Tensor, "batch samples"], n_fft: int, hop: int, window: int) -> Tensor:
    """Return magnitudes ``(batch, bins, frames)``, at least ``FLOOR`` so that logarithms exist."""
    spectrum = torch.stft(wave, n_fft, hop, window, window_like(window, wave), return_complex=True)
    # The square root's slope is infinite at 0: keep the floor inside it.
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=FLOOR**2).sqrt()


def modulation_distance(
    sound: Float[Tensor, "batch samples"], reference: Float[Tensor, "batch samples"]
) -> Float[Tensor, " batch"]:
    """Return the relative distance of each sound's modulation spectra from its reference's.

    These tell how strongly the magnitude of each band fluctuates at each rate, wherever its peaks
    are: a train of pulses and noise of the same spectrum differ, and a shift of the pulses makes no
    difference (modulation spectra: McDermott & Simoncelli 2011).
    """
    found, wanted = modulation_spectrum(sound), modulation_spectrum(reference)
    return (found - wanted).abs().flatten(1).mean(dim=1) / wanted.flatten(1).mean(dim=1)


def modulation_spectrum(
    wave: Float[Tensor, "batch samples"],
) -> Float[Tensor, "batch bands rates frames"]:
    """Return the fluctuation of the magnitude in each band, relative to its mean there."""
    level = magnitude(wave, PULSE_WINDOW, PULSE_HOP, PULSE_WINDOW)
    batch, bands, _ = level.shape
    mean = F.avg_pool1d(level, PULSE_FRAMES + 1, 1, PULSE_FRAMES // 2, count_include_pad=False)
    relative = (level / mean - 1).flatten(0, 1)
    rates = magnitude(relative, PULSE_FRAMES, PULSE_FRAMES // 4, PULSE_FRAMES)
    return rates.unflatten(0, (batch, bands))
