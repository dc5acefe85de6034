"""Adapter for networks that take ``(x, timestep)``, such as those of diffusers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.guidance import map_condition
from multidiff.core.protocols import Condition


class TimestepDenoiser(nn.Module):
    """A denoiser around a network that takes a noisy state and a timestep index.

    Networks of diffusers embed a timestep from 0 to 999. Given ``level.time``, which lies in
    [0, 1], they would always see nearly the same timestep.

    Args:
        network: called as ``network(xt, timestep, ...)``; returns a tensor, a tuple with the
            tensor first, or an object with it as ``sample``.
        steps: number of timesteps that the network was trained with.
        condition: the network's argument name for a condition that is a tensor, such as
            "class_labels" or "encoder_hidden_states". A dict is passed by its own keys.
        left_out: index that replaces a dropped integer condition, -1 in this package; the
            network's embedding needs a row for it, such as ``num_class_embeds - 1``.

    Raises:
        ValueError: if ``steps`` is less than 1.
    """

    def __init__(
        self,
        network: nn.Module,
        steps: int = 1000,
        condition: str | None = None,
        left_out: int | None = None,
    ):
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        super().__init__()
        self.network, self.steps = network, steps
        self.condition, self.left_out = condition, left_out

    def forward(self, xt: Tensor, level: NoiseLevel, condition: Condition = None) -> Tensor:
        """Return the network's prediction.

        Raises:
            TypeError: if a condition is passed and the network's argument name was not given.
        """
        timestep = level.timestep(self.steps).to(xt.device)
        output = self.network(xt, timestep, **self._named(condition))
        if isinstance(output, tuple):
            return output[0]
        return output if isinstance(output, Tensor) else output.sample

    def _named(self, condition: Condition) -> dict[str, Any]:
        if condition is None:
            return {}
        read = map_condition(self._without_blanks, condition)
        if isinstance(read, dict):
            return read
        if self.condition is None:
            raise TypeError(
                "a condition was passed, but the network's argument name for it is not set: use "
                'TimestepDenoiser(network, condition="class_labels")'
            )
        return {self.condition: read}

    def _without_blanks(self, part: Tensor) -> Tensor:
        if self.left_out is None or part.is_floating_point() or part.dtype == torch.bool:
            return part
        return torch.where(part < 0, self.left_out, part)
