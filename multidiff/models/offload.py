"""Parts of a model on a device only while they compute, where its memory is short.

All parts stay in the processor's memory; the one whose turn it is moves to the device, and the one
before moves back. The device then holds the largest part, not their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multidiff.utils.errors import InputError


class Offload:
    """Moves parts of a model to a device when they are called.

    Args:
        parts: parts by name, each with the modules of it that calls enter by.
        device: device that computes.

    Attributes:
        device: device that computes.
        current: name of the part that is there; None at first.
    """

    def __init__(
        self,
        parts: Mapping[str, tuple[nn.Module, Sequence[nn.Module]]],
        device: str | torch.device,
    ):
        self.device, self.current = torch.device(device), None
        self._parts = {name: part for name, (part, _) in parts.items()}
        for name, (_, entries) in parts.items():
            for entry in entries:
                entry.register_forward_pre_hook(self._hook(name), with_kwargs=True)

    def use(self, name: str) -> None:
        """Move a part to the device, and the one that is there back."""
        if name == self.current:
            return
        if self.current is not None:
            self._parts[self.current].to("cpu")
        self._parts[name].to(self.device)
        self.current = name

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple:
            self.use(name)
            return _moved(args, self.device), _moved(kwargs, self.device)

        return hook


def offloaded(model: Any, device: str | torch.device) -> Any:
    """Return a model whose parts move to a device when their turn comes.

    Raises:
        InputError: if it has no parts that compute one after the other.
    """
    parts = getattr(model, "offloaded_parts", dict)()
    if not parts:
        kind = type(model).__name__
        raise InputError(f"--offload: {kind} has no parts that take turns; leave it out")
    model.offload = Offload(parts, device)
    return model


def _moved(value: Any, device: torch.device) -> Any:
    """Return tensors, also in tuples and dicts, on the device; other values as they are."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(_moved(one, device) for one in value)
    if isinstance(value, dict):
        return {key: _moved(one, device) for key, one in value.items()}
    return value
