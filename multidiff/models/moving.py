"""Weights of large models: read once, and moved to their device in a precision of choice.

A file's tensors are read into memory of their own, not mapped: nothing of the file then counts as
memory of the process, and a file that is replaced meanwhile does no harm. Moving them empties the
dict that holds them, so the peak is the larger of the file and the model, not their sum.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from multidiff.models.delta import BASE
from multidiff.models.weights import NOT_WHOLE, check_complete, check_fit, check_is_safetensors
from multidiff.utils.errors import InputError
from multidiff.utils.readers import reading

logger = logging.getLogger(__name__)

MANY = 100_000_000  # weights
# Torch's kernels for CPUs prefer, and torch's own allocations have, this alignment in bytes.
ALIGNMENT = 64
AUTO = "auto"
HALVES = {"float16", "bfloat16"}
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
STORED = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U8": torch.uint8, "BOOL": torch.bool},
}


def read_into_memory(
    path: Path, skip: Collection[str] = ()
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file in memory of their own, and its metadata.

    Args:
        path: the file.
        skip: beginnings of names that are not read.

    Raises:
        InputError: if the file is missing, damaged or of another format.
    """
    check_is_safetensors(path)
    found: dict[str, Tensor] = {}
    with (
        reading(path, NOT_WHOLE),
        safetensors.safe_open(path, "pt") as checked,  # checks the header too
        path.open("rb") as file,
    ):
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        for name, entry in sorted(header.items(), key=lambda one: one[1]["data_offsets"]):
            if name.startswith(tuple(skip)):
                continue
            if entry["dtype"] not in STORED:
                found[name] = checked.get_tensor(name).clone()
                continue
            tensor = torch.empty(entry["shape"], dtype=STORED[entry["dtype"]])
            file.seek(8 + length + entry["data_offsets"][0])
            if tensor.numel():
                content: Any = tensor.view(-1).view(torch.uint8).numpy()
                file.readinto(content)
            found[name] = tensor
    return found, metadata


def is_stored_in_half(path: Path) -> bool:
    """Return whether a file holds whole weights, some of them as float16.

    Raises:
        InputError: if the file is missing, damaged or of another format.
    """
    check_is_safetensors(path)
    with reading(path, NOT_WHOLE), safetensors.safe_open(path, "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        return "F16" in kinds and BASE not in (file.metadata() or {})


def checked_dtype(model: Any, dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Return the precision that a model is to compute in; None for that of its file.

    Args:
        model: model; ``half_parts`` are the beginnings of names of its weights that may have half
            precision, and a model without any computes in float32.
        dtype: precision or its name; "auto" for that of the file, None for float32.

    Raises:
        InputError: if the precision is unknown, or the model cannot compute in it.
    """
    kind = PRECISIONS.get(str(dtype or "float32").removeprefix("torch."))
    if kind is None and dtype != AUTO:
        raise InputError(f"--dtype {dtype}: expected one of {', '.join([*PRECISIONS, AUTO])}")
    if kind not in (None, torch.float32) and not getattr(model, "half_parts", ()):
        raise InputError(
            f"--dtype {dtype}: a {type(model).__name__} computes in float32; remove the option"
        )
    return kind


def fill(
    model: Any,
    tensors: dict[str, Tensor],
    path: Path | str,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
) -> None:
    """Move weights into a model, and say so where they take twice the memory of their file.

    Args:
        model: model without values.
        tensors: its weights; emptied.
        path: their file, for messages.
        device: device of the values.
        dtype: see :func:`checked_dtype`.

    Raises:
        InputError: if they do not fit, or the model cannot compute in the precision.
    """
    kind, parts = checked_dtype(model, dtype), getattr(model, "half_parts", ())
    # Names and sizes alone: what refers to a tensor here would keep its memory.
    stored = {str(t.dtype).removeprefix("torch.") for t in tensors.values()} & HALVES
    count = sum(t.numel() for t in tensors.values() if t.element_size() == 2)
    if dtype is None and parts and stored and count > MANY:
        logger.warning(
            "%s: has %.1f GB of %s weights, which compute in float32 in %.1f GB; --dtype %s "
            "computes in theirs",
            path, 2e-9 * count, " and ".join(sorted(stored)), 4e-9 * count, AUTO,
        )  # fmt: skip
    move_into(model, tensors, path, device=device, dtype=kind, half_parts=parts)


def move_into(
    module: nn.Module,
    tensors: dict[str, Tensor],
    path: Path | str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = torch.float32,
    half_parts: Collection[str] = (),
) -> None:
    """Fill a module that has no values with exactly these tensors, and empty their dict.

    Args:
        module: module built in ``without_values``.
        tensors: tensors by the module's names; each is removed as soon as it is moved.
        path: their file, for messages.
        device: device of the values.
        dtype: precision of ``half_parts``; None for that of the tensors. Other weights have the
            precision that the module was built with.
        half_parts: beginnings of the names of weights that may have half precision.

    Raises:
        InputError: if they do not fit.
        RuntimeError: if a buffer or attribute without values is not saved in the state dict.
    """
    check_fit(module, tensors, path)
    check_complete(module, tensors)
    halved = tuple(half_parts)
    with torch.no_grad():
        for name, own in module.state_dict(keep_vars=True).items():
            given, kind = tensors.pop(name), own.dtype
            if kind == torch.float32 and name.startswith(halved) and halved:
                kind = dtype or (given.dtype if given.dtype in PRECISIONS.values() else kind)
            if own.is_meta:
                torch.utils.swap_tensors(own, _placed(own, given, device, kind))
            else:
                own.copy_(given)


def _placed(outline: Tensor, given: Tensor, device: str | torch.device, kind: torch.dtype) -> Any:
    """Return the values in the outline's place: themselves where nothing is to be changed."""
    real = given
    if not _has_form(given, outline, torch.device(device), kind):
        # Not empty_like: for that of a meta tensor, torch imports sympy.
        shape, stride = outline.shape, outline.stride()
        real = torch.empty_strided(shape, stride, device=device, dtype=kind).copy_(given)
    if isinstance(outline, nn.Parameter):
        return nn.Parameter(real, outline.requires_grad)
    return real


def _has_form(given: Tensor, outline: Tensor, device: torch.device, kind: torch.dtype) -> bool:
    alike = given.device == device and given.dtype == kind and given.stride() == outline.stride()
    own = given.untyped_storage().nbytes() == given.numel() * given.element_size()
    return alike and own and given.data_ptr() % ALIGNMENT == 0
