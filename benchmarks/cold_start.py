"""Time and memory of loading a shipped model in a fresh process, and of a first image.

``import torch`` is the reference: a build with CUDA maps its libraries in every process, and no
model can take less. The CPU build takes about half of that memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory

from benchmarks.decode_memory import MIB, peak
from benchmarks.timing import Row, counted, rows_of

PART = "cold-start"
IMPORTED, SAMPLE = "import torch", "multidiff sample digits"


def measure(threads: int, rounds: int, *, models: str = "") -> list[Row]:
    """Measure fresh processes, for a third of the rounds.

    Args:
        threads: number of CPU threads.
        rounds: number of rounds of the other parts.
        models: names of shipped models, separated by commas; empty for all.
    """
    from multidiff.models.loading import shipped

    names = models.split(",") if models else list(shipped())
    calls: dict[str, list[str]] = {IMPORTED: []} | {f'md.load("{name}")': [name] for name in names}
    if "digits" in names:
        calls[SAMPLE] = ["digits", "sample"]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for number in range(max(rounds // 3, 1)):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            found[name].append(_fresh([str(threads), *calls[name]]))
    case, rows = f"fresh process, {counted(threads)}", []
    for key, unit in (("wall", "s"), ("cpu", "s of CPU"), ("peak", "MiB, peak")):
        values = {name: [one[key] for one in ones] for name, ones in found.items()}
        rows += rows_of(PART, case, values, IMPORTED, unit)
    return rows


def _fresh(words: list[str]) -> dict[str, float]:
    """Run this module in a fresh process, and return its figures with the whole process's time."""
    program, began = [sys.executable, "-m", "benchmarks.cold_start", *words], time.perf_counter()
    done = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True)
    wall = time.perf_counter() - began
    return {"wall": wall, **json.loads(done.stdout.splitlines()[-1])}


def _work(words: list[str]) -> None:
    import torch

    torch.set_num_threads(int(words[0]))
    if words[2:] == ["sample"]:
        from multidiff.cli.main import run

        with TemporaryDirectory() as folder:
            if run(["sample", words[1], "--prompt", "a seven", "-o", folder]):
                sys.exit(2)
    elif words[1:]:
        import multidiff as md

        md.load(words[1])


def _figures(work: Callable[[list[str]], None], words: list[str]) -> dict[str, float]:
    work(words)
    return {"cpu": time.process_time(), "peak": peak() / MIB}


if __name__ == "__main__":
    print(json.dumps(_figures(_work, sys.argv[1:])))
