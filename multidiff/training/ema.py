"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """A slowly moving copy of a module's parameters.

    The decay warms up as ``(1 + n) / (10 + n)`` after ``n`` updates (0.18, 0.55, 0.92 after 1,
    10, 100): a constant 0.9999 would keep nine tenths of the untrained network after a
    thousand. Buffers are not averaged: the copy shares the module's.

    Args:
        module: module whose parameters are averaged.
        decay: decay after warm-up.
    """

    def __init__(self, module: nn.Module, decay: float = 0.9999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay:g}")
        self.module, self.decay, self.updates = module, decay, 0
        self.shadow = {name: p.detach().clone() for name, p in module.named_parameters()}
        # Looked up once: to walk through the module at each step costs more than the average.
        self._followed: list[Tensor] = [*module.parameters()]

    def decay_now(self) -> float:
        """Return the decay of the next update."""
        count = self.updates + 1
        return min(self.decay, (1 + count) / (10 + count))

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the module's current parameters."""
        average = get_ema_multi_avg_fn(self.decay_now())
        average([*self.shadow.values()], self._followed, self.updates)
        self.updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averaged parameters into the module, for validation and sampling."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for shadow, parameter in self._pairs():
            kept = parameter.detach().clone()
            parameter.copy_(shadow)
            shadow.copy_(kept)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.shadow[name], p.detach()) for name, p in self.module.named_parameters()]
