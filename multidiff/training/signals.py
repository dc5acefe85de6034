"""Interrupted politely: the step is finished and saved before training stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Raised:
    """The signal that came, if one did."""

    number: int = 0

    @property
    def raised(self) -> bool:
        """Whether one came."""
        return self.number != 0


@contextmanager
def interruptions() -> Iterator[Raised]:
    """Collect SIGINT and SIGTERM instead of obeying them; a second one is obeyed."""
    told = Raised()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, _frame: object) -> None:
        told.number = number
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
