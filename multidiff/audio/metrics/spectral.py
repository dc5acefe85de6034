"""Distance between two sounds' magnitude spectra at several resolutions.

Spectral convergence plus the mean difference of log magnitudes, at the three window lengths
of Parallel WaveGAN (Yamamoto et al. 2020, eq. 4 to 6): the measure that BigVGAN and others
report as M-STFT. Short windows resolve the pulses of a voice, long ones its harmonics.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel import window_like

# (transform, hop, window) in samples.
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
FLOOR = 1e-5


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
