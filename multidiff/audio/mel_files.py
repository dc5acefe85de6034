"""Mel spectrograms from files, and what a wrong one looks like."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel import PRESETS, MelPreset
from multidiff.budgets import check_npz
from multidiff.errors import InputError
from multidiff.readers import check_file_size, reading
from multidiff.weights import read_tensors

NO_ARRAY = "is not an array file that can be read"
ENDINGS = (".npy", ".npz", ".safetensors")
# A level may leave the preset's range by this share of it: other windows, float16, networks.
SLACK = 0.05
BLOCK_FRAMES = 100_000


@dataclass(frozen=True)
class MelArray:
    """A mel in memory, or on disk behind a memory map.

    Attributes:
        array: levels ``(mels, frames)``.
        name: how messages call it.
    """

    array: np.ndarray
    name: str

    @property
    def num_frames(self) -> int:
        """Its length."""
        return self.array.shape[1]

    def frames(self, first: int, last: int) -> Float[Tensor, "1 mels frames"]:
        """A stretch of it."""
        return torch.from_numpy(self.array[None, :, first:last].astype(np.float32))


def read_mel(path: Path, preset: MelPreset) -> MelArray:
    """A mel of the given preset, from .npy, .npz or .safetensors.

    In the latter two the array is called ``mel`` or is the only one, and ``sample_rate_hz`` or
    ``preset`` beside it must agree.

    Raises:
        InputError: if the file cannot be read, or holds no mel of this preset.
    """
    array, told = _read(path)
    for key, wanted in (("preset", preset.name), ("sample_rate_hz", str(preset.sample_rate_hz))):
        if told.get(key, wanted) != wanted:
            raise InputError(
                f"{path}: was made with {key} {told[key]}, but the model reads {wanted}; "
                f"make it with the {preset.name} preset"
            )
    return checked(array, preset, str(path))


def _read(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    if path.suffix == ".safetensors":
        tensors, told = read_tensors(path)
        tensor = tensors[_the_one(tensors, path)]
        # numpy has no bfloat16, nor floats of 8 bits.
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy(), told
    if path.suffix == ".npy":
        check_file_size(path)
        with reading(path, NO_ARRAY, "copy or write it again"):
            return np.load(path, mmap_mode="r", allow_pickle=False), {}
    kinds = check_npz(path)
    with (
        reading(path, NO_ARRAY, "copy or write it again"),
        np.load(path, allow_pickle=False) as file,
    ):
        arrays = [name for name, (shape, _) in kinds.items() if shape]
        floats = [name for name in arrays if kinds[name][1].kind == "f"]  # others are notes
        told = {name: str(file[name]) for name, (shape, _) in kinds.items() if not shape}
        return file[_the_one(floats or arrays, path)], told


def _the_one(arrays: Collection[str], path: Path) -> str:
    """Return the name of the mel among a file's arrays."""
    if "mel" in arrays:
        return "mel"
    if len(arrays) == 1:
        return next(iter(arrays))
    raise InputError(f"{path}: holds {sorted(arrays) or 'nothing'}; name the mel 'mel'")


def checked(array: np.ndarray, preset: MelPreset, name: str) -> MelArray:
    """An array that can be a mel of the preset.

    Raises:
        InputError: if it cannot; says which preset it looks like.
    """
    if array.dtype.kind != "f":
        raise InputError(f"{name}: holds {array.dtype} values; a mel holds floats")
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    wanted = f"{preset.n_mels} bands x frames, as {preset.name} makes them"
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name}: has shape {array.shape}; a mel is {wanted}")
    if array.shape[0] != preset.n_mels and array.shape[1] == preset.n_mels:
        raise InputError(f"{name}: has shape {array.shape}; transpose it: a mel is {wanted}")
    seen = Levels.of(array)
    if not np.isfinite([seen.least, seen.greatest]).all():
        raise InputError(f"{name}: holds values that are not numbers (NaN or infinite)")
    if array.shape[0] != preset.n_mels:
        raise InputError(
            f"{name}: has {array.shape[0]} bands where {preset.name} has {preset.n_mels}; "
            f"it looks like {seen.guess(array.shape[0])}"
        )
    if not seen.fit(preset):
        low, high = preset.level_range
        raise InputError(
            f"{name}: its levels, {seen.least:.2f} to {seen.greatest:.2f}, are not those of "
            f"{preset.name} ({low:.1f} to {high:.1f}); it looks like {seen.guess(array.shape[0])}"
        )
    return MelArray(array, name)


@dataclass(frozen=True)
class Levels:
    """The range and spread of a mel's levels."""

    least: float
    greatest: float
    deviation: float
    num_frames: int

    @classmethod
    def of(cls, array: np.ndarray) -> Levels:
        """Those of an array, read block by block."""
        blocks = [
            array[:, first : first + BLOCK_FRAMES].astype(np.float64)
            for first in range(0, array.shape[1], BLOCK_FRAMES)
        ]
        sizes = np.array([block.size for block in blocks])
        mean = sum(block.sum() for block in blocks) / sizes.sum()
        with np.errstate(invalid="ignore"):  # infinite levels are told of by the least and greatest
            variance = sum(((block - mean) ** 2).sum() for block in blocks) / sizes.sum()
        least = min(float(block.min()) for block in blocks)
        greatest = max(float(block.max()) for block in blocks)
        return cls(least, greatest, float(variance) ** 0.5, array.shape[1])

    def fit(self, preset: MelPreset) -> bool:
        """Whether these can be levels of the preset."""
        low, high = preset.level_range
        slack = SLACK * (high - low)
        inside = low - slack <= self.least and self.greatest <= high + slack
        return inside and not (preset.log == "ln" and self._too_shallow)

    @property
    def _too_shallow(self) -> bool:
        """Other logarithms, or another scale, where natural logarithms should be.

        Speech in natural logarithms reaches below -9 in its pauses and spreads over 1.6 or
        more; decimal ones stop at -5 and spread over half of that, as do normalised ones.
        """
        no_pause = self.least >= 0
        shallow = self.least >= -5.01 and 0.6 < self.deviation < 1.5
        return no_pause or (self.num_frames >= 20 and shallow)

    def guess(self, num_bands: int) -> str:
        """What a mel of so many bands and these levels looks like, in words."""
        fitting = [p.name for p in PRESETS.values() if p.n_mels == num_bands and self.fit(p)]
        if self.least >= 0 and self.greatest > 1:
            return "magnitudes or powers without a logarithm"
        if self.greatest - self.least > 25:
            return "decibels (librosa's power_to_db or amplitude_to_db)"
        if self.least >= 0:
            scaled = [name for name in fitting if PRESETS[name].log == "decibels"]
            return " or ".join(scaled) or "decibels scaled to 0..1"
        if self._too_shallow and self.greatest > 1.2:
            return "a mel normalised by its mean and deviation"
        if self._too_shallow:
            return "decimal logarithms (multiply by 2.3026)"
        return " or ".join(fitting) or "no preset known here"
