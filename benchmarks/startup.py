"""Time that ``multidiff --help`` takes, compared with Python's own start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from benchmarks.timing import Row, in_alternation, rows_of

PART = "startup"
PROGRAMS = {
    "python -c pass": ["-c", "pass"],
    "multidiff --help": ["-m", "multidiff.cli.main", "--help"],
}


def measure(threads: int, rounds: int) -> list[Row]:
    """Measure the wall time of both processes; the number of threads is not used."""
    calls = {name: caller(words) for name, words in PROGRAMS.items()}
    return rows_of(PART, "a process of its own", in_alternation(calls, rounds), "python -c pass")


def caller(words: list[str]) -> Callable[[], object]:
    """Return a function that runs Python with these arguments and waits for it."""

    def call() -> object:
        return subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    return call
