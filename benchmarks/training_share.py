"""How much of training is the network: a step of each shipped model.

A round is one step of the trainer on the package's own data: batches are read and prepared, the
losses computed, the gradient taken and shortened, AdamW and the moving average follow. Counted
apart are the CPU seconds of the network's forward passes, of the gradient, and of AdamW. What is
left is ours to answer for. Ratios are to the whole.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import multidiff as md
from benchmarks.timing import Row, counted, on_threads, rows_of, training_on_cpu
from multidiff.loading import check_recipe
from multidiff.training.run import Run
from multidiff.training.trainer import Trainer

PART = "training-share"
OURS = "multidiff in all"
CLOCK = time.process_time
FAR = 10**9  # steps: neither the rate's fall nor a look at held-out data comes near
RECIPES = Path(__file__).parents[1] / "recipes" / "smoke"
# Whose recipes say what data is read, and which of its methods are the network's forward pass.
FORWARD = ("denoiser", ("forward",))
MODELS = {
    "speech": FORWARD,
    "digits": FORWARD,
    "digit-tokens": FORWARD,
    "restaurant": FORWARD,
    "masked": FORWARD,
    "edits": ("editor", ("encode", "tags", "template", "write")),
}


def measure(threads: int, rounds: int, *, batch: int = 16) -> list[Row]:
    """Seconds of each model's step, and of its network therein.

    Args:
        threads: of the CPU.
        rounds: steps of each.
        batch: samples in a step.
    """
    rows = []
    with on_threads(threads), training_on_cpu():
        for name in MODELS:
            case = f"{name}, batch {batch}, {counted(threads)}"
            rows += rows_of(PART, case, _seconds(name, batch, rounds), OURS, "CPU s")
    return rows


def _seconds(name: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Of each step after two first ones, in all and by parts."""
    model: Any = md.load(name)
    run = _run(name, model, batch)
    spent: dict[str, float] = defaultdict(float)
    part, methods = MODELS[name]
    for method in methods:
        _watch(getattr(model, part), method, "its network, forwards", spent)
    _watch(run.engine, "backward", "its gradient", spent)
    _watch(run.optimizer, "step", "AdamW", spent)
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
    if "first_pass" in parts:
        data = parts["first_pass"].build()(model, data)
    for weights, value in model.named_parameters():
        value.requires_grad_("autoencoder" not in weights)  # a loaded model is at rest
    plan = Trainer(steps=FAR, precision="fp32", log_every=FAR)
    run = Run(plan, model.task(), data, None, {})
    run.begin(resume=False)
    return run


def _watch(owner: Any, method: str, what: str, spent: dict[str, float]) -> None:
    """Count the seconds within a method."""
    inner: Callable[..., Any] = getattr(owner, method)

    def counting(*args: Any, **kwargs: Any) -> Any:
        began = CLOCK()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[what] += CLOCK() - began

    setattr(owner, method, counting)
