"""Commands of models of image tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from multidiff.config.option_set import options_as_text
from multidiff.image.canvas_files import painted
from multidiff.image.data.image_files import grid, read_image, write_image
from multidiff.image.data.provenance import model_facts, source_facts
from multidiff.image.generation import OnBatch
from multidiff.image.maskgit.model import MaskGIT, TokenDraft
from multidiff.image.maskgit.sampling_config import MaskGITSamplingConfig
from multidiff.image.outputs import (
    SAMPLES,
    ImageWriter,
    checked_folder,
    checked_prompts,
    with_seeds,
)
from multidiff.models.requests import FirstSeeds
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
    seed: FirstSeeds,
    sampling: MaskGITSamplingConfig,
    init_image: Path | None = None,
    mask_image: Path | None = None,
    show_steps: bool = False,
    no_grid: bool = False,
    on_line: OnLine | None = None,
) -> Report:
    """Write images of each prompt, a PNG each as soon as it is generated, and a grid of all.

    Args:
        model: the model.
        num: number of images of each prompt; image ``i`` of each uses seed ``seed + i``.
        prompts: classes or captions; empty for a model without either.
        out: folder of the images.
        seed: random seed of each prompt's first image; a sequence has one for each.
        sampling: sampling options.
        init_image: initial image, of which a part is inpainted.
        mask_image: image that is white where the initial one is inpainted.
        show_steps: write the canvas after each step, a row for each image, masks in grey.
        no_grid: write no image of all.
        on_line: function called with each line of the report as soon as it is known.

    Raises:
        InputError: if an option is wrong.
    """
    folder = checked_folder(SAMPLES if out is None else out)
    draft = draft_of(init_image, mask_image, model.domain.channels)
    wanted = with_seeds(checked_prompts(model, prompts), seed, num)
    with lock_dir(folder), model_facts(model) as facts_of_model:
        writer = ImageWriter(
            folder,
            wanted,
            lambda: (
                facts_of_model()
                | options_as_text(sampling)
                | {"steps": str(_steps(model, sampling))}
                | source_facts(init_image=init_image, mask_image=mask_image)
            ),
            on_line,
        )
        canvases = _watched(model, wanted, sampling, draft, writer.write)
        report = writer.report(with_grid=not no_grid)
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
    """Return the draft from image files; None without them.

    Raises:
        InputError: if only one is given, or they do not fit.
    """
    if init_image is None and mask_image is None:
        return None
    if init_image is None or mask_image is None:
        raise InputError(
            "--init-image and --mask-image go together: an image, and one that is white where "
            "it is to be "
            "inpainted"
        )
    image = read_image(init_image, channels=channels)[None]
    return TokenDraft(image, painted(mask_image, init_image, image))


def _watched(
    model: MaskGIT,
    wanted: Sequence[tuple[str, int]],
    sampling: MaskGITSamplingConfig,
    draft: TokenDraft | None,
    on_batch: OnBatch,
) -> list[Tensor]:
    """Generate the images, and return the tokens of all after each step."""
    total = _steps(model, sampling)
    prompts, seeds = zip(*wanted, strict=True)
    seen: dict[int, list[Tensor]] = {}
    with progress() as bar:

        def on_step(number: int, tokens: Tensor) -> None:
            seen.setdefault(number, []).append(tokens)
            if bar is not None:
                bar(SimpleNamespace(number=number, total=total))

        model.generate(
            prompts, draft=draft, seed=seeds, config=sampling, on_step=on_step, on_batch=on_batch
        )
    return [torch.cat(parts) for parts in seen.values()]


def _steps(model: MaskGIT, sampling: MaskGITSamplingConfig) -> int:
    """Return the number of steps that will be made."""
    return min(sampling.steps, model.domain.length)
