"""Amount of sound in a source, before any of it is decoded."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from multidiff.audio.data.sound import UNKNOWN_LENGTH
from multidiff.audio.data.sources import open_place
from multidiff.audio.mel import MelPreset
from multidiff.utils.errors import InputError

# Bytes of decoded sound that are kept in memory where nothing else is asked for.
MEMORY_BUDGET = 1 << 30
# Recordings of which the headers are read to estimate the length of all.
SAMPLED = 32


@dataclass(frozen=True)
class Survey:
    """Amount of sound at some places, without decoding it.

    Attributes:
        stamp: names, sizes and times of the files, hashed; of a data set, its own fingerprint.
        seconds: estimated duration of each recording.
    """

    stamp: Any
    seconds: np.ndarray

    def pieces(self, seconds: float) -> list[slice]:
        """Return slices of the places with about that much sound each."""
        ends = np.cumsum(self.seconds)
        count = max(math.ceil(float(ends[-1]) / seconds), 1)
        cuts = np.searchsorted(ends, np.arange(1, count) * (ends[-1] / count), side="left")
        edges = np.unique([0, *cuts, len(ends)]).tolist()
        return [slice(*pair) for pair in pairwise(edges)]


def survey(places: Sequence[Any], root: str, fingerprint: Callable[[], Any]) -> Survey:
    """Return how much sound there is, from the sizes of the files and the headers of some.

    Args:
        places: paths, or rows of a data set.
        root: folder that names in the stamp are relative to.
        fingerprint: returns what identifies places that are not files.
    """
    sizes = np.ones(len(places))
    if all(isinstance(places[number], Path) for number in (0, -1)):
        found = hashlib.blake2b(digest_size=16)
        for number, path in enumerate(places):
            sizes[number], time = _state_of(path)
            line = f"{relative_name(str(path), root)}\0{sizes[number]:.0f}\0{time}\n"
            found.update(line.encode(errors="surrogateescape"))
        stamp = {"files": len(places), "hash": found.hexdigest()}
    else:
        stamp = fingerprint()
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), SAMPLED)).astype(int))
    seconds = size = 0.0
    for number in chosen.tolist():
        try:
            sound = open_place(places[number])
        except InputError:  # it is reported when it is decoded
            continue
        if sound.length < UNKNOWN_LENGTH:
            seconds += sound.length / sound.rate_hz
            size += sizes[number]
    return Survey(stamp, sizes * (seconds / size if size else 0.0))


def fits_in_memory(found: Sequence[Survey], preset: MelPreset) -> bool:
    """Return whether the sound of some sources is decoded into memory, unless asked otherwise."""
    seconds = sum(float(one.seconds.sum()) for one in found)
    return 4 * preset.sample_rate_hz * seconds <= MEMORY_BUDGET


def _state_of(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


def relative_name(name: str, root: str) -> str:
    """Return a path relative to a folder that it lies in; another path, or a name, as it is."""
    return name.removeprefix(f"{root}{os.sep}") if root else name
