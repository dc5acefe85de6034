"""Cost of sampling by a recipe's model, found without a GPU or weights.

The model names the calls that sampling one item makes (``sampling_calls``); they run on fake
tensors, in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from multidiff.config.build import Spec
from multidiff.dry_run.fake_tensors import give_fakes
from multidiff.dry_run.gpu_kernels import flop_counter
from multidiff.dry_run.step import CPU, FakeRun, StandIns
from multidiff.models.weights import without_values


@dataclass(frozen=True)
class SamplingCost:
    """Cost of sampling one item in float32.

    Attributes:
        weights: bytes of the weights.
        parts: further bytes at the peak of each part's call, by its name.
        flops: floating-point operations of each part's call.
    """

    weights: int
    parts: dict[str, int]
    flops: dict[str, int]

    @property
    def peak(self) -> int:
        """Return the largest number of bytes at any moment."""
        return self.weights + max(self.parts.values())


def cost_of_sampling(path: Path, model: Spec) -> SamplingCost | None:
    """Return the cost of sampling one item; None if the model does not name its calls.

    Args:
        path: recipe, for messages.
        model: its model.

    Raises:
        InputError: if the model cannot run without values of weights.
    """
    with without_values():
        built = StandIns().build(model)
    if not hasattr(built, "sampling_calls"):
        return None
    run, parts, flops = FakeRun(path, CPU), {}, {}
    give_fakes(built.eval().requires_grad_(False), CPU, run.values)
    weights = run.memory.now
    with run.modes(), torch.no_grad():
        for name, call in built.sampling_calls().items():
            run.memory.peak = run.memory.now
            with flop_counter() as counter:
                call()
            parts[name] = run.memory.peak - weights
            flops[name] = counter.get_total_flops()
    return SamplingCost(weights, parts, flops)
