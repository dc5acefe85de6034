"""Objective of a training step: the losses of a task, as a module and in total."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from multidiff.core.random import Rng
from multidiff.core.task import TAKEN


class Losses(nn.Module):
    """A task as a module whose forward pass returns its losses, for engines that wrap modules."""

    def __init__(self, task: nn.Module):
        super().__init__()
        self.task: Any = task

    def forward(self, batch: Any, rng: Rng) -> dict[str, Tensor]:
        """Return the mean losses by name.

        Raises:
            ValueError: if a loss has a name that is reserved in the log.
        """
        found = self.task.losses(batch, rng)
        taken = sorted((TAKEN - {"denoising"}) & found.keys())
        if taken:
            raise ValueError(
                f"a loss is named {taken[0]!r}, which is reserved in the log: rename it"
            )
        return {name: _full(loss.mean()) for name, loss in found.items()}


def parts_of_mean(losses: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return what a batch's losses contribute to the means over several batches."""
    return losses if count == 1 else {name: loss / count for name, loss in losses.items()}


def total(losses: dict[str, Tensor]) -> Tensor:
    """Return the sum of the losses."""
    first, *others = losses.values()
    return torch.stack([first, *others]).sum() if others else first


def _full(loss: Tensor) -> Tensor:
    return loss.float() if loss.dtype in (torch.bfloat16, torch.float16) else loss
