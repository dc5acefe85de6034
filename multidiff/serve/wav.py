"""Sound files whose length is not known when they begin."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile

WAV = "audio/wav"
# Length in the header of a sound that is still being made, as programs write into pipes.
UNKNOWN = 0xFFFFFFFF


def pcm(samples: np.ndarray) -> bytes:
    """Return samples in [-1, 1] as 16-bit integers, clipped and rounded as in files."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), 8000, "PCM_16", format="RAW")
    return file.getvalue()


def wav_header(rate_hz: int, size: int | None = None) -> bytes:
    """Return the header of a WAV file of one channel of 16 bits.

    Args:
        rate_hz: sample rate.
        size: bytes of the samples; None where it is not known yet.
    """
    whole = UNKNOWN if size is None else 36 + size
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    data = struct.pack("<4sI", b"data", UNKNOWN if size is None else size)
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + data
