"""What the command line does with a picture model."""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.errors import InputError
from multidiff.image.diffusion import STRENGTH, Canvas, PictureDiffusion, Size
from multidiff.image.picture import read_picture
from multidiff.image.published.lora import merge_lora
from multidiff.image.writing import (
    GRID,
    SAMPLES,
    checked_folder,
    checked_prompts,
    painted,
    told_of,
    write_all,
)
from multidiff.report import Report, progress

logger = logging.getLogger(__name__)


def sample(
    model: PictureDiffusion,
    *,
    num: int,
    prompts: Sequence[str],
    out: Path | None,
    steps: int | None = None,
    solver: str | None = None,
    guidance: float | None = None,
    seed: int = 0,
    negative: str = "",
    size: str | None = None,
    rescale: float | None = None,
    init: Path | None = None,
    strength: float | None = None,
    mask: Path | None = None,
    lora: tuple[str, ...] = (),
) -> Report:
    """Pictures of each prompt, a PNG each, and a grid of all.

    Args:
        model: the model.
        num: pictures of each prompt; picture ``i`` of each has seed ``seed + i``.
        prompts: captions or classes; none for a model without either.
        out: folder.
        steps: of the solver.
        solver: its name.
        guidance: scale; 1 is off.
        seed: of the noise.
        negative: a caption to stay away from.
        size: ``WIDTHxHEIGHT``.
        rescale: of the guidance, 0 to 1.
        init: a picture to begin from.
        strength: how much of it is lost first, 0 to 1.
        mask: a picture, white where the initial one is painted anew.
        lora: files of low-rank weights to add, each perhaps with ``:weight`` behind it.

    Raises:
        InputError: if an option is wrong.
    """
    folder = checked_folder(SAMPLES if out is None else out)
    canvas = canvas_of(init, strength, mask, model.domain.channels)
    wanted = list(itertools.product(checked_prompts(model, prompts), range(seed, seed + num)))
    how: Any = {"steps": steps, "solver": solver, "guidance": guidance, "rescale": rescale}
    how |= {"negative": negative, "canvas": canvas, "size": size_of(size) if size else None}
    lines = [_added(model, one) for one in lora]
    texts, seeds = zip(*wanted, strict=True)
    began = time.perf_counter()
    with progress() as on_step:
        pictures = model.generate(texts, seed=seeds, on_step=on_step, **how)
    seconds = time.perf_counter() - began
    told = _told(model, steps, solver, guidance, canvas, pictures)
    told |= {"negative": negative} if negative else {}
    told |= {"lora": " ".join(lora)} if lora else {}
    written = write_all(pictures, wanted, folder, told)
    return told_of(lines, written, folder / GRID, told, seconds)


def size_of(text: str) -> Size:
    """Width and height from ``WIDTHxHEIGHT``.

    Raises:
        InputError: if it is written otherwise.
    """
    found = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if found is None:
        raise InputError(f"--size {text}: write WIDTHxHEIGHT, such as 512x512")
    return int(found[1]), int(found[2])


def canvas_of(
    init: Path | None, strength: float | None, mask: Path | None, channels: int
) -> Canvas | None:
    """The canvas that files describe; none without an initial picture.

    With a mask and no strength, what is painted anew is painted from noise.

    Raises:
        InputError: if a mask or a strength has no picture, or they do not fit.
    """
    if init is None:
        if mask is not None or strength is not None:
            raise InputError("--mask and --strength change a picture: give it by --init")
        return None
    picture = read_picture(init, channels=channels)[None]
    area = None if mask is None else painted(mask, init, picture)
    usual = STRENGTH if mask is None else 1.0
    return Canvas(picture, usual if strength is None else strength, area)


def _added(model: PictureDiffusion, text: str) -> str:
    """Merges a file of low-rank weights, and tells how much of it fitted."""
    path, weight = _weighed(text)
    report = merge_lora(model, path, weight)
    left = f", {len(report.unmatched)} not" if report.unmatched else ""
    return f"{path}: {len(report.matched)} weights changed{left}"


def _weighed(text: str) -> tuple[Path, float]:
    """A file, and the weight behind its last colon."""
    name, colon, weight = text.rpartition(":")
    try:
        return (Path(name), float(weight)) if colon else (Path(text), 1.0)
    except ValueError:
        return Path(text), 1.0


def _told(
    model: PictureDiffusion,
    steps: int | None,
    solver: str | None,
    guidance: float | None,
    canvas: Canvas | None,
    pictures: Tensor,
) -> dict[str, str]:
    """What every picture's file says about how it was made."""
    walk = model.walk
    strength = 1.0 if canvas is None else canvas.strength
    count = 0 if strength == 0 else walk.steps if steps is None else steps
    own = walk.guidance if model.domain.reads != "nothing" else 1.0
    facts = {
        "model": model.name,
        "steps": str(count),
        "solver": solver or walk.solver,
        "guidance": f"{own if guidance is None else guidance:g}",
        "size": f"{pictures.shape[3]}x{pictures.shape[2]}",
    }
    facts |= {"replaces": walk.replaces} if walk.replaces else {}
    return facts if canvas is None else {**facts, "strength": f"{strength:g}"}
