"""Sounds for tests."""

from importlib import resources
from pathlib import Path

import soundfile
import torch

STARTER = Path(str(resources.files("multidiff") / "starter" / "speech"))
RATE = 22050


def speech(name="LJ80-47", seconds=None):
    """A recording of the package, ``(1, samples)``."""
    samples, rate = soundfile.read(STARTER / f"{name}.flac", dtype="float32")
    assert rate == RATE
    wave = torch.from_numpy(samples)[None]
    return wave if seconds is None else wave[:, : int(seconds * RATE)]


def tones(seconds=1.0, rate=RATE, seed=0):
    """Two tones and a little noise, ``(1, samples)``."""
    time = torch.arange(int(seconds * rate)) / rate
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
    return (
        0.3 * torch.sin(2 * torch.pi * 440 * time)
        + 0.1 * torch.sin(2 * torch.pi * 3100 * time)
        + 0.01 * noise
    )[None]
