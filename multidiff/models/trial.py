"""Check of a recipe without its data: what constructors reject, and which files are missing.

Components are built as in training, on ``meta`` where they have weights, until one would
read its data; components that hold that one are built around a stand-in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import nn

from multidiff.config.build import Spec
from multidiff.models.init_weights import InitFrom
from multidiff.models.loading import check_model_name, check_recipe
from multidiff.models.weights import without_values
from multidiff.training.recomputation import begin_checkpointing
from multidiff.training.trainer import Trainer
from multidiff.utils.errors import InputError
from multidiff.utils.readers import DataWithheld, withheld_data

MOST_PARAMETERS = 1_000_000_000_000


def try_recipe(path: Path, overrides: Sequence[str] = (), *, data: bool = True) -> None:
    """Find everything wrong in a recipe, as far as possible without reading its data.

    Args:
        path: the recipe.
        overrides: ``key.path=value`` changes to it.
        data: whether the data must exist, too.

    Raises:
        InputError: if anything is wrong, with every error on a line of its own.
    """
    trial = Trial(data)
    with withheld_data(), without_values():
        parts = check_recipe(path, overrides)
        built = {section: trial.of(part) for section, part in parts.items()}
        trial.check_needs(built)
    if trial.faults:
        raise InputError(*trial.faults)


class Trial:
    """Builds components and collects their errors.

    Args:
        data: whether data sources must exist, too.
    """

    def __init__(self, data: bool):
        self.data = data
        self.faults: list[str] = []

    def of(self, part: Spec) -> Any:
        """Return the component, or a stand-in if it is wrong or would read its data."""
        built = {key: self.of(argument) for key, argument in part.arguments.items()}
        if part.make is None:
            return part.build()
        stood_in = any(isinstance(one, StandIn) for one in built.values())
        try:
            made = part.make(built)
            self._look_at(made, part)
        except DataWithheld:
            return StandIn()
        except InputError as fault:
            if not stood_in or isinstance(fault.__cause__, ValueError):
                self.faults += str(fault).splitlines()
            return StandIn()
        return made

    def check_needs(self, built: Mapping[str, Any]) -> None:
        """Report settings of the trainer that another section does not fulfil."""
        trainer, model = built.get("trainer"), built.get("model")
        try:
            if isinstance(trainer, Trainer):
                trainer.check_needs("validation" in built)
                if trainer.gradient_checkpointing and isinstance(model, nn.Module):
                    begin_checkpointing(model)
        except InputError as fault:
            self.faults.append(str(fault))

    def _look_at(self, made: Any, part: Spec) -> None:
        """Report a module of absurd size, and missing files."""
        if isinstance(made, nn.Module):
            count = sum(one.numel() for one in made.parameters())
            if count > MOST_PARAMETERS:
                name = type(made).__name__
                fault = f"{name} has {count:,} parameters; make it smaller"
                self.faults.append(f"{part.where}: {fault}")
        if not self.data:
            return
        try:
            if isinstance(made, InitFrom):
                check_model_name(made.model)
            elif isinstance(made, Located):
                made.check_path()
        except InputError as fault:
            where = part.arguments.get("path", part.arguments.get("model", part)).where
            self.faults.append(f"{where}: {fault}")


@runtime_checkable
class Located(Protocol):
    """A component made from files that must exist."""

    def check_path(self) -> None:
        """Reject a path that does not exist, before any network call."""
        ...


class StandIn:
    """Placeholder for data that are not read, or for a component already reported as wrong."""

    lengths = np.ones(1, int)

    def __len__(self) -> int:
        return 1

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Raise: no example is read here."""
        raise DataWithheld

    def batch(self, number: int, part: int = 0, parts: int = 1) -> dict[str, Any]:
        """Raise: no batch is read here."""
        raise DataWithheld
