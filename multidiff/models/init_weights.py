"""Weights that training starts from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

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

    def put_into(self, target: nn.Module, source: nn.Module) -> None:
        """Copy the weights.

        Raises:
            InputError: if either has no such part, or the parts do not fit each other.
        """
        where = f"{self.model} ({self.source_key or 'all'} into {self.target_key or 'all'})"
        load_into(
            _part(target, self.target_key), _part(source, self.source_key).state_dict(), where
        )


def _part(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        parts = ", ".join(n for n, _ in model.named_modules() if n and n.count(".") < 2)
        raise InputError(f"weights: the model has no part {name!r}; it has {parts}") from error
