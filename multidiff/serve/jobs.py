"""Requests as jobs: a bounded queue for each model, threads that run them, and their ends.

A job runs in one thread from beginning to end, with generators of its own and on a view of the
model that belongs to the thread, so that its answer does not depend on what runs beside it. It
ends early when its client is gone or its time is over: :meth:`Job.check` is called before each
block of a network.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from multidiff.core.sample import NotFiniteError
from multidiff.models.views import call_before, shared_copy
from multidiff.serve.batching import Batcher
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

OPTION = re.compile(r"(?<!\S)--([a-z][a-z-]*)")
DONE, FAILED = "done", "error"
# Weight of the newest job in the running mean of their times.
NEWEST = 0.2


class Cancelled(Exception):
    """The client of a job is gone."""


class TimeLimit(InputError):
    """A job took longer than it may."""


class Busy(Exception):
    """The queue is full.

    Attributes:
        seconds: time after which the next request is worth a try.
    """

    def __init__(self, seconds: int):
        super().__init__(f"the queue is full; try again in {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True)
class Event:
    """News of a job.

    Attributes:
        name: progress, text, audio, done or error.
        data: what is known, ready for JSON.
        content: bytes of a file, or of a part of one.
        media_type: kind of the bytes.
    """

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    media_type: str = ""


class Job:
    """A request that waits, runs or is done.

    Args:
        work: function that makes the answer, the event ``done``, from a view of the model and the
            job.
        seconds: time that it may run.
        detailed: whether someone reads what is made before the answer.
    """

    def __init__(self, work: Callable[[Any, Job], Event], seconds: float, detailed: bool = True):
        self.work, self.seconds, self.detailed = work, seconds, detailed
        self.ends = float("inf")
        self.cancelled = threading.Event()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._listener: Callable[[Event], None] | None = None
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Stop the job at its next network evaluation; one that waits never begins."""
        self.cancelled.set()

    def check(self) -> None:
        """Stop here if the job is to end.

        Raises:
            Cancelled: if nobody waits for it.
            TimeLimit: if its time is over.
        """
        if self.cancelled.is_set():
            raise Cancelled
        if time.monotonic() > self.ends:
            raise TimeLimit(f"took more than {self.seconds:g} s, the limit here; ask for less")

    def emit(self, event: Event) -> None:
        """Pass on news, to whoever listens."""
        with self._lock:
            if self._listener is None:
                self._events.put(event)
            else:
                self._listener(event)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call a function with all events, those before first; it is called in other threads."""
        with self._lock:
            while not self._events.empty():
                listener(self._events.get())
            self._listener = listener

    def events(self) -> Iterator[Event]:
        """Yield all events, the last of which is ``done`` or ``error``."""
        while True:
            event = self._events.get()
            yield event
            if event.name in (DONE, FAILED):
                return

    def run(self, model: Any) -> str:
        """Do the work, and return how it ended: done, cancelled, refused or failed."""
        self.ends = time.monotonic() + self.seconds
        try:
            self.check()
            self.emit(self.work(model, self))
            return "done"
        except Cancelled:
            self.emit(Event(FAILED, {"status": 499, "detail": "cancelled"}))
            return "cancelled"
        except TimeLimit as fault:
            self.emit(Event(FAILED, {"status": 504, "detail": str(fault)}))
            return "refused"
        except (InputError, NotFiniteError) as fault:
            self.emit(Event(FAILED, {"status": 422, "detail": _by_field(str(fault))}))
            return "refused"
        except BaseException:  # a panic of a library in Rust is no Exception; the thread goes on
            logger.exception("a request failed")
            self.emit(Event(FAILED, {"status": 500, "detail": "failed; the log has the reason"}))
            return "failed"


def _by_field(message: str) -> str:
    """Return the first line of a message, its options named as the fields of requests."""
    line = (message.splitlines() or ["cannot be used"])[0]
    return OPTION.sub(lambda found: found[1].replace("-", "_"), line)


class Lane:
    """One place where jobs run, one after the other, on a view of a model.

    Args:
        model: the model, whose weights are shared.
        batcher: what evaluates its network together with other lanes; None for the lane itself.
        network: attribute of the model that is the network.
    """

    def __init__(self, model: Any, batcher: Batcher | None = None, network: str = ""):
        self.model, self.batcher = shared_copy(model), batcher
        self._job: Job | None = None
        call_before(self.model, self._check)
        if batcher is not None:
            getattr(self.model, network).forward = batcher

    def _check(self) -> None:
        if self._job is not None:
            self._job.check()

    @contextmanager
    def runs(self, job: Job) -> Iterator[Any]:
        """Yield the view for a job, which ends when it is cancelled or takes too long."""
        self._job = job
        try:
            with nullcontext() if self.batcher is None else self.batcher.running():
                yield self.model
        finally:
            self._job = None


class Worker:
    """Threads that run the jobs of one model, from a queue of their own.

    Args:
        name: name of the model.
        threads: number of jobs that run at once.
        most: number of jobs that may wait.
        lane: function that makes what a thread runs its jobs in, when its first comes.
        on_end: called with how each job ended and the seconds that it ran.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        most: int,
        lane: Callable[[], Lane],
        on_end: Callable[[str, float], None] = lambda outcome, seconds: None,
    ):
        self.name, self.count, self._lane, self._on_end = name, threads, lane, on_end
        self._waiting: queue.Queue[Job | None] = queue.Queue(most)
        self.running = 0
        self._mean_seconds = 1.0
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True)
            for n in range(threads)
        ]
        for one in self._threads:
            one.start()

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""
        return self._waiting.qsize()

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            Busy: if too many wait.
        """
        try:
            self._waiting.put_nowait(job)
        except queue.Full as error:
            rounds = (self.waiting + self.running) / self.count
            raise Busy(max(1, round(rounds * self._mean_seconds))) from error

    def close(self) -> None:
        """End the threads, when what waits is done."""
        for _ in self._threads:
            self._waiting.put(None)
        for one in self._threads:
            one.join()

    def _work(self) -> None:
        lane: Lane | None = None
        while (job := self._waiting.get()) is not None:
            lane = lane or self._lane()
            began = time.monotonic()
            with self._lock:
                self.running += 1
            with lane.runs(job) as model:
                outcome = job.run(model)
            seconds = time.monotonic() - began
            with self._lock:
                self.running -= 1
                if outcome == "done":
                    self._mean_seconds += NEWEST * (seconds - self._mean_seconds)
            self._on_end(outcome, seconds)
            del job  # its answer is not kept until the next comes
