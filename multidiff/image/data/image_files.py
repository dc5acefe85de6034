"""Image files: reading to byte tensors, writing, PNG metadata, sizes, grids."""

from __future__ import annotations

import io
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

from multidiff.utils.budgets import check_pixels
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write
from multidiff.utils.readers import reading, reason_of

logger = logging.getLogger(__name__)

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MODES = {1: "L", 3: "RGB"}
# Transpositions for EXIF orientations, by number; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(
    source: Path | str | bytes,
    name: str | None = None,
    channels: int = 3,
    background: Literal["white", "black"] = "white",
) -> UInt8[Tensor, "channels height width"]:
    """Read an image as bytes: upright, without transparency, 16 bits reduced to 8.

    Grey is the luminance of colour (ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B). Of several frames
    the first is used, with a warning. Colour profiles are not applied.

    Args:
        source: a path, or the bytes of a file.
        name: name in messages; the path by default.
        channels: 1 for grey, 3 for colour.
        background: colour behind transparent parts.

    Raises:
        ValueError: for another number of channels.
        InputError: if it is not an image, is truncated or damaged, is larger than Pillow's limit
            against decompression bombs, or its levels have no known range.
    """
    image, frames = read_first_frame(source, name, channels, background)
    if frames > 1:
        logger.warning("%s: has %d frames; the first is used", name or source, frames)
    return image


def read_first_frame(
    source: Path | str | bytes,
    name: str | None = None,
    channels: int = 3,
    background: Literal["white", "black"] = "white",
) -> tuple[UInt8[Tensor, "channels height width"], int]:
    """Read an image as :func:`read_image` does; also return the number of frames in its file."""
    if channels not in MODES:
        raise ValueError(f"{channels} channels: an image has 1 (grey) or 3 (colour)")
    name = name or ("an image" if isinstance(source, bytes) else str(source))
    with _loaded(source, name) as image:
        plain = _in_bytes(image, name, background).convert(MODES[channels])
        turn = _turn(image)
        levels = np.array(plain if turn is None else plain.transpose(turn))
        frames = _frames(image)
    return channels_first(levels), frames


def _frames(image: Image.Image) -> int:
    """Return the number of frames of a file; a camera's JPEG has previews and depth maps too."""
    if image.format not in ("GIF", "WEBP", "PNG", "TIFF"):
        return 1
    with suppress(Exception):  # damaged further on: the first frame is intact
        return getattr(image, "n_frames", 1)
    return 1


def channels_first(levels: np.ndarray) -> UInt8[Tensor, "channels height width"]:
    """Return the image of an array whose channels, if it has some, come last."""
    height, width = levels.shape[:2]
    return torch.from_numpy(levels.reshape(height, width, -1)).permute(2, 0, 1).contiguous()


@contextmanager
def _loaded(source: Path | str | bytes, name: str) -> Iterator[Image.Image]:
    """Yield an open image; any failure while the block uses it is reported as the file's."""
    if isinstance(source, bytes):
        size = len(source)
    else:
        source = Path(source)
        if source.is_dir():
            raise InputError(f"{name}: is a folder; name one image")
        if not os.path.isfile(source):
            raise InputError(f"{name}: no such image; check the path")
        size = source.stat().st_size
    if size == 0:
        raise InputError(f"{name}: is empty; download or export it again")
    with reading(name, "is truncated or damaged", "download or export it again"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # see check_pixels
                image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        except Image.UnidentifiedImageError as error:
            raise InputError(
                f"{name}: is not an image that can be read; use PNG, JPEG, WebP or the like"
            ) from error
        except Image.DecompressionBombError as error:
            raise InputError(
                f"{name}: is too large to open ({reason_of(error)}); scale it down first"
            ) from error
        with image:
            check_pixels(name, *image.size, size)
            image.load()
            yield image


def _in_bytes(image: Image.Image, name: str, background: str) -> Image.Image:
    """Convert to 8 bits a channel without transparency."""
    if image.mode.startswith("I"):
        levels = np.array(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise InputError(f"{name}: has levels beyond 16 bits; save it with 8 or 16")
        return Image.fromarray(np.round(levels / 257).astype(np.uint8))
    if image.mode == "F":
        raise InputError(f"{name}: has floating-point levels of unknown range; save it as PNG")
    if not image.has_transparency_data:
        return image
    if image.mode == "La":
        image = image.convert("LA")
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, background), over).convert("RGB")


def _turn(image: Image.Image) -> Image.Transpose | None:
    with suppress(Exception):  # damaged EXIF data do not make an image unreadable
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return None


