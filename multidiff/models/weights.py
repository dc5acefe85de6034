"""Reading and writing weights: safetensors, and the tensors of foreign pickles."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
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

from multidiff.core.draws import NAMING, DrawsFrom
from multidiff.utils.budgets import check_safetensors, check_zip
from multidiff.utils.errors import InputError
from multidiff.utils.files import write_error
from multidiff.utils.readers import reading

logger = logging.getLogger(__name__)

SHOWN = 3
_PICKLES = threading.Lock()
MOST_MAPPINGS = 1_000_000
MOST_BUFFER_BYTES = 1 << 30
SPACED = (torch.ops.aten.linspace, torch.ops.aten.logspace)
IN_PLACE_DRAWS = {one for one in NAMING if one.__name__.endswith("_")}
NOT_WHOLE = "is not a whole safetensors file"
# Objects that training programs leave beside the tensors of published files. They are ignored:
# each is replaced by an empty object, so that reading runs none of their code.
LEFT_ALONE = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
)


@dataclass(frozen=True)
class Conversion:
    """A foreign checkpoint converted to a model.

    Attributes:
        recipe: recipe of the model, as YAML.
        tensors: the model's weights, by its own names.
        about: one-line description.
        texts: assets by file name.
        allow_unexpected: whether tensors that the model does not have are left out; None if the
            converter accounts for each itself.
    """

    recipe: str
    tensors: dict[str, Tensor]
    about: str
    texts: dict[str, str] = field(default_factory=dict)
    allow_unexpected: bool | None = None

    def keep_expected(self, names: Collection[str], source: Path) -> None:
        """Leave out the tensors that a model does not have, or reject them.

        Args:
            names: names of the model's tensors.
            source: file or folder that was converted, for the message.

        Raises:
            InputError: if there are any, and that is not allowed.
        """
        extra = [name for name in self.tensors if name not in names]
        if self.allow_unexpected is None or not extra:
            return
        if not self.allow_unexpected:
            raise InputError(
                f"{source}: has tensors that its model does not: {some(extra)}; to leave them "
                "out, use multidiff convert --allow-unexpected"
            )
        logger.warning("%s: left out %d unexpected tensors: %s", source, len(extra), some(extra))
        for name in extra:
            del self.tensors[name]


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file (atomic only if the caller writes to a temporary name).

    Raises:
        InputError: if the system refuses.
    """
    separate = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    about = dict(metadata or {}) if separate or metadata else None  # {} {} makes a broken header
    try:
        safetensors.torch.save_file(_unshared(separate), path, about)
    except safetensors.SafetensorError as error:
        raise _told_by_system(path, error) from error
    if len(about or {}) > 1:
        _order_metadata(path)


def _order_metadata(path: Path) -> None:
    """Sort a file's metadata, which the library writes in an order that varies by process."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(ordered) <= length:  # the same values in another order, padded to the same length
            file.seek(8)
            file.write(ordered.ljust(length))


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory with another, which the format does not allow."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        where = tensor.untyped_storage().data_ptr()
        if where in seen:
            tensors[name] = tensor.clone()
        seen.add(where)
    return tensors


def _told_by_system(path: Path, error: Exception) -> InputError:
    """Return the system's error, whose number the writer reports in its text only."""
    text = str(error)
    number = text.rpartition("os error ")[2].rstrip(") ")
    return write_error(path, OSError(int(number) if number.isdigit() else 0, text))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, and its metadata.

    Raises:
        InputError: if the file is missing, damaged or of another format.
    """
    check_is_safetensors(path)
    with reading(path, NOT_WHOLE), safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def check_is_safetensors(path: Path) -> None:
    """Reject a file that is missing, or anything but safetensors.

    Raises:
        InputError: if it is.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if is_pickle(path):
        raise InputError(
            f"{path}: is a pickle, which can run code when it is opened, and is not read: "
            "ask its author for safetensors"
        )
    check_safetensors(path)


def read_pickle(path: Path) -> Any:
    """Read a torch file of tensors and plain values; return None if it is not a torch file.

    Tensors in the current format are mapped from disk until they are used.

    Raises:
        InputError: if opening it would run code, or it is damaged.
    """
    if not path.is_file() or not is_pickle(path):
        return None
    with path.open("rb") as file:
        is_mappable = file.read(2) == b"PK"
    if is_mappable:
        check_zip(path, "torch file")
    empty: Any = [(_Empty, name) for name in LEFT_ALONE]
    with (
        _PICKLES,  # the list of allowed classes is global to the process
        torch.serialization.safe_globals(empty),
        warnings.catch_warnings(),
        reading(path, "is not a whole torch file"),
    ):
        warnings.simplefilter("ignore")  # about the pickle's age
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mappable)
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path}: holds objects besides tensors, which could run code, and is not read: "
                "ask its author for safetensors"
            ) from error
    _check_tensors(content, path)
    return content


def _check_tensors(content: Any, path: Path) -> None:
    """Reject tensors that claim more than the file holds: repeating views, or no values at all."""
    found = [content]
    for one in found:  # grows below: state dicts are nested one or two levels deep
        if isinstance(one, Mapping) and len(found) < MOST_MAPPINGS:
            found.extend(one.values())
        if not isinstance(one, Tensor):
            continue
        if one.layout != torch.strided or one.device.type != "cpu" or one.is_quantized:
            raise InputError(f"{path}: holds tensors without dense values; save dense tensors")
        if one.numel() * one.element_size() > one.untyped_storage().nbytes():
            raise InputError(
                f"{path}: holds a tensor of shape {tuple(one.shape)} that repeats fewer values; "
                "save it contiguous, or ask its author for safetensors"
            )


