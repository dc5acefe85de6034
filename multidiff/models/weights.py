"""Reading and writing weights: safetensors; of foreign pickles the tensors and nothing else."""

from __future__ import annotations

import json
import pickle
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from multidiff.core.draws import DrawsFrom
from multidiff.utils.budgets import check_safetensors, check_zip
from multidiff.utils.errors import InputError
from multidiff.utils.files import write_error
from multidiff.utils.readers import reading

SHOWN = 3
_PICKLES = threading.Lock()
MOST_MAPPINGS = 1_000_000
MOST_BUFFER_BYTES = 1 << 30
NOT_WHOLE = "is not a whole safetensors file"
# What training programs leave beside the tensors of published files. Nothing is done with it:
# each stands for an empty object, so that reading runs none of their code.
LEFT_ALONE = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
)


@dataclass(frozen=True)
class Conversion:
    """A foreign checkpoint turned into a model.

    Attributes:
        recipe: of the model, as YAML.
        tensors: the model's weights, by its own names.
        about: what it is, in a line.
        texts: what must lie beside the weights, by file name.
    """

    recipe: str
    tensors: dict[str, Tensor]
    about: str
    texts: dict[str, str] = field(default_factory=dict)


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file (whole only if the caller writes to a spare name).

    Raises:
        InputError: if the system refuses.
    """
    separate = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    try:
        safetensors.torch.save_file(_unshared(separate), path, dict(metadata or {}))
    except safetensors.SafetensorError as error:
        raise _told_by_system(path, error) from error
    if len(metadata or {}) > 1:
        _order_metadata(path)


def _order_metadata(path: Path) -> None:
    """Sort a file's metadata, which the library writes in an order drawn for each process."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(ordered) <= length:  # the same values in another order, padded as they were
            file.seek(8)
            file.write(ordered.ljust(length))


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors that lie in the memory of another, which the format does not allow."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        where = tensor.untyped_storage().data_ptr()
        if where in seen:
            tensors[name] = tensor.clone()
        seen.add(where)
    return tensors


def _told_by_system(path: Path, error: Exception) -> InputError:
    """The writer reports the system's error number in its text alone."""
    text = str(error)
    number = text.rpartition("os error ")[2].rstrip(") ")
    return write_error(path, OSError(int(number) if number.isdigit() else 0, text))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata.

    Raises:
        InputError: if there is no such file, or it is something else or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if is_pickle(path):
        raise InputError(
            f"{path}: is a pickle, which can run code when it is opened; it is not read: "
            "ask its maker for safetensors"
        )
    check_safetensors(path)
    with reading(path, NOT_WHOLE), safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def read_pickle(path: Path) -> Any:
    """What a torch file holds, if that is tensors and plain values; None if it is none.

    Tensors in today's format stay on the disk until they are used.

    Raises:
        InputError: if opening it would run code, or it is not whole.
    """
    if not path.is_file() or not is_pickle(path):
        return None
    with path.open("rb") as file:
        is_mappable = file.read(2) == b"PK"
    if is_mappable:
        check_zip(path, "torch file")
    empty: Any = [(_Empty, name) for name in LEFT_ALONE]
    with (
        _PICKLES,  # what may stand in one is a list of the process
        torch.serialization.safe_globals(empty),
        warnings.catch_warnings(),
        reading(path, "is not a whole torch file"),
    ):
        warnings.simplefilter("ignore")  # about the pickle's age
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mappable)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path}: holds objects besides tensors, which could run code; it is not read: "
                "ask its maker for safetensors"
            ) from error
    _check_tensors(content, path)
    return content


def _check_tensors(content: Any, path: Path) -> None:
    """Refuse tensors that say more than the file holds: views that repeat, and no values at all."""
    found = [content]
    for one in found:  # grows below: state dicts lie a level or two deep
        if isinstance(one, Mapping) and len(found) < MOST_MAPPINGS:
            found.extend(one.values())
        if not isinstance(one, Tensor):
            continue
        if one.layout != torch.strided or one.device.type != "cpu" or one.is_quantized:
            raise InputError(f"{path}: holds tensors without plain values; save it as plain ones")
        if one.numel() * one.element_size() > one.untyped_storage().nbytes():
            raise InputError(
                f"{path}: holds a tensor of shape {tuple(one.shape)} that repeats fewer values; "
                "save it contiguous, or ask its maker for safetensors"
            )


