"""Shared behaviour of commands: options are given once, and lines are printed as they come."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from multidiff.utils.errors import InputError, printable

if TYPE_CHECKING:
    from multidiff.utils.report import Report


# Struck through in red, underlined in green, and the end of either.
MARKS_OF_EDITS = re.compile(r"(\x1b\[(?:9;31|4;32|0)m)")


class OncePerOption(TyperCommand):
    """A command that rejects an option given twice, unless it takes several values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command's arguments.

        Raises:
            InputError: if an option that takes one value is given twice.
        """
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for option, count in Counter(order).items():
            if count > 1 and option.param_type_name == "option" and not option.multiple:
                name = max(option.opts, key=len)
                raise InputError(f"{name}: is given twice but takes one value; keep one")
        return super().parse_args(ctx, args)


class Commands(typer.Typer):
    """An application whose commands are all :class:`OncePerOption`."""

    def command(self, *names: Any, **options: Any) -> Any:
        """See :meth:`typer.Typer.command`."""
        return super().command(*names, **{"cls": OncePerOption, **options})


class LivePrinter:
    """Prints lines of a report as they are made, before the report is complete.

    Args:
        goes_on: whether to continue when stdout is closed, since a file is written too.

    Attributes:
        count: number of lines printed so far, the first of the report's.
    """

    def __init__(self, goes_on: bool):
        self.goes_on, self.count = goes_on, 0
        self._begun = ""

    def __call__(self, line: str) -> None:
        """Print one line at once, or what is left of it after its parts.

        Raises:
            typer.Exit: if stdout is closed and nothing else is to be done.
        """
        if self._begun and not line.startswith(self._begun):  # spaces may move at the end
            self.part("\n")
            self._begun = ""
        begun, self._begun = self._begun, ""
        if not printed([line.removeprefix(begun)]) and not self.goes_on:
            raise typer.Exit(0)
        self.count += 1

    def part(self, text: str) -> None:
        """Print the next part of a line, which is not complete yet.

        Raises:
            typer.Exit: see :meth:`__call__`.
        """
        if not printed([text], "") and not self.goes_on:
            raise typer.Exit(0)
        self._begun += text


def printed(lines: list[str], end: str = "\n") -> bool:
    """Print lines on stdout and flush them; return whether stdout is still open."""
    if sys.stdout.isatty():  # files and pipes receive samples unchanged
        lines = [_shown(line) for line in lines]
    try:
        print(*lines, sep="\n", end=end if lines else "", flush=True)
    except BrokenPipeError:  # discard what is left to print
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _shown(line: str) -> str:
    """Return a line without anything that a terminal would interpret, but the marks of edits."""
    parts = MARKS_OF_EDITS.split(line)  # every second part is a mark
    return "".join(
        part if number % 2 else printable(part, keep="\n\t") for number, part in enumerate(parts)
    )


def say(report: Report, as_json: bool = False, shown: int = 0) -> None:
    """Print a report except the lines already shown; exit with status 2 if it has faults."""
    facts = {**report.facts, "faults": report.faults}
    printed([json.dumps(facts)] if as_json else report.lines[shown:])
    for fault in report.faults:
        complain(fault)
    if report.faults:
        raise typer.Exit(2)


def complain(text: str) -> None:
    """Print a line, or a line for each of several faults, on stderr, control characters escaped."""
    try:
        for line in text.split("\n"):
            if line:
                print(f"multidiff: {printable(line)}", file=sys.stderr, flush=True)
    except OSError:  # the terminal has closed; the exit status still reports the failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class PrintableLines(logging.Formatter):
    """Log formatter that escapes control characters, which names of files may contain."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record; its traceback, if it has one, keeps its lines."""
        return printable(super().format(record), keep="\n")


def show_warning(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
    """Print a library's warning in one line."""
    print(f"multidiff: {category.__name__}: {printable(str(message))}", file=sys.stderr)
