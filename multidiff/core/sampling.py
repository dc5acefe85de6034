"""The only reverse loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multidiff.core.protocols import (
    Condition,
    Denoiser,
    Estimate,
    Process,
    Projection,
    Solver,
    check_solver,
    check_times,
)
from multidiff.core.randomness import Rng, device_of
from multidiff.core.schedules import NoiseLevel
from multidiff.core.times import TimeGrid


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


@torch.no_grad()
def sample(
    process: Process,
    denoiser: Denoiser,
    solver: Solver,
    shape: Sequence[int],
    times: TimeGrid,
    *,
    condition: Condition = None,
    project: Projection | None = None,
    rng: Rng | None = None,
    start: Tensor | None = None,
    device: torch.device | str | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Tensor:
    """Walk from noise to a state.

    Args:
        process: what the denoiser was trained on.
        denoiser: the network, perhaps guided.
        solver: makes each step.
        shape: of the states, ``(batch, ...)``.
        times: which times are visited.
        condition: what the denoiser is told.
        project: puts what is known into every estimate (clipping, a mask, a spectrum).
        rng: one generator, or one for each sample; a sample then does not depend on the
            others in its batch.
        start: noisy states at the first visited level, for a walk from the middle (see
            :meth:`~multidiff.core.times.TimeGrid.tail`); a draw from the prior where not given.
        device: where to walk; where ``rng`` lives if not given.
        on_step: told after each step.

    Returns:
        The state at the level where the times end, for most grids the clean one.

    Raises:
        TypeError: if the solver is a class, or the times are a number.
        ValueError: if ``start`` does not have the given shape.
    """
    check_solver(solver)
    check_times(times)
    if start is not None and tuple(start.shape) != tuple(shape):
        raise ValueError(f"start has shape {tuple(start.shape)}, not {tuple(shape)}")
    place = device_of(rng) if device is None else torch.device(device)

    def estimate_at(noisy: Tensor, level: NoiseLevel) -> Estimate:
        estimate = process.estimate(denoiser(noisy, level, condition), noisy, level)
        return estimate if project is None else project(estimate, noisy, level)

    levels = [level.to(place).expand(shape[0]) for level in process.levels(times)]
    state = (process.prior(shape, rng) if start is None else start).to(place)
    memory = None
    for number in range(times.num_steps):
        level, next_level = levels[number], levels[number + 1]
        state, memory = solver.step(estimate_at, state, level, next_level, memory, rng)
        if on_step is not None:
            on_step(Step(number + 1, times.num_steps, next_level, state))
    return state
