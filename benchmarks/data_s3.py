"""Training from a local S3 server beside local files: losses, traffic, the cache's limit, a kill.

Two processes train a small network on PNG files of noise for an epoch: from local files; then from
the server, killed by SIGKILL in the middle and resumed, with the server away for a while.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.s3_server import COUNTS
from benchmarks.timing import Row
from multidiff.data.cache import ENVIRONMENT

PART, MEGABYTE = "data", 10**6
RECIPE = Path(__file__).parent.parent / "recipes" / "smoke" / "ddpm_cifar10.yaml"
SOURCE = '{path: "starter:digits", held_out_every: 10, label_column: label}'
SIDE, GROUP_ROWS, FILE_GROUPS, BATCH = 144, 16, 50, 32  # groups of 1 MB, files of 50
STREAMS, WINDOW, AWAY_S = 8, 4, 20
LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
    "--main_process_port", "0", "-m", "multidiff.cli.main", "train",
]  # fmt: skip


def s3_rows(home: Path, megabytes: int, cache_megabytes: int) -> list[Row]:
    """Measure training from a server beside training from files.

    Args:
        home: folder of the set, the runs and the cache.
        megabytes: size of the set.
        cache_megabytes: limit of the cache.
    """
    store, work = home / f"s3-{megabytes}", home / "s3-runs"
    count = _make_images(store / "bucket" / "images", megabytes)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    steps = count // BATCH
    local = _recipe(work / "local.yaml", str(store / "bucket" / "images"), cache_megabytes, steps)
    with _Server(store) as server, _Watch(work / "cache") as watch:
        remote = _recipe(
            work / "remote.yaml", "s3://bucket/images", cache_megabytes, steps, server.endpoint
        )
        began = time.perf_counter()
        _finish(_train(local, work / "local", work / "cache-local"))
        local_s = time.perf_counter() - began
        running = _train(remote, work / "remote", work / "cache")
        _wait(running, lambda: _checkpoints(work / "remote") >= 2)
        _kill(running)
        before, began = server.sent(), time.perf_counter()
        logged = len(_losses(work / "remote"))
        running = _train(remote, work / "remote", work / "cache", "--resume")
        _wait(running, lambda: len(_losses(work / "remote")) > logged)
        start_s, start_bytes = time.perf_counter() - began, server.sent() - before
        server.end()
        time.sleep(AWAY_S)
        server.begin()
        _finish(running)
        sent, most = server.sent(), watch.most
    same = _losses(work / "local") == _losses(work / "remote")
    size = sum(one.stat().st_size for one in (store / "bucket" / "images").iterdir())
    values = {
        f"losses equal to local files, server away for {AWAY_S} s (1 is yes)": (float(same), ""),
        "bytes fetched in an epoch, by the size of the data": (sent / size, ""),
        "cache at most": (most / MEGABYTE, "MB"),
        "resumed start, to the first log": (start_s, "s"),
        "fetched by then": (start_bytes / MEGABYTE, "MB"),
        "an epoch from local files, whole run": (local_s, "s"),
    }
    case = f"s3, {size / MEGABYTE:,.0f} MB, cache {cache_megabytes} MB, {steps} steps"
    return [
        Row(PART, case, name, unit, value, value, value) for name, (value, unit) in values.items()
    ]


def _make_images(folder: Path, megabytes: int) -> int:
    """Write parquet files of images, if they are not there, and return the number of images."""
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    count = max(megabytes * MEGABYTE // (3 * SIDE**2) // BATCH, 8) * BATCH
    if (folder.parent / "done").is_file():
        return count
    folder.mkdir(parents=True, exist_ok=True)
    random, rows = np.random.default_rng(0), GROUP_ROWS * FILE_GROUPS
    for first in range(0, count, rows):
        table = []
        for _ in range(first, min(first + rows, count)):
            content = io.BytesIO()
            pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(content, "PNG", compress_level=0)
            table.append({"image": {"bytes": content.getvalue(), "path": None}})
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(table),
            folder / f"{first:09d}.parquet",
            row_group_size=GROUP_ROWS,
            write_page_checksum=True,
            compression="none",
        )
    (folder.parent / "done").touch()
    return count


def _recipe(path: Path, source: str, cache: int, steps: int, endpoint: str | None = None) -> Path:
    groups: dict[str, Any] = {"streams": STREAMS, "window": WINDOW, "cache_gb": cache / 1000}
    groups |= {"store": {"endpoint": endpoint}} if endpoint else {}
    content = RECIPE.read_text()
    data, _, trainer = content.partition("\nvalidation:")
    data = data.replace(SOURCE, json.dumps({"path": source, "row_groups": groups}))
    settings = {"steps": steps, "save_every": max(steps // 5, 1), "log_every": 1, "threads": 1}
    settings |= {"use": "Trainer", "learning_rate": 1e-3, "workers": 1}
    assert trainer and json.dumps(source) in data
    path.write_text(
        data.replace("batch_size: 8", f"batch_size: {BATCH}")
        + f"\ntrainer: {json.dumps(settings)}\n"
    )
    return path


def _train(recipe: Path, out: Path, cache: Path, *words: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "", "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1", ENVIRONMENT: str(cache),
    }  # fmt: skip
    command = [*LAUNCH, str(recipe), "--out", str(out), *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def _finish(running: subprocess.Popen[str]) -> None:
    _, errors = running.communicate()
    if running.returncode:
        own = [line for line in errors.splitlines() if line.startswith("multidiff: ")]
        raise SystemExit("\n".join(own) or f"training ended with {running.returncode}:\n{errors}")


def _kill(running: subprocess.Popen[str]) -> None:
    """Kill the launcher and its processes, which are in sessions of their own."""
    import psutil

    launcher = psutil.Process(running.pid)
    for one in [*launcher.children(recursive=True), launcher]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    running.communicate()


def _wait(running: subprocess.Popen[str], until: Any) -> None:
    while not until():
        if running.poll() is not None:
            _finish(running)
            raise SystemExit("training ended before it could be killed; make the set larger")
        time.sleep(0.05)


def _checkpoints(out: Path) -> int:
    folder = out / "checkpoints"
    return sum(one.name.isdigit() for one in folder.iterdir()) if folder.is_dir() else 0


def _losses(out: Path) -> list[Any]:
    path = out / "log.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if '"train"' in line and line.endswith("}")]


class _Server:
    """The server in a process of its own, on one port; its counts add up."""

    def __init__(self, folder: Path):
        self.folder, self.port, self._before = folder, 0, 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> _Server:
        self.begin()
        return self

    def __exit__(self, *raised: object) -> None:
        self.end()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        command = [sys.executable, "-m", "benchmarks.s3_server", str(self.folder), str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def end(self) -> None:
        if self._process is not None:
            self._before = self.sent()
            self._process.kill()
            self._process.communicate()
            self._process = None

    def sent(self) -> int:
        if self._process is None:
            return self._before
        with urllib.request.urlopen(f"{self.endpoint}{COUNTS}") as answer:
            return self._before + int(answer.read().split()[1])


class _Watch:
    """Polls the size of the entries of a cache."""

    def __init__(self, folder: Path):
        self.folder, self.most, self._ended = folder, 0, threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._ended.wait(0.1):
            self.most = max(self.most, sum(self._sizes()))

    def _sizes(self) -> Iterator[int]:
        for one in self.folder.glob("*.cache/*"):
            with contextlib.suppress(OSError):  # removed meanwhile
                yield one.stat().st_size
