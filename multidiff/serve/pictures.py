"""Images and sounds between the page and requests."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

# Sides of images on the page: small ones are enlarged by whole factors, so that pixels stay sharp.
SHOWN = 320
LOW, MIDDLE, HIGH = "#04051a", "#c72e63", "#fcf5d5"
COVERED = 64  # of 255: a quarter of a pixel below the brush
BAND_ROWS, FRAME_COLUMNS = 3, 3


def spectrogram(samples: np.ndarray, preset: Any) -> Image.Image:
    """Return the mel of 16-bit samples as an image, low frequencies below."""
    import torch

    wave = torch.from_numpy(samples.astype(np.float32) / 32768)[None]
    wave = wave[:, : wave.shape[1] // preset.hop_length * preset.hop_length]
    mel = preset.mel(wave)[0].numpy()[::-1]
    levels = (mel - mel.min()) / max(float(np.ptp(mel)), 1e-6)
    grey = Image.fromarray((255 * levels).astype(np.uint8))
    size = (grey.width * FRAME_COLUMNS, grey.height * BAND_ROWS)
    return ImageOps.colorize(grey.resize(size, Image.Resampling.NEAREST), LOW, HIGH, MIDDLE)


def painted(
    image: Image.Image, covered: Image.Image, size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """Return a brushed image and its mask, in pixels of the model.

    Args:
        image: the image.
        covered: image that is opaque where the brush has been.
        size: width and height of the model's images.
    """
    brushed = np.asarray(covered.convert("RGBA"))[..., 3] > 0
    mask = Image.fromarray(255 * brushed.astype(np.uint8)).resize(size, Image.Resampling.BOX)
    white = mask.point([255 * (value > COVERED) for value in range(256)])
    return image.convert("RGB").resize(size, Image.Resampling.BOX), white


def wave_of(content: bytes) -> tuple[int, np.ndarray]:
    """Return the rate and samples of a WAV file's bytes."""
    import soundfile

    samples, rate_hz = soundfile.read(io.BytesIO(content), dtype="int16")
    return rate_hz, samples


def enlarged(image: Image.Image) -> Image.Image:
    """Enlarge a small image by a whole factor, its pixels as squares."""
    factor = max(1, SHOWN // max(image.size))
    return image.convert("RGB").resize(
        (image.width * factor, image.height * factor), Image.Resampling.NEAREST
    )


def opened(content: bytes | None) -> Image.Image:
    """Return the image of a file's bytes."""
    return Image.open(io.BytesIO(content or b""))


def in_base64(image: Image.Image) -> str:
    """Return an image as a PNG in base64, a data URL."""
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
