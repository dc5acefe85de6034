"""Guidance within an interval of noise levels, and by a weaker version of the model."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from multidiff.core.protocols import Condition, Denoiser, Level


@runtime_checkable
class Guided(Protocol):
    """A guided denoiser that holds the plain one, such as ``ClassifierFreeGuidance``."""

    denoiser: Denoiser

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the guided prediction."""
        ...


class IntervalGuidance:
    """Guidance at some noise levels only (Kynkaanniemi et al. 2024).

    Guidance harms at large noise, where it costs diversity, and does nothing at small noise.
    Outside the interval the conditional prediction is returned as it is, at half the cost.

    Args:
        guided: the guidance within the interval, such as ``ClassifierFreeGuidance(denoiser, 3)``.
        lowest: noise-to-signal ratio ``sigma / alpha`` above which it guides.
        highest: ratio up to which it guides.

    Raises:
        ValueError: if the interval is empty.
    """

    def __init__(self, guided: Guided, lowest: float = 0.0, highest: float = math.inf):
        if not 0 <= lowest < highest:
            raise ValueError(f"guidance from sigma / alpha {lowest:g} to {highest:g}: empty")
        self.guided, self.denoiser = guided, guided.denoiser
        self.lowest, self.highest = lowest, highest

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the prediction, guided where the level lies within the interval."""
        ratio = level.sigma / level.alpha
        inside = (ratio > self.lowest) & (ratio <= self.highest)
        if bool(inside.all()):
            return self.guided(xt, level, condition)
        plain = self.denoiser(xt, level, condition)
        if not bool(inside.any()):
            return plain
        rows = inside.to(plain.device).reshape(-1, *[1] * (plain.ndim - 1))
        return torch.where(rows, self.guided(xt, level, condition), plain)


class Autoguidance:
    """``weak + scale (denoiser - weak)``: away from a worse model (Karras et al. 2024).

    The weak model is a smaller or less trained version, such as an early checkpoint, with the
    same process and prediction. It needs no condition to be dropped in training.

    Args:
        denoiser: the network.
        weak: its weaker version.
        scale: 1 is off, and then the network alone is evaluated.

    Raises:
        ValueError: if the scale is negative.
    """

    def __init__(self, denoiser: Denoiser, weak: Denoiser, scale: float):
        if scale < 0:
            raise ValueError(f"guidance scale {scale:g} < 0")
        self.denoiser, self.weak, self.scale = denoiser, weak, scale

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the guided prediction."""
        strong = self.denoiser(xt, level, condition)
        if self.scale == 1:
            return strong
        weak = self.weak(xt, level, condition)
        return weak + self.scale * (strong - weak)
