"""``multidiff check --dry-run``: the cost of training, as lines, a table or JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from multidiff.dry_run.gpus import Gpu, gpu_named
from multidiff.dry_run.sampling import SamplingCost, cost_of_sampling
from multidiff.dry_run.step import Recipe, StepCost, check_devices, cost_of_step
from multidiff.models.loading import check_recipe
from multidiff.models.trial import try_recipe
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report

# The rest is left for the libraries' workspaces, the driver and fragmentation.
USABLE_MEMORY = 0.9
GB, TERA = 1e9, 1e12
# Launch overhead of a kernel, from Python to the GPU: some 5 to 10 microseconds.
LAUNCH_S = 5e-6
HEADING = ("recipe", "parameters", "batch", "TFLOP a step", "memory", "a step", "steps", "in all")


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Cost of training a recipe on one GPU.

    Attributes:
        recipe: recipe file.
        batch_size: number of examples of one update.
        precision: precision of the network.
        steps: total number of updates.
        cost: cost of one update.
        gpu: the GPU.
        mfu: fraction of the GPU's peak that training reaches.
        sampling: cost of sampling one item, where the model has it.
    """

    recipe: Path
    batch_size: int
    precision: str
    steps: int
    cost: StepCost
    gpu: Gpu
    mfu: float
    sampling: SamplingCost | None = None

    @property
    def tflops(self) -> float:
        """Peak of the GPU in this precision, in TFLOP/s."""
        return self.gpu.tf32_tflops if self.precision == "tf32" else self.gpu.bf16_tflops

    @property
    def step_s(self) -> float:
        """Seconds for one update."""
        return self.cost.flops / (self.tflops * TERA * self.mfu)

    @property
    def fits(self) -> bool:
        """Return whether the memory peak leaves a tenth of the GPU's memory free."""
        return self.cost.peak <= USABLE_MEMORY * self.gpu.memory_gb * GB

    def facts(self) -> dict[str, Any]:
        """Return all figures for programs; memory in bytes, times in seconds."""
        return {
            "recipe": str(self.recipe),
            "batch_size": self.batch_size,
            "precision": self.precision,
            "steps": self.steps,
            **dataclasses.asdict(self.cost),
            "gpu": self.gpu.name,
            "peak_tflops": self.tflops,
            "mfu": self.mfu,
            "step_s": self.step_s,
            "run_s": self.step_s * self.steps,
            "fits": self.fits,
            **sampling_facts(self.sampling),
        }

    def lines(self) -> list[str]:
        """Return all figures as lines for people."""
        cost, gpu = self.cost, self.gpu
        memory = {
            "weights": cost.weights,
            "gradients": cost.gradients,
            "optimizer": cost.optimizer,
            "average": cost.average,
            "batch": cost.batch,
            "activations": cost.activations,
        }
        described = ", ".join(f"{name} {size(bytes_)}" for name, bytes_ in memory.items())
        fit = "fits in" if self.fits else "does not fit in"
        lines = [
            f"{self.recipe}: {self.batch_size} examples a step, {self.precision}",
            f"  parameters   {cost.trainable / 1e6:,.2f} M trainable, "
            f"{cost.frozen / 1e6:,.2f} M frozen",
            f"  computation  {number(cost.flops / TERA)} TFLOP a step, of which forward "
            f"{number(cost.forward_flops / TERA)}",
            f"  memory       {size(cost.peak)} at the peak: {described}",
            f"  time         {duration(self.step_s)} a step, {duration(self.step_s * self.steps)} "
            f"for {self.steps:,} steps: {gpu.name} at {self.mfu:.0%} of {self.tflops:g} TFLOP/s",
            f"  {gpu.name}: {fit} {gpu.memory_gb:g} GB, a tenth of it left free",
        ]
        lines += sampling_lines(self.sampling)
        starting = LAUNCH_S * cost.results
        if starting > self.step_s:
            lines.append(
                f"  not compiled: launching {cost.results:,} kernels takes longer, about "
                f"{duration(starting)} a step"
            )
        return lines + [f"  assumed      {one}" for one in cost.assumed]

    def row(self) -> list[str]:
        """Return the cells of a table row."""
        cost = self.cost
        frozen = f" + {cost.frozen / 1e6:,.1f} M frozen" if cost.frozen else ""
        return [
            f"`{self.recipe}`",
            f"{cost.trainable / 1e6:,.1f} M{frozen}",
            f"{self.batch_size:,}, {self.precision}",
            number(cost.flops / TERA),
            size(cost.peak) + ("" if self.fits else " (too much)"),
            duration(self.step_s),
            f"{self.steps:,}",
            duration(self.step_s * self.steps),
        ]


