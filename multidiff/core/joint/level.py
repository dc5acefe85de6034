"""The levels of a joint state, one for each part, and the times that sampling visits.

Each part has a noise level of its own. One network thereby answers every query: all parts from
noise is the joint distribution, a part held at its clean level is given, and a part held at pure
noise is marginalised out (UniDiffuser, Bao et al. 2023; Diffuse Everything, Rojas et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multidiff.core.gaussian.timesteps import TimestepSchedule, uniform_timesteps
from multidiff.core.protocols import Level, Process


def map_level(function: Callable[..., Tensor], *levels: Level) -> Level:
    """Return the level whose tensors are a function of those of the given levels."""
    first = levels[0]
    if isinstance(first, JointLevel):
        parts = {name: map_level(function, *(one[name] for one in levels)) for name in first}
        return JointLevel(parts, first.held)
    return type(first)(
        *(function(*parts) for parts in zip(*(one.parts() for one in levels), strict=True))
    )


class JointLevel(dict[str, Level]):
    """The level of each part by its name: ``level["image"].alpha``.

    ``level[rows]`` are the levels of some samples, as for the level of one part.

    Args:
        parts: level of each part.
        held: names of the parts whose level stays the same during sampling.
    """

    def __init__(self, parts: Mapping[str, Level], held: Iterable[str] = ()):
        super().__init__(parts)
        self.held = frozenset(held)

    def __getitem__(self, key: Any) -> Level:
        if isinstance(key, str):
            return super().__getitem__(key)
        return map_level(lambda one: one[key], self)

    def to(self, device: torch.device | str) -> JointLevel:
        """Return the same levels on another device."""
        return JointLevel({name: one.to(device) for name, one in self.items()}, self.held)

    def expand(self, batch: int) -> JointLevel:
        """Return levels of one sample as those of a batch."""
        return JointLevel({name: one.expand(batch) for name, one in self.items()}, self.held)

    def replaced(self, name: str, level: Level) -> JointLevel:
        """Return the levels with that of one part replaced."""
        return JointLevel({**self, name: level}, self.held)


@dataclass(frozen=True)
class Held:
    """A part that stays at one time while the others are sampled.

    Attributes:
        time: 0 for a given part, 1 for one that is marginalised out; between them, a part
            that is known only through a noisy state.
    """

    time: float

    def __post_init__(self) -> None:
        if not 0 <= self.time <= 1:
            raise ValueError(f"Held({self.time:g}): time must be in [0, 1]; 0 is given, 1 is noise")

    def level(self, process: Process) -> Level:
        """Return the level of a process at that time, for a batch of one."""
        noisiest, clean = process.levels(uniform_timesteps(1))
        if self.time in (0, 1):
            return noisiest if self.time else clean
        schedule: Any = getattr(process, "schedule", None)
        return schedule.at(torch.tensor([self.time], dtype=torch.float64))


@dataclass(frozen=True)
class JointSchedule:
    """The times that each part visits, in step with the others.

    Attributes:
        parts: for each part a timestep schedule, all with the same number of steps, or
            :class:`Held`.

    Raises:
        ValueError: if every part is held, or two schedules have different numbers of steps.
    """

    parts: Mapping[str, TimestepSchedule | Held]

    def __post_init__(self) -> None:
        counts = {
            name: one.num_steps for name, one in self.parts.items() if not isinstance(one, Held)
        }
        if not counts:
            raise ValueError("every part is held, so there is nothing to sample: free one")
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"parts are sampled in step, but differ in their steps: {listed}")

    @property
    def num_steps(self) -> int:
        """Number of steps that all parts take together."""
        return next(one.num_steps for one in self.parts.values() if not isinstance(one, Held))

    @property
    def held(self) -> frozenset[str]:
        """Names of the parts that stay at one level."""
        return frozenset(name for name, one in self.parts.items() if isinstance(one, Held))

    def levels(self, processes: Mapping[str, Process]) -> list[JointLevel]:
        """Return the levels visited, and last the final one.

        Raises:
            ValueError: if a part has no times, or is unknown.
        """
        check_names("times", self.parts, processes)
        found = {
            name: [times.level(processes[name])] * (self.num_steps + 1)
            if isinstance(times, Held)
            else processes[name].levels(times)
            for name, times in self.parts.items()
        }
        return [
            JointLevel({name: found[name][number] for name in processes}, self.held)
            for number in range(self.num_steps + 1)
        ]


def check_names(what: str, found: Collection[str], parts: Collection[str]) -> None:
    """Reject a mapping whose keys are not exactly the parts of a process.

    Raises:
        ValueError: if a part is missing or unknown, with the nearest name.
    """
    missing = [name for name in parts if name not in found]
    unknown = [name for name in found if name not in parts]
    if unknown:
        raise ValueError(
            f"{what}: the process has no part {unknown[0]!r}: the parts are {', '.join(parts)}"
        )
    if missing:
        raise ValueError(f"{what}: part {missing[0]!r} is missing")


def batch_of(what: str, states: Mapping[str, Tensor], parts: Collection[str]) -> int:
    """Return the number of samples that the parts of a joint state have in common.

    Raises:
        TypeError: if the states are not a mapping.
        ValueError: if a part is missing, unknown, or of another batch size.
    """
    if not isinstance(states, Mapping):
        raise TypeError(
            f"{what}: a joint state is a dict of tensors, not a {type(states).__name__}"
        )
    check_names(what, states, parts)
    sizes = {name: len(one) for name, one in states.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"{what}: parts of a joint state have one batch size, not {listed}")
    return next(iter(sizes.values()))
