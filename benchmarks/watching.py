"""Time spent within the networks of the shipped models."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

CLOCK = time.process_time
NETWORK = "its network"
# The network of each shipped diffusion model, and its methods.
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
        owner: object with the method.
        method: its name.
        what: key in ``spent``.
        spent: seconds by key.
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
