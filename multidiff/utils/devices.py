"""Where a command computes: the device, and the share of one process among several."""

from __future__ import annotations

import os

from multidiff.utils.errors import InputError
from multidiff.utils.readers import reading


def checked_device(name: str) -> str:
    """A device that is there.

    Raises:
        InputError: if it is not.
    """
    import torch

    if name == "cuda":  # of several processes on a machine each takes its own
        name = f"cuda:{environment_number('LOCAL_RANK', 0)}"
    with reading(f"--device {name}", "cannot be used", "try cpu"):
        if torch.zeros(1, device=name).is_meta:
            raise InputError(f"--device {name}: computes nothing; try cpu")
    return name


def environment_number(name: str, default: int) -> int:
    """Return a whole number that a launcher of processes has set.

    Args:
        name: of the variable.
        default: where it is not set.

    Raises:
        InputError: if it is no whole number, or negative.
    """
    said = os.environ.get(name, "").strip() or str(default)
    if not (said.isascii() and said.isdigit() and len(said) < 10):
        raise InputError(f"{name}={said}: is no number from 0; unset it, or set it right")
    return int(said)


def process_ratio() -> tuple[int, int]:
    """Return which of how many processes this is, where a launcher started several.

    Raises:
        InputError: if the environment does not say so in numbers that fit.
    """
    rank, processes = environment_number("RANK", 0), environment_number("WORLD_SIZE", 1)
    if rank >= processes:
        raise InputError(
            f"RANK={rank} WORLD_SIZE={processes}: ranks go from 0 to WORLD_SIZE - 1; unset both, "
            "or set them right"
        )
    return rank, processes
