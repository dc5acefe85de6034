"""Views of a model: objects of their own that share its weights.

What is changed on a view, such as a hook, a layer or a sampling default, does not reach the model
or its other views.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def shared_copy(model: nn.Module) -> Any:
    """Return a copy of a model and of all modules in it, with the same parameters and buffers.

    It costs a few kilobytes a module. Values of attributes that are no modules are shared.
    """
    made: dict[int, nn.Module] = {}

    def copied(one: nn.Module) -> nn.Module:
        if id(one) in made:
            return made[id(one)]
        new = object.__new__(type(one))
        made[id(one)] = new
        for name, value in one.__dict__.items():
            if isinstance(value, nn.Module):  # not registered, such as a loaded companion
                value = copied(value)
            elif name == "_modules":
                value = {key: child and copied(child) for key, child in value.items()}
            elif name.startswith("_") and isinstance(value, dict):  # parameters, buffers, hooks
                value = value.copy()
            new.__dict__[name] = value
        return new

    return copied(model)


def call_before(model: nn.Module, function: Callable[[], None]) -> None:
    """Call a function before each part of a model that has parts: every block of its networks."""
    for module in _modules_in(model):
        if any(True for _ in module.children()):
            module.register_forward_pre_hook(lambda module, inputs: function())


def _modules_in(model: nn.Module) -> list[nn.Module]:
    """Return all modules, those of companions that are not registered too."""
    companions = [one for one in model.__dict__.values() if isinstance(one, nn.Module)]
    return [*model.modules(), *(one for each in companions for one in each.modules())]
