"""Projection on a mel spectrogram: the nearest sound that has the required spectrum.

A Griffin-Lim iteration goes to the spectrum and back, keeping phases and replacing
magnitudes. A mel does not determine the magnitudes, only weighted sums of them, so here they are
scaled instead: every bin by the ratio of the required to the current value of its bands
(geometric mean, weighted by the filters). Detail that the network adds to the mel,
such as single harmonics, survives. Iterations are accelerated as in Perraudin et al. 2013;
inside a reverse step this is the idea of GLA-Grad (Liu et al. 2024).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel import MelPreset

# Band values below this are silence in every preset; the ratio of two silences is 1.
SILENCE = 1e-7


class MelProjection:
    """Projection of waveforms towards a mel spectrogram.

    Args:
        preset: preset of the mel.
        momentum: fraction of the last change of the spectrum that is added again; 0 is the plain
            iteration.
    """

    def __init__(self, preset: MelPreset, momentum: float = 0.99):
        if not 0 <= momentum < 2:
            raise ValueError(f"momentum must be in [0, 2), got {momentum:g}")
        self.preset, self.momentum = preset, momentum

    def __call__(
        self,
        wave: Float[Tensor, "batch samples"],
        mel: Float[Tensor, "batch mels frames"],
        iterations: int,
    ) -> Float[Tensor, "batch samples"]:
        """Return the waveforms after that many iterations; unchanged after 0."""
        wanted = self.preset.expand(mel).clamp(min=max(self.preset.floor, SILENCE)).log()
        ratio = bin_ratios(self.preset, wave)
        last = None
        for _ in range(iterations):
            spectrum = self.preset.spectrum(wave)
            here = torch.view_as_real(spectrum)
            before = here if last is None else last
            # here + momentum * (here - before), in one pass.
            ahead = torch.view_as_complex(torch.lerp(before, here, 1 + self.momentum))
            last = here
            wave = self.preset.waveform(self._scaled(ahead, wanted, ratio), wave.shape[1])
        return wave

    def _scaled(self, spectrum: Tensor, wanted: Tensor, ratio: Tensor) -> Tensor:
        """Scale a spectrum to the wanted bands, in its own memory, and return it."""
        real, imaginary = spectrum.real, spectrum.imag
        magnitude = torch.addcmul(real.square(), imaginary, imaginary).sqrt_()
        present = self.preset.bands(magnitude).clamp(min=max(self.preset.floor, SILENCE)).log()
        # Powers are squares of the scaled values. Time is first in memory, as in the spectrum.
        missing = (wanted - present).transpose(1, 2) / self.preset.power
        gain = (missing @ ratio.T).exp_().transpose(1, 2)
        real *= gain
        imaginary *= gain
        return spectrum


def bin_ratios(preset: MelPreset, like: Tensor) -> Float[Tensor, "bins mels"]:
    """Return each band's weight in a bin: rows sum to 1, or to 0 where no band covers the bin."""
    filters = preset.filters(like)
    return filters / filters.sum(dim=1, keepdim=True).clamp(min=1e-12)
