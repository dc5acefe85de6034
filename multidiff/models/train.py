"""From a recipe to a trained model."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from multidiff.config.build import Spec, check_section, locate
from multidiff.config.recipe import parse, to_yaml
from multidiff.config.registry import COMMANDS, COMPONENTS
from multidiff.core.draws import DrawsFrom
from multidiff.data.batches import Batches
from multidiff.models.hub import pinned
from multidiff.models.init_weights import check_teacher
from multidiff.models.loading import (
    RECIPE,
    SECTIONS,
    TRAINED,
    Model,
    check_recipe,
    load,
    save_model,
)
from multidiff.models.weights import load_into
from multidiff.training.checkpoints import BEST, STATE, CheckpointFolder, checkpoint_of, claimed
from multidiff.training.record import Record, fingerprints
from multidiff.training.resuming import checked_kinds
from multidiff.training.trackers import check_packages
from multidiff.training.trainer import Trainer
from multidiff.utils.devices import process_ratio
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_json, read_text
from multidiff.utils.report import Report


def train_recipe(
    recipe: Path | str,
    overrides: Sequence[str] = (),
    *,
    out: Path | str,
    resume: bool = False,
    allow_changed: Collection[str] = (),
) -> Report:
    """Train the model of a recipe.

    Args:
        recipe: recipe file.
        overrides: ``key.path=value`` changes to it.
        out: folder of checkpoints and logs; the model is written to ``out/model``.
        resume: whether to resume from the newest checkpoint there. Vocabularies and other assets
            are the checkpoint's; recipe and data must be those it was written with.
        allow_changed: what may have changed since: ``recipe``, ``data``.

    Raises:
        InputError: if the recipe is wrong or training cannot continue.
    """
    recipe, out = Path(recipe), Path(out)
    parts = check_recipe(recipe, overrides)
    for needed in ("model", "data", "trainer"):
        if needed not in parts:
            raise InputError(f"{recipe}: has no section {needed!r}, which training needs")
    checked_kinds(allow_changed)
    if allow_changed and not resume:
        raise InputError(f"--allow-changed {min(allow_changed)}: requires --resume")
    with claimed(out) if process_ratio()[0] == 0 else nullcontext():
        return _trained(parts, out, resume, allow_changed)


def _trained(
    parts: dict[str, Spec], out: Path, resume: bool, allow_changed: Collection[str]
) -> Report:
    resolved = {name: part.resolved for name, part in parts.items()}
    if resume:  # the recipe is compared before anything is built from it
        CheckpointFolder(out).record().check_recipe(resolved, allow_changed, str(out))
    run = begun(parts, out if resume else None)
    for line in run.notes:
        print(line, file=sys.stderr)
    model = run.model
    texts = {RECIPE: to_yaml(_with_commits(resolved)), **model.assets()}
    outcome = run.trainer.fit(
        run.task,
        run.data,
        run.validation,
        out=out,
        resume=resume,
        texts=texts,
        preview=_preview(model, run.validation),
        record=Record(resolved, run.sources),
        allow_changed=allow_changed,
    )
    if not outcome.leads:
        return Report([])
    lines = run.task.finish(out) if hasattr(run.task, "finish") else []
    save_model(model, out / TRAINED, outcome.record.with_history(texts)[RECIPE])
    losses = ", ".join(f"{name} {value:.4f}" for name, value in outcome.losses.items())
    return Report([f"{out / TRAINED}: trained for {outcome.step} steps ({losses})", *lines])


def _with_commits(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe that names the commit of each model on the hub that training starts from."""
    weights = [{**one, "model": pinned(str(one["model"]))} for one in resolved.get("weights") or ()]
    return {**resolved, **({"weights": weights} if weights else {})}


def seconds_a_step(recipe: str, name: str, steps: int = 5) -> float:
    """Return the seconds that a training step of a recipe takes here, measured on a few.

    Args:
        recipe: text of the recipe.
        name: name of the recipe, for messages.
        steps: number of steps.

    Raises:
        InputError: if the recipe is wrong, or its data cannot be read.
    """
    run = begun(check_section(parse(recipe, name), SECTIONS, COMPONENTS))
    never = dict.fromkeys(("log_every", "save_every", "validate_every"), sys.maxsize)
    quiet = replace(run.trainer, trackers=(), keep_best=None, early_stopping=None, **never)
    seconds = []
    for count in (2, 2 + steps):  # the first steps take longer
        begin = time.perf_counter()
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            replace(quiet, steps=count).fit(run.task, run.data)
        seconds.append(time.perf_counter() - begin)
    return max(1e-4, (seconds[1] - seconds[0]) / steps)


