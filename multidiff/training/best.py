"""The best validation of a run: early stopping, and the checkpoint that is kept for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multidiff.utils.errors import InputError


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """The end of a run whose validation loss falls no longer (Prechelt 1998).

    Attributes:
        metric: name of a validation loss, such as ``denoising``.
        patience: number of validations without improvement after which training ends.
        min_delta: decrease from which a validation counts as an improvement.

    Raises:
        ValueError: if a number is out of range.
    """

    metric: str
    patience: int
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"patience {self.patience}: must be at least 1")
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"min_delta {self.min_delta:g}: must be 0 or more, and finite")


class BestSoFar:
    """The best validation losses so far, kept in checkpoints.

    Args:
        stopping: rule of early stopping; None never stops.
        keep_best: name of the validation loss whose best checkpoint is kept; None keeps none.

    Attributes:
        waited: number of validations since the last improvement that early stopping counts.
        best: best value of ``keep_best``.
        best_step: step of that value.
    """

    def __init__(self, stopping: EarlyStopping | None, keep_best: str | None):
        self.stopping, self.keep_best = stopping, keep_best
        self.waited, self.best_step = 0, 0
        self.least = self.best = math.inf

    @property
    def metrics(self) -> dict[str, str]:
        """Return the validation losses that are needed, by the setting that names them."""
        named = {"keep_best": self.keep_best}
        named["early_stopping.metric"] = self.stopping and self.stopping.metric
        return {setting: metric for setting, metric in named.items() if metric is not None}

    @property
    def reason(self) -> str:
        """Return why training should end; empty if it goes on."""
        if self.stopping is None or self.waited < self.stopping.patience:
            return ""
        return (
            f"trainer.early_stopping: {self.stopping.metric} has not improved in {self.waited} "
            f"validations (best {self.least:.6g}); more patience and --resume continue it"
        )

    def check(self, losses: Mapping[str, float]) -> None:
        """Reject settings that name no validation loss.

        Raises:
            InputError: if one does, naming those that exist.
        """
        for setting, metric in self.metrics.items():
            if metric not in losses:
                known = ", ".join(sorted(losses))
                raise InputError(
                    f"trainer.{setting}: no validation loss {metric!r}; name one of {known}"
                )

    def see(self, step: int, losses: Mapping[str, float]) -> bool:
        """Take in the losses of a validation, and return whether its checkpoint is to be kept."""
        if self.stopping is not None:
            # Batches drawn at random may all lack a loss: then nothing has improved.
            value = losses.get(self.stopping.metric, math.inf)
            self.waited += 1
            if value < self.least - self.stopping.min_delta:
                self.least, self.waited = value, 0
        if self.keep_best is None or not losses.get(self.keep_best, math.inf) < self.best:
            return False
        self.best, self.best_step = losses[self.keep_best], step
        return True

    def state(self) -> dict[str, Any]:
        """Return the counters as JSON values; empty where nothing is counted."""
        state: dict[str, Any] = {}
        if self.stopping is not None and self.least < math.inf:
            metric = self.stopping.metric
            state["early_stopping"] = {"metric": metric, "best": self.least, "waited": self.waited}
        if self.keep_best is not None and self.best_step:
            found = {"metric": self.keep_best, "best": self.best, "step": self.best_step}
            state["keep_best"] = found
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the counters of :meth:`state`; those of another metric begin again."""
        found = state.get("early_stopping", {})
        if self.stopping is not None and found.get("metric") == self.stopping.metric:
            self.least, self.waited = found["best"], found["waited"]
        found = state.get("keep_best", {})
        if self.keep_best is not None and found.get("metric") == self.keep_best:
            self.best, self.best_step = found["best"], found["step"]
