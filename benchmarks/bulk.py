"""Bulk work by two workers of which one is killed in the middle, by ranks and by Ray.

A model samples a list of prompts in shards: by one process without a kill; by two ranks of which
one is killed, then by one more start; by two workers of Ray of which one is killed, then all of it,
and a second start. The files must be equal, and every item there once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.timing import Row, installed
from multidiff.data.bulk import Shards

PART = "bulk"
POLL_SECONDS = 0.05
MODEL, OPTIONS = "digits", ("--steps", "1")
WORKER = b"ray::_Worker"
OBJECT_BYTES = 1 << 27


def measure(
    threads: int, rounds: int, *, items: int = 2000, shard: int = 50, engines: str = "ranks,ray"
) -> list[Row]:
    """Measure the seconds of each way, and count what is missing, repeated or different.

    Args:
        threads: number of CPU threads of each worker.
        rounds: not used; every way is run once.
        items: number of items.
        shard: number of items in a shard.
        engines: engines, separated by commas.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory() as home:
        work = _Work(Path(home), items, shard)
        began = time.perf_counter()
        work.finish(work.start("whole"))
        rows = work.rows("one process", "whole", began)
        for engine in engines.split(","):
            rows += {"ranks": _by_ranks, "ray": _by_ray}[engine](work)
    return rows


def _by_ranks(work: _Work) -> list[Row]:
    began = time.perf_counter()
    ranks = [work.start("ranks", RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    work.wait_for("ranks", len(work.shards("ranks")) // 4)
    ranks[0].send_signal(signal.SIGKILL)
    ranks[0].wait()
    work.finish(ranks[1])
    left = len(work.shards("ranks").missing())
    work.finish(work.start("ranks"))
    system = "two ranks, one killed, second start"
    rows = work.rows(system, "ranks", began)
    return [*rows, _row(work.case, "two ranks, one killed: shards left to it", "shards", left)]


def _by_ray(work: _Work) -> list[Row]:
    if not installed("ray"):
        return [Row(PART, work.case, "two workers of Ray", "s")]
    program, began = ("-m", "benchmarks.bulk"), time.perf_counter()
    driver, count = work.start("ray", program), len(work.shards("ray"))
    work.wait_for("ray", count // 4)
    victim = next(one for one in descendants(driver.pid) if _command(one).startswith(WORKER))
    os.kill(victim, signal.SIGKILL)
    work.wait_for("ray", 3 * count // 4)
    for process in (*descendants(driver.pid), driver.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    driver.wait()
    left = len(work.shards("ray").missing())
    work.finish(work.start("ray", program))
    system = "two workers of Ray, one killed, then all; second start"
    rows = work.rows(system, "ray", began)
    return [*rows, _row(work.case, f"{system}: shards left to it", "shards", left)]


class _Work:
    """A list of prompts, and programs that sample it into folders."""

    def __init__(self, home: Path, items: int, shard: int):
        self.home, self.items, self.shard = home, items, shard
        self.case = f"{items:,} items, {shard} in a shard"
        self.list = home / "prompts.txt"
        self.list.write_text("".join(f"{number % 10}\n" for number in range(items)))

    def shards(self, out: str) -> Shards:
        return Shards(self.home / out, self.items, self.shard)

    def start(
        self, out: str, program: tuple[str, ...] = ("-m", "multidiff"), **environment: str
    ) -> subprocess.Popen:
        words = [*OPTIONS, "--prompt-file", str(self.list), "-o", str(self.home / out)]
        command = [sys.executable, *program, "sample", MODEL, *words, "--shard-size"]
        with (self.home / f"{out}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, str(self.shard)], env={**os.environ, **environment}, stdout=log,
                stderr=log,
            )  # fmt: skip

    def finish(self, running: subprocess.Popen) -> None:
        if running.wait():
            logs = "".join(log.read_text() for log in self.home.glob("*.log"))
            raise SystemExit(f"a program ended with {running.returncode}:\n{logs}")

    def wait_for(self, out: str, count: int) -> None:
        """Wait until that many shards are made."""
        shards = self.shards(out)
        while len(shards) - len(shards.missing()) < count:
            time.sleep(POLL_SECONDS)

    def rows(self, system: str, out: str, began: float) -> list[Row]:
        """Return the seconds, and how many items are not there once, and files not equal."""
        seconds = time.perf_counter() - began
        counts = Counter(record["item"] for record in self.shards(out).records())
        wrong = sum(counts[item] != 1 for item in range(self.items)) + len(counts) - self.items
        mine, whole = digests(self.home / out), digests(self.home / "whole")
        different = sum(mine.get(name) != whole.get(name) for name in {*mine, *whole})
        return [
            _row(self.case, system, "s", seconds),
            _row(self.case, f"{system}: items not there once", "items", wrong),
            _row(self.case, f"{system}: files not equal", f"of {len(whole)}", different),
        ]


def _row(case: str, system: str, unit: str, value: float) -> Row:
    return Row(PART, case, system, unit, value, value, value)


def digests(folder: Path) -> Mapping[str, str]:
    """Return the hash of each file by its name in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def descendants(process: int) -> Iterator[int]:
    """Yield the processes that a process started, and those that they started."""
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from descendants(child)


def _command(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


if __name__ == "__main__":
    import ray  # pyright: ignore[reportMissingImports]

    from multidiff.cli.main import run

    os.environ.setdefault("RAY_worker_niceness", "0")  # else they wait for all other work
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=OBJECT_BYTES
    )
    sys.exit(run([*sys.argv[1:], "--engine", "ray"]))
