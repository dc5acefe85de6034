"""What is trained: a domain, a process and a denoiser, and the losses they imply."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.guidance import leave_out
from multidiff.core.protocols import Condition, Domain, Process
from multidiff.core.randomness import Rng, uniform


class DiffusionTask(nn.Module):
    """Denoising on one process.

    Args:
        domain: media to states; a module if it learns something of its own.
        process: how states are corrupted.
        denoiser: the network.
        drop_condition: share of the samples whose condition is left out, for guidance.
    """

    def __init__(
        self, domain: Domain, process: Process, denoiser: nn.Module, drop_condition: float = 0.0
    ):
        super().__init__()
        if not 0 <= drop_condition <= 1:
            raise ValueError(f"drop_condition {drop_condition:g} is not in [0, 1]")
        self.domain, self.process, self.denoiser = domain, process, denoiser
        self.drop_condition = drop_condition
        # A draw of times that learns is a module: registered, it is saved and moved with us.
        self.times = getattr(process, "times", None)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the denoiser, where the work is; see :meth:`torch.nn.Module.compile`."""
        self.denoiser.compile(*args, **kwargs)

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """The losses of each sample by name; training minimises the mean of their sum."""
        with torch.autocast(_device_type(self), enabled=False):
            encoded = self.domain.encode(batch, rng)
            level = self.process.draw_level(len(encoded.clean), rng).to(encoded.clean.device)
            corrupted = self.process.corrupt(encoded.clean, level, rng)
            condition = self._condition(encoded.condition, len(encoded.clean), rng)
        output = self.denoiser(corrupted.noisy, level, condition)
        with torch.autocast(_device_type(self), enabled=False):
            output = output.to(encoded.clean.dtype)
            loss = self.process.loss(output, corrupted, encoded.mask)
            estimate = self.process.estimate(output, corrupted.noisy, level)
            extra = self.domain.extra_losses(encoded, corrupted, estimate)
        return {"denoising": loss, **extra}

    def _condition(self, condition: Condition, batch: int, rng: Rng | None) -> Condition:
        if condition is None or self.drop_condition == 0:
            return condition
        return leave_out(condition, uniform((batch,), rng) < self.drop_condition)


def _device_type(module: nn.Module) -> str:
    return next(module.parameters()).device.type
