"""Graceful interruption: the step is finished and saved before training stops."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# SIGHUP, sent when a terminal or a connection closes, does not exist on every system.
HANGUP = getattr(signal, "SIGHUP", None)
SIGNALS = tuple(one for one in (signal.SIGINT, signal.SIGTERM, HANGUP) if one is not None)
# A launcher forwards a signal that the whole group received already: one request, not two.
SAME_REQUEST_SECONDS = 1.0


@dataclass
class Raised:
    """The signal received, if any."""

    number: int = 0

    @property
    def raised(self) -> bool:
        """Return whether a signal was received."""
        return self.number != 0


@contextmanager
def interruptions() -> Iterator[Raised]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of obeying them; a second one is obeyed.

    SIGHUP stays ignored where it was, as under nohup.
    """
    found = Raised()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    if HANGUP is not None and before[HANGUP] is signal.SIG_IGN:
        del before[HANGUP]
    first: dict[int, float] = {}

    def note(number: int, frame: object) -> None:
        found.number = number
        now = time.monotonic()
        if now - first.setdefault(number, now) > SAME_REQUEST_SECONDS:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def withheld_from_children() -> Iterator[None]:
    """Block signals in processes started in this block, with any start method.

    They call :func:`ignore_interruptions` before the signals reach them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interruptions(worker: int) -> None:
    """Ignore signals in a worker: the main process ends its workers when it has saved.

    Args:
        worker: number of the worker process that calls it.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
