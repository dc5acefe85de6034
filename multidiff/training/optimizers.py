"""The optimizer of a run: a class by name, and parameter groups by pattern."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor, nn

from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion

if TYPE_CHECKING:
    from multidiff.training.trainer import Trainer

DEFAULT_BETAS = (0.9, 0.999)
FUSED_ON = ("cuda", "cpu")


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with their own learning rate or weight decay.

    Attributes:
        pattern: regular expression searched in a parameter's name, such as ``bias$``.
        learning_rate_factor: factor of the trainer's learning rate; 0 leaves the weights as they
            are.
        weight_decay: weight decay of the group; the trainer's where None.

    Raises:
        ValueError: if the pattern is not a regular expression, or a number is negative.
    """

    pattern: str
    learning_rate_factor: float = 1.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"pattern {self.pattern!r} is not a regular expression: {error}"
            ) from error
        for name in ("learning_rate_factor", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{name} {value:g}: must be 0 or more, and finite")


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """Return an optimizer's class.

    Args:
        name: name in ``torch.optim``, such as ``AdamW``, or ``module:Class``.

    Raises:
        ValueError: if there is no such optimizer, or its steps need a closure.
    """
    module, _, attribute = name.rpartition(":")
    try:
        found = getattr(importlib.import_module(module or "torch.optim"), attribute, None)
    except ImportError as error:
        raise ValueError(f"optimizer {name!r}: {error}") from error
    if not inspect.isclass(found) or not issubclass(found, torch.optim.Optimizer):
        known = [one for one in dir(torch.optim) if one[0].isupper() and one != "Optimizer"]
        raise ValueError(
            f"optimizer {name!r}: no such class in torch.optim, nor module:Class; "
            f"{suggestion(attribute, known)}"
        )
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"optimizer {name!r}: its steps need a closure, which this trainer has not"
        )
    return found


# Recipes check the name by the function, before anything is built.
OptimizerName = Annotated[str, optimizer_class]


def make_optimizer(task: nn.Module, settings: Trainer, device_type: str) -> torch.optim.Optimizer:
    """Return the optimizer of a task's trainable weights, fused where it can be.

    Args:
        task: what is trained.
        settings: the trainer's.
        device_type: kind of device that computes.

    Raises:
        InputError: if every weight is frozen, a pattern matches no weight, or the optimizer does
            not take a setting.
    """
    kind = optimizer_class(settings.optimizer)
    options = _options(kind, settings)
    if "fused" in _arguments(kind) and "fused" not in options and "foreach" not in options:
        options["fused"] = device_type in FUSED_ON
    try:
        return kind(_groups(task, settings), **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"trainer.optimizer {settings.optimizer}: {error}") from error


def _arguments(kind: type) -> set[str]:
    return set(inspect.signature(kind).parameters)


def _options(kind: type, settings: Trainer) -> dict[str, Any]:
    """Return the constructor's arguments besides the parameters."""
    taken = _arguments(kind)
    options: dict[str, Any] = {"lr": settings.learning_rate}
    for name, usual in (("betas", DEFAULT_BETAS), ("weight_decay", 0.0)):
        value = getattr(settings, name)
        if name in taken:
            options[name] = value
        elif value != usual:
            raise InputError(f"trainer.{name}: {settings.optimizer} takes none; leave it out")
    if "lr" in settings.optimizer_options:  # groups and the log have the trainer's
        raise InputError(
            "trainer.optimizer_options: lr is set by trainer.learning_rate; leave it out"
        )
    unknown = sorted(settings.optimizer_options.keys() - taken)
    if unknown:
        known = ", ".join(sorted(taken - {"params"}))
        raise InputError(
            f"trainer.optimizer_options: {settings.optimizer} takes no {unknown[0]!r}; it takes "
            f"{known}"
        )
    return options | dict(settings.optimizer_options)


def _groups(task: nn.Module, settings: Trainer) -> list[dict[str, Any]]:
    """Return the trainable weights by group; a weight belongs to the first pattern that matches."""
    rest: list[Tensor] = []
    matched: list[list[Tensor]] = [[] for _ in settings.parameter_groups]
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            hits = (
                i for i, one in enumerate(settings.parameter_groups) if re.search(one.pattern, name)
            )
            index = next(hits, None)
            (rest if index is None else matched[index]).append(parameter)
    if not rest and not any(matched):
        raise InputError(
            "every weight of the task is frozen, so nothing can be trained: load the model "
            "with load(name, trainable=True), or call requires_grad_() on a part"
        )
    groups = [{"params": rest}] if rest else []
    for group, parameters in zip(settings.parameter_groups, matched, strict=True):
        if not parameters:
            raise InputError(
                f"trainer.parameter_groups: {group.pattern!r} matches no trainable weight that an "
                "earlier pattern left; names are such as " + next(_names(task))
            )
        made: dict[str, Any] = {"params": parameters}
        made["lr"] = settings.learning_rate * group.learning_rate_factor
        if group.weight_decay is not None:
            made["weight_decay"] = group.weight_decay
        groups.append(made)
    return groups


def _names(task: nn.Module) -> Iterator[str]:
    return (repr(name) for name, one in task.named_parameters() if one.requires_grad)
