"""How much of training is the network: a step of each shipped model.

A round is one step of the trainer on the package's own data: batches are read and prepared, the
losses computed, the gradient taken and shortened, AdamW and the moving average follow. Counted
apart are the CPU seconds of the network's forward passes, of the gradient, and of AdamW. What is
left is ours to answer for. Ratios are to the whole.
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
from multidiff.training.record import Record
from multidiff.training.run import Run
from multidiff.training.trainer import Trainer

PART = "training-share"
OURS = "multidiff in all"
FAR = 10**9  # steps: neither the rate's fall nor a look at held-out data comes near
RECIPES = Path(__file__).parents[1] / "recipes" / "smoke"


def measure(threads: int, rounds: int, *, batch: int = 16) -> list[Row]:
    """Seconds of each model's step, and of its network therein.

    Args:
        threads: of the CPU.
        rounds: steps of each.
        batch: samples in a step.
    """
    rows = []
    with on_threads(threads), training_on_cpu():
        for name in NETWORKS:
            case = f"{name}, batch {batch}, {counted(threads)}"
            rows += rows_of(PART, case, _seconds(name, batch, rounds), OURS, "CPU s")
    return rows


def _seconds(name: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Of each step after two first ones, in all and by parts."""
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
    """A model about to be trained on the data of its smallest recipe."""
    recipe = RECIPES / f"{name.replace('-', '_')}.yaml"
    parts = check_recipe(recipe, [f"data.batch_size={batch}"])
    data = parts["data"].build()
    if "precompute" in parts:
        data = parts["precompute"].build()(model, data)
    for weights, value in model.named_parameters():
        value.requires_grad_("autoencoder" not in weights)  # a loaded model is at rest
    plan = Trainer(steps=FAR, precision="fp32", log_every=FAR)
    run = Run(plan, model.task(), data, None, {}, Record({}, {}))
    run.begin(resume=False)
    return run
