"""One step of a joint state, and the loop that makes them.

All parts of a step share one evaluation of the network, at the state and levels where the step
begins. A sampler with one evaluation per step keeps its order of convergence. One with several
(Heun) sees the other parts where the step began, and becomes first order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from multidiff.core.context import SamplerContext
from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.samplers import UnmaskingState
from multidiff.core.joint.level import Held, JointLevel, JointSchedule, check_names
from multidiff.core.joint.process import JointProcess, check_outputs
from multidiff.core.projections import keeps_in_bounds
from multidiff.core.protocols import Condition, Denoiser, Level, Projection, check_sampler
from multidiff.core.random import Rng, device_of
from multidiff.core.sample import Step, traverse


@dataclass
class JointContext:
    """Context of a :class:`JointSampler`'s steps.

    Attributes:
        process: process that the denoiser was trained on.
        denoiser: the network, perhaps guided.
        condition: condition of each sample.
        project: projections of estimates, for parts that have one.
        asked_again: parts whose sampler evaluated the network more than once in a step.
    """

    process: JointProcess
    denoiser: Denoiser
    condition: Condition = None
    project: Mapping[str, Projection] = field(default_factory=dict)
    asked_again: set[str] = field(default_factory=set)

    def outputs(self, state: Mapping[str, Tensor], level: JointLevel) -> Mapping[str, Tensor]:
        """Return the network's output for each part.

        Raises:
            TypeError: if it is not a dict.
            ValueError: if a part is missing.
        """
        found: Any = self.denoiser(state, level, self.condition)  # pyright: ignore[reportArgumentType]
        check_outputs(found, self.process.parts)
        return found


class _SharedOutput:
    """The network as one part's sampler sees it during a step."""

    def __init__(self, context: JointContext, state: Mapping[str, Tensor], level: JointLevel):
        self.context, self.state, self.level = context, state, level
        self.first: Mapping[str, Tensor] | None = None

    def part(self, name: str) -> Denoiser:
        def denoiser(xt: Tensor, level: Any, condition: Condition = None) -> Tensor:
            if xt is self.state[name] and level is self.level[name]:
                if self.first is None:
                    self.first = self.context.outputs(self.state, self.level)
                return self.first[name]
            if len(self.level) - len(self.level.held) > 1:
                self._warn(name)
            state = {**self.state, name: xt}
            return self.context.outputs(state, self.level.replaced(name, level))[name]

        return denoiser

    def _warn(self, name: str) -> None:
        if name not in self.context.asked_again:
            self.context.asked_again.add(name)
            warnings.warn(
                f"the sampler of part {name!r} evaluates the network more than once a step: it "
                "sees the other parts where the step began, so its order is 1; use one with one "
                "evaluation a step, such as DPMSolverPP()",
                stacklevel=2,
            )


