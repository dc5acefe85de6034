"""The band of a sound: what lies above it is left silent.

A vocoder fills the spectrum up to its Nyquist frequency, as its training data did, also where a
recording was made at a lower rate. Below the highest mel band its sound follows the mel, silence
included; above that band, what the recording's rate excludes is removed.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel import MelPreset
from multidiff.utils.errors import InputError

AUTO, NONE = "auto", "none"
# Width of the filter's slope, in Hz: narrower ones ring longer.
SLOPE_HZ = 300.0
# Edges above this fraction of the highest frequency are no limit.
FULL_BAND = 0.93


def check_band_limit(text: str) -> None:
    """Reject an option that is neither a frequency, ``auto`` nor ``none``.

    Raises:
        InputError: if it is so.
    """
    if text in (AUTO, NONE):
        return
    try:
        good = 0 < float(text) < math.inf
    except ValueError:
        good = False
    if not good:
        raise InputError(f"--band-limit {text}: a frequency in Hz above 0, {AUTO} or {NONE}")


def band_limit_hz(text: str, known: float | None, preset: MelPreset) -> float | None:
    """Return the frequency above which sound is removed; None for none.

    Args:
        text: ``auto`` for the known one, ``none``, or a frequency in Hz.
        known: highest frequency of the recording in Hz, half of its rate, if it is known.
        preset: preset of the mel.
    """
    found = known if text == AUTO else None if text == NONE else float(text)
    return None if found is None or found >= FULL_BAND * preset.sample_rate_hz / 2 else found


def band_limited(
    wave: Float[Tensor, "batch samples"], rate_hz: int, edge_hz: float | None
) -> Float[Tensor, "batch samples"]:
    """Return sound without what lies above a frequency; unchanged if that is None.

    The slope, half a cosine of 300 Hz, begins at the edge; the filter has no delay.
    """
    if edge_hz is None:
        return wave
    length = wave.shape[1]
    # Silence at the end keeps the filter's ringing from wrapping around.
    size = length + rate_hz // 20
    frequency = torch.fft.rfftfreq(size, 1 / rate_hz, device=wave.device)
    slope = ((frequency - edge_hz) / SLOPE_HZ).clamp(0, 1)
    gain = (0.5 + 0.5 * torch.cos(math.pi * slope)).to(wave)
    return torch.fft.irfft(torch.fft.rfft(wave, size) * gain, size)[:, :length]
