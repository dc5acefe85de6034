"""Passes over a source that make a table of columns, on all cores, kept in the cache.

A plan names the parts of its source and makes one part at a time. Parts are written whole, so a
pass that was killed goes on with those that are missing, and several machines that share the
cache folder may make some each (:func:`prepare_slice`)::

    plan = Plan("text", key, {"tokens": "uint16[]"}, parts=list_parts, make=tokenise)
    table = prepared(plan)  # a Columns: at once, if the cache has it
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from multidiff.data.cache import cache_dir, cache_key, cache_turn
from multidiff.data.columns import FORMAT, HEADER, Columns
from multidiff.data.engines import Job, share_of_rank
from multidiff.data.table_writer import PART, ColumnWriter, join_parts, read_part, written_part
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write, write_error
from multidiff.utils.readers import DataWithheld
from multidiff.utils.report import work_progress
from multidiff.utils.signals import ignore_interruptions, withheld_from_children

logger = logging.getLogger(__name__)

T = TypeVar("T")
PARTIAL = ".partial"
FAULTS = "faults.txt"
# Fraction of items that may be unreadable; a single one always may.
MOST_FAULTS = 0.01
Finish = Callable[[Columns], tuple[Mapping[str, np.ndarray], Mapping[str, Any]]]


@dataclass(frozen=True)
class Plan(Generic[T]):
    """The work that makes one table.

    The parts must follow from the key alone: a second start goes on with those that are missing.

    Attributes:
        kind: kind of the table, the beginning of its name, such as ``text``.
        key: JSON that identifies the content: fingerprint of the source, options, version.
        columns: kind of each column by name (:func:`multidiff.data.columns.dtype_of`).
        parts: function that returns the pieces of the source, which pickle; each makes a part.
        make: function that reads a piece and appends its rows; a module's function, or a partial
            of one, since it runs in other processes. Unreadable items are noted by
            ``writer.fault(name, reason)``.
        size_of: function that returns the amount of work in a piece, such as bytes.
        source: name of the source, in messages.
        info: JSON for the table's ``info``.
        finish: function that reads the joined table and returns further columns of fixed width
            and further info.
        cache: folder of the table's folder; the cache folder by default.
    """

    kind: str
    key: Mapping[str, Any]
    columns: Mapping[str, str]
    parts: Callable[[], Sequence[T]]
    make: Callable[[T, ColumnWriter], None]
    size_of: Callable[[T], float] = lambda piece: 1
    source: str = "data"
    info: Mapping[str, Any] = field(default_factory=dict)
    finish: Finish | None = None
    cache: Path | None = None

    @property
    def folder(self) -> Path:
        """Return the folder of the table in the cache."""
        key = {"format": FORMAT, "columns": dict(self.columns), **self.key}
        return (self.cache or cache_dir()) / f"{self.kind}-{cache_key(key)}"

    @property
    def is_prepared(self) -> bool:
        """Return whether the cache has the table."""
        return (self.folder / HEADER).is_file()


class Unfinished(DataWithheld):
    """A table is needed of which parts are left to other processes."""


_HOOK: ContextVar[Callable[[Plan], None] | None] = ContextVar("hook", default=None)
_ENGINE: ContextVar[Callable[[Mapping[int, Job]], Iterator[int]] | None] = ContextVar(
    "engine", default=None
)


@contextmanager
def before_preparing(hook: Callable[[Plan], None]) -> Iterator[None]:
    """Call a function with the plan of each table that is read in the block, before it is made.

    Args:
        hook: function that may make some of its parts, and raise :class:`Unfinished` where others
            are left.
    """
    token = _HOOK.set(hook)
    try:
        yield
    finally:
        _HOOK.reset(token)


@contextmanager
def parts_made_by(engine: Callable[[Mapping[int, Job]], Iterator[int]]) -> Iterator[None]:
    """Let an engine make the parts of the tables in the block, not processes of this machine.

    Args:
        engine: function that runs jobs and yields the numbers of those done, such as
            :func:`multidiff.data.engines.by_ray`.
    """
    token = _ENGINE.set(engine)
    try:
        yield
    finally:
        _ENGINE.reset(token)


def all_prepared(plans: Sequence[Plan]) -> list[Columns]:
    """Return the tables of independent plans; see :func:`prepared`."""
    found, unfinished = [], None
    for plan in plans:
        try:
            found.append(prepared(plan))
        except Unfinished as stop:  # the others do not depend on it
            unfinished = stop
    if unfinished is not None:
        raise unfinished
    return found


def prepared(plan: Plan, workers: int | None = None) -> Columns:
    """Return the table of a plan, from the cache or made now.

    Of several processes that start at once, one makes it and the others wait.

    Args:
        plan: the plan.
        workers: number of processes; one for each core by default.

    Raises:
        InputError: if the source cannot be read, more than 1 % of its items cannot be, or the
            cache folder cannot be written.
    """
    folder = plan.folder
    if (hook := _HOOK.get()) is not None:
        hook(plan)
    if not plan.is_prepared:
        with cache_turn(folder):
            if not plan.is_prepared:
                parts = plan.parts()
                _make_parts(plan, parts, range(len(parts)), workers)
                _join(plan, len(parts))
    return Columns(folder)


def prepare_slice(plan: Plan, index: int, count: int, workers: int | None = None) -> int:
    """Make every ``count``-th part of a table, from the ``index``-th on, without joining them.

    :func:`prepared` makes what is missing and joins all parts.

    Args:
        plan: the plan.
        index: number of this slice, from 0.
        count: number of slices.
        workers: number of processes; one for each core by default.

    Returns:
        Number of parts made now.

    Raises:
        InputError: see :func:`prepared`.
    """
    if plan.is_prepared:
        return 0
    parts = plan.parts()
    numbers = share_of_rank(range(len(parts)), (index, count))
    return _make_parts(plan, parts, numbers, workers)


def missing_parts(plan: Plan, parts: Sequence[Any]) -> list[int]:
    """Return the numbers of the parts that are still to make."""
    folder = _partial(plan)
    return [] if plan.is_prepared else [n for n in range(len(parts)) if not _is_made(folder, n)]


def _partial(plan: Plan) -> Path:
    return plan.folder.with_name(plan.folder.name + PARTIAL)


def _name(number: int) -> str:
    return f"{number:06d}"


def _is_made(folder: Path, number: int) -> bool:
    if not (folder / _name(number) / PART).is_file():
        return False
    try:
        read_part(folder / _name(number))
    except InputError:  # damaged: it is made again
        return False
    return True


def _make_parts(
    plan: Plan, parts: Sequence[Any], numbers: Sequence[int], workers: int | None
) -> int:
    """Make the missing ones of some parts and return their number."""
    folder = _partial(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    todo = [number for number in numbers if not _is_made(folder, number)]
    if not todo:
        return 0
    sizes = {number: float(plan.size_of(parts[number])) for number in todo}
    workers = min(workers or available_cores(), len(todo))
    with work_progress(f"{plan.source}: preparing {plan.kind}", sum(sizes.values())) as advance:
        jobs = {
            number: partial(
                _make_part, plan.make, plan.columns, parts[number], folder / _name(number)
            )
            for number in sorted(todo, key=lambda number: -sizes[number])
        }
        engine = _ENGINE.get()
        if engine is not None:
            run = engine(jobs)
        else:
            run = _in_turn(jobs) if workers == 1 else _in_processes(jobs, workers, plan.source)
        for number in run:
            advance(sizes[number])
    return len(todo)


def _make_part(make: Any, columns: Mapping[str, str], piece: Any, folder: Path) -> None:
    with written_part(folder, columns) as writer:
        make(piece, writer)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_turn(jobs: Mapping[int, Job]) -> Iterator[int]:
    for number, job in jobs.items():
        job()
        yield number


def _in_processes(jobs: Mapping[int, Job], workers: int, source: str) -> Iterator[int]:
    """Run jobs in processes, which end with this one, and yield the numbers of those done."""
    with _pool(workers) as pool:
        with withheld_from_children():
            running = {pool.submit(job): number for number, job in jobs.items()}
        try:
            while running:
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    done.result()
                    yield running.pop(done)
        except BrokenProcessPool as error:
            raise InputError(
                f"{source}: a process that prepared it was killed, perhaps for its memory; start "
                "again: finished parts are kept"
            ) from error


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # Forked processes start at once and share what is imported; only the main thread reads here.
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, _begin_worker, (os.getpid(),))
    try:
        yield pool
    except BaseException:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(parent: int) -> None:
    ignore_interruptions(0)
    if "torch" in sys.modules:  # there is a process for each core
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _join(plan: Plan, count: int) -> None:
    """Join all parts to the finished table, and give it its final name."""
    partial_folder = _partial(plan)
    names = [_name(number) for number in range(count)]
    found = [read_part(partial_folder / name) for name in names]
    rows = sum(part["rows"] for part in found)
    faults = [fault for part in found for fault in part["faults"]]
    _check_faults(plan, faults, rows)
    join_parts(partial_folder, names, plan.columns, plan.info)
    if plan.finish is not None:
        columns, info = plan.finish(Columns(partial_folder))
        join_parts(partial_folder, names, plan.columns, {**plan.info, **info}, columns)
    try:
        partial_folder.rename(plan.folder)
    except OSError as error:
        raise write_error(plan.folder, error) from error
    for name in names:  # joined already
        for file in [plan.folder / name / PART, *(plan.folder / name).glob("*.offsets*")]:
            with suppress(OSError):
                file.unlink()


def _check_faults(plan: Plan, faults: Sequence[Sequence[str]], rows: int) -> None:
    if not faults:
        return
    report = plan.folder.with_name(f"{plan.folder.name}.{FAULTS}")
    with atomic_write(report) as file:
        file.write_text("".join(f"{name}\t{reason}\n" for name, reason in faults), "utf-8")
    name, reason = faults[0]
    counted = f"{len(faults):,} of {rows + len(faults):,} items cannot be read"
    if len(faults) > max(1, MOST_FAULTS * (rows + len(faults))):
        shutil.rmtree(_partial(plan), ignore_errors=True)
        raise InputError(
            f"{plan.source}: {counted}, more than {MOST_FAULTS:.0%}, such as {name} ({reason}); "
            f"repair or remove those in {report}"
        )
    logger.warning(
        "%s: %s and are skipped, such as %s; all are named in %s", plan.source, counted, name,
        report,
    )  # fmt: skip
