"""What the command line does with a model of picture tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from multidiff.image.data.image_files import grid, read_picture, write_picture
from multidiff.image.data.provenance import model_facts, source_facts
from multidiff.image.maskgit.model import Draft, TokenImages
from multidiff.image.outputs import (
    SAMPLES,
    PictureWriter,
    checked_folder,
    checked_prompts,
    painted,
)
from multidiff.utils.errors import InputError
from multidiff.utils.files import kept_to_itself
from multidiff.utils.report import OnLine, Report, progress

STEPS = "steps"


def sample(
    model: TokenImages,
    *,
    num: int,
    prompts: Sequence[str],
    out: Path | None,
    steps: int | None = None,
    solver: str | None = None,
    guidance: float | None = None,
    seed: int = 0,
    order: str | None = None,
    temperature: float | None = None,
    noise: float | None = None,
    init: Path | None = None,
    mask: Path | None = None,
    show_steps: bool = False,
    on_line: OnLine | None = None,
) -> Report:
    """Pictures of each prompt, a PNG each as soon as it is made, and a grid of all.

    Args:
        model: the model.
        num: pictures of each prompt; picture ``i`` of each has seed ``seed + i``.
        prompts: classes or captions; none for a model without either.
        out: folder.
        steps: of the walk, from 1 to the tokens of a picture.
        solver: the order in which masks are lifted: confidence, random, halton, remasking or
            ancestral.
        guidance: scale; 1 is off.
        seed: of the draws.
        order: another name of the solver.
        temperature: of the tokens; 0 takes the likeliest.
        noise: of the confidence, annealed to 0.
        init: a picture of which some is repainted.
        mask: a picture, white there.
        show_steps: write the canvas after each step, a row for each picture, masks in grey.
        on_line: called with each line of the report as soon as it is known.

    Raises:
        InputError: if an option is wrong.
    """
    if order is not None and solver not in (None, order):
        raise InputError(f"--order {order} and --solver {solver}: are one option; keep either")
    folder = checked_folder(SAMPLES if out is None else out)
    draft = draft_of(init, mask, model.domain.channels)
    wanted = list(itertools.product(checked_prompts(model, prompts), range(seed, seed + num)))
    how: dict[str, Any] = {"steps": steps, "solver": order or solver, "guidance": guidance}
    how |= {"temperature": temperature, "noise": noise}
    with kept_to_itself(folder), model_facts(model) as facts_of_model:
        writer = PictureWriter(
            folder,
            wanted,
            lambda: facts_of_model() | _facts(model, how) | source_facts(init=init, mask=mask),
            on_line,
        )
        canvases = _watched(model, wanted, {**how, "draft": draft, "on_batch": writer.write})
        report = writer.report()
        if show_steps:
            report.facts["strip"] = str(_write_steps(model, canvases, writer))
    return report


def _write_steps(model: TokenImages, canvases: Sequence[Tensor], writer: PictureWriter) -> Path:
    """Write the canvases after each step, a row for each picture."""
    rows = torch.stack(list(canvases), dim=1).flatten(0, 1)
    strip = torch.cat([model.domain.pictures(some).cpu() for some in rows.split(64)])
    path = writer.free(STEPS)
    write_picture(grid(strip, columns=len(canvases)), path, writer.facts)
    writer.say(f"{path}: each canvas after each step")
    return path


def draft_of(init: Path | None, mask: Path | None, channels: int) -> Draft | None:
    """The draft that files describe; none without one.

    Raises:
        InputError: if one of them comes alone, or they do not fit.
    """
    if init is None and mask is None:
        return None
    if init is None or mask is None:
        raise InputError(
            "--init and --mask go together: a picture, and one that is white where it is to be "
            "repainted"
        )
    picture = read_picture(init, channels=channels)[None]
    return Draft(picture, painted(mask, init, picture))


def _watched(
    model: TokenImages, wanted: Sequence[tuple[str, int]], how: dict[str, Any]
) -> list[Tensor]:
    """Make the pictures, and return the tokens of all after each step."""
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


def _steps(model: TokenImages, how: dict[str, Any]) -> int:
    """How many are made, once they are checked."""
    return min(how["steps"] or model.walk.steps, model.domain.length)


def _facts(model: TokenImages, how: dict[str, Any]) -> dict[str, str]:
    """What every picture's file says about how it was made, beside model and files."""
    walk = model.walk
    own = walk.guidance if model.domain.reads != "nothing" else 1.0
    usual = {"solver": walk.solver, "guidance": own, "temperature": walk.temperature}
    usual |= {"noise": walk.noise}
    given = {name: how[name] if how[name] is not None else value for name, value in usual.items()}
    return {
        "steps": str(_steps(model, how)),
        **{name: one if isinstance(one, str) else f"{one:g}" for name, one in given.items()},
    }
