"""Loss scaling of float16: gradients that would underflow are scaled up, and back before use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from multidiff.utils.errors import InputError

LEAST_SCALE = 2.0**-14


class LossScaler:
    """Dynamic loss scale (Micikevicius et al. 2018), by :class:`torch.amp.GradScaler`.

    A step whose gradients overflow is skipped and the scale halved; after 2,000 steps without
    overflow it is doubled.

    Args:
        device_type: kind of device that computes.

    Attributes:
        skipped: number of steps skipped so far.
    """

    def __init__(self, device_type: str):
        self.scaler = torch.amp.GradScaler(device_type)
        self.skipped = 0

    @property
    def scale(self) -> float:
        """Return the present scale."""
        return self.scaler.get_scale()

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss times the scale."""
        return self.scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, before they are clipped."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Update the weights, and return whether that was done rather than skipped.

        Raises:
            InputError: if the gradients overflow however small the scale is.
        """
        before = self.scale
        self.scaler.step(optimizer)
        self.scaler.update()
        done = self.scale >= before
        self.skipped += not done
        if self.scale < LEAST_SCALE:
            raise InputError(
                f"the gradients are not finite in float16, {self.skipped} steps were skipped; use "
                "trainer.precision=bf16 or fp32"
            )
        return done

    def state(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {**self.scaler.state_dict(), "skipped": self.skipped}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        found = dict(state)
        self.skipped = found.pop("skipped")
        self.scaler.load_state_dict(found)
