"""The process of a joint state: a process for each part.

Training draws the level of each part independently, so that one network learns every conditional,
every marginal and the joint (UniDiffuser, Bao et al. 2023; Rojas et al. 2025).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.core.joint.level import (
    Held,
    JointLevel,
    JointSchedule,
    batch_of,
    check_names,
    map_level,
)
from multidiff.core.protocols import Corruption, Level, Process, Reading, check_process
from multidiff.core.random import Rng, uniform

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class JointCorrupted:
    """A noisy joint state, with the clean one.

    Attributes:
        parts: the record of each part's own process.
        level: their levels.
    """

    parts: Mapping[str, Corruption]
    level: JointLevel

    @property
    def xt(self) -> dict[str, Tensor]:
        """The noisy state of each part."""
        return {name: one.xt for name, one in self.parts.items()}

    @property
    def x0(self) -> dict[str, Tensor]:
        """The clean state of each part."""
        return {name: one.x0 for name, one in self.parts.items()}


class JointProcess:
    """Several states with a process each, as one state: a dict of tensors.

    The network is called as ``network(xt, level, condition)`` with ``xt`` a dict and ``level`` a
    :class:`~multidiff.core.joint.level.JointLevel`, and returns a dict of outputs.

    Args:
        parts: process of each part, by its name.
        weights: weight of each part's loss; 1 by default.
        given: probability that training holds a part at its clean level, for conditionals; its
            loss is 0 then. At least one part is always noisy.
        left_out: probability that training holds a part at pure noise, for marginals.
        directed: share of training samples for which one part or none, drawn at random, is clean
            and every other is held at pure noise, but for a second drawn part, which has a level
            of its own unless it is the first. With independent levels a part is seldom the only
            source of another: this trains such conditionals, and marginals, more often.

    Raises:
        TypeError: if a part's process is not one.
        ValueError: if there are no parts, a weight is negative or of an unknown part, or the
            probabilities are not in [0, 1].
    """

    def __init__(
        self,
        parts: Mapping[str, Process],
        weights: Mapping[str, float] | None = None,
        *,
        given: float = 0.0,
        left_out: float = 0.0,
        directed: float = 0.0,
    ):
        if not parts:
            raise ValueError("a joint process needs at least one part")
        for one in parts.values():
            check_process(one)
        if given < 0 or left_out < 0 or given + left_out > 1:
            raise ValueError(
                f"given {given:g} and left_out {left_out:g}: must be at least 0, at most 1 together"
            )
        if not 0 <= directed <= 1 or (directed and len(parts) < 2):
            raise ValueError(f"directed {directed:g}: a share from 0 to 1, of two parts or more")
        self.parts = dict(parts)
        self.weights = {**dict.fromkeys(parts, 1.0), **(weights or {})}
        check_names("weights", self.weights, parts)
        low = [name for name, weight in self.weights.items() if weight < 0]
        if low:
            raise ValueError(f"weights: that of part {low[0]!r} is negative")
        exact = [name for name, one in parts.items() if getattr(one, "masking", "") == "exact"]
        if (given or directed) and exact:
            option = f"given {given:g}" if given else f"directed {directed:g}"
            raise ValueError(
                f"{option}: part {exact[0]!r} masks exact counts, at least one token, and "
                'is never clean: use masking="independent"'
            )
        self.given, self.left_out, self.directed = given, left_out, directed

    def masked(self, mask: State | None) -> JointProcess:
        """Return the process of parts that are real where their masks are 1, for one batch.

        Sampling padded parts in a subspace needs it; training masks by itself.

        Args:
            mask: masks of the parts that have one, 1 at real positions.

        Raises:
            ValueError: if a mask is of an unknown part.
        """
        if not mask:
            return self
        check_names("mask", {**dict.fromkeys(self.parts), **mask}, self.parts)
        found = copy.copy(self)
        for name, one in self.parts.items():
            own: Any = getattr(one, "masked", None)
            if own is not None:
                found.parts = {**found.parts, name: own(mask.get(name))}
        return found

    def draw_level(self, batch: int, rng: Rng | None) -> JointLevel:
        """Return training levels for each of ``batch`` samples.

        Those of the parts are independent, except in the ``directed`` share.
        """
        levels = {name: one.draw_level(batch, rng) for name, one in self.parts.items()}
        count = len(self.parts)
        if self.given or self.left_out or self.directed:
            draws = uniform((batch, count), rng)
            spared = (uniform((batch,), rng) * count).long()
            given, left_out = draws < self.given, draws >= 1 - self.left_out
            # A sample whose parts are all clean has no loss: one of them is made noisy.
            given[torch.arange(batch), spared] &= ~given.all(dim=1)
            if self.directed:
                rows = uniform((batch, 1), rng) < self.directed
                source, own = uniform((batch, 2), rng).unbind(dim=1)
                is_source = F.one_hot((source * (count + 1)).long(), count + 1)[:, :count].bool()
                is_own = F.one_hot((own * count).long(), count).bool()
                given = torch.where(rows, is_source, given)
                left_out = torch.where(rows, ~(is_source | is_own), left_out)
            for i, (name, process) in enumerate(self.parts.items()):
                for time, rows in ((0.0, given[:, i]), (1.0, left_out[:, i])):
                    levels[name] = _at_rows(levels[name], Held(time).level(process), rows)
        return JointLevel(levels)

    def corrupt(
        self, x0: State, level: JointLevel, rng: Rng | None, mask: State | None = None
    ) -> JointCorrupted:
        """Draw a noisy state of each part, at its own level.

        Args:
            x0: clean states.
            level: level of each part.
            rng: source of the draws.
            mask: masks of the parts that have one.

        Raises:
            TypeError: if the states are not a dict, or a level belongs to another process.
            ValueError: if a part is missing, unknown or of another batch size.
        """
        batch_of("corrupt", x0, self.parts)
        self.check_levels(level)
        masks = mask or {}
        return JointCorrupted(
            {
                name: one.corrupt(x0[name], level[name], rng, masks.get(name))
                for name, one in self.parts.items()
            },
            level,
        )

    def losses(
        self, output: State, corrupted: JointCorrupted, mask: State | None = None
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return the weighted loss of each part; 0 for samples where it is given.

        Raises:
            ValueError: if the output of a part is missing.
        """
        check_outputs(output, self.parts)
        masks = mask or {}
        return {
            name: self.weights[name]
            * _noisy_loss(process, output[name], corrupted.parts[name], masks.get(name))
            for name, process in self.parts.items()
        }

    def loss(
        self, output: State, corrupted: JointCorrupted, mask: State | None = None
    ) -> Float[Tensor, " batch"]:
        """Return the sum of the parts' losses for each sample."""
        return torch.stack([*self.losses(output, corrupted, mask).values()]).sum(dim=0)

    def estimate(self, output: State, xt: State, level: JointLevel) -> dict[str, Reading]:
        """Return the estimate of each part, as its process reads the output."""
        check_outputs(output, self.parts)
        return {
            name: one.estimate(output[name], xt[name], level[name])
            for name, one in self.parts.items()
        }

    def prior(self, shape: Mapping[str, Sequence[int]], rng: Rng | None) -> dict[str, Tensor]:
        """Draw pure noise of each part, where sampling starts."""
        check_names("shape", shape, self.parts)
        return {name: one.prior(shape[name], rng) for name, one in self.parts.items()}

    def levels(self, times: JointSchedule) -> list[JointLevel]:
        """Return the levels visited, and last the final one."""
        return times.levels(self.parts)

    def check_levels(self, level: JointLevel) -> None:
        """Reject a level that belongs to another kind of process.

        Raises:
            TypeError: if a part's level is not of its process's type.
            ValueError: if a part has no level.
        """
        check_names("level", level, self.parts)
        for name, process in self.parts.items():
            wanted = type(Held(1.0).level(process))
            if not isinstance(level[name], wanted):
                raise TypeError(
                    f"level: part {name!r} has a {type(level[name]).__name__}, but its "
                    f"{type(process).__name__} takes a {wanted.__name__}"
                )


