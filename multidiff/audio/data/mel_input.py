"""Mels from callers: any float array, checked and converted to the preset's levels."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.data.mel_guard import OVERLOAD, MelStatistics, fault_of, warnings_of
from multidiff.audio.data.mel_scale import (
    OPTION,
    PRESET_SCALE,
    MelScale,
    advice_on,
    mel_scale_named,
)
from multidiff.audio.mel import PRESETS, MelPreset
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

Array = Tensor | np.ndarray
SCALED_FRAMES = 20


def mel_batch(
    mel: Array,
    preset: MelPreset,
    lengths: Sequence[int] | Tensor | None = None,
    scale: str | None = None,
) -> list[Float[Tensor, "mels frames"]]:
    """Return the mels of a batch, each as float32 levels of the preset, without padding.

    Args:
        mel: ``(mels, frames)`` or ``(batch, mels, frames)`` of any float type.
        preset: required preset.
        lengths: number of frames of each mel; all frames by default.
        scale: scale of the values (:func:`~multidiff.audio.data.mel_scale.mel_scale_named`); if
            None, levels that cannot be the preset's are rejected.

    Raises:
        InputError: if these are not mels of the preset, or the lengths do not fit.
    """
    stated = None if scale is None else mel_scale_named(scale)
    rows = torch.as_tensor(mel)
    if rows.ndim == 2:
        rows = rows[None]
    check_shape(tuple(rows.shape[1:]), str(rows.dtype), rows.is_floating_point(), preset, "mel")
    if rows.ndim != 3 or len(rows) == 0:
        raise InputError(f"mel: has shape {tuple(mel.shape)}; give (mels, frames) or a batch of it")
    checked = []
    for number, length in enumerate(_lengths(lengths, len(rows), rows.shape[2])):
        name = "mel" if len(rows) == 1 else f"mel[{number}]"
        row = rows[number, :, :length]
        if length < rows.shape[2]:
            check_shape(tuple(row.shape), str(rows.dtype), True, preset, name)
        found = check_levels(row.detach().float().cpu().numpy(), preset, name, stated)
        checked.append(found.to_preset(row[None].float(), preset)[0])
    return checked


def mel_chunk(chunk: Array, preset: MelPreset) -> Float[Tensor, "1 mels frames"]:
    """Return a part of a mel as float32 levels of the preset.

    Args:
        chunk: ``(mels, frames)`` or ``(1, mels, frames)`` of any float type. Fewer than
            :data:`SCALED_FRAMES` frames do not show their scale: only their range is checked.
        preset: required preset.

    Raises:
        InputError: if it is no part of a mel of the preset.
    """
    rows = torch.as_tensor(chunk)
    rows = rows[None] if rows.ndim == 2 else rows
    if rows.ndim != 3 or len(rows) != 1 or rows.shape[-1] >= SCALED_FRAMES:
        (mel,) = mel_batch(rows, preset, [rows.shape[-1]])
        return mel[None]
    if not rows.is_floating_point():
        raise InputError(f"mel: holds {rows.dtype} values; a mel holds floats")
    check_levels(rows[0].detach().float().cpu().numpy(), preset, "mel", PRESET_SCALE)
    return rows.float()


def _lengths(lengths: Sequence[int] | Tensor | None, count: int, frames: int) -> list[int]:
    if lengths is None:
        return [frames] * count
    numbers = [int(one) for one in lengths]
    if len(numbers) != count or min(numbers) < 1 or max(numbers) > frames:
        raise InputError(
            f"lengths {numbers}: give one for each of {count} mels, from 1 to {frames} frames"
        )
    return numbers


def check_shape(
    shape: tuple[int, ...], dtype: str, is_float: bool, preset: MelPreset, name: str
) -> None:
    """Reject an array whose shape or type is not that of a mel of the preset.

    Args:
        shape: shape, expected ``(mels, frames)``.
        dtype: dtype, for the message.
        is_float: whether that is a float type.
        preset: required preset.
        name: name in messages.

    Raises:
        InputError: if they differ; names a transposition if that is the error.
    """
    wanted = f"{preset.n_mels} bands x frames, as {preset.name} makes them"
    if not is_float:
        raise InputError(f"{name}: holds {dtype} values; a mel holds floats")
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{name}: has shape {shape}; a mel is {wanted}")
    if shape[0] != preset.n_mels and shape[1] == preset.n_mels:
        raise InputError(
            f"{name}: has shape {shape}, frames before bands; transpose it (the last two axes "
            f"swapped: mel.swapaxes(-1, -2)): a mel is {wanted}"
        )
    frames = shape[1]
    least = preset.num_frames((preset.padding // preset.hop_length + 1) * preset.hop_length)
    if shape[0] == preset.n_mels and frames < least:
        raise InputError(
            f"{name}: has {frames} frame{'s' if frames > 1 else ''}, too short for "
            f"{preset.name}: at least {least} are needed"
        )


def check_levels(
    array: np.ndarray, preset: MelPreset, name: str, stated: MelScale | None = None
) -> MelScale:
    """Return the scale of a mel's values: the one stated, or else the preset's if they are on it.

    Values that are accepted with a change (a lower floor, loudness beyond full scale) are logged.

    Args:
        array: ``(mels, frames)``.
        preset: required preset.
        name: name in messages.
        stated: the scale, if known.

    Raises:
        InputError: if the values cannot be on it; names what they look like and how to undo that.
    """
    found = MelStatistics.of(array, preset)
    if not np.isfinite([found.least, found.greatest]).all():
        raise InputError(f"{name}: has values that are not finite (NaN or infinite)")
    if array.shape[0] != preset.n_mels:
        raise InputError(
            f"{name}: has {array.shape[0]} bands, but {preset.name} has {preset.n_mels}; "
            f"it looks like {_presets_like(array) or 'no known preset'}"
        )
    if stated is not None:
        return _checked_statement(found, preset, name, stated)
    fault = fault_of(found, preset)
    if fault is not None and found.padding:
        raise InputError(f"{name}: {fault}")
    if fault is not None:
        others = _presets_like(array)
        like = f"it looks like {others}; or " if others else ""
        raise InputError(f"{name}: {fault}; {like}{advice_on(found, preset)}")
    for warning in warnings_of(found, preset):
        logger.warning("%s: %s", name, warning)
    return PRESET_SCALE


def _checked_statement(
    found: MelStatistics, preset: MelPreset, name: str, stated: MelScale
) -> MelScale:
    ends = torch.tensor([found.least, found.greatest], dtype=torch.float64)
    if stated.is_linear and found.least < 0:
        raise InputError(f"{name}: has values below 0, so {OPTION} linear cannot be right")
    low, high = preset.level_range
    _, greatest = stated.to_preset(ends[None, None], preset)[0, 0].tolist()
    if not greatest <= high + OVERLOAD * (high - low):
        raise InputError(
            f"{name}: {OPTION} {stated.name} makes levels up to {greatest:.1f} of it, beyond what "
            f"{preset.name} gives for any sound ({high:.1f}); state its real scale"
        )
    return stated


def _presets_like(array: np.ndarray) -> str:
    """Return the presets whose scale fits an array with other bands or levels."""
    fitting = []
    for preset in PRESETS.values():
        if preset.n_mels == array.shape[0]:
            found = MelStatistics.of(array[:, :2000], preset)
            low, high = preset.level_range
            inside = low - 0.01 <= found.least and found.greatest <= high
            if inside and found.num_frames >= 1 and fault_of(found, preset) is None:
                fitting.append(preset.name)
    return " or ".join(fitting)
