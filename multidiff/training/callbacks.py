"""Callbacks: code of the user's that training calls at fixed moments."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from multidiff.core.draws import default_generator_seeded
from multidiff.training.logging import TrainingLog
from multidiff.utils.errors import InputError
from multidiff.utils.readers import reason_of


@dataclass
class TrainingState:
    """A run as its callbacks see it.

    Attributes:
        step: number of steps done.
        steps: number of steps of the whole run.
        task: the task, with the weights that are trained.
        folder: folder of the run; None if nothing is written.
        log: log of the run: ``log.say(line)`` prints a line, and ``log.writer`` has TensorBoard's
            ``add_scalar``, ``add_image``, ``add_audio`` and ``add_text``, for all trackers.
        averaged: context in which the task has the averaged weights and is in eval mode.
        stop_reason: reason given to :meth:`stop`; empty while training goes on.
    """

    step: int
    steps: int
    task: nn.Module
    folder: Path | None
    log: TrainingLog
    averaged: Callable[[], AbstractContextManager[None]]
    stop_reason: str = field(default="", init=False)

    def stop(self, reason: str) -> None:
        """End training after this step, and save it as if it were the last one."""
        self.stop_reason = reason


class Callback:
    """Base class of callbacks; a subclass overrides the moments that it needs.

    In recipes: ``callbacks: [{use: package.module:Class, ...}]``. Every process calls them. Random
    draws of a callback from the default generators of torch, numpy and Python are a function of the
    seed and the step, and no others see them. What a callback does to the weights is part of
    training, but no checkpoint records it.
    """

    by_path = True  # recipes name subclasses by module:Class

    def on_train_begin(self, state: TrainingState) -> None:
        """Act before the first step, also of a resumed run."""

    def on_step_end(self, state: TrainingState) -> None:
        """Act after an update of the weights."""

    def on_log(self, state: TrainingState, values: Mapping[str, float]) -> None:
        """Act after a line of the log: means of the losses since the last one."""

    def on_validation(self, state: TrainingState, losses: Mapping[str, float]) -> None:
        """Act after a validation, with its losses."""

    def on_save(self, state: TrainingState, path: Path) -> None:
        """Act after a checkpoint, of which only the first process can rely on the files."""

    def on_train_end(self, state: TrainingState) -> None:
        """Act after the last step; the task has the averaged weights."""


class CallbackError(InputError):
    """A callback that raised."""


class Callbacks:
    """The callbacks of a run, called in their order.

    Args:
        callbacks: the callbacks.
        state: what they see.
        device: device whose default generator they draw from.
        seed_at: function that returns the random seed of a step.
        any_process: function that returns whether something is true in any process.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        state: TrainingState,
        device: torch.device,
        seed_at: Callable[[int], int],
        any_process: Callable[[bool], bool],
    ):
        self.state, self.device = state, device
        self._seed_at, self._any_process = seed_at, any_process
        self._by_moment: dict[str, list[Callback]] = {}
        for one in callbacks:
            for moment in vars(Callback):
                if moment.startswith("on_") and _overrides(one, moment):
                    self._by_moment.setdefault(moment, []).append(one)

    @property
    def stop_reason(self) -> str:
        """Return why a callback of this process ends training; empty if none does."""
        return self.state.stop_reason

    def __call__(self, moment: str, step: int, *values: Any) -> bool:
        """Call those that override a method, and return whether there are any.

        Raises:
            CallbackError: if one raises, here or in another process.
        """
        if moment not in self._by_moment:
            return False
        self.state.step = step
        for one in self._by_moment[moment]:
            fault = self._fault_of(one, moment, values)
            if self._any_process(fault is not None):
                self._by_moment.clear()  # none is called while the run is saved
                name = f"callback {type(one).__name__}.{moment}"
                raise CallbackError(f"step {step}: {name}: {_described(fault)}") from fault
        return True

    def _fault_of(self, one: Callback, moment: str, values: Sequence[Any]) -> Exception | None:
        with _draws_apart(self._seed_at(self.state.step), self.device):
            try:
                getattr(one, moment)(self.state, *values)
            except Exception as error:
                return error
        return None


def _described(fault: Exception | None) -> str:
    if fault is None:
        return "raised in another process"
    frame = traceback.extract_tb(fault.__traceback__)[-1]
    return (
        f"{type(fault).__name__} ({Path(frame.filename).name}:{frame.lineno}): {reason_of(fault)}"
    )


def _overrides(one: Callback, moment: str) -> bool:
    return getattr(type(one), moment) is not getattr(Callback, moment)


@contextmanager
def _draws_apart(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the default generators of torch, numpy and Python, and restore them afterwards."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with default_generator_seeded(seed, device):
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
