"""The sampling loop, :func:`traverse`, and the functions that start it.

:func:`sample` goes from noise to data, :func:`encode` from data to the noise from which a
deterministic sampler generates them. Discrete processes start the same loop in
:mod:`multidiff.core.discrete.unmasking`, and editors in :mod:`multidiff.text.diffuser.reviser`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, overload

import torch
from torch import Tensor

from multidiff.core.context import SamplerContext
from multidiff.core.discrete.process import TokenProcess
from multidiff.core.gaussian.predictions import spread
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.projections import keeps_in_bounds
from multidiff.core.protocols import (
    Condition,
    Denoiser,
    Process,
    Projection,
    Sampler,
    check_process,
    check_sampler,
    check_times,
)
from multidiff.core.random import Rng, device_of, unpadded

if TYPE_CHECKING:
    from multidiff.core.joint.level import JointSchedule
    from multidiff.core.joint.process import JointProcess
    from multidiff.core.joint.sampler import JointSampler


class NotFiniteError(ValueError, FloatingPointError):
    """States of sampling are NaN or infinite: a network's fault, or that of the options."""


@dataclass(frozen=True)
class Step:
    """Argument of a progress callback after each step.

    Attributes:
        number: number of steps done, from 1.
        total: number of all steps.
        level: level just reached.
        state: state there, ``(batch, ...)``.
    """

    number: int
    total: int
    level: Any
    state: Any


def _check_arguments(
    process: Process,
    sampler: Sampler,
    shape: Sequence[int],
    times: TimestepSchedule,
    start: Tensor | None,
) -> None:
    check_process(process)
    check_sampler(sampler, 6, "call md.unmask for masked tokens")
    check_times(times)
    if len(shape) == 0 or shape[0] < 1:
        raise ValueError(f"shape {tuple(shape)}: a batch of at least one, batch first")
    if start is not None and tuple(start.shape) != tuple(shape):
        raise ValueError(f"start has shape {tuple(start.shape)}, not {tuple(shape)}")
    tokens = isinstance(process, TokenProcess)
    if start is not None and not tokens and not start.is_floating_point():
        raise TypeError(f"start has {start.dtype}: states of a walk are floating-point numbers")


@overload
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
) -> Tensor: ...