def check_outputs(output: Any, parts: Mapping[str, Process]) -> None:
    """Check that a network returned a dict with an output for each part.

    Raises:
        TypeError: if it is not a dict.
        ValueError: if a part is missing or unknown.
    """
    if not isinstance(output, Mapping):
        raise TypeError(
            f"the network returned a {type(output).__name__}: return a dict with an output for "
            f"each of {', '.join(parts)}"
        )
    check_names("the network's output", output, parts)


def _at_rows(level: Level, held: Level, rows: Tensor) -> Level:
    return map_level(
        lambda own, other: torch.where(rows.to(own.device), other.to(own), own),
        level,
        held.expand(len(rows)),
    )


def _noisy_loss(
    process: Process, output: Tensor, corrupted: Corruption, mask: Tensor | None
) -> Float[Tensor, " batch"]:
    """Return a part's loss, 0 in rows at the clean level, which its own training never has."""
    noisy = corrupted.level.time > 0
    if bool(noisy.all()):
        return process.loss(output, corrupted, mask)
    rows = noisy.to(output.device)
    found = output.new_zeros(len(rows), dtype=torch.promote_types(output.dtype, torch.float32))
    if not bool(rows.any()):
        _observe_nothing(process, corrupted)
        return found + 0 * output.flatten(1).sum(dim=1)
    part = replace(
        corrupted,
        **{
            one.name: _rows(getattr(corrupted, one.name), rows)
            for one in fields(corrupted)
            if one.init
        },
    )
    if mask is not None and len(mask) > 1:  # one row, broadcast, is that of all samples
        mask = mask[rows]
    loss = process.loss(output[rows], part, mask)
    return found.to(loss.dtype).masked_scatter(rows, loss)


def _observe_nothing(process: Process, corrupted: Corruption) -> None:
    """Call times that learn even without a loss, since they gather those of every process.

    The part may be noisy in another process of the same step, which would wait forever.
    """
    times: Any = getattr(process, "times", None)
    if torch.is_grad_enabled() and hasattr(times, "observe"):
        none = corrupted.level.time[:0]
        times.observe(none, none)


def _rows(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[rows.to(value.device)]
    return value[rows.to(value.time.device)] if hasattr(value, "time") else value
