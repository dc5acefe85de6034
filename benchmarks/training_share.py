"""Fraction of training time spent in the network: a step of each shipped model.

A round is one step of the trainer on the package's own data: batches are read and prepared, the
losses and gradients computed and clipped, AdamW and the moving average updated. Counted
separately are the CPU seconds of the network's forward passes, of the backward pass, and of
AdamW. The rest is the package's overhead. Ratios are to the whole.
"""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy
from pathlib import Path
from typing import Any

import multidiff as md
from benchmarks.timing import Row, counted, on_threads, rows_of, training_on_cpu
from benchmarks.watching import CLOCK, NETWORKS, watch, watch_network
from multidiff.models.loading import check_recipe
from multidiff.text.diffuser.mistakes import LearnMistakes
from multidiff.training.record import Record
from multidiff.training.run import Run
from multidiff.training.trainer import Trainer

PART = "training-share"
OURS = "multidiff in all"
FAR = 10**9  # steps: neither the rate's decay nor a validation is reached
RECIPES = Path(__file__).parents[1] / "recipes" / "smoke"


def measure(threads: int, rounds: int, *, batch: int = 16) -> list[Row]:
    """Measure the seconds of each model's step, and of its network therein.

    Args:
        threads: number of CPU threads.
        rounds: number of steps of each.
        batch: number of samples in a step.
    """
    rows = []
    with on_threads(threads), training_on_cpu():
        for name in NETWORKS:
            case = f"{name}, batch {batch}, {counted(threads)}"
            rows += rows_of(PART, case, _seconds(name, batch, rounds), OURS, "CPU s")
    return rows


def _seconds(name: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each step after two first ones, in total and by parts."""
    model: Any = deepcopy(md.load(name))
    run = _run(name, model, batch)
    spent: dict[str, float] = defaultdict(float)
    watch_network(name, model, spent)
    watch(run.engine, "backward", "its gradient", spent)
    watch(run.optimizer, "step", "AdamW", spent)
    seconds: dict[str, list[float]] = defaultdict(list)
    numbers = run.steps_to_go()
    for number in range(rounds + 2):
        spent.clear()
        began = CLOCK()
        run.advance(next(numbers))
        spent[OURS] = CLOCK() - began
        for what, took in spent.items():
            if number >= 2:
                seconds[what].append(took)
    return {OURS: seconds[OURS], **seconds}


def _run(name: str, model: Any, batch: int) -> Run:
    """Return a run ready to train a model on the data of its smallest recipe."""
    recipe = RECIPES / f"{name.replace('-', '_')}.yaml"
    parts = check_recipe(recipe, [f"data.batch_size={batch}"])
    data = parts["data"].build()
    if "precompute" in parts:
        data = parts["precompute"].build()(model, data)
    elif getattr(model, "mistakes", None) is not None:  # which the smallest recipe does not have
        data = LearnMistakes()(model, data)
    for weights, value in model.named_parameters():
        value.requires_grad_("autoencoder" not in weights)  # a loaded model has no gradients
    plan = Trainer(steps=FAR, precision="fp32", log_every=FAR)
    run = Run(plan, model.task(), data, None, {}, Record({}, {}))
    run.begin(resume=False)
    return run
