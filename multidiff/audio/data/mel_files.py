"""Mel spectrograms from files and to files, with the preset and the scale they state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.mel_input import check_levels, check_shape
from multidiff.audio.data.mel_scale import PRESET_SCALE, MelScale, mel_scale_named
from multidiff.audio.mel import MelPreset, preset_named
from multidiff.models.weights import read_tensors, save_tensors
from multidiff.utils.budgets import check_npz
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write
from multidiff.utils.readers import check_file_size, reading

NO_ARRAY = "is not an array file that can be read"
ENDINGS = (".npy", ".npz", ".safetensors")


@dataclass(frozen=True)
class MelArray:
    """A mel in memory, or on disk behind a memory map.

    Attributes:
        array: levels ``(mels, frames)``.
        name: how messages call it.
        preset: whose levels :meth:`frames` gives; the values as they are where None.
        scale: of the values.
    """

    array: np.ndarray
    name: str
    preset: MelPreset | None = None
    scale: MelScale = PRESET_SCALE

    @property
    def num_frames(self) -> int:
        """Its length."""
        return self.array.shape[1]

    def frames(self, first: int, last: int) -> Float[Tensor, "1 mels frames"]:
        """Return a stretch of it."""
        values = torch.from_numpy(self.array[None, :, first:last].astype(np.float32))
        return values if self.preset is None else self.scale.to_preset(values, self.preset)


def read_mel(
    path: Path, preset: MelPreset, scale: str | None = None, made_by: str | None = None
) -> MelArray:
    """Return a mel of the given preset, from .npy, .npz or .safetensors.

    In the latter two the array is called ``mel`` or is the only one. What stands beside it must
    agree with the preset: ``preset`` (its name), any field of
    :class:`~multidiff.audio.mel.MelPreset`, and ``scale``, as :func:`write_mel` writes them.

    Args:
        path: the file.
        preset: how the mel should be made.
        scale: of its values, where the file does not state it; checked by their statistics where
            nothing does.
        made_by: name of the preset that made it, where the file does not state it.

    Raises:
        InputError: if the file cannot be read, or holds no mel of this preset.
    """
    array, stated = _read(path)
    _check_preset(path, preset, stated, made_by)
    own = stated.get("scale")
    if own is not None and scale not in (None, own):
        raise InputError(f"{path}: states the scale {own}, so that --mel-scale {scale} is not it")
    if own is None and scale is None and made_by is not None:
        own = "preset"
    return checked(array, preset, str(path), scale if own is None else own)


def _check_preset(
    path: Path, preset: MelPreset, stated: Mapping[str, str], made_by: str | None
) -> None:
    """Compare what a file or the caller states of the mel's making with what the model reads."""
    advice = f"make it with the {preset.name} preset"
    if made_by is not None:
        differing = preset.differences(preset_named(made_by).description())
        if differing:
            raise InputError(
                f"--mel-preset {made_by}: differs in {', '.join(differing)} from {preset.name}, "
                f"which the model reads; {advice}"
            )
    name = stated.get("preset", preset.name)
    differing = preset.differences(stated)
    is_complete = preset.description().keys() <= stated.keys()
    if name != preset.name and not is_complete:
        differing = ["preset", *differing]
    if differing:
        wanted = {**preset.description(), "preset": preset.name}
        made = ", ".join(f"{key} {stated[key]}" for key in differing)
        reads = ", ".join(str(wanted[key]) for key in differing)
        raise InputError(f"{path}: was made with {made}, but the model reads {reads}; {advice}")


def write_mel(path: Path, mel: Float[Tensor, "mels frames"], preset: MelPreset) -> None:
    """Write a mel to .npz or .safetensors, with its preset and scale beside it.

    Raises:
        InputError: if the ending is another, or the system refuses.
    """
    about = {"preset": preset.name, "scale": "preset", **preset.description()}
    notes = {key: str(value) for key, value in about.items()}
    with atomic_write(path) as partial:
        if path.suffix == ".npz":
            np.savez(partial, allow_pickle=False, mel=mel.detach().cpu().numpy(), **notes)
        elif path.suffix == ".safetensors":
            save_tensors({"mel": mel}, partial, notes)
        else:
            raise InputError(f"{path}: a mel with its preset is written as .npz or .safetensors")


def _read(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    if path.suffix == ".safetensors":
        tensors, described = read_tensors(path)
        tensor = tensors[_the_one(tensors, path)]
        # numpy has no bfloat16, nor floats of 8 bits.
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy(), described
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
        described = {name: str(file[name]) for name, (shape, _) in kinds.items() if not shape}
        return file[_the_one(floats or arrays, path)], described


def _the_one(arrays: Collection[str], path: Path) -> str:
    """Return the name of the mel among a file's arrays."""
    if "mel" in arrays:
        return "mel"
    if len(arrays) == 1:
        return next(iter(arrays))
    raise InputError(f"{path}: holds {sorted(arrays) or 'nothing'}; name the mel 'mel'")


def checked(array: np.ndarray, preset: MelPreset, name: str, scale: str | None = None) -> MelArray:
    """Return an array that can be a mel of the preset.

    Args:
        array: ``(mels, frames)``, or a batch of one.
        preset: how it should be made.
        name: how messages call it.
        scale: of its values, where that is known.

    Raises:
        InputError: if it cannot; says what it looks like.
    """
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    check_shape(array.shape, str(array.dtype), array.dtype.kind == "f", preset, name)
    stated = None if scale is None else mel_scale_named(scale)
    return MelArray(array, name, preset, check_levels(array, preset, name, stated))
