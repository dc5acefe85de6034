"""What the command line does with an image model."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multidiff.image.data.image_files import read_image
from multidiff.image.data.provenance import lora_facts, model_facts, source_facts
from multidiff.image.diffusion.model import STRENGTH, Canvas, ImageDiffusion, Size
from multidiff.image.outputs import (
    SAMPLES,
    ImageWriter,
    checked_folder,
    checked_prompts,
    painted,
)
from multidiff.image.stable_diffusion.lora import merge_lora
from multidiff.utils.errors import InputError
from multidiff.utils.files import lock_dir
from multidiff.utils.report import OnLine, Report, progress

logger = logging.getLogger(__name__)


def sample(
    model: ImageDiffusion,
    *,
    num: int,
    prompts: Sequence[str],
    out: Path | None,
    steps: int | None = None,
    sampler: str | None = None,
    guidance_scale: float | None = None,
    seed: int = 0,
    negative_prompt: str = "",
    size: str | None = None,
    rescale: float | None = None,
    init_image: Path | None = None,
    strength: float | None = None,
    mask_image: Path | None = None,
    lora: tuple[str, ...] = (),
    on_line: OnLine | None = None,
) -> Report:
    """Images of each prompt, a PNG each as soon as it is made, and a grid of all.

    Args:
        model: the model.
        num: images of each prompt; image ``i`` of each has seed ``seed + i``.
        prompts: captions or classes; none for a model without either.
        out: folder.
        steps: of the sampler.
        sampler: its name.
        guidance_scale: scale; 1 is off.
        seed: of the noise.
        negative_prompt: a caption to stay away from.
        size: ``WIDTHxHEIGHT``.
        rescale: of the guidance, 0 to 1.
        init_image: an image to begin from.
        strength: how much of it is lost first, 0 to 1.
        mask_image: an image, white where the initial one is repainted.
        lora: files of low-rank weights to add, each perhaps with ``:weight`` behind it.
        on_line: called with each line of the report as soon as it is known.

    Raises:
        InputError: if an option is wrong.
    """
    folder = checked_folder(SAMPLES if out is None else out)
    canvas = canvas_of(init_image, strength, mask_image, model.domain.channels)
    wanted = list(itertools.product(checked_prompts(model, prompts), range(seed, seed + num)))
    how: Any = {
        "steps": steps,
        "sampler": sampler,
        "guidance_scale": guidance_scale,
        "rescale": rescale,
    }
    how |= {
        "negative_prompt": negative_prompt,
        "canvas": canvas,
        "size": size_of(size) if size else None,
    }
    texts, seeds = zip(*wanted, strict=True)
    with lock_dir(folder), model_facts(model) as facts_of_model, progress() as on_step:

        def facts() -> dict[str, str]:
            own = _facts(model, steps, sampler, guidance_scale, rescale, canvas)
            own |= {"negative_prompt": negative_prompt} if negative_prompt else {}
            own |= source_facts(init_image=init_image, mask_image=mask_image) | lora_facts(model)
            return facts_of_model() | own

        writer = ImageWriter(folder, wanted, facts, on_line)
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
    init_image: Path | None, strength: float | None, mask_image: Path | None, channels: int
) -> Canvas | None:
    """The canvas that files describe; none without an initial image.

    With a mask and no strength, what is repainted begins from noise.

    Raises:
        InputError: if a mask or a strength has no image, or they do not fit.
    """
    if init_image is None:
        if mask_image is not None or strength is not None:
            raise InputError("--mask-image and --strength change an image: give it by --init-image")
        return None
    image = read_image(init_image, channels=channels)[None]
    area = None if mask_image is None else painted(mask_image, init_image, image)
    usual = STRENGTH if mask_image is None else 1.0
    return Canvas(image, usual if strength is None else strength, area)


def _added(model: ImageDiffusion, text: str) -> str:
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
    model: ImageDiffusion,
    steps: int | None,
    sampler: str | None,
    guidance_scale: float | None,
    rescale: float | None,
    canvas: Canvas | None,
) -> dict[str, str]:
    """What every image's file says about how it was made, beside model and files."""
    sampling = model.sampling
    strength = 1.0 if canvas is None else canvas.strength
    count = 0 if strength == 0 else sampling.steps if steps is None else steps
    own = sampling.guidance_scale if model.domain.reads != "nothing" else 1.0
    facts = {
        "steps": str(count),
        "sampler": sampler or sampling.sampler,
        "times": sampling.grid if strength == 1 else "even",
        "guidance_scale": f"{own if guidance_scale is None else guidance_scale:g}",
        "rescale": f"{sampling.rescale if rescale is None else rescale:g}",
    }
    facts |= {"replaces": sampling.replaces} if sampling.replaces else {}
    return facts if canvas is None else {**facts, "strength": f"{strength:g}"}
