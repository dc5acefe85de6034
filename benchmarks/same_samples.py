"""Samples of every shipped model at two commits, same seeds: equal to the bit, or not.

    python -m benchmarks.same_samples BEFORE [AFTER] [--threads 1]

Checks both commits out into a temporary folder and runs the same commands of each, with default
options, on this machine with the same torch and number of threads. Compares decoded pixels, sound
samples and texts, since files also have metadata that may change. Prints one row for each model
and ends with status 1 if any differs. It is not part of the test suite: samples depend on machine,
torch and threads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

MAIN = """
import sys
try:
    from multidiff.cli.main import run
except ImportError:  # a commit before the layout by process
    from multidiff.cli import run
sys.exit(run(sys.argv[1:]))
"""
STARTER_DIGITS = "starter:digits/digits.parquet"
COMMANDS = {
    "speech": ["synth", "starter:speech/LJ001-0019.flac", "--seed", "3", "-o", "OUT/spoken.wav"],
    "digits": ["sample", "digits", "--prompt", "7", "-n", "4", "--seed", "3", "-o", "OUT"],
    "digit-tokens": [
        *("sample", "digit-tokens", "--prompt", "7", "-n", "4", "--seed", "3", "-o", "OUT"),
    ],
    "digit-features": ["eval", "digit-features", STARTER_DIGITS, "--json"],
    "restaurant": ["sample", "restaurant", "-n", "4", "--seed", "3"],
    "restaurant-control": [
        *("sample", "restaurant", "-n", "2", "--seed", "3", "--control", "food=Italian"),
    ],
    "masked": ["sample", "masked", "-n", "4", "--seed", "3"],
    "edits": ["sample", "edits", "--source", "the food is is very nice pub", "--seed", "3"],
    "english-edits": ["sample", "english-edits", "--source", "He have  recieved it. I did to."],
    "edits, noise": ["sample", "edits", "--start", "noise", "-n", "2", "--seed", "3"],
    "shakespeare": ["sample", "shakespeare", "-n", "2", "--seed", "3"],
}  # fmt: skip


def content(path: Path) -> bytes:
    """Return a file's content, without its metadata."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            return np.asarray(image).tobytes()
    if path.suffix in (".wav", ".flac"):
        return soundfile.read(path, dtype="int16")[0].tobytes()
    return path.read_bytes()


def digest(tree: Path, arguments: list[str], threads: int) -> str:
    """Return a digest of everything that one command produces, its text output included."""
    environment = {
        **os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        words = [word.replace("OUT", folder) for word in arguments]
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *words],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            return f"status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
        found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        total = hashlib.sha256(b"".join(content(path) for path in found))
        if not found:
            total.update(_without_times(done.stdout).encode())
        return total.hexdigest()[:16]


def _without_times(text: str) -> str:
    """Remove timings: JSON keys in seconds, and the closing line of texts."""
    try:
        facts = json.loads(text)
    except ValueError:
        return "\n".join(line for line in text.splitlines() if " s" not in line.split("(")[-1])
    return json.dumps({key: value for key, value in facts.items() if "second" not in key})


def checked_out(commit: str, folder: Path) -> Path:
    """Return the folder with a commit's files."""
    subprocess.run(
        ["git", "worktree", "add", "--quiet", "--detach", str(folder), commit], check=True
    )
    return folder


def main() -> int:
    """Compare two commits; return status 1 if any model's samples differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default="HEAD")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        trees = [
            checked_out(commit, Path(folder) / name)
            for name, commit in (("before", given.before), ("after", given.after))
        ]
        try:
            for name, arguments in COMMANDS.items():
                one, other = (digest(tree, arguments, given.threads) for tree in trees)
                different += one != other
                print(f"{name:20s} {one}  {other}  {'equal' if one == other else 'DIFFERENT'}")
        finally:
            for tree in trees:
                subprocess.run(["git", "worktree", "remove", "--force", str(tree)], check=False)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