def write_image(
    image: UInt8[Tensor, "channels height width"],
    path: Path,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write a PNG atomically, with facts as its text.

    Args:
        image: image with 1 or 3 channels.
        path: path that ends in ``.png``.
        facts: text by keyword; keywords have 1 to 79 Latin-1 characters, as PNG requires.

    Raises:
        ValueError: for other channels or keywords.
        InputError: if the name does not end in ``.png`` or the system refuses.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: images are written as .png; change the file name's ending")
    content = png_bytes(image, facts)
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def png_bytes(
    image: UInt8[Tensor, "channels height width"], facts: Mapping[str, str] | None = None
) -> bytes:
    """Return the bytes of a PNG, with facts as its text.

    Args:
        image: image with 1 or 3 channels.
        facts: text by keyword; keywords have 1 to 79 Latin-1 characters, as PNG requires.

    Raises:
        ValueError: for other channels or keywords.
    """
    text = PngImagePlugin.PngInfo()
    for key, value in (facts or {}).items():
        if not 1 <= len(key) <= 79 or not key.isascii() or not key.isprintable():
            raise ValueError(f"{key!r} is not a PNG keyword: 1 to 79 plain characters")
        # Bytes of the command line that were not UTF-8 become question marks. International text
        # is used where plain text, which is Latin-1, does not suffice.
        value = value.encode("utf-8", "replace").decode("utf-8")
        add = text.add_itxt if "\0" in value or not value.isascii() else text.add_text
        add(key, value)
    file = io.BytesIO()
    _as_image(image).save(file, format="PNG", pnginfo=text)
    return file.getvalue()


def read_facts(path: Path | str) -> dict[str, str]:
    """Return the text stored in a PNG, by keyword; empty for other images.

    Raises:
        InputError: if it is not an image, or damaged.
    """
    with _loaded(path, str(path)) as image:  # text may come after the pixels
        return {str(key): str(value) for key, value in getattr(image, "text", {}).items()}


def _as_image(image: UInt8[Tensor, "channels height width"]) -> Image.Image:
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in MODES:
        raise ValueError(f"{image.dtype} {tuple(image.shape)}: not an image of bytes")
    levels = image.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(levels[:, :, 0] if image.shape[0] == 1 else levels)


def resized(
    image: UInt8[Tensor, "channels height width"], width: int, height: int
) -> UInt8[Tensor, "channels new_height new_width"]:
    """Return the centre of an image at another size: cropped to the shape, then Lanczos.

    The crop is the largest centred one of the new shape, to fractions of a pixel; the
    filter is as wide as a new pixel, so that finer detail does not alias.
    """
    _, rows, columns = image.shape
    if (columns, rows) == (width, height):
        return image
    scale = min(columns / width, rows / height)
    left, top = (columns - width * scale) / 2, (rows - height * scale) / 2
    box = (max(left, 0.0), max(top, 0.0), min(columns - left, columns), min(rows - top, rows))
    cut = _as_image(image).resize((width, height), Image.Resampling.LANCZOS, box)
    return channels_first(np.array(cut))


def stretched(
    image: UInt8[Tensor, "channels height width"], width: int, height: int
) -> UInt8[Tensor, "channels new_height new_width"]:
    """Return the whole image at another size, by Lanczos, whatever its shape."""
    drawn = _as_image(image).resize((width, height), Image.Resampling.LANCZOS)
    return channels_first(np.array(drawn))


def to_unit(image: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map bytes 0 to 255 to numbers from -1 to 1."""
    return image.float() / 127.5 - 1


def from_unit(image: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Map numbers from -1 to 1 to bytes, rounded; values beyond are clipped.

    Raises:
        InputError: if a value is NaN or infinite, which bytes would show as black.
    """
    levels = image.detach().float()
    if not bool(torch.isfinite(levels).all()):
        raise InputError(
            "an image has values that are not finite (NaN or infinite); "
            "compute in float32, or use weights that have not diverged"
        )
    return ((levels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def pad_to_multiple(
    image: Float[Tensor, "batch channels height width"], multiple: int, value: float = 0.0
) -> Float[Tensor, "batch channels padded_height padded_width"]:
    """Pad both sides to the next multiple; an odd pixel goes to the right and the bottom."""
    rows, columns = (-length % multiple for length in image.shape[-2:])
    left, top = columns // 2, rows // 2
    return F.pad(image, (left, columns - left, top, rows - top), value=value)


def crop_to(
    image: Float[Tensor, "batch channels padded_height padded_width"], width: int, height: int
) -> Float[Tensor, "batch channels height width"]:
    """Undo :func:`pad_to_multiple`.

    Raises:
        ValueError: if the image is smaller.
    """
    rows, columns = image.shape[-2] - height, image.shape[-1] - width
    if rows < 0 or columns < 0:
        raise ValueError(f"{tuple(image.shape)} cannot be cropped to {width}x{height}")
    top, left = rows // 2, columns // 2
    return image[..., top : top + height, left : left + width]


def grid(
    images: UInt8[Tensor, "count channels height width"],
    columns: int | None = None,
    gap: int = 2,
    background: int = 255,
) -> UInt8[Tensor, "channels grid_height grid_width"]:
    """Arrange images in rows, in reading order.

    Args:
        images: at least one image.
        columns: number of images in a row; by default about square.
        gap: number of pixels between images; there is no border.
        background: level of gaps and unused positions.

    Raises:
        ValueError: if there are no images or no columns.
    """
    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else min(columns, count)
    if count == 0 or columns < 1:
        raise ValueError(f"{count} images in {columns} columns: nothing to show")
    rows = math.ceil(count / columns)
    size = (channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    sheet = torch.full(size, background, dtype=torch.uint8)
    for number, image in enumerate(images.cpu()):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet
