"""What the command line does with a model of picture tokens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from multidiff.errors import InputError
from multidiff.image.picture import grid, read_picture, write_picture
from multidiff.image.token_images import Draft, TokenImages
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

STEPS = "steps.png"


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
) -> Report:
    """Pictures of each prompt, a PNG each, and a grid of all.

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
        init: a picture of which some is painted anew.
        mask: a picture, white there.
        show_steps: write the canvas after each step, a row for each picture, masks in grey.

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
    texts, seeds = zip(*wanted, strict=True)
    began = time.perf_counter()
    pictures, canvases = _watched(model, list(texts), list(seeds), {**how, "draft": draft})
    seconds = time.perf_counter() - began
    told = _told(model, how)
    written = write_all(pictures, wanted, folder, told)
    report = told_of([], written, folder / GRID, told, seconds)
    if show_steps:
        rows = torch.stack(canvases, dim=1).flatten(0, 1)
        strip = torch.cat([model.domain.pictures(some).cpu() for some in rows.split(64)])
        write_picture(grid(strip, columns=len(canvases)), folder / STEPS, told)
        report.lines.append(f"{folder / STEPS}: each canvas after each step")
        report.facts["strip"] = str(folder / STEPS)
    return report


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
            "painted anew"
        )
    picture = read_picture(init, channels=channels)[None]
    return Draft(picture, painted(mask, init, picture))


def _watched(
    model: TokenImages, prompts: list[str], seeds: list[int], how: dict[str, Any]
) -> tuple[UInt8[Tensor, "count colours height width"], list[Tensor]]:
    """The pictures, and the tokens of all after each step."""
    total = _steps(model, how)
    seen: dict[int, list[Tensor]] = {}
    with progress() as bar:

        def on_step(number: int, tokens: Tensor) -> None:
            seen.setdefault(number, []).append(tokens)
            if bar is not None:
                bar(SimpleNamespace(number=number, total=total))

        pictures = model.generate(prompts, seed=seeds, on_step=on_step, **how)
    return pictures, [torch.cat(parts) for parts in seen.values()]


def _steps(model: TokenImages, how: dict[str, Any]) -> int:
    """How many are made, once they are checked."""
    return min(how["steps"] or model.walk.steps, model.domain.length)


def _told(model: TokenImages, how: dict[str, Any]) -> dict[str, str]:
    """What every picture's file says about how it was made."""
    walk, domain = model.walk, model.domain
    own = walk.guidance if domain.reads != "nothing" else 1.0
    usual = {"solver": walk.solver, "guidance": own, "temperature": walk.temperature}
    usual |= {"noise": walk.noise}
    given = {name: how[name] if how[name] is not None else value for name, value in usual.items()}
    return {
        "model": model.name,
        "steps": str(_steps(model, how)),
        **{name: one if isinstance(one, str) else f"{one:g}" for name, one in given.items()},
        "size": "x".join(map(str, domain.size)),
    }
