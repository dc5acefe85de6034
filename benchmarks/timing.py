"""Timing of functions in alternation, and rows of results."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

PACKAGES = ("multidiff", "torch", "diffusers", "accelerate", "wavegrad", "librosa")


@dataclass(frozen=True)
class Row:
    """Result of one system in one case.

    Attributes:
        part: part of the benchmarks.
        case: measured case.
        system: measured system.
        unit: unit of the three numbers.
        median: median over the rounds; None if the system is not installed.
        lowest: lowest of the rounds.
        highest: highest of the rounds.
        ratio: median over the rounds of this system's number over the reference's in the
            same round; None without a reference.
    """

    part: str
    case: str
    system: str
    unit: str
    median: float | None = None
    lowest: float | None = None
    highest: float | None = None
    ratio: float | None = None

    def cells(self) -> list[str]:
        """Return the row as text."""
        if self.median is None:
            return [self.part, self.case, self.system, "not installed", "", "", "", ""]
        numbers = [_number(x) for x in (self.median, self.lowest, self.highest)]
        ratio = "-" if self.ratio is None else f"{self.ratio:.3f}"
        return [self.part, self.case, self.system, *numbers, self.unit, ratio]


HEADING = ["part", "case", "system", "median", "lowest", "highest", "unit", "ratio"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def in_alternation(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of each call: a round calls every function once, alternately backwards.

    Each function is called once beforehand, untimed.

    Args:
        functions: functions by name.
        rounds: number of calls of each.
        clock: clock in seconds. That of the process (``time.process_time``) does not count what
            a busy machine takes away, and counts each thread.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds):
        for name in list(functions)[:: -1 if number % 2 else 1]:
            began = clock()
            functions[name]()
            seconds[name].append(clock() - began)
    return seconds


def rows_of(
    part: str,
    case: str,
    seconds: Mapping[str, list[float]],
    reference: str,
    unit: str = "s",
    value: Callable[[float], float] = lambda second: second,
) -> list[Row]:
    """Return a row for each system, with its ratio to the reference.

    Args:
        part: part of the benchmarks.
        case: measured case.
        seconds: seconds of each system and round; empty for a system that is not installed.
        reference: system whose ratio is 1.
        unit: unit of the values.
        value: conversion from seconds to the reported value.
    """
    values = {system: [value(second) for second in taken] for system, taken in seconds.items()}
    against = values.get(reference, [])
    rows = []
    for system, found in values.items():
        if not found:
            rows.append(Row(part, case, system, unit))
            continue
        ratios = [one / other for one, other in zip(found, against, strict=False)]
        ratio = median(ratios) if ratios else None
        rows.append(Row(part, case, system, unit, median(found), min(found), max(found), ratio))
    return rows


def installed(package: str) -> bool:
    """Return whether a peer is installed."""
    return find_spec(package) is not None


@contextlib.contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Run torch and numpy on that number of CPU threads inside the block."""
    import torch
    from threadpoolctl import threadpool_limits  # comes with librosa

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def training_on_cpu() -> Iterator[None]:
    """Keep accelerate on the CPU inside the block; afterwards it chooses the device again."""
    from accelerate.state import AcceleratorState

    key = "ACCELERATE_USE_CPU"
    before = os.environ.get(key)
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ[key] = "true"
    try:
        yield
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        del os.environ[key]
        if before is not None:
            os.environ[key] = before


def counted(threads: int) -> str:
    """Format a number of threads for a case."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def machine() -> dict[str, Any]:
    """Return the machine, and its load at the beginning."""
    names = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [line.split(":")[1].strip() for line in names.splitlines() if "model name" in line]
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": found,
    }
