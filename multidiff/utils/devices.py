"""Device of a command, and the rank of one process among several."""

from __future__ import annotations

import os

from multidiff.utils.errors import InputError
from multidiff.utils.readers import reading


def checked_device(name: str) -> str:
    """Return an available device.

    Raises:
        InputError: if it is not available.
    """
    import torch

    if name == "cuda":  # each of several processes on a machine uses its own
        name = f"cuda:{environment_number('LOCAL_RANK', 0)}"
    with reading(f"--device {name}", "cannot be used", "try cpu"):
        if torch.zeros(1, device=name).is_meta:
            raise InputError(f"--device {name}: does not compute anything; try cpu")
    return name


def environment_number(name: str, default: int) -> int:
    """Return a whole number that a process launcher has set.

    Args:
        name: environment variable.
        default: value if it is not set.

    Raises:
        InputError: if it is not a whole number, or negative.
    """
    said = os.environ.get(name, "").strip() or str(default)
    if not (said.isascii() and said.isdigit() and len(said) < 10):
        raise InputError(f"{name}={said}: must be a whole number from 0; unset it, or correct it")
    return int(said)


def process_ratio() -> tuple[int, int]:
    """Return rank and number of processes, if a launcher started several.

    Raises:
        InputError: if the environment variables are not numbers that fit.
    """
    rank, processes = environment_number("RANK", 0), environment_number("WORLD_SIZE", 1)
    if rank >= processes:
        raise InputError(
            f"RANK={rank} WORLD_SIZE={processes}: ranks go from 0 to WORLD_SIZE - 1; unset both, "
            "or correct them"
        )
    return rank, processes
