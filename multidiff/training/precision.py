"""Precision of a training step: float32, or bfloat16 or float16 under autocast."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

from multidiff.utils.errors import InputError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Meaning of "auto", for runs that must not depend on a measurement.
VARIABLE = "MULTIDIFF_AUTO_PRECISION"
# With fewer weights, casts and dispatch cost more than the faster matrix products save.
FEWEST_WEIGHTS = 1_000_000
LEAST_GAIN = 1.3
# A processor that only emulates bfloat16 takes a hundred times as long, as one product shows.
LONGEST_SECONDS = 0.005
ROUNDS = 7


def computes_in_bfloat16(precision: str, task: nn.Module | None = None) -> bool:
    """Return whether a run's network computes in bfloat16.

    ``auto`` does on a GPU, and on a CPU where one matrix product and one convolution are faster in
    bfloat16 (avx512_bf16 or AMX) and the network is large enough to gain from it.

    Args:
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto``.
        task: training task; a large network if None.

    Raises:
        InputError: if the environment variable ``MULTIDIFF_AUTO_PRECISION`` is neither ``fp32`` nor
            ``bf16``.
    """
    if precision != "auto":
        return precision == "bf16"
    given = os.environ.get(VARIABLE)
    if given is not None:
        if given not in ("fp32", "bf16"):
            raise InputError(f"{VARIABLE}={given}: set fp32 or bf16, or unset it")
        return given == "bf16"
    if torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        return True
    weights = FEWEST_WEIGHTS if task is None else _trained_weights(task)
    return weights >= FEWEST_WEIGHTS and cpu_gains_by_bfloat16()


def _trained_weights(task: nn.Module) -> int:
    return sum(one.numel() for one in task.parameters() if one.requires_grad)


@functools.cache
def cpu_gains_by_bfloat16() -> bool:
    """Return whether this CPU multiplies and convolves faster in bfloat16 than in float32.

    Measured once for a process, in a fraction of a second.
    """
    small = torch.ones(128, 128, dtype=torch.bfloat16)
    torch.mm(small, small)  # the first call of a kernel also builds it
    if _seconds(torch.mm, small, small) > LONGEST_SECONDS:
        return False
    square = torch.ones(384, 384)
    image, kernel = torch.ones(2, 64, 32, 32), torch.ones(64, 64, 3, 3)
    product = _gain(torch.mm, square, square)
    return product >= LEAST_GAIN and _gain(F.conv2d, image, kernel) >= 1


def _gain(function: Callable[..., Tensor], *operands: Tensor) -> float:
    """Return how many times faster a function is in bfloat16; the fastest of alternating rounds."""
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(1 + ROUNDS):  # the first round builds kernels
        for dtype, found in seconds.items():
            found.append(_seconds(function, *(one.to(dtype) for one in operands)))
    single, half = (min(found[1:]) for found in seconds.values())
    return single / half


def _seconds(function: Callable[..., Tensor], *operands: Tensor) -> float:
    began = time.perf_counter()
    function(*operands)
    return time.perf_counter() - began
