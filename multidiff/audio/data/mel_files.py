"""Reading and writing mel spectrograms with the preset and the scale they state."""

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

NO_ARRAY = "is not an array file"
ENDINGS = (".npy", ".npz", ".safetensors")


@dataclass(frozen=True)
class MelArray:
    """A mel in memory, or memory-mapped from disk.

    Attributes:
        array: levels ``(mels, frames)``.
        name: name in messages.
        preset: preset whose levels :meth:`frames` returns; None returns the values as they are.
        scale: scale of the values.
    """

    array: np.ndarray
    name: str
    preset: MelPreset | None = None
    scale: MelScale = PRESET_SCALE

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.array.shape[1]

    def frames(self, first: int, last: int) -> Float[Tensor, "1 mels frames"]:
        """Return a range of frames."""
        values = torch.from_numpy(self.array[None, :, first:last].astype(np.float32))
        return values if self.preset is None else self.scale.to_preset(values, self.preset)


def read_mel(
    path: Path, preset: MelPreset, scale: str | None = None, made_by: str | None = None
) -> MelArray:
    """Return a mel of the given preset, from .npy, .npz or .safetensors.

    In the latter two the array is called ``mel`` or is the only one. Metadata beside it must
    agree with the preset: ``preset`` (its name), any field of
    :class:`~multidiff.audio.mel.MelPreset`, and ``scale``, as :func:`write_mel` writes them.

    Args:
        path: mel file.
        preset: required preset.
        scale: scale of the values, if the file does not state it; checked by their statistics if
            neither does.
        made_by: name of the preset that made it, if the file does not state it.

    Raises:
        InputError: if the file cannot be read, or does not hold a mel of this preset.
    """
    array, stated = _read(path)
    _check_preset(path, preset, stated, made_by)
    own = stated.get("scale")
    if own is not None and scale not in (None, own):
        raise InputError(f"{path}: states the scale {own}, not that of --mel-scale {scale}")
    if own is None and scale is None and made_by is not None:
        own = "preset"
    return checked(array, preset, str(path), scale if own is None else own)


def _check_preset(
    path: Path, preset: MelPreset, stated: Mapping[str, str], made_by: str | None
) -> None:
    """Compare what a file or the caller states about a mel with the preset that the model reads."""
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
        # numpy has no bfloat16, nor 8-bit floats.
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
    """Check that an array can be a mel of the preset, and return it.

    Args:
        array: ``(mels, frames)``, or a batch of one.
        preset: required preset.
        name: name in messages.
        scale: scale of the values, if known.

    Raises:
        InputError: if it cannot be; names what it looks like.
    """
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    check_shape(array.shape, str(array.dtype), array.dtype.kind == "f", preset, name)
    stated = None if scale is None else mel_scale_named(scale)
    return MelArray(array, name, preset, check_levels(array, preset, name, stated))
