"""Training log: a progress bar in the terminal, trackers, and a file of JSON lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from multidiff.training.trackers import Trackers
from multidiff.utils.errors import printable
from multidiff.utils.files import write_error

LINES = "log.jsonl"


class TrainingLog:
    """Log of a run; of several processes only the main one writes.

    Args:
        steps: number of steps of the whole run.
        start: step it starts from; lines of an earlier attempt beyond it are dropped.
        folder: folder of the run; None logs to the terminal only.
        talks: whether this process writes.
        trackers: names of the trackers that receive values and previews.
        config: recipe of the run, for the trackers.
    """

    def __init__(
        self,
        steps: int,
        start: int,
        folder: Path | None,
        talks: bool = True,
        trackers: Sequence[str] = ("tensorboard",),
        config: Mapping[str, Any] | None = None,
    ):
        self.steps, self.talks = steps, talks
        self._trackers, self._config = trackers, config
        self.folder = folder if talks else None
        self._writer: Any = None
        self._began, self._start = time.monotonic(), start
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} {task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=_Terminal(sys.stderr)),  # type: ignore[arg-type]
            disable=not (talks and sys.stderr.isatty()),
        )
        self._row = self._bar.add_task("", total=steps, completed=start, rate="", loss="")
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            _drop_lines_beyond(self.folder / LINES, start)

    def __enter__(self) -> TrainingLog:
        if {*self._trackers} - {"tensorboard"}:  # a wrong account is found before the first step
            _ = self.writer
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    @property
    def writer(self) -> Any:
        """Return the trackers as one writer; a silent one if this process does not write."""
        if self.folder is None:
            return Mute()
        if self._writer is None:
            self._writer = Trackers(self._trackers, self.folder, self._start, self._config)
        return self._writer

    def advance(self, step: int) -> None:
        """Advance the progress bar by one step."""
        self._bar.update(self._row, completed=step)

    def log_metrics(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """Log values of a step, under a heading such as "train" or "held-out"."""
        if not self.talks:
            return
        rate = (step - self._start) / max(time.monotonic() - self._began, 1e-9)
        text = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._bar.update(
            self._row, rate=f"{rate:.2f} steps/s", loss=text if group == "train" else ""
        )
        if self._bar.disable:
            left = (self.steps - step) / max(rate, 1e-9)
            self.say(
                f"{group} step {step}/{self.steps} {text} ({rate:.2f} steps/s, {left:.0f} s left)"
            )
        if self.folder is None:
            return
        line = json.dumps({"step": step, "group": group, **values}) + "\n"
        try:
            with (self.folder / LINES).open("a") as file:
                file.write(line)
        except OSError as error:
            raise write_error(self.folder / LINES, error) from error
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def say(self, line: str) -> None:
        """Print a line of text."""
        if self.talks:
            self._bar.console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


class _Terminal:
    """A stream that may close: output after a hang-up is lost, but training continues."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write the text, ignoring a closed stream."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, ignoring a closed one."""
        with suppress(OSError):
            self.stream.flush()


class Mute:
    """A writer that discards everything, for processes that must call the same code."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _drop_lines_beyond(path: Path, step: int) -> None:
    if path.exists():
        lines = path.read_text("utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        path.write_text("".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):  # cut off by a kill
        return float("inf")
