"""Guidance towards parts of a joint state, and with several scales at once.

The output with some parts given is contrasted with the output where they are pure noise: the
network itself provides both, and no condition has to be dropped in training. With several scales
the parts are added one after the other (Brooks et al. 2023, eq. 3), here for parts 1 and 2:

    f(none) + scale_1 (f(1) - f(none)) + scale_2 (f(1, 2) - f(1))

With every scale 1 that is the conditional output itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from multidiff.core.guidance import Parts, check_droppable, map_condition, null_condition
from multidiff.core.joint.level import Held, JointLevel, check_names, map_level
from multidiff.core.joint.process import JointProcess
from multidiff.core.protocols import Condition, Denoiser, Level
from multidiff.core.random import Rng


def chained(outputs: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """Return the first output and each scaled difference from one to the next."""
    found = outputs[0]
    for scale, (before, after) in zip(scales, itertools.pairwise(outputs), strict=True):
        found = found + scale * (after - before)
    return found


class JointGuidance:
    """Guidance towards given parts of a joint state, one batch for all evaluations.

    Args:
        denoiser: network of the joint process.
        process: joint process that it was trained on.
        scales: guidance scale of each given part, in the order in which they are added; 1 is off.
            A tuple of names is one guidance term.
        rng: source of the noise that replaces dropped parts.

    Raises:
        ValueError: if a part is unknown, there are no scales, or a scale is negative.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        process: JointProcess,
        scales: Mapping[str | tuple[str, ...], float],
        *,
        rng: Rng | None = None,
    ):
        groups = [(one,) if isinstance(one, str) else tuple(one) for one in scales]
        named = [name for group in groups for name in group]
        check_names("scales", {*process.parts, *named}, process.parts)
        _check_scales(scales)
        if len(set(named)) != len(named) or len(named) == len(process.parts):
            raise ValueError("scales: name each part once, and leave at least one to be generated")
        self.denoiser, self.process, self.groups = denoiser, process, groups
        self.scales, self.rng = [*scales.values()], rng

    def __call__(
        self, xt: Mapping[str, Tensor], level: JointLevel, condition: Condition = None
    ) -> dict[str, Tensor]:
        """Return the guided output of each part."""
        denoiser: Any = self.denoiser
        if all(scale == 1 for scale in self.scales):
            return denoiser(xt, level, condition)
        states, levels = [dict(xt)], [level]
        for group in reversed(self.groups):
            state, at = dict(states[0]), levels[0]
            for name in group:
                state[name], noisiest = self._left_out(name, xt[name])
                at = at.replaced(name, noisiest)
            states, levels = [state, *states], [at, *levels]
        count = len(states)
        every = map_condition(lambda *one: torch.cat(one), *states)
        about = map_condition(lambda one: torch.cat([one] * count), condition)
        output = denoiser(every, map_level(lambda *one: torch.cat(one), *levels), about)
        return {name: chained(one.chunk(count), self.scales) for name, one in output.items()}

    def _left_out(self, name: str, state: Tensor) -> tuple[Tensor, Level]:
        process = self.process.parts[name]
        noise = process.prior(state.shape, self.rng).to(state.device)
        level = Held(1.0).level(process).to(state.device).expand(len(state))
        return noise.to(state.dtype), level


class MultiConditionGuidance:
    """Guidance by several parts of a condition, a scale for each, in one batch.

    The network must have been trained with each of them dropped independently
    (``drop_condition={"text": 0.1, "image": 0.1}``). Parts that are not named, such as masks,
    edges and lengths, always stay.

    Args:
        denoiser: network that reads the condition.
        scales: scale of each part of the condition, in the order in which they are added.
        negative: condition used in place of the one without any of the parts.

    Raises:
        ValueError: if there are no scales, or one is negative.
    """

    def __init__(self, denoiser: Denoiser, scales: Mapping[Any, float], negative: Condition = None):
        _check_scales(scales)
        self.negative = negative
        self.denoiser, self.parts, self.scales = denoiser, [*scales], [*scales.values()]

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the guided output.

        Raises:
            ValueError: if the condition lacks a part, has none, or those that are guided are only
                masks or None.
        """
        if all(scale == 1 for scale in self.scales):
            return self.denoiser(xt, level, condition)
        if not isinstance(condition, dict | tuple | list):
            raise ValueError(
                f"guidance by parts {self.parts}: the condition is a {type(condition).__name__} "
                "without parts; pass a dict of them"
            )
        if self.negative is None:
            check_droppable(condition, self.parts)
        # From the last part on, one more part is dropped at a time; the full condition comes last.
        dropped: list[Parts] = [self.parts[number:] for number in range(len(self.parts))]
        conditions = [*(null_condition(condition, one) for one in dropped), condition]
        conditions[0] = conditions[0] if self.negative is None else self.negative
        count = len(conditions)
        outputs = self.denoiser(
            torch.cat([xt] * count),
            map_level(lambda *one: torch.cat(one), *[level] * count),
            map_condition(lambda *one: torch.cat(one), *conditions),
        )
        return chained(outputs.chunk(count), self.scales)


def _check_scales(scales: Mapping[Any, float]) -> None:
    if not scales or min(scales.values()) < 0:
        raise ValueError(f"scales {dict(scales)}: give at least one, and none below 0")
