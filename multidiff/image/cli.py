"""Commands of Gaussian-diffusion image models."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multidiff.config.option_set import options_as_text
from multidiff.image.data.image_files import read_image
from multidiff.image.data.provenance import lora_facts, model_facts, source_facts
from multidiff.image.diffusion.model import STRENGTH, Canvas, ImageDiffusion, Size
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.interpolation import interpolate as between
from multidiff.image.interpolation import labelled_frames, write_gif
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
    seed: int,
    sampling: ImageSamplingConfig,
    negative_prompt: str = "",
    size: str | None = None,
    init_image: Path | None = None,
    strength: float | None = None,
    mask_image: Path | None = None,
    lora: tuple[str, ...] = (),
    interpolate: int = 0,
    on_line: OnLine | None = None,
) -> Report:
    """Write images of each prompt, a PNG each as soon as it is generated, and a grid of all.

    Args:
        model: the model.
        num: number of images of each prompt; image ``i`` of each uses seed ``seed + i``.
        prompts: captions or classes; empty for a model without either.
        out: folder of the images.
        seed: random seed of each prompt's first image.
        sampling: sampling options.
        negative_prompt: caption that guidance leads away from.
        size: ``WIDTHxHEIGHT`` in pixels.
        init_image: initial image (img2img).
        strength: fraction of the initial image replaced by noise first, 0 to 1; by default
            0.8, and 1 with a mask.
        mask_image: image that is white where the initial one is inpainted.
        lora: LoRA files to merge, each optionally followed by ``:weight``.
        interpolate: number of frames from each prompt and seed to the next, both included: a
            strip and a GIF; 0 for none.
        on_line: function called with each line of the report as soon as it is known.

    Raises:
        InputError: if an option is wrong.
    """
    folder = checked_folder(SAMPLES if out is None else out)
    canvas = canvas_of(init_image, strength, mask_image, model.domain.channels)
    wanted = list(itertools.product(checked_prompts(model, prompts), range(seed, seed + num)))
    if interpolate and (canvas is not None or size):
        raise InputError("--interpolate: goes with neither --init-image nor --size")
    ends, wanted = wanted, labelled_frames(wanted, interpolate) if interpolate else wanted
    texts, seeds = zip(*wanted, strict=True)
    pixels = size_of(size) if size else None
    with lock_dir(folder), model_facts(model) as facts_of_model, progress() as on_step:

        def facts() -> dict[str, str]:
            own = _facts(sampling, canvas)
            own |= {"negative_prompt": negative_prompt} if negative_prompt else {}
            own |= source_facts(init_image=init_image, mask_image=mask_image) | lora_facts(model)
            return facts_of_model() | own

        writer = ImageWriter(folder, wanted, facts, on_line)
        for one in lora:
            writer.say(_added(model, one))
        options = {"negative_prompt": negative_prompt, "config": sampling, "on_step": on_step}
        if interpolate:
            return _interpolated(model, ends, interpolate, writer, options)
        model.generate(
            texts, size=pixels, canvas=canvas, seed=seeds, on_batch=writer.write, **options
        )
        return writer.report()


def _interpolated(
    model: ImageDiffusion,
    ends: list[tuple[str, int]],
    frames: int,
    writer: ImageWriter,
    options: dict[str, Any],
) -> Report:
    """Write the frames between prompts and seeds, a strip of them and a GIF."""
    made = between(model, ends, frames, on_batch=writer.write, **options)
    path = writer.free("interpolation", ".gif")
    write_gif(made, path)
    writer.say(f"{path}: {len(made)} frames, there and back")
    return writer.report(columns=frames)


def size_of(text: str) -> Size:
    """Return width and height from ``WIDTHxHEIGHT``.

    Raises:
        InputError: if it has another form.
    """
    found = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if found is None:
        raise InputError(f"--size {text}: write WIDTHxHEIGHT, such as 512x512")
    return int(found[1]), int(found[2])


def canvas_of(
    init_image: Path | None, strength: float | None, mask_image: Path | None, channels: int
) -> Canvas | None:
    """Return the canvas that files describe; None without an initial image.

    With a mask and no strength, the inpainted part begins from noise.

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
    """Merge a LoRA file, and return a line on how much of it fitted."""
    path, weight = _weighed(text)
    report = merge_lora(model, path, weight)
    left = f", {len(report.unmatched)} not" if report.unmatched else ""
    return f"{path}: {len(report.matched)} weights changed{left}"


def _weighed(text: str) -> tuple[Path, float]:
    """Return a file, and the weight after its last colon."""
    name, colon, weight = text.rpartition(":")
    try:
        return (Path(name), float(weight)) if colon else (Path(text), 1.0)
    except ValueError:
        return Path(text), 1.0


def _facts(config: ImageSamplingConfig, canvas: Canvas | None) -> dict[str, str]:
    """Return the options as facts for every image's file, besides model and files."""
    facts = options_as_text(config)
    facts |= {"replaces": config.replaces} if config.replaces else {}
    if canvas is None:
        return facts
    if canvas.strength != 1:
        facts["timestep_spacing"] = "even"
    if canvas.strength == 0:
        facts["steps"] = "0"
    return {**facts, "strength": f"{canvas.strength:g}"}
