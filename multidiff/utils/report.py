"""Result of a command: lines for people, facts for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from multidiff.utils.errors import InputError

# Receives each line of a report as soon as it is made.
OnLine = Callable[[str], None]


SECONDS_BETWEEN_LINES = 10


@dataclass(frozen=True)
class Report:
    """The outcome of a command.

    Attributes:
        lines: printed on stdout, unless ``--json`` is given.
        facts: printed as one JSON object with ``--json``.
        faults: failures, a line each; the command ends with status 2.
    """

    lines: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def table(rows: list[list[str]]) -> list[str]:
    """Align rows of text, the first row a heading; numbers are right-aligned.

    rich's tables wrap at the width of the terminal, or at 80 columns into a file.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


@contextmanager
def progress() -> Iterator[Callable[[Any], None] | None]:
    """Yield a callback for each sampling step that moves a bar on stderr; None off a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    # Lines printed meanwhile appear above the bar on a terminal, and unchanged in a file.
    above = sys.stdout.isatty()
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=above) as bar:
        job = bar.add_task("sampling")
        yield lambda step: bar.update(job, completed=step.number, total=step.total)


@contextmanager
def work_progress(label: str, total: float) -> Iterator[Callable[[float], None]]:
    """Yield a function that adds finished work: a bar with the time left, or lines off a terminal.

    Args:
        label: description of the work.
        total: amount of all work.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            job = bar.add_task(label, total=total)
            yield lambda amount: bar.advance(job, amount)
        return
    began = shown = time.monotonic()
    done = 0.0

    def advance(amount: float) -> None:
        nonlocal done, shown
        done += amount
        now = time.monotonic()
        if now - shown >= SECONDS_BETWEEN_LINES:
            shown = now
            left = (now - began) * (total - done) / done
            print(f"{label}: {done / total:.0%}, {_duration(left)} left", file=sys.stderr)

    yield advance
    if shown > began:
        print(f"{label}: done in {_duration(time.monotonic() - began)}", file=sys.stderr)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def checked_counts(counts: Mapping[str, int]) -> int:
    """Return the largest of the numbers of samples to be measured.

    Raises:
        InputError: if it is 0.
    """
    if min(counts.values()) < 0 or not any(counts.values()):
        described = " ".join(f"--{name} {count}" for name, count in counts.items())
        raise InputError(f"{described}: there is nothing to measure")
    return max(counts.values())