class JointSampler:
    """Samplers of all parts, stepping together.

    Args:
        parts: sampler of each part that is not held, fitting its process.

    Raises:
        TypeError: if one is not a sampler.
    """

    def __init__(self, parts: Mapping[str, Any]):
        for sampler in parts.values():
            check_sampler(sampler)
        self.parts = dict(parts)

    def step(
        self,
        context: JointContext,
        state: Mapping[str, Tensor],
        level: JointLevel,
        next_level: JointLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[dict[str, Tensor], Any]:
        """Return the state at ``next_level`` and the memory of each part's sampler."""
        shared, memory, new = _SharedOutput(context, state, level), dict(memory or {}), dict(state)
        for name in context.process.parts:
            if name not in level.held:
                new[name], memory[name] = self._step_part(
                    context, shared, name, next_level[name], memory.get(name), rng
                )
        return new, memory

    def _step_part(
        self,
        context: JointContext,
        shared: _SharedOutput,
        name: str,
        next_level: Level,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        process, sampler = context.process.parts[name], self.parts[name]
        xt, level, denoiser = shared.state[name], shared.level[name], shared.part(name)
        if not isinstance(process, MaskProcess):
            reader = SamplerContext(process, denoiser, context.condition, context.project.get(name))
            return sampler.step(reader, xt, level, next_level, memory, rng)
        opened, own = (xt == process.size, None) if memory is None else memory
        unmasking = UnmaskingState(process, denoiser, context.condition, (), opened, rng)
        xt, own = sampler.step(unmasking, xt, level, next_level, own)
        return xt, (opened, own)

    def check_parts(self, process: JointProcess, held: frozenset[str]) -> None:
        """Reject samplers that do not fit the parts to be sampled.

        Raises:
            ValueError: if a part that is not held has no sampler, or a part is unknown.
        """
        check_names("sampler", {*self.parts, *held}, process.parts)


@torch.no_grad()
def sample_joint(
    process: JointProcess,
    denoiser: Denoiser,
    sampler: JointSampler,
    shape: Mapping[str, Sequence[int]],
    times: JointSchedule,
    *,
    start: Mapping[str, Tensor] | None = None,
    condition: Condition = None,
    project: Mapping[str, Projection] | None = None,
    rng: Rng | None = None,
    device: torch.device | str | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> dict[str, Tensor]:
    """Sample a joint state, with some parts optionally given or held at pure noise.

    Args:
        process: process that the denoiser was trained on.
        denoiser: the network, perhaps guided.
        sampler: sampler of each part that is not held.
        shape: shape of each part, ``(batch, ...)``; optional for parts in ``start``.
        times: timestep schedule of each part, or :class:`~multidiff.core.joint.level.Held`.
        start: states to start from: the data of given parts, which are returned unchanged; parts
            that are missing start from the prior.
        condition: condition of each sample.
        project: projections of estimates, for parts that have one.
        rng: one generator, or one for each sample.
        device: device of the states; that of ``rng`` by default.
        on_step: function called after each step.

    Returns:
        The state of each part where its times end.

    Raises:
        TypeError: if a sampler or process has the wrong type, or a given part is not a tensor.
        ValueError: if a part is missing or of another batch size, a part held at its clean level
            is not in ``start``, or a state is not finite.
    """
    _check_kinds(process, sampler, shape, times)
    start = dict(start or {})
    shape, batch = _checked_shape(process, shape, start, project or {})
    sampler.check_parts(process, times.held)
    target = device_of(rng) if device is None else torch.device(device)
    levels = [level.to(target).expand(batch) for level in process.levels(times)]
    state = _start(process, shape, times, levels, start, project or {}, rng)
    context = JointContext(process, denoiser, condition, project or {})
    state = {name: one.to(target) for name, one in state.items()}
    return traverse(context, sampler, levels, state, rng=rng, on_step=on_step)


def _check_kinds(process: Any, sampler: Any, shape: Any, times: Any) -> None:
    kinds = {
        "process": (process, JointProcess),
        "sampler": (sampler, JointSampler),
        "shape": (shape, Mapping),
        "times": (times, JointSchedule),
    }
    for what, (found, kind) in kinds.items():
        if not isinstance(found, kind):
            wanted = "dict by part" if kind is Mapping else kind.__name__
            raise TypeError(
                f"{what} is a {type(found).__name__}: sampling a joint state needs a {wanted}"
            )


def _checked_shape(
    process: JointProcess,
    shape: Mapping[str, Sequence[int]],
    start: Mapping[str, Tensor],
    project: Mapping[str, Projection],
) -> tuple[dict[str, Sequence[int]], int]:
    """Return the shape of each part and the number of samples."""
    for what, found in (("start", start), ("project", project)):
        check_names(what, {**dict.fromkeys(process.parts), **found}, process.parts)
    whole = {**{name: one.shape for name, one in start.items()}, **shape}
    check_names("shape", whole, process.parts)
    for name, one in start.items():
        if tuple(one.shape) != tuple(whole[name]):
            raise ValueError(
                f"start: part {name!r} has shape {tuple(one.shape)}, not {tuple(whole[name])}"
            )
    sizes = {name: one[0] for name, one in whole.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"parts of a joint state have one batch size of at least 1, not {listed}")
    return whole, next(iter(sizes.values()))


def _start(
    process: JointProcess,
    shape: Mapping[str, Sequence[int]],
    times: JointSchedule,
    levels: Sequence[JointLevel],
    start: Mapping[str, Tensor],
    project: Mapping[str, Projection],
    rng: Rng | None,
) -> dict[str, Tensor]:
    """Return the state to start from: given parts, and noise."""
    state = {}
    for name, part in process.parts.items():
        own = [level[name] for level in levels]
        held = times.parts[name] if name in times.held else None
        if name in start:
            state[name] = start[name]
            continue
        if isinstance(held, Held) and held.time < 1:
            raise ValueError(
                f"part {name!r} is held at time {held.time:g}: give its state, "
                f"start={{{name!r}: ...}}"
            )
        if (
            held is None
            and not keeps_in_bounds(project.get(name))
            and hasattr(part, "check_levels")
        ):
            cast(Any, part).check_levels(own)
        state[name] = part.prior(shape[name], rng)
        if hasattr(part, "start_at"):
            state[name] = cast(Any, part).start_at(state[name], own[0])
    return state