class _Empty:
    """Stands where a pickle names an object that is neither tensor nor plain value."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def is_pickle(path: Path) -> bool:
    """Whether a file looks like a pickle, bare or inside torch's zip."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with the length of its header, which may read like a pickle's
    # first bytes, and then has the header's brace.
    bare = start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and start[8:] != b"{"
    return bare or start[:4] == b"PK\x03\x04"


class _Outlines(TorchFunctionMode):
    """Memory that is asked for without values lies on ``meta``."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.empty:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        return func(*args, **(kwargs or {}))


class _Bounded(TorchDispatchMode):
    """Refuses a tensor that is larger than any buffer, before it is allocated."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if "device" in kwargs and torch.device(kwargs["device"] or "cpu").type != "meta":
            with suppress(RuntimeError, NotImplementedError):  # of what has no outline
                outline = func(*args, **{**kwargs, "device": torch.device("meta")})
                size = outline.numel() * outline.element_size()
                if size > MOST_BUFFER_BYTES:
                    shape = tuple(outline.shape)
                    raise ValueError(f"a tensor of shape {shape} would take {size:,} bytes")
        return func(*args, **kwargs)


@contextmanager
def without_values() -> Iterator[None]:
    """Build modules whose parameters have no values, for :func:`load_into` to fill.

    Such parameters take neither the time of random initialisation nor memory. The block acts on
    this thread alone: torch's own layers ask for their parameters with ``torch.empty``, which
    answers with ``meta`` tensors here. All other tensors are made as ever: schedules and buffers
    that are not saved have no other source. Draws leave the process's generators as they are.
    A tensor larger than any buffer, as an absurd number in a recipe makes, is a ``ValueError``.
    """
    with DrawsFrom(torch.Generator()), _Outlines(), _Bounded():
        yield


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Check that tensors are exactly those that a module has, and hold numbers.

    Args:
        module: whose names and shapes they should have.
        tensors: by their names.
        path: where they are from, for the message.

    Raises:
        InputError: if some are missing, extra or of another shape, or have values that are NaN or
            infinite; names the first of them.
    """
    own = module.state_dict()
    faults = {
        "missing": [name for name in own if name not in tensors],
        "not of this model": [name for name in tensors if name not in own],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} where {tuple(own[name].shape)} belongs"
            for name in own
            if name in tensors and tensors[name].shape != own[name].shape
        ],
    }
    described = [f"{some(names)} {fault}" for fault, names in faults.items() if names]
    if described:
        raise InputError(
            f"{path}: does not fit the model: {'; '.join(described)}; is it of another?"
        )
    check_finite(tensors, path)


def check_finite(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Check that tensors hold numbers.

    Args:
        tensors: by their names.
        path: where they are from, for the message.

    Raises:
        InputError: if values are NaN or infinite; names the first of the tensors.
    """
    broken = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if broken:
        raise InputError(
            f"{path}: {some(broken)}: holds values that are no numbers (NaN or infinite): the "
            "training diverged or the file is damaged; take an earlier checkpoint, or copy or "
            "download it again"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are numbers: both ends tell, without memory for a mask."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    if tensor.element_size() == 1:  # eight bits know no ends
        tensor = tensor.float()
    return all(bool(torch.isfinite(end)) for end in tensor.aminmax())


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Copy tensors into a module that has exactly these; all or none.

    Args:
        module: what receives them; parameters without values come to lie on the CPU.
        tensors: by the module's names.
        path: where they are from, for the message.

    Raises:
        InputError: if they do not fit.
        RuntimeError: if a buffer without values is none of those that are saved.
    """
    check_fit(module, tensors, path)
    unsaved = [name for name, one in module.named_buffers() if name not in tensors and one.is_meta]
    if unsaved:
        raise RuntimeError(
            f"{', '.join(unsaved)}: made by torch.empty and not saved, so nothing fills it: "
            "build it by torch.zeros"
        )
    own = [*module.parameters(), *module.buffers()]
    for outline in [one for one in own if one.is_meta]:
        torch.utils.swap_tensors(outline, _with_memory(outline))
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(tensors[name])


def _with_memory(outline: Tensor) -> Tensor:
    real = torch.empty_like(outline, device="cpu")
    if isinstance(outline, nn.Parameter):
        return nn.Parameter(real, outline.requires_grad)
    return real


def some(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
