"""Seconds within the networks of the models that ship."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

CLOCK = time.process_time
NETWORK = "its network"
# Of each model whose sampling is a walk, the part that is the network, and its methods.
_DENOISER = ("denoiser", ("forward",))
NETWORKS = {
    "speech": _DENOISER,
    "digits": _DENOISER,
    "digit-tokens": _DENOISER,
    "restaurant": _DENOISER,
    "masked": _DENOISER,
    "edits": ("editor", ("encode", "tags", "template", "write")),
}


def watch(owner: Any, method: str, what: str, spent: dict[str, float]) -> None:
    """Count the CPU seconds within a method from now on.

    Args:
        owner: whose method it is.
        method: its name.
        what: it is counted as.
        spent: seconds by what they are counted as.
    """
    inner: Callable[..., Any] = getattr(owner, method)

    def counting(*args: Any, **kwargs: Any) -> Any:
        began = CLOCK()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[what] += CLOCK() - began

    setattr(owner, method, counting)


def watch_network(name: str, model: Any, spent: dict[str, float]) -> None:
    """Count the CPU seconds of a shipped model's network."""
    part, methods = NETWORKS[name]
    for method in methods:
        watch(getattr(model, part), method, NETWORK, spent)
