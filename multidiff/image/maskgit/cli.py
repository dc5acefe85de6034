"""What the command line does with a model of image tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from multidiff.image.data.image_files import grid, read_image, write_image
from multidiff.image.data.provenance import model_facts, source_facts
from multidiff.image.maskgit.model import MaskGIT, TokenDraft
from multidiff.image.outputs import (
    SAMPLES,
    ImageWriter,
    checked_folder,
    checked_prompts,
    painted,
)
from multidiff.utils.errors import InputError
from multidiff.utils.files import lock_dir
from multidiff.utils.report import OnLine, Report, progress

STEPS = "steps"


def sample(
    model: MaskGIT,
    *,
    num: int,
    prompts: Sequence[str],
    out: Path | None,
    steps: int | None = None,
    sampler: str | None = None,
    guidance_scale: float | None = None,
    seed: int = 0,
    order: str | None = None,
    temperature: float | None = None,
    noise: float | None = None,
    init_image: Path | None = None,
    mask_image: Path | None = None,
    show_steps: bool = False,
    on_line: OnLine | None = None,
) -> Report:
    """Images of each prompt, a PNG each as soon as it is made, and a grid of all.

    Args:
        model: the model.
        num: images of each prompt; image ``i`` of each has seed ``seed + i``.
        prompts: classes or captions; none for a model without either.
        out: folder.
        steps: of the walk, from 1 to the tokens of an image.
        sampler: the order in which masks are lifted: confidence, random, halton, remasking,
            ancestral, entropy, margin, remdm or first-hitting.
        guidance_scale: scale; 1 is off.
        seed: of the draws.
        order: another name of the sampler.
        temperature: of the tokens; 0 takes the likeliest.
        noise: of the confidence, annealed to 0.
        init_image: an image of which some is repainted.
        mask_image: an image, white there.
        show_steps: write the canvas after each step, a row for each image, masks in grey.
        on_line: called with each line of the report as soon as it is known.

    Raises:
        InputError: if an option is wrong.
    """
    if order is not None and sampler not in (None, order):
        raise InputError(f"--order {order} and --sampler {sampler}: are one option; keep either")
    folder = checked_folder(SAMPLES if out is None else out)
    draft = draft_of(init_image, mask_image, model.domain.channels)
    wanted = list(itertools.product(checked_prompts(model, prompts), range(seed, seed + num)))
    how: dict[str, Any] = {
        "steps": steps,
        "sampler": order or sampler,
        "guidance_scale": guidance_scale,
    }
    how |= {"temperature": temperature, "noise": noise}
    with lock_dir(folder), model_facts(model) as facts_of_model:
        writer = ImageWriter(
            folder,
            wanted,
            lambda: (
                facts_of_model()
                | _facts(model, how)
                | source_facts(init_image=init_image, mask_image=mask_image)
            ),
            on_line,
        )
        canvases = _watched(model, wanted, {**how, "draft": draft, "on_batch": writer.write})
        report = writer.report()
        if show_steps:
            report.facts["strip"] = str(_write_steps(model, canvases, writer))
    return report


def _write_steps(model: MaskGIT, canvases: Sequence[Tensor], writer: ImageWriter) -> Path:
    """Write the canvases after each step, a row for each image."""
    rows = torch.stack(list(canvases), dim=1).flatten(0, 1)
    strip = torch.cat([model.domain.images(some).cpu() for some in rows.split(64)])
    path = writer.free(STEPS)
    write_image(grid(strip, columns=len(canvases)), path, writer.facts)
    writer.say(f"{path}: each canvas after each step")
    return path


def draft_of(init_image: Path | None, mask_image: Path | None, channels: int) -> TokenDraft | None:
    """The draft that files describe; none without one.

    Raises:
        InputError: if one of them comes alone, or they do not fit.
    """
    if init_image is None and mask_image is None:
        return None
    if init_image is None or mask_image is None:
        raise InputError(
            "--init-image and --mask-image go together: an image, and one that is white where "
            "it is to be "
            "repainted"
        )
    image = read_image(init_image, channels=channels)[None]
    return TokenDraft(image, painted(mask_image, init_image, image))


def _watched(
    model: MaskGIT, wanted: Sequence[tuple[str, int]], how: dict[str, Any]
) -> list[Tensor]:
    """Make the images, and return the tokens of all after each step."""
    total = _steps(model, how)
    prompts, seeds = zip(*wanted, strict=True)
    seen: dict[int, list[Tensor]] = {}
    with progress() as bar:

        def on_step(number: int, tokens: Tensor) -> None:
            seen.setdefault(number, []).append(tokens)
            if bar is not None:
                bar(SimpleNamespace(number=number, total=total))

        model.generate(prompts, seed=seeds, on_step=on_step, **how)
    return [torch.cat(parts) for parts in seen.values()]


def _steps(model: MaskGIT, how: dict[str, Any]) -> int:
    """How many are made, once they are checked."""
    return min(how["steps"] or model.sampling.steps, model.domain.length)


def _facts(model: MaskGIT, how: dict[str, Any]) -> dict[str, str]:
    """What every image's file says about how it was made, beside model and files."""
    sampling = model.sampling
    own = sampling.guidance_scale if model.domain.reads != "nothing" else 1.0
    usual = {
        "sampler": sampling.sampler,
        "guidance_scale": own,
        "temperature": sampling.temperature,
    }
    usual |= {"noise": sampling.noise}
    given = {name: how[name] if how[name] is not None else value for name, value in usual.items()}
    return {
        "steps": str(_steps(model, how)),
        **{name: one if isinstance(one, str) else f"{one:g}" for name, one in given.items()},
    }
