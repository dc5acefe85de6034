"""16-bit samples with a scale, and the edge of a recording's band."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int16
from torch import Tensor

FULL_SCALE = 32768
# Fraction of a recording's energy that may lie above its band edge.
BEYOND_BAND = 1e-5
FFT, HOP = 1024, 512
# Frames that are transformed at once: with their spectra they stay in a core's cache, and in memory
# that the allocator keeps; larger arrays are returned to the system, at the cost of page faults.
FRAMES_AT_ONCE = 64


def scale_of(lowest: float, highest: float) -> float:
    """Return the scale at which samples fit into 16 bits: 1 unless a peak lies beyond it.

    Args:
        lowest: least sample.
        highest: greatest sample.
    """
    needed = max(-lowest, highest * FULL_SCALE / (FULL_SCALE - 1))
    return 1.0 if needed <= 1 else float(np.nextafter(np.float32(needed), np.float32(np.inf)))


def quantized(block: Float[np.ndarray, " samples"], scale: float) -> Int16[np.ndarray, " samples"]:
    """Return samples as 16-bit integers; at a scale of 1 those of a 16-bit file are exact."""
    scaled = block * np.float32(FULL_SCALE / scale)
    return np.rint(scaled, out=scaled).astype(np.int16)


def dequantized(values: np.ndarray, scale: float) -> Float[np.ndarray, " samples"]:
    """Return 16-bit integers as samples."""
    return values * np.float32(scale / FULL_SCALE)


class BandEnergy:
    """Energy of a recording by frequency, summed over its blocks.

    Equal to the bit however a recording is cut into blocks; only :data:`FRAMES_AT_ONCE` frames of
    its spectrum are in memory at once.
    """

    def __init__(self) -> None:
        self._held = np.zeros(0, np.float32)
        # Of real and imaginary parts, which alternate.
        self._energy = np.zeros(FFT + 2)
        self._began = False
        self._samples = 0

    def add(self, block: Float[np.ndarray, " samples"]) -> None:
        """Add the samples that follow."""
        self._samples += len(block)
        held = np.concatenate([self._held, block]) if len(self._held) else block
        if not self._began and len(held) > FFT // 2:
            held = np.concatenate([held[FFT // 2 : 0 : -1], held])  # mirrored, as stft does
            self._began = True
        first, span = 0, (FRAMES_AT_ONCE - 1) * HOP + FFT
        while self._began and len(held) >= first + span + FFT:  # so that the end can be mirrored
            self._sum(held[first : first + span])
            first += FRAMES_AT_ONCE * HOP
        self._held = held[first:].copy()

    def edge_hz(self, rate_hz: int) -> float:
        """Return the frequency below which all but a hundred-thousandth of the energy lies.

        A recording at 16 kHz resampled to 22 kHz, or one from a narrow-band codec, has no
        information above that; a network trained to reproduce silence there learns to lisp.

        Raises:
            ValueError: if there were fewer samples than half a frame.
        """
        if not self._began:
            raise ValueError(f"{self._samples} samples: at least {FFT // 2 + 1} are needed")
        mirror = self._held[-2 : -FFT // 2 - 2 : -1]
        self._sum(np.concatenate([self._held, mirror]))
        energy = self._energy.reshape(-1, 2).sum(axis=1)
        above = energy[::-1].cumsum()[::-1] / energy.sum()
        return int((above > BEYOND_BAND).sum()) * rate_hz / FFT

    def _sum(self, padded: np.ndarray) -> None:
        frames = torch.from_numpy(padded).unfold(0, FFT, HOP) * _window()
        parts = torch.fft.rfft(frames).numpy().view(np.float32)
        self._energy += np.einsum("fp,fp->p", parts, parts)


@lru_cache(maxsize=1)
def _window() -> Tensor:
    return torch.hann_window(FFT)


def band_edge_hz(wave: Float[Tensor, " samples"], rate_hz: int) -> float:
    """Return the band edge of a recording that is in memory; see :class:`BandEnergy`."""
    found = BandEnergy()
    found.add(wave.numpy())
    return found.edge_hz(rate_hz)
