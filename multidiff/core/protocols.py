"""The architecture on one page.

A **Domain** turns media into a state and back. A **Process** knows how a state is
corrupted, which loss that implies and how to read a network's output. A **Denoiser** is
any network ``(xt, level, condition) -> output``. A **Sampler** makes one reverse step.
:func:`multidiff.core.sample.sample` walks all of them backwards, and one trainer trains
all of them; neither knows which modality it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.random import Rng

# A condition is a tensor, or a dict or tuple of tensors, each with the batch first.
Condition = Any
# Each process has records of its own: Gaussian noise those of this file, masks theirs in
# multidiff.core.discrete.absorbing. A level has a time, rows and parts.
Level = Any
Corruption = Any
Reading = Any


@dataclass(frozen=True)
class Encoded:
    """What a domain makes of a batch of media.

    Attributes:
        x0: the state to be generated: numbers, or tokens; or a dict of such parts.
        condition: what the denoiser is told about it.
        mask: 1 where the state counts in the loss, 0 where it is padding; broadcast to it. A
            dict for states of several parts.
    """

    x0: Any  # Float or Int[Tensor, "batch *state"], or a dict of them
    condition: Condition = None
    mask: Any = None


@dataclass(frozen=True)
class Corrupted:
    """A noisy state, and what it was made of: ``xt = alpha * x0 + sigma * noise``."""

    xt: Float[Tensor, " batch *state"]
    x0: Float[Tensor, " batch *state"]
    noise: Float[Tensor, " batch *state"]
    level: NoiseLevel


@dataclass(frozen=True)
class Estimate:
    """What a network's output says about a noisy state.

    ``xt = alpha * x0 + sigma * noise`` holds for every estimate: noise, clean and
    velocity predictions are all read as this pair.

    Attributes:
        x0: estimate of the clean state.
        noise: estimate of the noise.
        variance_fraction: where a learned reverse variance lies between the smallest (0) and
            the largest (1) admissible one, in logs; None where the variance is not learned.
    """

    x0: Float[Tensor, " batch *state"]
    noise: Float[Tensor, " batch *state"]
    variance_fraction: Float[Tensor, " batch *state"] | None = None


Projection = Callable[[Estimate, Tensor, NoiseLevel], Estimate]
# Walks give it a further method ``noise(state, rng)``: the noise of their process.
EstimateAt = Callable[[Tensor, NoiseLevel], Estimate]


@runtime_checkable
class Denoiser(Protocol):
    """Any network that reads a noisy state; what its output means is the process's affair."""

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """The prediction, shaped like ``xt`` (twice the channels with learned variance)."""
        ...


@runtime_checkable
class Process(Protocol):
    """How a state is corrupted, and how a denoiser's output undoes it."""

    def draw_level(self, batch: int, rng: Rng | None) -> Level:
        """A training level for each sample."""
        ...

    def corrupt(
        self, x0: Tensor, level: Level, rng: Rng | None, mask: Tensor | None = None
    ) -> Corruption:
        """A draw from q(noisy | clean) at that level.

        The mask tells where the state counts: a process that counts places needs it, one that
        adds noise to each may pass it over.
        """
        ...

    def loss(
        self, output: Tensor, corrupted: Corruption, mask: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """One loss for each sample."""
        ...

    def estimate(self, output: Tensor, xt: Tensor, level: Level) -> Reading:
        """What a denoiser's output says, such as the pair (clean, noise)."""
        ...

    def prior(self, shape: Sequence[int], rng: Rng | None) -> Tensor:
        """A draw from the noisiest distribution, where sampling starts."""
        ...

    def levels(self, times: TimestepSchedule) -> list[Level]:
        """The levels of a walk back: one for each step, and the one where it ends."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """One step backwards. What it remembers between steps travels through ``memory``."""

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """The state at ``next_level`` and the memory for the next step (None at the first)."""
        ...


def check_sampler(sampler: Any) -> None:
    """Refuse a sampler's class or name where one that was made of it is needed.

    Raises:
        TypeError: if it is no sampler.
    """
    if isinstance(sampler, type):
        raise TypeError(f"{sampler.__name__} is a class: make one of it, {sampler.__name__}()")
    if not callable(getattr(sampler, "step", None)):
        raise TypeError(
            f"sampler {sampler!r} makes no steps: give one that does, such as md.DDIM(), "
            f"md.DDPM(), "
            "md.Heun() or md.DPMSolverPP()"
        )


def check_process(process: Any) -> None:
    """Refuse what has no prior to start from, such as a schedule.

    Raises:
        TypeError: if it is no process.
    """
    if isinstance(process, type) or not callable(getattr(process, "prior", None)):
        raise TypeError(
            f"process {process!r}: give a process, such as GaussianProcess(BetaSchedule.cosine())"
        )


def check_times(times: Any) -> None:
    """Refuse a number of steps where the times themselves are needed.

    Raises:
        TypeError: if it is no grid of times.
    """
    if not isinstance(times, TimestepSchedule):
        raise TypeError(f"times {times!r}: give a grid of times, such as uniform_timesteps(50)")


class Domain:
    """Media to state and back: a new modality overrides :meth:`encode` and :meth:`decode`.

    Attributes:
        droppable: keys of the parts of its condition that training may leave out for guidance.
            It has to be said where there are several parts besides truth values.
    """

    droppable: Sequence[str | int] | None = None

    def encode(self, batch: Any, rng: Rng | None) -> Encoded:
        """A batch of media as states near zero mean and unit variance, and their condition."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to encode")

    def decode(self, state: Tensor, condition: Condition = None) -> Any:
        """States back to media, for domains that need it with the help of the condition."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to decode")

    def target(self, encoded: Encoded, corrupted: Corruption, process: Process) -> Corruption:
        """What the denoiser's output is compared with: by default the state that was made."""
        return corrupted

    def extra_losses(
        self, encoded: Encoded, corrupted: Corruption, estimate: Reading, process: Process
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Losses beside the process's own, by name; none by default."""
        return {}

    def project(
        self, estimate: Reading, xt: Tensor, level: Level, condition: Condition = None
    ) -> Reading:
        """What is known of every clean state, put into an estimate; nothing by default."""
        return estimate
