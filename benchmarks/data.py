"""Data that outgrow memory: memory, first pass, second start, growth of workers, time of a batch.

Memory is the sum of Pss_Anon over the processes of a run, in megabytes: pages of mapped files,
which the system takes back when it needs them, do not count. Each run is a program of its own. Sets
are synthetic, and stay in the folder that is given, to be measured again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.data_s3 import s3_rows
from benchmarks.data_sets import MEGABYTE, SETS, DataSet
from benchmarks.data_steps import step_rows
from benchmarks.timing import Row, in_alternation, rows_of
from multidiff.data.batches import stream
from multidiff.data.cache import ENVIRONMENT

PART = "data"
SETTLED = 1000  # batches after which the growth of the workers is measured
POLL_SECONDS = 0.2


def measure(
    threads: int,
    rounds: int,
    *,
    kinds: str = "text,images,sound",
    text: int = 40,
    images: int = 120_000,
    sound: int = 20,
    s3: int = 250,
    cache: int = 50,
    batches: int = 3000,
    workers: int = 4,
    folder: str = "",
) -> list[Row]:
    """Measure each kind of data.

    Args:
        threads: number of CPU threads, unused.
        rounds: number of rounds of the times of a batch.
        kinds: kinds of data, separated by commas, "steps" for training steps of recipes, and
            "s3" for training from a local server.
        text: megabytes of text.
        images: number of images.
        sound: minutes of recordings.
        s3: megabytes of images on the server.
        cache: megabytes of the cache of what it serves.
        batches: number of batches that the workers read.
        workers: number of worker processes.
        folder: folder of sets and cache; a temporary one by default.
    """
    sizes = {"text": text, "images": images, "sound": sound}
    rows: list[Row] = []
    with _folder(folder) as home:
        for kind in kinds.split(","):
            if kind == "steps":
                rows += step_rows(home, rounds)
                continue
            if kind == "s3":
                rows += s3_rows(home, s3, cache)
                continue
            rows += _measured(kind, sizes[kind], home, batches, workers, rounds)
    return rows


@contextlib.contextmanager
def _folder(name: str) -> Iterator[Path]:
    if name:
        Path(name).mkdir(parents=True, exist_ok=True)
        yield Path(name)
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def _measured(
    kind: str, size: int, home: Path, batches: int, workers: int, rounds: int
) -> list[Row]:
    chosen = SETS[kind]
    case = f"{kind}, {size:,} {chosen.unit}"
    large, small = (_set_of(chosen, kind, home, one) for one in (size, chosen.small))
    cache = home / f"cache-{kind}"
    shutil.rmtree(cache, ignore_errors=True)
    first = _run(kind, large, cache, workers, 1)
    second = _run(kind, large, cache, workers, batches)
    few = _run(kind, small, cache, workers, min(batches, 2 * SETTLED))
    bytes_on_disk = sum(one.stat().st_size for one in cache.rglob("*") if one.is_file())
    grown = second["settled"] and second["memory"] / second["settled"] - 1
    values = {
        f"memory beyond {chosen.small:,} {chosen.unit}": (second["memory"] - few["memory"], "MB"),
        "memory, all processes": (second["memory"], "MB"),
        "first pass": (first["start"], "s"),
        "first pass, memory at most": (first["most"], "MB"),
        "first pass, cores busy": (first["cpu"] / max(first["start"], 1e-9), "cores"),
        "second start, to the first batch": (second["start"], "s"),
        f"growth of {workers} workers": (100 * grown, "%"),
        "cache on disk": (bytes_on_disk / MEGABYTE, "MB"),
    }
    rows = [
        Row(PART, case, name, unit, value, value, value) for name, (value, unit) in values.items()
    ]
    rows += _steps(chosen, kind, home, rounds)
    return rows + chosen.further(case, large)


def _set_of(chosen: DataSet, kind: str, home: Path, size: int) -> Path:
    """Return a set of a size, made if it is not there."""
    place = home / f"{kind}-{size}"
    done = place / "done"
    if not done.is_file():
        place.mkdir(parents=True, exist_ok=True)
        done.write_text(chosen.make(place, size).name)
    return place / done.read_text()


def _steps(chosen: DataSet, kind: str, home: Path, rounds: int) -> list[Row]:
    """Compare the time of batches from memory and from disk, in this process."""
    path = _set_of(chosen, kind, home, chosen.listed)
    os.environ[ENVIRONMENT] = str(home / f"cache-{kind}")
    found = {}
    for name, wanted in (("from memory", True), ("from disk", False)):
        chosen.keep_in_memory(wanted)
        found[name] = chosen.batches(path)
    numbers = iter(range(10**9))

    def read(name: str) -> None:
        first = 50 * next(numbers)
        for number in range(first, first + 50):
            found[name].batch(number)

    functions = {name: lambda name=name: read(name) for name in found}
    taken = in_alternation(functions, rounds, time.process_time)
    case = f"{kind}, {chosen.listed:,} {chosen.unit}"
    return rows_of(PART, case, taken, "from memory", "ms a batch", lambda second: 20 * second)


def _run(kind: str, path: Path, cache: Path, workers: int, batches: int) -> dict[str, float]:
    """Read batches in a program of its own; see :func:`_read`."""
    program = [sys.executable, "-m", "benchmarks.data", kind, str(path), str(workers), str(batches)]
    environment = {**os.environ, ENVIRONMENT: str(cache)}
    running = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True)
    most, ended = 0.0, threading.Event()

    def poll() -> None:
        nonlocal most
        while not ended.wait(POLL_SECONDS):
            most = max(most, memory_of(running.pid))

    watcher = threading.Thread(target=poll)
    watcher.start()
    found, _ = running.communicate()
    ended.set()
    watcher.join()
    if running.returncode:
        raise SystemExit(f"{' '.join(program)}: ended with {running.returncode}")
    figures = {**json.loads(found.splitlines()[-1]), "most": most}
    described = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    print(f"{path.name}, {batches:,} batches: {described}", file=sys.stderr, flush=True)
    return figures


def _read(kind: str, path: str, workers: int, batches: int) -> dict[str, Any]:
    """Read batches by workers; return the times and the memory of all processes."""
    began = time.perf_counter()
    source = SETS[kind].batches(Path(path))
    start = settled = memory = used = 0.0
    for number, _ in enumerate(stream(source, range(batches), 0, 1, workers, pin=False), 1):
        if number == 1:
            start, times = time.perf_counter() - began, os.times()
            used = times.user + times.system + times.children_user + times.children_system
        if number == min(SETTLED, batches):
            settled = memory_of(os.getpid())
        if number == batches:
            memory = memory_of(os.getpid())
    return {"start": start, "cpu": used, "settled": settled, "memory": memory}


def memory_of(process: int) -> float:
    """Return the anonymous memory of a process and all that it started, in megabytes."""
    total, left = 0, [process]
    while left:
        one = left.pop()
        with contextlib.suppress(OSError):  # it ended meanwhile
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss_Anon:"):
                    total += int(line.split()[1]) * 1024
            for task in Path(f"/proc/{one}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
    return total / MEGABYTE


if __name__ == "__main__":
    chosen_kind, chosen_path, *chosen_numbers = sys.argv[1:]
    print(json.dumps(_read(chosen_kind, chosen_path, *map(int, chosen_numbers))))
