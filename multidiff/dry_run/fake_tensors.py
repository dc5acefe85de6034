"""Operations without a GPU and without the memory that they take.

Weights, and everything computed from them, are fake tensors: shapes without values
(:class:`torch._subclasses.fake_tensor.FakeTensorMode`). Tensors that depend on data, tables
and random draws only keep their values, so that code which depends on them (alignments of
texts, masks, fractions of a batch) runs as in training.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten
READS_A_VALUE = aten._local_scalar_dense.default
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class UnknownValueError(RuntimeError):
    """Code reads a value that depends on weights, which have no values here."""


class DeviceGenerator(torch.Generator):
    """A CPU generator that names another device, for draws of fake tensors there.

    Args:
        device: the device that it names.
        seed: random seed.
    """

    def __new__(cls, device: torch.device, seed: int) -> DeviceGenerator:
        """Create a CPU generator."""
        return super().__new__(cls, "cpu")  # pyright: ignore[reportCallIssue]

    def __init__(self, device: torch.device, seed: int):
        self._named = device
        self.manual_seed(seed)

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Device of the draws."""
        return self._named


class LiveMemory:
    """Bytes of the tensors that exist, counted by their storages.

    Attributes:
        now: bytes at present.
        peak: largest number of bytes at any moment; set it to ``now`` to start again.
        made: number of storages made so far.
    """

    def __init__(self) -> None:
        self.now = self.peak = self.made = 0
        self._seen: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen[storage] = size
        self.made += 1
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, size).atexit = False

    def _freed(self, size: int) -> None:
        self.now -= size