def keep_best_model(out: Path) -> int:
    """Write the model of a run's best checkpoint in place of that of its end; return its step.

    Raises:
        InputError: if the run kept none.
    """
    folder = checkpoint_of(out, BEST)
    recipe = read_text(out / TRAINED / RECIPE)
    save_model(load(folder), out / TRAINED, recipe)
    return int(read_json(folder / STATE)["step"])


@dataclass(frozen=True)
class BegunRun:
    """The components of a run before its first step.

    Attributes:
        trainer: the trainer.
        model: the model, with its initial weights.
        task: its training task.
        data: training batches, precomputed.
        validation: held-out batches, or None.
        sources: fingerprints of the data.
        notes: the modality's notes on the data.
    """

    trainer: Trainer
    model: Any
    task: Any
    data: Batches
    validation: Batches | None
    sources: dict[str, Any]
    notes: list[str]


def begun(parts: dict[str, Spec], resumed: Path | None = None) -> BegunRun:
    """Build the components of a run, which prepares their data where that is still to do.

    Args:
        parts: checked recipe.
        resumed: folder of the run that goes on; a new run by default.

    Raises:
        InputError: if a component cannot be built.
    """
    trainer: Trainer = parts["trainer"].build()
    trainer.check_needs("validation" in parts)
    check_packages(trainer.trackers)
    generator = torch.Generator().manual_seed(trainer.seed)
    with DrawsFrom(generator):
        model: Model = parts["model"].build()
    is_new = resumed is None
    initial = parts["weights"].build() if is_new and "weights" in parts else []
    if is_new:
        check_teacher(model, initial)
    for one in initial:
        one.put_into(model, load(one.model))
    with DrawsFrom(generator):
        task = _task_of(model)
    if resumed is not None:
        _take_up(model, task, resumed, has_first_pass="precompute" in parts)
    data: Batches = parts["data"].build()
    validation = parts["validation"].build() if "validation" in parts else None
    sources = fingerprints({"data": data, "validation": validation, "model": model})
    data, validation = (prepared_for(model, batches) for batches in (data, validation))
    if "precompute" in parts:
        data = parts["precompute"].build()(model, data)
    # A resumed run has its vocabulary in the checkpoint.
    notes = _inspected(model, data, validation) if is_new else []
    return BegunRun(trainer, model, task, data, validation, sources, notes)


def _task_of(model: Model) -> Any:
    """Return a model's task.

    Raises:
        InputError: if the model's settings do not make one.
    """
    try:
        return model.task()
    except ValueError as error:
        raise InputError(f"model: {error}") from error


def _inspected(model: Any, data: Batches, validation: Batches | None) -> list[str]:
    """Return the modality's notes on the data, once for all processes."""
    target = COMMANDS.get(type(model).__name__, {}).get("inspect")
    found = locate(target)(model, data, validation) if target else []
    return found if process_ratio()[0] == 0 else []


def prepared_for(model: Any, batches: Any) -> Any:
    """Return batches with what the modality prepares of large data for this model."""
    target = COMMANDS.get(type(model).__name__, {}).get("prepare")
    return locate(target)(model, batches) if target and batches is not None else batches


def _take_up(model: Any, task: nn.Module, out: Path, has_first_pass: bool) -> None:
    """Load the assets of the newest checkpoint into a new model, so that none is made again.

    A first pass over the data encodes with the model's weights: they are loaded before it.
    """
    checkpoints = CheckpointFolder(out)
    model.load_assets(checkpoints.assets())
    if has_first_pass:
        load_into(task, checkpoints.newest().tensors["model"], checkpoints.folder)


def _preview(model: Any, validation: Batches | None) -> Any:
    target = COMMANDS.get(type(model).__name__, {}).get("preview")
    return locate(target)(model, validation.batch(0)) if target and validation is not None else None
