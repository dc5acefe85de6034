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


def painted(drawn: dict[str, Any], size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Return the image and the mask of the editor, in pixels of the model.

    Args:
        drawn: value of the editor: background and layers.
        size: width and height of the model's images.
    """
    background = drawn["background"].convert("RGB").resize(size, Image.Resampling.BOX)
    brushed = np.zeros(drawn["background"].size[::-1], bool)
    for layer in drawn["layers"]:
        brushed |= np.asarray(layer.convert("RGBA").resize(brushed.shape[::-1]))[..., 3] > 0
    mask = Image.fromarray(255 * brushed.astype(np.uint8)).resize(size, Image.Resampling.BOX)
    return background, mask.point([255 * (value > COVERED) for value in range(256)])


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
    """Return an image as a PNG in base64."""
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()
