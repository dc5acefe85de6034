"""What the command line does with a picture model."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multidiff.image.data.image_files import read_picture
from multidiff.image.data.provenance import lora_facts, model_facts, source_facts
from multidiff.image.diffusion.model import STRENGTH, Canvas, PictureDiffusion, Size
from multidiff.image.outputs import (
    SAMPLES,
    PictureWriter,
    checked_folder,
    checked_prompts,
    painted,
)
from multidiff.image.stable_diffusion.lora import merge_lora
from multidiff.utils.errors import InputError
from multidiff.utils.files import kept_to_itself
from multidiff.utils.report import OnLine, Report, progress

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
    on_line: OnLine | None = None,
) -> Report:
    """Pictures of each prompt, a PNG each as soon as it is made, and a grid of all.

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
        mask: a picture, white where the initial one is repainted.
        lora: files of low-rank weights to add, each perhaps with ``:weight`` behind it.
        on_line: called with each line of the report as soon as it is known.

    Raises:
        InputError: if an option is wrong.
    """
    folder = checked_folder(SAMPLES if out is None else out)
    canvas = canvas_of(init, strength, mask, model.domain.channels)
    wanted = list(itertools.product(checked_prompts(model, prompts), range(seed, seed + num)))
    how: Any = {"steps": steps, "solver": solver, "guidance": guidance, "rescale": rescale}
    how |= {"negative": negative, "canvas": canvas, "size": size_of(size) if size else None}
    texts, seeds = zip(*wanted, strict=True)
    with kept_to_itself(folder), model_facts(model) as facts_of_model, progress() as on_step:

        def facts() -> dict[str, str]:
            own = _facts(model, steps, solver, guidance, rescale, canvas)
            own |= {"negative": negative} if negative else {}
            own |= source_facts(init=init, mask=mask) | lora_facts(model)
            return facts_of_model() | own

        writer = PictureWriter(folder, wanted, facts, on_line)
        for one in lora:
            writer.say(_added(model, one))
        model.generate(texts, seed=seeds, on_step=on_step, on_batch=writer.write, **how)
        return writer.report()


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

    With a mask and no strength, what is repainted begins from noise.

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


def _facts(
    model: PictureDiffusion,
    steps: int | None,
    solver: str | None,
    guidance: float | None,
    rescale: float | None,
    canvas: Canvas | None,
) -> dict[str, str]:
    """What every picture's file says about how it was made, beside model and files."""
    walk = model.walk
    strength = 1.0 if canvas is None else canvas.strength
    count = 0 if strength == 0 else walk.steps if steps is None else steps
    own = walk.guidance if model.domain.reads != "nothing" else 1.0
    facts = {
        "steps": str(count),
        "solver": solver or walk.solver,
        "times": walk.grid if strength == 1 else "even",
        "guidance": f"{own if guidance is None else guidance:g}",
        "rescale": f"{walk.rescale if rescale is None else rescale:g}",
    }
    facts |= {"replaces": walk.replaces} if walk.replaces else {}
    return facts if canvas is None else {**facts, "strength": f"{strength:g}"}