class ValuesWhereKnown(TorchDispatchMode):
    """Runs operations on fake tensors, and on values as far as they exist.

    An operation whose tensors all have values has a value itself. On the CPU that is an ordinary
    tensor; on a fake device a fake one, whose value is kept beside it on the CPU. An operation on
    a tensor without values yields a fake one.

    Args:
        fake: mode that makes fake tensors, entered before this one.
        memory: counter of every tensor.
    """

    def __init__(self, fake: FakeTensorMode, memory: LiveMemory):
        super().__init__()
        self.fake, self.memory = fake, memory
        self._values: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._origins: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def value_of(self, tensor: Tensor) -> Tensor | None:
        """Return the value of a tensor on the CPU; None if it has only a shape."""
        return self._values.get(tensor) if isinstance(tensor, FakeTensor) else tensor

    def keep(self, tensor: Any, value: Any) -> None:
        """Keep a value beside a fake tensor."""
        if isinstance(tensor, FakeTensor) and isinstance(value, Tensor):
            self._values[tensor] = value

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation."""
        if func is torch.ops.prim.device.default:  # the most frequent one by far
            return args[0].fake_device
        kwargs = kwargs or {}
        tensors = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        known = all(self.value_of(one) is not None for one in tensors)
        if known and _on_cpu(kwargs) and not any(isinstance(one, FakeTensor) for one in tensors):
            with unset_fake_temporarily():
                out = func(*args, **kwargs)
        elif known:
            value = self._valued(func, args, kwargs)
            if func is READS_A_VALUE:
                return value
            out = self._faked(func, args, kwargs, value)
            pairs = zip(pytree.tree_leaves(out), pytree.tree_leaves(value), strict=True)
            for made, found in pairs:
                self.keep(made, found)
        else:
            out = self._faked(func, args, kwargs, None)
            if func._schema.is_mutable:  # unknown values were written into a tensor with values
                self._values.pop(args[0], None) if isinstance(args[0], FakeTensor) else None
        pytree.tree_map_only(Tensor, self.memory.add, out)
        return out

    def _valued(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return the result on the CPU, for arguments that have values."""

        def plain(one: Any) -> Any:
            if isinstance(one, Tensor):
                return self.value_of(one)
            return torch.device("cpu") if isinstance(one, torch.device) else one

        args, kwargs = pytree.tree_map(plain, (args, kwargs))
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    def _faked(self, func: Any, args: Any, kwargs: Any, value: Any) -> Any:
        """Return the result as fake tensors; its shape may depend on the value."""
        if func in INDEXING:
            args = (args[0], self._by_number(args[1]), *args[2:])
        args, kwargs = pytree.tree_map_only(Tensor, self._fake_of, (args, kwargs))
        try:
            return func(*args, **kwargs)
        except DynamicOutputShapeException:
            if value is None:
                raise UnknownValueError(f"the shape of {func} depends on weights") from None
            device = next(one.device for one in pytree.tree_leaves(args) if _is_tensor(one))
            return pytree.tree_map_only(Tensor, lambda one: self.shaped(one, device), value)
        except DataDependentOutputException:
            return _any_number(args[0])

    def _fake_of(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        with unset_fake_temporarily():
            made = self.fake.from_tensor(tensor.detach(), static_shapes=True)
        # As long as a fake tensor is kept for the backward pass, so is the one it was made from.
        self._origins[made.untyped_storage()] = tensor
        return made

    def shaped(self, value: Tensor, device: torch.device) -> Tensor:
        """Return a fake tensor of the same shape on a device, without a value."""
        with self.fake:
            return torch.empty_strided(
                value.shape, value.stride(), dtype=value.dtype, device=device
            )

    def _by_number(self, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return indices in which masks that have values are replaced by index tensors."""
        numbered: list[Tensor | None] = []
        for index in indices:
            value = None if index is None else self.value_of(index)
            if index is None or value is None or index.dtype not in (torch.bool, torch.uint8):
                numbered.append(index)
                continue
            with unset_fake_temporarily():
                locations = value.nonzero(as_tuple=True)
            numbered += [self.shaped(one, index.device) for one in locations]
        return numbered


def _on_cpu(kwargs: dict[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is None or torch.device(device).type == "cpu"


def _is_tensor(one: Any) -> bool:
    return isinstance(one, Tensor)


def _any_number(tensor: Tensor) -> int:
    """Return 0 for an integer that depends on weights, such as a chosen word.

    Raises:
        UnknownValueError: if it is not an integer: no stand-in fits a measure or a condition.
    """
    if tensor.dtype in (torch.bool,) or tensor.is_floating_point():
        raise UnknownValueError("a value is read that depends on weights, which have none here")
    return 0


def give_fakes(
    module: nn.Module, device: torch.device, values: ValuesWhereKnown
) -> list[nn.Parameter]:
    """Replace a module's parameters by fake tensors.

    Networks outside the module that its objects hold are put on the CPU: those objects move
    them. Buffers keep their values: on the CPU they are copies, elsewhere
    fake tensors with values.

    Args:
        module: the module.
        device: its device.
        values: mode that makes the fake tensors, and counts them.

    Returns:
        The parameters, each once.
    """
    made = _faked_parts(module, device, values)
    for network in _held(module):
        made |= _faked_parts(network, torch.device("cpu"), values)
        # torch cannot move parameters that are fake.
        network.to = functools.partial(_moved, network, values)  # type: ignore[method-assign]
    return list(made.values())


def _faked_parts(
    module: nn.Module, device: torch.device, values: ValuesWhereKnown
) -> dict[int, nn.Parameter]:
    """Put fake tensors into a module; return the parameters by the identity of the old ones."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in made:
                fake = values.shaped(parameter.data, device)
                made[id(parameter)] = nn.Parameter(fake, parameter.requires_grad)
                values.memory.add(made[id(parameter)])
            part._parameters[name] = made[id(parameter)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = placed(buffer, device, values)
    return made


def _held(module: nn.Module) -> list[nn.Module]:
    """Return networks that are attributes of plain objects held by parts of a module."""
    own = set(module.modules())
    plain = [one for part in own for one in vars(part).values() if hasattr(one, "__dict__")]
    networks = [net for one in plain for net in vars(one).values() if isinstance(net, nn.Module)]
    return [one for one in dict.fromkeys(networks) if one not in own]


def _moved(network: nn.Module, values: ValuesWhereKnown, device: torch.device | str) -> nn.Module:
    if next(network.parameters()).device != torch.device(device):
        _faked_parts(network, torch.device(device), values)
    return network


def placed(tensor: Tensor, device: torch.device, values: ValuesWhereKnown) -> Tensor:
    """Return a copy of a tensor that has values, on a device that need not exist."""
    if tensor.is_meta:  # never had a value
        found = values.shaped(tensor, device)
        values.memory.add(found)
        return found
    copy = tensor.detach().clone()
    if device.type != "cpu":
        found = values.shaped(copy, device)
        values.keep(found, copy)
        copy = found
    values.memory.add(copy)
    return copy
