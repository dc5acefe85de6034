"""16-bit samples with a scale, and the edge of a recording's band."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int16
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

FULL_SCALE = 32768
# Fraction of a recording's energy that may lie above its band edge.
BEYOND_BAND = 1e-5
FFT, HOP = 1024, 512
# Frames whose energies are summed at once: those of a recording up to 48 seconds at 22 kHz.
FRAMES_AT_ONCE = 2048


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
        self._parts: list[np.ndarray] = []
        self._count = self._samples = 0
        self._energy: np.ndarray | None = None
        self._began = False

    def add(self, block: Float[np.ndarray, " samples"]) -> None:
        """Add the samples that follow."""
        self._samples += len(block)
        self._keep(block)
        if not self._began and self._count > FFT // 2:
            first = self._joined()
            self._parts, self._count = [], 0
            self._keep(first[FFT // 2 : 0 : -1])  # mirrored, as stft does
            self._keep(first)
            self._began = True
        span = (FRAMES_AT_ONCE - 1) * HOP + FFT
        while self._began and self._count >= span + FFT:  # so that the end can be mirrored
            held = self._joined()
            self._sum(held[:span])
            self._parts, self._count = [], 0
            self._keep(held[FRAMES_AT_ONCE * HOP :])

    def edge_hz(self, rate_hz: int) -> float:
        """Return the frequency below which all but a hundred-thousandth of the energy lies.

        A recording at 16 kHz resampled to 22 kHz, or one from a narrow-band codec, has no
        information above that; a network trained to reproduce silence there learns to lisp.

        Raises:
            ValueError: if there were fewer samples than half a frame.
        """
        if not self._began:
            raise ValueError(f"{self._samples} samples: at least {FFT // 2 + 1} are needed")
        padded = self._joined(FFT // 2)
        padded[-FFT // 2 :] = padded[self._count - 2 : self._count - 2 - FFT // 2 : -1]
        self._sum(padded)
        energy = self._energy
        assert energy is not None
        above = energy[::-1].cumsum()[::-1] / energy.sum()
        return int((above > BEYOND_BAND).sum()) * rate_hz / FFT

    def _keep(self, block: np.ndarray) -> None:
        self._parts.append(block)
        self._count += len(block)

    def _joined(self, further: int = 0) -> np.ndarray:
        """Return the samples that are kept, with room for further ones behind them."""
        whole = np.empty(self._count + further, np.float32)
        np.concatenate(self._parts, out=whole[: self._count])
        return whole

    def _sum(self, padded: np.ndarray) -> None:
        from scipy.fft import rfft  # transforms of many frames at once

        frames = sliding_window_view(padded, FFT)[::HOP] * _window()
        spectrum = np.asarray(rfft(frames, overwrite_x=True))
        parts = spectrum.view(np.float32)  # real and imaginary in turn
        energy = np.einsum("ij,ij->j", parts, parts).astype(np.float64).reshape(-1, 2).sum(1)
        self._energy = energy if self._energy is None else self._energy + energy


@lru_cache(maxsize=1)
def _window() -> np.ndarray:
    return torch.hann_window(FFT).numpy()


def band_edge_hz(wave: Float[Tensor, " samples"], rate_hz: int) -> float:
    """Return the band edge of a recording that is in memory; see :class:`BandEnergy`."""
    found = BandEnergy()
    for part in wave.split(FRAMES_AT_ONCE * HOP):
        found.add(part.numpy())
    return found.edge_hz(rate_hz)
