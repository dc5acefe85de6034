"""From a recipe to a trained model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from multidiff.catalogue import VERBS
from multidiff.checking import locate
from multidiff.core.draws import DrawsFrom
from multidiff.devices import process_share
from multidiff.errors import InputError
from multidiff.loading import RECIPE, TRAINED, Model, check_recipe, load, save_model
from multidiff.recipe import to_yaml
from multidiff.report import Report
from multidiff.training.batches import Batches
from multidiff.training.trainer import Trainer


def train_recipe(
    recipe: Path | str, overrides: Sequence[str] = (), *, out: Path | str, resume: bool = False
) -> Report:
    """Train what a recipe says.

    Args:
        recipe: the file.
        overrides: ``key.path=value`` changes of it.
        out: folder of checkpoints and logs; the model comes to lie in ``out/model``.
        resume: go on from the newest checkpoint there.

    Raises:
        InputError: if the recipe is wrong or training cannot go on.
    """
    recipe, out = Path(recipe), Path(out)
    parts = check_recipe(recipe, overrides)
    for needed in ("model", "data", "trainer"):
        if needed not in parts:
            raise InputError(f"{recipe}: has no section {needed!r}, which training needs")
    trainer: Trainer = parts["trainer"].build()
    with DrawsFrom(torch.Generator().manual_seed(trainer.seed)):
        model: Model = parts["model"].build()
        task = model.task()
    for initial in parts["weights"].build() if "weights" in parts else ():
        initial.put_into(model, load(initial.model))
    data: Batches = parts["data"].build()
    held_out = parts["held_out"].build() if "held_out" in parts else None
    if "first_pass" in parts:
        data = parts["first_pass"].build()(model, data)
    if not resume:  # a run that goes on has its vocabulary in the checkpoint
        for line in _inspected(model, data, held_out):
            print(line, file=sys.stderr)
    resolved = to_yaml({name: part.resolved for name, part in parts.items()})
    outcome = trainer.fit(
        task,
        data,
        held_out,
        out=out,
        resume=resume,
        texts={RECIPE: resolved},
        preview=_preview(model, held_out),
    )
    if not outcome.leads:
        return Report([])
    save_model(model, out / TRAINED, resolved)
    losses = ", ".join(f"{name} {value:.4f}" for name, value in outcome.losses.items())
    return Report([f"{out / TRAINED}: trained for {outcome.step} steps ({losses})"])


def _inspected(model: Any, data: Batches, held_out: Batches | None) -> list[str]:
    """What the model's modality has to say of the data, once for all processes."""
    target = VERBS.get(type(model).__name__, {}).get("inspect")
    found = locate(target)(model, data, held_out) if target else []
    return found if process_share()[0] == 0 else []


def _preview(model: Any, held_out: Batches | None) -> Any:
    target = VERBS.get(type(model).__name__, {}).get("preview")
    return locate(target)(model, held_out.batch(0)) if target and held_out is not None else None
