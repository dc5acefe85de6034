"""Learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from multidiff.utils.names import suggestion

Decay = Literal["none", "linear", "cosine"]


def check_name(what: str, name: str, known: Sequence[str]) -> None:
    """Reject an unknown name, and suggest the nearest known one.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; {suggestion(name, known)}")


def rate_at(step: int, steps: int, warmup_steps: int, decay: Decay, decay_from: float) -> float:
    """Return the factor on the learning rate at a step (from 0).

    Args:
        step: number of the step.
        steps: number of steps of the whole training.
        warmup_steps: number of steps over which it grows linearly.
        decay: shape of its decay to 0.
        decay_from: fraction of the steps after which it decays; constant until then.

    Raises:
        ValueError: if the decay is unknown.
    """
    check_name("decay", decay, get_args(Decay))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    start = max(warmup_steps, decay_from * steps)
    if decay == "none" or step < start:
        return 1.0
    done = (step - start) / max(steps - start, 1)
    return 1 - done if decay == "linear" else (1 + math.cos(math.pi * done)) / 2