def forecast(path: Path, overrides: Sequence[str], gpu: Gpu, mfu: float) -> Forecast:
    """Run both passes of a recipe.

    Raises:
        InputError: if the recipe is wrong, or its code makes tensors on the wrong device.
    """
    try_recipe(path, overrides, data=False)
    recipe = Recipe.read(path, overrides)
    cost = cost_of_step(recipe)
    check_devices(recipe)
    sampling = cost_of_sampling(path, recipe.parts["model"])
    examples = recipe.batch_size * recipe.trainer.gradient_accumulation_steps
    precision = "tf32" if recipe.precision == "fp32" else recipe.precision
    steps = recipe.trainer.steps
    return Forecast(path, examples, precision, steps, cost, gpu, mfu, sampling)


def sampling_lines(cost: SamplingCost | None) -> list[str]:
    """Return the cost of sampling as a line; no line without one."""
    if cost is None:
        return []
    parts = ", ".join(f"{name} {size(bytes_)}" for name, bytes_ in cost.parts.items())
    return [
        f"  sampling     {size(cost.peak)} at the peak for one item in float32: weights "
        f"{size(cost.weights)}, {parts}; {number(next(iter(cost.flops.values())) / TERA)} TFLOP "
        "a step"
    ]


def sampling_facts(cost: SamplingCost | None) -> dict[str, Any]:
    """Return the cost of sampling for programs."""
    if cost is None:
        return {}
    return {"sampling": {**dataclasses.asdict(cost), "peak": cost.peak}}


def is_model_alone(path: Path, overrides: Sequence[str]) -> bool:
    """Return whether a recipe only describes a model, as those of ready models may do."""
    parts = check_recipe(path, overrides)
    return "model" in parts and not {"data", "trainer"} & {*parts}


def dry_run(
    recipes: Sequence[Path],
    overrides: Sequence[str] = (),
    *,
    gpu: str = "h200",
    mfu: float = 0.35,
    markdown: bool = False,
    show: Callable[[list[str]], None] | None = None,
) -> Report:
    """Run one training step of each recipe on fake tensors.

    Args:
        recipes: recipe files.
        overrides: ``key.path=value`` changes to all of them.
        gpu: name in :data:`multidiff.dry_run.gpus.GPUS`.
        mfu: fraction of the GPU's peak that training reaches (model FLOPs utilization).
        markdown: whether to show a table instead of lines.
        show: function that receives the lines of each recipe as soon as they exist.

    Returns:
        Facts of all recipes, and the faults; no lines.

    Raises:
        InputError: if the GPU is unknown, or ``mfu`` out of range.
    """
    found, report = gpu_named(gpu), Report([], {"recipes": []})
    say = (lambda lines: None) if show is None else show
    if not (0 < mfu <= 1 and math.isfinite(mfu)):
        raise InputError(f"--mfu {mfu:g}: must be a fraction of the GPU's peak, in (0, 1]")
    if markdown:
        say([_cells(HEADING), _cells(["---"] + ["--:"] * (len(HEADING) - 1))])
    for path in recipes:
        try:
            if is_model_alone(path, overrides):
                cost = cost_of_sampling(path, check_recipe(path, overrides)["model"])
                say([f"{path}: a model, without training", *sampling_lines(cost)])
                report.facts["recipes"].append({"recipe": str(path), **sampling_facts(cost)})
                continue
            one = forecast(path, overrides, found, mfu)
        except InputError as fault:
            report.faults.append(str(fault))
            continue
        say([_cells(one.row())] if markdown else one.lines())
        report.facts["recipes"].append(one.facts())
    return report


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Return a value with three significant digits, such as 1,230 or 0.00123."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def size(count: int) -> str:
    """Format bytes in GB (1e9) or MB."""
    return f"{number(count / GB)} GB" if count >= GB else f"{number(count / 1e6)} MB"


def duration(seconds: float) -> str:
    """Format a time in a suitable unit."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1.0)):
        if seconds >= 2 * length or (unit == "s" and seconds >= 1):
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds * 1e3)} ms"
