"""The only reverse loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.projections import keeps_in_bounds
from multidiff.core.protocols import (
    Condition,
    Denoiser,
    Level,
    Process,
    Projection,
    Reading,
    Sampler,
    check_process,
    check_sampler,
    check_times,
)
from multidiff.core.random import Rng, device_of, normal, unpadded


@dataclass(frozen=True)
class Step:
    """What a progress callback is told after each step.

    Attributes:
        number: steps done, from 1.
        total: steps of the walk.
        level: the level just reached.
        state: the state there, ``(batch, ...)``.
    """

    number: int
    total: int
    level: NoiseLevel
    state: Tensor


@dataclass(frozen=True)
class _Reader:
    """Estimates at a state and level, and the noise of the process: what samplers ask for."""

    process: Process
    denoiser: Denoiser
    condition: Condition
    project: Projection | None

    def __call__(self, xt: Tensor, level: Level) -> Reading:
        output = self.denoiser(xt, level, self.condition)
        estimate = self.process.estimate(output, xt, level)
        return estimate if self.project is None else self.project(estimate, xt, level)

    def noise(self, state: Tensor, rng: Rng | None) -> Tensor:
        """Draw the noise of a stochastic step where the generators live."""
        draw = getattr(self.process, "noise", normal)
        return draw(state.shape, rng).to(state.device)


def _check_arguments(
    process: Process,
    sampler: Sampler,
    shape: Sequence[int],
    times: TimestepSchedule,
    start: Tensor | None,
) -> None:
    check_process(process)
    check_sampler(sampler)
    check_times(times)
    if len(shape) == 0 or shape[0] < 1:
        raise ValueError(f"shape {tuple(shape)}: a batch of at least one, batch first")
    if start is not None and tuple(start.shape) != tuple(shape):
        raise ValueError(f"start has shape {tuple(start.shape)}, not {tuple(shape)}")
    if start is not None and not start.is_floating_point():
        raise TypeError(f"start has {start.dtype}: states of a walk are floating-point numbers")


@torch.no_grad()
def sample(
    process: Process,
    denoiser: Denoiser,
    sampler: Sampler,
    shape: Sequence[int],
    times: TimestepSchedule,
    *,
    condition: Condition = None,
    project: Projection | None = None,
    rng: Rng | None = None,
    start: Tensor | None = None,
    device: torch.device | str | None = None,
    on_step: Callable[[Step], None] | None = None,
    lengths: Sequence[int] | None = None,
) -> Tensor:
    """Walk from noise to a state.

    Args:
        process: what the denoiser was trained on.
        denoiser: the network, perhaps guided.
        sampler: makes each step.
        shape: of the states, ``(batch, ...)``.
        times: which times are visited.
        condition: what the denoiser is told.
        project: puts what is known into every estimate (clipping, a mask, a spectrum).
        rng: one generator, or one for each sample; a sample then does not depend on the
            others in its batch.
        start: noisy states at the first visited level, for a walk from the middle (see
            ``TimestepSchedule.tail``); a draw from the prior where not given.
        device: where to walk; where ``rng`` lives if not given.
        on_step: told after each step.
        lengths: how many positions of each sample are real, along dimension 1; the rest is
            padding. What a seed makes then does not depend on the padding, if the denoiser's
            answer does not. It needs a generator for each sample.

    Returns:
        The state at the level where the times end, for most grids the clean one.

    Raises:
        TypeError: if process, sampler or times are something else, such as a name, a class or a
            number; if ``start`` are integers.
        ValueError: if ``start`` does not have the given shape, the batch is empty, or the walk
            cannot start from noise.
    """
    _check_arguments(process, sampler, shape, times, start)
    target_device = device_of(rng) if device is None else torch.device(device)

    if lengths is not None:
        rng = unpadded(rng, lengths)
    estimate_at = _Reader(process, denoiser, condition, project)
    levels = [level.to(target_device).expand(shape[0]) for level in process.levels(times)]
    if start is None and not keeps_in_bounds(project) and hasattr(process, "check_levels"):
        cast(Any, process).check_levels(levels)
    state = (process.prior(shape, rng) if start is None else start).to(target_device)
    memory = None
    for number in range(times.num_steps):
        level, next_level = levels[number], levels[number + 1]
        state, memory = sampler.step(estimate_at, state, level, next_level, memory, rng)
        if on_step is not None:
            on_step(Step(number + 1, times.num_steps, next_level, state))
    return state