@overload
def sample(
    process: JointProcess,
    denoiser: Denoiser,
    sampler: JointSampler,
    shape: Mapping[str, Sequence[int]],
    times: JointSchedule,
    *,
    condition: Condition = None,
    project: Mapping[str, Projection] | None = None,
    rng: Rng | None = None,
    start: Mapping[str, Tensor] | None = None,
    device: torch.device | str | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> dict[str, Tensor]: ...


@torch.no_grad()
def sample(
    process: Any,
    denoiser: Denoiser,
    sampler: Any,
    shape: Any,
    times: Any,
    *,
    condition: Condition = None,
    project: Any = None,
    rng: Rng | None = None,
    start: Any = None,
    device: torch.device | str | None = None,
    on_step: Callable[[Step], None] | None = None,
    lengths: Sequence[int] | None = None,
) -> Any:
    """Generate samples: run the reverse process from noise to a state.

    Args:
        process: process that the denoiser was trained on.
        denoiser: the network, perhaps guided.
        sampler: sampler that makes each step.
        shape: shape of the states, ``(batch, ...)``.
        times: timestep schedule.
        condition: condition passed to the denoiser.
        project: projection of every estimate (clipping, inpainting, a spectrum).
        rng: one generator, or one for each sample; a sample then does not depend on the
            others in its batch.
        start: noisy states at the first visited level, to start at an intermediate level (see
            ``TimestepSchedule.tail``); a draw from the prior by default.
        device: device to sample on; that of ``rng`` by default.
        on_step: function called after each step.
        lengths: number of real positions of each sample, along dimension 1; the rest is
            padding. The sample of a seed then does not depend on the padding, if the denoiser's
            output does not. It needs a generator for each sample.

    Returns:
        The state at the level where the times end, usually the clean one.

    Raises:
        TypeError: if process, sampler or times have the wrong type, such as a name, a class or a
            number; if ``start`` has integers.
        ValueError: if ``start`` does not have the given shape, the batch is empty, the schedule
            cannot start from noise, or the network returned NaN.
    """
    if isinstance(shape, Mapping) or isinstance(getattr(process, "parts", None), dict):
        from multidiff.core.joint.sampler import sample_joint  # it imports the loop of this module

        if lengths is not None:
            raise ValueError("lengths are those of one state: a joint state has masks by part")
        about = {"condition": condition, "project": project, "on_step": on_step}
        return sample_joint(
            process, denoiser, sampler, shape, times, start=start, rng=rng, device=device, **about
        )
    _check_arguments(process, sampler, shape, times, start)
    target_device = device_of(rng) if device is None else torch.device(device)

    if lengths is not None:
        rng = unpadded(rng, lengths)
    context = SamplerContext(process, denoiser, condition, project)
    levels = [level.to(target_device).expand(shape[0]) for level in process.levels(times)]
    if start is None and not keeps_in_bounds(project) and hasattr(process, "check_levels"):
        cast(Any, process).check_levels(levels)
    state = process.prior(shape, rng) if start is None else start
    if start is None and hasattr(process, "start_at"):
        state = cast(Any, process).start_at(state, levels[0])
    return traverse(context, sampler, levels, state.to(target_device), rng=rng, on_step=on_step)


def traverse(
    context: Any,
    sampler: Any,
    levels: Sequence[Any],
    state: Any,
    *,
    rng: Rng | None = None,
    on_step: Callable[[Step], None] | None = None,
    check: bool = True,
) -> Any:
    """Step a state over consecutive levels, in any direction: every sampling run is this loop.

    Args:
        context: first argument of the sampler: a :class:`~multidiff.core.context.SamplerContext`,
            or the context of another kind of state.
        sampler: sampler that makes each step.
        levels: visited levels, one more than there are steps.
        state: state at the first of them: a tensor ``(batch, ...)``, a dict with the parts of one,
            or an object of another kind whose ``values()`` are the tensors that must stay finite.
        rng: source of the steps' draws.
        on_step: function called after each step.
        check: whether to check that the states are finite, for which a GPU has to be waited for.

    Returns:
        The state at the last level.

    Raises:
        NotFiniteError: if the state is not finite, with the first step where it is not.
    """
    memory, finite, total = None, [], len(levels) - 1
    for number, (level, next_level) in enumerate(itertools.pairwise(levels), 1):
        state, memory = sampler.step(context, state, level, next_level, memory, rng)
        tensors = [state] if isinstance(state, Tensor) else state.values()
        finite.append(torch.stack([torch.isfinite(one).all() for one in tensors]))
        if on_step is not None:
            on_step(Step(number, total, next_level, state))
    if check and finite and not torch.compiler.is_compiling():
        _check_finite(finite, [*state] if isinstance(state, Mapping) else None)
    return state


def _check_finite(finite: Sequence[Tensor], names: Sequence[str] | None) -> None:
    # Checked once, after the last step: a GPU has to be waited for only here.
    good = torch.stack([*finite])
    if not bool(good.all()):
        step, part = (~good).nonzero()[0].tolist()
        what = "the state" if names is None else f"part {names[part]!r}"
        raise NotFiniteError(
            f"step {step + 1} of {len(finite)}: {what} is not finite; the network returned NaN or "
            "infinity there, guidance is too strong, or the timesteps do not fit its prediction"
        )


class _DrawsNothing(SamplerContext):
    """A context in which a sampler that draws noise is an error."""

    def noise(self, state: Tensor, rng: Rng | None) -> Tensor:
        """Raise an error.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "encoding needs a deterministic sampler, but this one draws noise: use DDIM(), UniPC() "
            "or another of those that docs/paths.md lists"
        )


@torch.no_grad()
def encode(
    process: Process,
    denoiser: Denoiser,
    sampler: Sampler,
    x0: Tensor,
    times: TimestepSchedule,
    *,
    condition: Condition = None,
    project: Projection | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Tensor:
    """Return the noise from which a deterministic sampler generates clean states: DDIM inversion.

    The same levels are visited as in sampling, except the clean one, cleanest first. Sampling
    with ``start=`` the result returns the states, more accurately with more steps.

    Args:
        process: process that the denoiser was trained on.
        denoiser: the network, perhaps guided; guidance of scale 1 is inverted best.
        sampler: a sampler that draws no noise.
        x0: clean states, ``(batch, ...)``.
        times: timestep schedule to run backwards, of at least two steps.
        condition: condition of each sample.
        project: projection of every estimate, or None.
        on_step: function called after each step.

    Returns:
        States at the first level of the schedule.

    Raises:
        ValueError: if the sampler draws noise, or the schedule has only one level.
    """
    _check_arguments(process, sampler, x0.shape, times, x0)
    if times.num_steps < 2:
        raise ValueError("encoding needs a grid of at least two steps")
    levels = [level.to(x0.device).expand(len(x0)) for level in process.levels(times)[:-1]]
    levels.reverse()
    context = _DrawsNothing(process, denoiser, condition, project)
    start = (spread(levels[0].alpha, x0) * x0).to(x0.dtype)
    return traverse(context, sampler, levels, start, on_step=on_step)
