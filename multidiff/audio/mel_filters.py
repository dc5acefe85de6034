"""Triangular mel filters, to the bit those of ``librosa.filters.mel``.

librosa takes a second to be imported, with numba and scipy, which no model needs.
"""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np

logger = logging.getLogger(__name__)

# Slaney's scale (Auditory Toolbox 1998): linear below 1 kHz, a factor of 6.4 in 27 mels above.
LINEAR_HZ, LINEAR_STEP_HZ, LOG_STEP = 1000.0, 200.0 / 3, np.log(6.4) / 27.0


def mel_filters(
    sample_rate_hz: int,
    n_fft: int,
    n_mels: int,
    f_min_hz: float,
    f_max_hz: float,
    scale: Literal["slaney", "htk"],
    norm: Literal["slaney"] | None,
) -> np.ndarray:
    """Return the weights ``(n_mels, n_fft // 2 + 1)`` of each bin in each band, in float32.

    Args:
        sample_rate_hz: rate of the waveform.
        n_fft: size of the Fourier transform in samples.
        n_mels: number of bands.
        f_min_hz: lower edge of the lowest band.
        f_max_hz: upper edge of the highest band.
        scale: mel scale, in which the edges of the bands are evenly spaced.
        norm: "slaney" divides each band by half its width; None leaves peaks of 1.
    """
    lowest, highest = _mel(np.array([f_min_hz, f_max_hz], dtype=float), scale)
    edges = _hertz(np.linspace(lowest, highest, n_mels + 2), scale)
    widths = np.diff(edges)[:, None]
    ramps = np.subtract.outer(edges, np.fft.rfftfreq(n_fft, 1.0 / sample_rate_hz))
    rising, falling = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]
    found = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    if not found[edges[:-2] > 0].any(axis=1).all():
        logger.warning(
            "%d mel bands of spectra of %d samples at %d Hz: some are narrower than a bin and stay "
            "empty; use fewer bands or longer spectra", n_mels, n_fft, sample_rate_hz,
        )  # fmt: skip
    if norm == "slaney":
        found *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return found


def _mel(hertz: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hertz / 700.0)
    linear = hertz / LINEAR_STEP_HZ
    above = np.log(np.maximum(hertz, LINEAR_HZ) / LINEAR_HZ) / LOG_STEP
    return np.where(hertz >= LINEAR_HZ, LINEAR_HZ / LINEAR_STEP_HZ + above, linear)


def _hertz(mels: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    corner = LINEAR_HZ / LINEAR_STEP_HZ
    above = LINEAR_HZ * np.exp(LOG_STEP * (np.maximum(mels, corner) - corner))
    return np.where(mels >= corner, above, LINEAR_STEP_HZ * mels)
