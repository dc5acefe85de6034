"""Peak memory and time of decoding one image at the true shape of Stable Diffusion's autoencoder.

Each decoding runs in its own process, with random weights: the package's, whole and in tiles,
and diffusers' AutoencoderKL with tiles of the same size. Memory is the process's largest resident
set, and the increase by decoding: before, the process holds torch and the weights. Ratios are to
diffusers' whole image.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import Row, counted, installed, rows_of

PART = "decode-memory"
CHANNELS, SMALL = (128, 256, 512, 512), (32, 32, 32, 32)
REFERENCE = "diffusers AutoencoderKL, whole"
MIB = 2**20


def measure(
    threads: int, rounds: int, *, side: int = 512, tile: int = 256, small: int = 0
) -> list[Row]:
    """Measure both libraries, whole and in tiles, for a third of the rounds.

    Args:
        threads: number of CPU threads.
        rounds: number of rounds of the other parts; a process takes half a minute.
        side: height and width of the image.
        tile: height and width of a tile.
        small: 1 uses a tiny autoencoder instead, to try this out.
    """
    systems = {
        REFERENCE: ["theirs", 0],
        f"diffusers AutoencoderKL, tiles of {tile}": ["theirs", tile],
        "multidiff Autoencoder, whole": ["ours", 0],
        f"multidiff Autoencoder, tiles of {tile}": ["ours", tile],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in systems}
    for number in range(max(rounds // 3, 1)):
        for name in list(systems)[:: -1 if number % 2 else 1]:
            if systems[name][0] == "ours" or installed("diffusers"):
                found[name].append(_in_a_process([*systems[name], side, small, threads]))
    case, rows = f"{side}x{side}, {counted(threads)}", []
    for key, unit in (("peak", "MiB, all"), ("added", "MiB, decoding"), ("seconds", "CPU s")):
        values = {name: [one[key] for one in ones] for name, ones in found.items()}
        rows += rows_of(PART, case, values, REFERENCE, unit)
    return rows


def _in_a_process(words: list[Any]) -> dict[str, float]:
    program = [sys.executable, "-m", "benchmarks.decode_memory", *map(str, words)]
    done = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _decode(who: str, tile: int, side: int, small: int, threads: int) -> dict[str, float]:
    """Decode in one process and return its figures."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    channels = SMALL if small else CHANNELS
    decode = (_ours if who == "ours" else _theirs)(channels, tile)
    latent = torch.randn(1, 4, side // 8, side // 8)
    with torch.no_grad():
        decode(latent[:, :, :4, :4])  # the first call loads code
        before, began = peak(), time.process_time()
        decode(latent)
    return {
        "seconds": time.process_time() - began,
        "peak": peak() / MIB,
        "added": (peak() - before) / MIB,
    }


def _ours(channels: tuple[int, ...], tile: int) -> Any:
    from multidiff.image.autoencoders.kl import AutoencoderKL

    return AutoencoderKL(channels=channels, tile=tile).eval().decode


def _theirs(channels: tuple[int, ...], tile: int) -> Any:
    from diffusers import AutoencoderKL

    network: Any = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=2,
        sample_size=tile or 512,
    ).eval()
    if tile:
        network.enable_tiling()
    return lambda latent: network.decode(latent).sample


def peak() -> int:
    """Return the bytes of this process's largest resident set.

    The count of ``resource`` may start from the parent's; that of the memory map does not, where
    it can be read.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


if __name__ == "__main__":
    print(json.dumps(_decode(sys.argv[1], *map(int, sys.argv[2:]))))
