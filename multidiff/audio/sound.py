"""Reading and writing sound files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.budgets import check_sound
from multidiff.errors import InputError
from multidiff.files import refused, written_whole
from multidiff.leftovers import visible_files
from multidiff.readers import reading

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
WRITTEN = {".wav": "WAV", ".flac": "FLAC"}
# Full scale is 1. Beyond this the numbers are 16-bit integers stored as floats, or volts.
LOUDEST = 1.5
BLOCK_SECONDS = 20


class SoundFile:
    """A sound file, read block by block as one channel at one rate.

    Args:
        source: a path, or the bytes of a file.
        name: how messages call it; the path where not given.

    Raises:
        InputError: if it is no sound that can be read, or empty.
    """

    def __init__(self, source: Path | bytes, name: str | None = None):
        self.source = source
        self.name = str(source) if name is None and not isinstance(source, bytes) else str(name)
        if isinstance(source, Path) and not source.is_file():
            raise InputError(f"{self.name}: no such sound file")
        with self._open() as file:
            self.rate_hz, self.channels, self.length = file.samplerate, file.channels, file.frames
            if file.frames == 0:
                raise InputError(f"{self.name}: holds no samples; record or export it again")

    def _open(self) -> soundfile.SoundFile:
        is_content = isinstance(self.source, bytes)
        # As bytes, since a name need not be UTF-8.
        source = io.BytesIO(self.source) if is_content else os.fsencode(self.source)
        with reading(
            self.name, "is not a sound file that can be read", "wav, flac, ogg and mp3 are"
        ):
            file = soundfile.SoundFile(source)
        check_sound(self.name, file.samplerate, file.channels)
        return file

    def blocks(self, rate_hz: int) -> Iterator[Float[np.ndarray, " samples"]]:
        """The sound as blocks of float32 in [-1, 1], mixed to one channel and resampled.

        Raises:
            InputError: if the file is truncated, or holds values that are no sound.
        """
        same = rate_hz == self.rate_hz
        stream = None if same else soxr.ResampleStream(self.rate_hz, rate_hz, 1, "float32", "VHQ")
        for block, last in self._raw_blocks():
            if stream is not None:
                block = stream.resample_chunk(block, last=last)
            if len(block):
                yield block

    def _raw_blocks(self) -> Iterator[tuple[np.ndarray, bool]]:
        read = 0
        with self._open() as file:
            while read < self.length:
                wanted = min(BLOCK_SECONDS * self.rate_hz, self.length - read)
                try:
                    block = file.read(wanted, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    raise self._truncated(read) from error
                if len(block) < wanted:
                    raise self._truncated(read + len(block))
                read += len(block)
                yield self._checked(block).mean(axis=1), read == self.length

    def _truncated(self, read: int) -> InputError:
        return InputError(
            f"{self.name}: is truncated: {read} of {self.length} samples can be read; "
            "copy or export it again"
        )

    def _checked(self, block: np.ndarray) -> np.ndarray:
        if not np.isfinite(block).all():
            raise InputError(f"{self.name}: holds values that are not numbers (NaN or infinite)")
        peak = float(np.abs(block).max(initial=0))
        if peak > LOUDEST:
            raise InputError(
                f"{self.name}: peaks at {peak:g}, but full scale is 1; divide it (16-bit integers "
                "stored as floats by 32768)"
            )
        return block

    def read(self, rate_hz: int) -> Float[Tensor, " samples"]:
        """The whole sound.

        Raises:
            InputError: see :meth:`blocks`.
        """
        return torch.from_numpy(np.concatenate(list(self.blocks(rate_hz))))


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def find_sounds(folder: Path) -> list[Path]:
    """Return the sound files of a folder and the folders in it, sorted, hidden ones left out.

    Raises:
        InputError: if there are none.
    """
    found = sorted(p for p in visible_files(folder) if p.suffix.lower() in EXTENSIONS)
    if not found:
        raise InputError(f"{folder}: holds no sound files ({', '.join(EXTENSIONS)})")
    return found


def write_sound(path: Path, blocks: Iterator[Any], rate_hz: int) -> int:
    """Write blocks of samples to a wav or flac file, whole or not at all.

    16-bit; values beyond full scale are cut off.

    Returns:
        Samples written.

    Raises:
        InputError: if the ending is no format that can be written, or the system refuses.
    """
    if path.suffix.lower() not in WRITTEN:
        raise InputError(f"{path}: sound is written as {' or '.join(WRITTEN)}, not {path.suffix!r}")
    written = 0
    with written_whole(path) as partial:
        try:
            with soundfile.SoundFile(
                partial, "w", rate_hz, 1, "PCM_16", format=WRITTEN[path.suffix.lower()]
            ) as file:
                for block in blocks:
                    file.write(np.clip(np.asarray(block), -1, 1))
                    written += len(block)
        except soundfile.LibsndfileError as error:
            raise _cannot_write(path, error) from error
    return written


def _cannot_write(path: Path, error: soundfile.LibsndfileError) -> InputError:
    folder = path.parent
    if not folder.is_dir():
        return InputError(f"{path}: {folder} is not a folder; choose another place")
    return refused(path, OSError(0, _reason(error)))
