"""Pictures into a folder, and what is read of files beside: what the picture commands share."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxtyping import Bool
from torch import Tensor

from multidiff.errors import InputError
from multidiff.image.picture import grid, read_picture, write_picture
from multidiff.report import Report

logger = logging.getLogger(__name__)

SAMPLES = Path("samples")
GRID = "grid.png"
LONGEST_NAME = 40
PAINTED = 128  # grey levels of a mask from here on are painted anew


class Prompted(Protocol):
    """A model of pictures, perhaps drawn by prompts."""

    domain: Any


def painted(mask: Path, init: Path, picture: Tensor) -> Bool[Tensor, "height width"]:
    """Where a mask is white: there a picture is painted anew.

    Args:
        mask: a file.
        init: the picture's file.
        picture: the picture, ``(1, colours, height, width)``.

    Raises:
        InputError: if it is of another size, or black everywhere.
    """
    area = read_picture(mask, channels=1)[0] >= PAINTED
    if area.shape != picture.shape[2:]:
        raise InputError(
            f"{mask}: has {area.shape[1]}x{area.shape[0]} pixels and {init} "
            f"{picture.shape[3]}x{picture.shape[2]}: make them the same"
        )
    if not bool(area.any()):
        raise InputError(f"{mask}: is black everywhere: paint white what is to be painted anew")
    return area


def checked_folder(folder: Path) -> Path:
    """A folder that pictures may be written into.

    Raises:
        InputError: if it is a file.
    """
    if folder.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
        raise InputError(f"-o {folder}: several files are written; name a folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder}: is a file; name a folder")
    return folder


def checked_prompts(model: Prompted, prompts: Sequence[str]) -> list[str]:
    """Prompts that the model can read; an empty one where it needs none.

    Raises:
        InputError: if it reads none, or needs one.
    """
    reads = model.domain.reads
    if reads == "nothing" and prompts:
        raise InputError(f"--prompt {prompts[0]}: this model was trained without prompts")
    if reads == "prompt" and not prompts:
        raise InputError("--prompt: say what the pictures are to show")
    for complaint in map(model.domain.complaint, prompts):
        if complaint:
            logger.warning("%s", complaint)
    return list(prompts) or [""]


def write_all(
    pictures: Tensor, wanted: Sequence[tuple[str, int]], folder: Path, told: dict[str, str]
) -> list[tuple[Path, str, int]]:
    """A PNG for each picture, with its prompt and seed in the name, and a grid of all.

    Args:
        pictures: bytes.
        wanted: prompt and seed of each.
        folder: that receives them.
        told: what every file says about how it was made.

    Returns:
        Path, prompt and seed of each.
    """
    written = []
    for number, (picture, (prompt, seed)) in enumerate(zip(pictures, wanted, strict=True)):
        words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-")[:LONGEST_NAME]
        name = "-".join(part for part in (f"{number:03d}", words, str(seed)) if part)
        path = folder / f"{name}.png"
        write_picture(picture, path, {"prompt": prompt, "seed": str(seed), **told})
        written.append((path, prompt, seed))
    seeds = " ".join(str(seed) for _, seed in wanted)
    everything = {"prompt": " | ".join(dict.fromkeys(p for p, _ in wanted)), "seed": seeds}
    write_picture(grid(pictures), folder / GRID, {**everything, **told})
    return written


def told_of(
    lines: list[str],
    written: Sequence[tuple[Path, str, int]],
    whole: Path,
    told: dict[str, str],
    seconds: float,
) -> Report:
    """What a command says of the pictures that it wrote.

    Args:
        lines: what is said first.
        written: path, prompt and seed of each picture.
        whole: the grid.
        told: how they were made.
        seconds: that it took.
    """
    facts = {
        "outputs": [{"path": str(p), "prompt": text, "seed": n} for p, text, n in written],
        "grid": str(whole),
        **told,
        "wall_seconds": round(seconds, 3),
    }
    each = [f"{path}: {prompt or 'a picture'}, seed {number}" for path, prompt, number in written]
    return Report([*lines, *each, f"{whole}: {len(written)} pictures, {seconds:.1f} s"], facts)
