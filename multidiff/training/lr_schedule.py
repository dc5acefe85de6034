"""The learning rate over the steps."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Literal, get_args

Decay = Literal["none", "linear", "cosine"]


def check_name(what: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is not known, with the nearest that is.

    Raises:
        ValueError: if it is not known.
    """
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{what} {name!r}: one of {', '.join(known)}{hint}")


def rate_at(step: int, steps: int, warmup_steps: int, decay: Decay, decay_from: float) -> float:
    """The factor of the learning rate at a step (from 0).

    Args:
        step: which.
        steps: of the whole training.
        warmup_steps: it grows linearly over these.
        decay: how it falls to 0.
        decay_from: share of the steps after which it falls; constant until then.

    Raises:
        ValueError: if the decay has no such name.
    """
    check_name("decay", decay, get_args(Decay))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    start = max(warmup_steps, decay_from * steps)
    if decay == "none" or step < start:
        return 1.0
    done = (step - start) / max(steps - start, 1)
    return 1 - done if decay == "linear" else (1 + math.cos(math.pi * done)) / 2
