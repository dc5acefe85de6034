"""Files that clients send: their size is checked before anything is decoded."""

from __future__ import annotations

import base64
import binascii
import io
import warnings

import PIL.Image
from torch import Tensor

from multidiff.image.canvas import cut_mask
from multidiff.image.data.image_files import read_image
from multidiff.serve.settings import ServerSettings
from multidiff.utils.errors import InputError
from multidiff.utils.readers import reading

# Their headers have the size; those of others, such as icons, hold whole images of another one.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")


def bytes_from(name: str, text: str) -> bytes:
    """Return the bytes of a file in base64, also as a data URL.

    Raises:
        InputError: if it is no base64, or empty.
    """
    head, comma, tail = text.partition(",")
    try:
        content = base64.b64decode(tail if comma and head.startswith("data:") else text, None, True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{name}: is not base64") from error
    if not content:
        raise InputError(f"{name}: is empty; send a file in base64")
    return content


def image_from(name: str, text: str, settings: ServerSettings, channels: int) -> Tensor:
    """Return an image of a request as bytes ``(channels, height, width)``.

    Raises:
        InputError: if it is no image, or too large.
    """
    content = bytes_from(name, text)
    check_pixels(name, content, settings)
    return read_image(content, name, channels)


def mask_from(name: str, text: str, settings: ServerSettings) -> Tensor:
    """Return where a mask of a request is white, ``(height, width)``.

    Raises:
        InputError: if it is no image, too large, or black everywhere.
    """
    content = bytes_from(name, text)
    check_pixels(name, content, settings)
    white = cut_mask(read_image(content, name, 1, "black")[0], 255, name)
    if not bool(white.any()):
        raise InputError(f"{name}: is black everywhere; make white what is to be inpainted")
    return white


def check_pixels(name: str, content: bytes, settings: ServerSettings) -> None:
    """Read an image's header alone, and refuse it if it is too large.

    Raises:
        InputError: if it has more pixels than may be sent, or is no image of a usual format.
    """
    damaged = reading(name, "is truncated or damaged", "export it again")
    with damaged, warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        try:
            with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
                pixels = image.width * image.height
        except PIL.UnidentifiedImageError as error:
            raise InputError(
                f"{name}: is not an image that can be read; use PNG, JPEG, WebP or the like"
            ) from error
        except PIL.Image.DecompressionBombError as error:
            raise InputError(f"{name}: {settings.max_pixels:,} pixels at most here") from error
    if pixels > settings.max_pixels:
        raise InputError(f"{name}: has {pixels:,} pixels; {settings.max_pixels:,} at most here")
