"""Limits on what files may declare, checked before anything is decompressed or allocated.

A file of a few kilobytes can declare gigabytes: zeros that compress a thousandfold, a rate of
1 Hz that is to be resampled to 22,050, an image of a billion pixels. Each check here reads
headers only, and rejects in one line what no real file of its size declares.
"""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path

import numpy as np

from multidiff.utils.errors import InputError
from multidiff.utils.readers import check_file_size, reading

# Up to this a file may expand whatever its own size is.
FREE_BYTES = 64 << 20
# Beyond that, at most this many times its own size. Arrays of floats compress to a half or a tenth.
MOST_INFLATION = 20
FREE_PIXELS = 16_000_000
# Pillow's own limit, and the number of pixels that one byte of a flat JPEG encodes.
MOST_PIXELS = 178_000_000
MOST_PIXELS_A_BYTE = 100
SOUND_RATES_HZ = (1_000, 768_000)
MOST_CHANNELS = 64
CELL_BYTES = 4
LONGEST_HEADER = 16 << 20
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def check_inflation(name: str | Path, declared: int, size: int, what: str = "bytes") -> None:
    """Reject a file that declares far more than its size can hold.

    Args:
        name: file name.
        declared: size that it declares.
        size: actual size in bytes.
        what: unit, for the message.

    Raises:
        InputError: if that exceeds the free limit and the compression of real files.
    """
    if declared > max(FREE_BYTES, MOST_INFLATION * size):
        raise InputError(
            f"{name}: declares {declared:,} {what} in a file of {size:,}, as decompression bombs "
            "do; write it again uncompressed if it is genuine"
        )


def check_zip(path: Path, what: str = "zip file") -> list[zipfile.ZipInfo]:
    """Return the entries of a zip file (.npz, .ckpt, .pt) whose declared sizes are sane.

    Args:
        path: zip file.
        what: expected kind of file, for the message.

    Raises:
        InputError: if it is not a zip file, or its entries declare far more than its size.
    """
    with reading(path, f"is not a whole {what}"), zipfile.ZipFile(path) as file:
        entries = file.infolist()
    check_inflation(path, sum(entry.file_size for entry in entries), path.stat().st_size)
    return entries


def check_npz(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return the arrays of an .npz file, by name, whose declared sizes are sane.

    Args:
        path: .npz file.

    Returns:
        Shape and dtype of each array. Only the arrays' own headers are decompressed.

    Raises:
        InputError: if it is not a whole zip file, or its arrays declare far more than its size.
    """
    entries, found, declared = check_zip(path, "array file"), {}, 0
    with reading(path, "is not an array file"), zipfile.ZipFile(path) as file:
        for entry in entries:
            if not entry.filename.endswith(".npy"):  # a note that is not an array
                continue
            with file.open(entry) as array:
                version = np.lib.format.read_magic(array)
                read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                shape, _, kind = read(array)
            declared += math.prod(shape) * kind.itemsize
            found[entry.filename.removesuffix(".npy")] = shape, kind
    check_inflation(path, declared, path.stat().st_size)
    return found


def check_tables(path: Path) -> None:
    """Reject parquet files whose tables are far larger than the files.

    Args:
        path: a file, or a folder of them.

    Raises:
        InputError: if a file is damaged, or declares far more than its size.
    """
    found = [path] if path.is_file() else path.rglob("*.parquet") if path.is_dir() else ()
    for file in found:
        if file.suffix.lower() != ".parquet" or not file.is_file():
            continue
        from pyarrow import parquet  # comes with datasets, which reads the file next

        with reading(file, "is not a whole parquet file"):
            about = parquet.read_metadata(file)
            groups = (about.row_group(number) for number in range(about.num_row_groups))
            declared = sum(group.total_byte_size for group in groups)
            # A column of one value takes next to nothing in the file.
            declared = max(declared, about.num_rows * about.num_columns * CELL_BYTES)
        check_inflation(file, declared, file.stat().st_size)


def check_pixels(name: str | Path, width: int, height: int, size: int) -> None:
    """Reject an image of absurdly many pixels.

    Args:
        name: file name.
        width: width in pixels.
        height: height in pixels.
        size: size of the file in bytes.

    Raises:
        InputError: if there are more pixels than a file of its size can hold, or than the limit.
    """
    pixels = width * height
    if pixels > MOST_PIXELS or pixels > max(FREE_PIXELS, MOST_PIXELS_A_BYTE * size):
        raise InputError(
            f"{name}: declares {width} x {height} pixels in {size:,} bytes, which is too large to "
            "open; scale it down first"
        )


def check_sound(name: str | Path, rate_hz: int, channels: int) -> None:
    """Reject a sound whose header no recorder writes.

    Args:
        name: file name.
        rate_hz: its sample rate.
        channels: number of channels.

    Raises:
        InputError: if the rate or the number of channels is absurd.
    """
    low, high = SOUND_RATES_HZ
    if not low <= rate_hz <= high:
        raise InputError(
            f"{name}: declares {rate_hz} samples a second, expected {low} to {high}; "
            "its header is wrong: export it again"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise InputError(
            f"{name}: declares {channels} channels, but at most {MOST_CHANNELS} are supported; "
            "export it with one or two"
        )


def check_safetensors(path: Path) -> None:
    """Reject a safetensors file whose header cannot be right, before it is parsed.

    Raises:
        InputError: if it is a git-lfs pointer, shorter than its header, or has a header of
            absurd length.
    """
    size = check_file_size(path)
    refuse_lfs_pointer(path)
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0] if size >= 8 else 0
    if size < 8 or length > size - 8 or length > LONGEST_HEADER:
        raise InputError(
            f"{path}: is not a whole safetensors file (a header of {length:,} bytes in a file of "
            f"{size:,}); copy or download it again"
        )


def refuse_lfs_pointer(path: Path) -> None:
    """Reject a git-lfs pointer, which stands for the real file.

    Raises:
        InputError: if the file is a git-lfs pointer.
    """
    with reading(path), path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start.startswith(LFS_POINTER):
        raise InputError(
            f"{path}: is a git-lfs pointer, not the file itself; run `git lfs pull` in its "
            "folder, or download the file"
        )
