"""Variational bound (NELBO) of a joint state.

    -log p(x) <= sum_parts KL(q(x_T | x) || prior) + sum_steps sum_parts E KL(q(x_s | x_t, x) || p)

with all parts noisy at each step, each at its own level: the reverse process of
:class:`~multidiff.core.joint.sampler.JointSampler`, whose parts are independent given the state
where a step begins. A given part costs nothing, so that the rest is the bound of a
conditional; a part held at pure noise costs nothing either, and the rest bounds a marginal.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.joint.level import JointLevel, JointSchedule, batch_of
from multidiff.core.joint.process import JointCorrupted, JointProcess, check_outputs
from multidiff.core.protocols import Condition, Corruption, Denoiser, Level
from multidiff.core.random import Rng


@runtime_checkable
class BoundedProcess(Protocol):
    """A process that can bound each step of its reverse process, in nats for each sample."""

    def walk_state(
        self, x0: Tensor, level: Level, rng: Rng | None, mask: Tensor | None = None
    ) -> Corruption:
        """Draw the noisy state of a reverse process that starts at the prior."""
        ...

    def prior_nats(
        self, x0: Tensor, level: Level, mask: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """Return KL(q(x_T | x) || prior)."""
        ...

    def step_nats(
        self,
        output: Tensor,
        corrupted: Corruption,
        earlier: Level,
        mask: Tensor | None = None,
        **options: Any,
    ) -> Float[Tensor, " batch"]:
        """Return KL(q(x_s | x_t, x) || p(x_s | x_t)) for a network's output."""
        ...


@dataclass(frozen=True)
class JointBound:
    """The bound of each sample, in nats for the whole state.

    Attributes:
        prior: prior term of each part.
        steps: terms of each part, noisiest first.
    """

    prior: Mapping[str, Float[Tensor, " batch"]]
    steps: Mapping[str, Float[Tensor, " batch steps"]]

    @property
    def per_part(self) -> dict[str, Float[Tensor, " batch"]]:
        """Return the terms of each part, given the noisy others."""
        return {name: self.prior[name] + one.sum(dim=1) for name, one in self.steps.items()}

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """Return the whole bound: at least the negative log likelihood, in expectation."""
        return torch.stack([*self.per_part.values()]).sum(dim=0)


@torch.no_grad()
def joint_nelbo(
    process: JointProcess,
    denoiser: Denoiser,
    x0: Mapping[str, Tensor],
    times: JointSchedule,
    condition: Condition = None,
    *,
    mask: Mapping[str, Tensor] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    rng: Rng | None = None,
) -> JointBound:
    """Return the bound along the given times, with one draw of the noise for each step.

    Args:
        process: process that the denoiser was trained on.
        denoiser: the network.
        x0: states to measure; for parts held at pure noise only their shape is used.
        times: timestep schedule of each part; a part in ``Held(0)`` is given, in ``Held(1)``
            pure noise.
        condition: condition of each sample.
        mask: masks of the parts that have one; masked-out positions cost nothing.
        options: further arguments of a part's ``step_nats``, such as the decoder of images,
            ``{"image": {"decoder": DiscretisedDecoder()}}``.
        rng: source of the draws.

    Raises:
        TypeError: if a process has no bound.
        ValueError: if a part is missing, of another batch size, or does not end at its clean
            level.
    """
    batch = batch_of("joint_nelbo", x0, process.parts)
    process = process.masked(mask)
    free = [name for name in process.parts if name not in times.held]
    for name in free:
        if not isinstance(process.parts[name], BoundedProcess):
            kind = type(process.parts[name]).__name__
            raise TypeError(f"part {name!r}: {kind} has no bound of its steps")
    device, masks = x0[free[0]].device, mask or {}
    levels = [level.to(device).expand(batch) for level in process.levels(times)]
    for name in free:
        end = float(levels[-1][name].time[0])
        if end > 0:
            raise ValueError(
                f"times: part {name!r} ends at time {end:.4g}; a bound needs a walk to the clean "
                "level, time 0 (stop_short=False)"
            )
    noisiest = levels[0]
    parts: Any = process.parts
    prior = {
        name: parts[name].prior_nats(x0[name], noisiest[name], masks.get(name)) for name in free
    }
    terms: dict[str, list[Tensor]] = {name: [] for name in free}
    for number, (level, earlier) in enumerate(itertools.pairwise(levels)):
        corrupted = _walk_states(process, x0, level, rng, masks)
        output: Any = denoiser(corrupted.xt, level, condition)  # pyright: ignore[reportArgumentType]
        check_outputs(output, process.parts)
        for name in free:
            found = parts[name].step_nats(
                output[name],
                corrupted.parts[name],
                earlier[name],
                masks.get(name),
                noisier=levels[max(number - 1, 0)][name],
                **(options or {}).get(name, {}),
            )
            terms[name].append(found)
    return JointBound(prior, {name: torch.stack(one, dim=1) for name, one in terms.items()})


def _walk_states(
    process: JointProcess,
    x0: Mapping[str, Tensor],
    level: JointLevel,
    rng: Rng | None,
    masks: Mapping[str, Tensor],
) -> JointCorrupted:
    found = {}
    for name, one in process.parts.items():
        if name in level.held and bool((level[name].time == 1).all()):
            # Held at pure noise: sampling starts from the prior, independent of the state.
            noise = one.prior(x0[name].shape, rng).to(x0[name].device)
            found[name] = one.corrupt(noise, level[name], rng, masks.get(name))
            found[name] = replace(found[name], xt=noise)
        else:
            draw = one.walk_state if isinstance(one, BoundedProcess) else one.corrupt
            found[name] = draw(x0[name], level[name], rng, masks.get(name))
    return JointCorrupted(found, level)
