"""Bytes, memory and hours of data of any size, by extrapolation from measured rates.

``python -m benchmarks.data_plan`` prints the tables of docs/scale.md in Markdown. Change a rate
here when it has been measured again.
"""

from __future__ import annotations

from dataclasses import dataclass

GB, TB = 10**9, 10**12
# Measured on one core of an AMD EPYC, busy (docs/scale.md): bytes or items a second.
TEXT_BYTES = 13e6  # first pass of texts
TOKEN_BYTES = {"words": 6e6, "SentencePiece": 3e6, "BPE": 1.4e6}  # bytes of text
LISTED_IMAGES = 1 / 63e-6  # of archives, with a caption
SOUND_HOURS = 20 / (2 * 57)  # the store, of FLAC: 57 s on two cores for 20 hours
DECODED_IMAGES = 1 / 5e-3  # photographs
# Measured: bytes of the tables for a byte of text, an image's row, a sample of sound.
TABLE_OF_TEXT, TABLE_OF_IMAGE, TABLE_OF_SAMPLE = 1.9, 130, 2
# Measured: anonymous memory of a process of a run from disk, of five, without the network.
PROCESS = 437e6 / 5
# Counted: operations of the encoder (KL, f8; VQ of MaskGIT) for an image, bytes of its codes.
ENCODER = {"KL 256": 0.27e12, "KL 512": 1.12e12, "VQ 256": 0.137e12}
CODES = {"KL 256": 32e3, "KL 512": 128e3, "VQ 256": 320.0}
# Assumed: an H200 at 35 % of its bfloat16 peak, 64 cores, a link of 10 Gbit/s for a machine.
GPU, CORES, LINK = 0.35 * 989e12, 64, 1.25e9


@dataclass(frozen=True)
class Cost:
    """Cost of preparing a set.

    Attributes:
        source: bytes of the set itself.
        tables: bytes of what is prepared.
        memory: bytes of a process of a run; None for a set that is kept in memory whole.
        core_hours: hours of one core.
        gpu_hours: hours of one GPU.
    """

    source: float
    tables: float
    memory: float
    core_hours: float = 0
    gpu_hours: float = 0


def texts(size: float, tokens: str) -> Cost:
    """Return the cost of sentences of that many bytes."""
    seconds = size / TEXT_BYTES + size / TOKEN_BYTES[tokens]
    return Cost(size, TABLE_OF_TEXT * size, PROCESS, seconds / 3600)


def images(count: float, each: float, codes: str | None = None) -> Cost:
    """Return the cost of images in archives, of that many bytes each.

    Args:
        count: number of images.
        each: bytes of a file.
        codes: encoder of ``precompute``; None for images that are decoded at each visit.
    """
    tables, seconds, gpu = TABLE_OF_IMAGE * count, count / LISTED_IMAGES, 0.0
    if codes is not None:
        tables += CODES[codes] * count
        seconds += count / DECODED_IMAGES
        gpu = ENCODER[codes] * count / GPU / 3600
    return Cost(count * each, tables, PROCESS, seconds / 3600, gpu)


def speech(hours: float, rate: int, source: float = 81e6) -> Cost:
    """Return the cost of that many hours of FLAC, stored at a rate in hertz."""
    tables = hours * 3600 * rate * TABLE_OF_SAMPLE
    return Cost(hours * source, tables, PROCESS, hours / SOUND_HOURS / 3600)


def in_memory(size: float, grown: float) -> Cost:
    """Return the cost of a set that is read at each start, and of its objects in memory."""
    return Cost(size, 0, PROCESS + grown)


# Recipe and set, by the sizes that its authors state.
RECIPES = {
    "audio/wavegrad.yaml: LJSpeech, 24 h": speech(24, 24_000),
    "audio/wavegrad.yaml: as published, 385 h": speech(385, 24_000),
    "audio/tts_ljspeech.yaml: LJSpeech, 24 h": speech(24, 22_050),
    "image/ddpm_cifar10.yaml: CIFAR-10, 50,000 images": in_memory(0.12 * GB, 50_000 * 3072),
    "image/autoencoder.yaml: OpenImages, 9 million": images(9e6, 300e3),
    "image/vq_autoencoder.yaml: ImageNet, 1.28 million": images(1.28e6, 110e3),
    "image/maskgit_imagenet.yaml: ImageNet, tokens": images(1.28e6, 110e3, "VQ 256"),
    "image/stable_diffusion.yaml: 600 million captions, latents": images(600e6, 100e3, "KL 512"),
    "text/diffusion_lm.yaml: E2E, 42,000 texts": in_memory(9e6, 36e6),
    "text/diffuser_wikisplit.yaml: 990,000 pairs": texts(0.39 * GB, "BPE"),
    "text/diffuser_wmt.yaml: WMT14, 4.5 million pairs": texts(1.35 * GB, "SentencePiece"),
    "text/masked_text.yaml: LM1B, 30 million": texts(4.2 * GB, "BPE"),
}
PLANS = {
    "10,000 hours of speech, store of 22 kHz": speech(10_000, 22_050),
    "a billion images of 100 kB, decoded at each visit": images(1e9, 100e3),
    "the same, latents of 256 x 256": images(1e9, 100e3, "KL 256"),
    "the same, latents of 512 x 512": images(1e9, 100e3, "KL 512"),
}


def rendered(rows: dict[str, Cost], column: str) -> list[str]:
    """Return costs as a table in Markdown."""
    names = (column, "set", "prepared", "a process", "one core", f"{CORES} cores", "one H200")
    lines = [f"| {' | '.join(names)} |", f"| --- |{' --: |' * (len(names) - 1)}"]
    for name, cost in rows.items():
        cells = [
            name, size_text(cost.source), size_text(cost.tables), size_text(cost.memory),
            time_text(cost.core_hours), time_text(cost.core_hours / CORES),
            time_text(cost.gpu_hours),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def size_text(count: float) -> str:
    """Return a number of bytes as text."""
    for unit, name in ((TB, "TB"), (GB, "GB"), (10**6, "MB")):
        if count >= unit:
            return (
                f"{count / unit:.3g} {name}"
                if count < 1000 * unit
                else f"{count / unit:,.0f} {name}"
            )
    return "-"


def time_text(hours: float) -> str:
    """Return a time as text."""
    if not hours:
        return "-"
    if hours >= 1:
        return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"
    return f"{60 * hours:.0f} min" if hours >= 1 / 30 else f"{max(1, 3600 * hours):.0f} s"


if __name__ == "__main__":
    print(*rendered(RECIPES, "recipe: set"), "", *rendered(PLANS, "plan"), sep="\n")
    for plan, cost in PLANS.items():
        read = cost.source / LINK / 3600
        print(f"\n{plan}: one machine reads the set in {time_text(read)}")