class _Empty:
    """Replaces objects in a pickle that are neither tensors nor plain values."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


def is_pickle(path: Path) -> bool:
    """Return whether a file looks like a pickle, bare or inside torch's zip."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with the length of its header, which may look like a pickle's
    # first bytes, followed by the header's brace.
    bare = start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and start[8:] != b"{"
    return bare or start[:4] == b"PK\x03\x04"


class _Outlines(TorchFunctionMode):
    """Mode in which uninitialised memory is allocated on ``meta``, where draws are left out."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.empty:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        # On meta they change nothing, but torch imports its compiler for them.
        tensor = args[0] if args else next(iter((kwargs or {}).values()), None)
        if func in IN_PLACE_DRAWS and isinstance(tensor, Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **(kwargs or {}))


class _Bounded(TorchDispatchMode):
    """Mode that rejects a tensor larger than any buffer before it is allocated."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch imports its compiler: two seconds and 150 MB

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        on_device = "device" in kwargs and torch.device(kwargs["device"] or "cpu").type != "meta"
        # For a meta version of these, torch imports sympy.
        spaced = func.overloadpacket in SPACED and args[2] <= MOST_BUFFER_BYTES // 8
        if on_device and not spaced:
            with suppress(RuntimeError, NotImplementedError):  # operations without a meta version
                outline = func(*args, **{**kwargs, "device": torch.device("meta")})
                size = outline.numel() * outline.element_size()
                if size > MOST_BUFFER_BYTES:
                    shape = tuple(outline.shape)
                    raise ValueError(f"a tensor of shape {shape} would take {size:,} bytes")
        return func(*args, **kwargs)


@contextmanager
def without_values() -> Iterator[None]:
    """Build modules whose parameters have no values, for :func:`load_into` to fill.

    Such parameters cost neither the time of random initialisation nor memory. The block acts on
    this thread alone: torch's own layers allocate their parameters with ``torch.empty``, which
    returns ``meta`` tensors here. All other tensors are made normally: schedules and unsaved
    buffers have no other source. The process's random generators are not advanced.
    A tensor larger than any buffer, as from an absurd number in a recipe, is a ``ValueError``.
    """
    with DrawsFrom(torch.Generator()), _Outlines(), _Bounded():
        yield


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Check that tensors are exactly those that a module has, and finite.

    Args:
        module: module whose names and shapes they should have.
        tensors: tensors by name.
        path: their file, for the message.

    Raises:
        InputError: if some are missing, extra or of another shape, or have values that are NaN or
            infinite; names the first of them.
    """
    own = module.state_dict()
    faults = {
        "missing": [name for name in own if name not in tensors],
        "not in this model": [name for name in tensors if name not in own],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in tensors and tensors[name].shape != own[name].shape
        ],
    }
    described = [f"{some(names)} {fault}" for fault, names in faults.items() if names]
    if described:
        raise InputError(
            f"{path}: does not fit the model: {'; '.join(described)}; is it another model's?"
        )
    check_finite(tensors, path)


def check_finite(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Check that tensors are finite.

    Args:
        tensors: tensors by name.
        path: their file, for the message.

    Raises:
        InputError: if values are NaN or infinite; names the first of the tensors.
    """
    broken = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if broken:
        raise InputError(
            f"{path}: {some(broken)}: has values that are not finite (NaN or infinite): the "
            "training diverged or the file is damaged; use an earlier checkpoint, or copy or "
            "download it again"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Return whether all values are finite: minimum and maximum suffice, without a mask."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    if tensor.element_size() == 1:  # 8-bit floats have no minimum or maximum
        tensor = tensor.float()
    return all(bool(torch.isfinite(end)) for end in tensor.aminmax())


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Copy tensors into a module that has exactly these; all or none.

    Args:
        module: module to fill; parameters without values are put on the CPU.
        tensors: tensors by the module's names.
        path: their file, for the message.

    Raises:
        InputError: if they do not fit.
        RuntimeError: if a buffer or attribute without values is not saved in the state dict.
    """
    check_fit(module, tensors, path)
    check_complete(module, tensors)
    own = [*module.parameters(), *module.buffers()]
    for outline in [one for one in own if one.is_meta]:
        torch.utils.swap_tensors(outline, _with_memory(outline))
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(tensors[name])


def check_complete(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors fill everything of a module that has no values.

    Raises:
        RuntimeError: if a buffer or attribute without values is not among them.
    """
    unsaved = [name for name, one in module.named_buffers() if name not in tensors and one.is_meta]
    unsaved += [
        f"{part}.{name}".removeprefix(".")
        for part, one in module.named_modules()
        for name, value in vars(one).items()
        if isinstance(value, Tensor) and value.is_meta
    ]
    if unsaved:
        raise RuntimeError(
            f"{', '.join(unsaved)}: made by torch.empty and not saved, so nothing fills it: "
            "make it with torch.zeros"
        )


def _with_memory(outline: Tensor) -> Tensor:
    real = torch.empty_strided(outline.shape, outline.stride(), dtype=outline.dtype)
    if isinstance(outline, nn.Parameter):
        return nn.Parameter(real, outline.requires_grad)
    return real


def some(names: Sequence[str]) -> str:
    """Return the first of many names, and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
