"""Weights that training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from multidiff.core.gaussian.distillation import check_alike
from multidiff.models.weights import load_into
from multidiff.utils.errors import InputError


@dataclass(frozen=True)
class InitFrom:
    """Weights to start training from: of a first stage, or of a model to be tuned.

    Attributes:
        model: whose they are: a name, a folder, a hub id, a foreign checkpoint.
        source_key: part of it that is read, such as ``autoencoder``; all of it where empty.
        target_key: part of the new model that receives it; all of it where empty.
    """

    model: str
    source_key: str = ""
    target_key: str = ""

    @property
    def has_denoiser(self) -> bool:
        """Return whether the denoiser of the new model is among the weights."""
        return self.target_key in ("", "denoiser")

    def put_into(self, target: nn.Module, source: nn.Module) -> None:
        """Copy the weights.

        Raises:
            InputError: if either has no such part, the parts do not fit each other, or a student
                could not read its teacher.
        """
        if _is_student(target) and self.has_denoiser:
            try:
                check_alike(getattr(target, "process", None), getattr(source, "process", None))
            except ValueError as error:
                raise InputError(
                    f"weights: {self.model}: {error}; copy model.process from the teacher's recipe"
                ) from error
        where = f"{self.model} ({self.source_key or 'all'} into {self.target_key or 'all'})"
        part = _part(target, self.target_key)
        tensors = {**_own_tensors(part), **_part(source, self.source_key).state_dict()}
        load_into(part, tensors, where)


def check_teacher(model: Any, initial: Sequence[InitFrom]) -> None:
    """Reject a model that is to be distilled from weights that nothing loads.

    Raises:
        InputError: if no initial weights have the denoiser.
    """
    if _is_student(model) and not any(one.has_denoiser for one in initial):
        raise InputError(
            "model.distillation: the teacher is missing; name it in the recipe's weights, such as "
            "weights: [{model: digits}]"
        )


def _own_tensors(part: nn.Module) -> dict[str, Any]:
    """Return tensors that only the new model has, such as adapters, from its parts."""
    return {
        f"{name}.{key}".removeprefix("."): tensor
        for name, one in part.named_modules()
        for key, tensor in getattr(one, "own_tensors", dict)().items()
    }


def _is_student(model: Any) -> bool:
    return getattr(model, "distillation", None) is not None


def _part(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        parts = ", ".join(n for n, _ in model.named_modules() if n and n.count(".") < 2)
        raise InputError(f"weights: the model has no part {name!r}; it has {parts}") from error
