"""The architecture on one page.

A **Domain** encodes media into a state and decodes it back. A **Process** defines how a state is
corrupted, the loss that follows, and how to read a network's output. A **Denoiser** is
any network ``(xt, level, condition) -> output``. A **Sampler** makes one reverse step.
:func:`multidiff.core.sample.sample` runs the reverse process of all of them, and one trainer
trains all of them; neither depends on the modality.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.random import Rng

# A condition is a tensor, or a dict or tuple of tensors, each with the batch first.
Condition = Any
# Each process has its own records: Gaussian noise those of this file, absorbing masks those of
# multidiff.core.discrete.absorbing. A level has a time, rows and parts.
Level = Any
Corruption = Any
Reading = Any


@dataclass(frozen=True)
class Encoded:
    """Output of a domain's encoder for a batch of media.

    Attributes:
        x0: clean state to be generated: numbers, or tokens; or a dict of such parts.
        condition: condition passed to the denoiser.
        mask: 1 where the state counts in the loss, 0 at padding; broadcastable to the state. A
            dict for states of several parts.
    """

    x0: Any  # Float or Int[Tensor, "batch *state"], or a dict of them
    condition: Condition = None
    mask: Any = None


@dataclass(frozen=True)
class Corrupted:
    """Noisy state and its parts: ``xt = alpha * x0 + sigma * noise``."""

    xt: Float[Tensor, " batch *state"]
    x0: Float[Tensor, " batch *state"]
    noise: Float[Tensor, " batch *state"]
    level: NoiseLevel


@dataclass(frozen=True)
class Estimate:
    """A network's output, read as an estimate of the clean state and of the noise.

    ``xt = alpha * x0 + sigma * noise`` holds for every estimate: epsilon, x0 and v
    predictions are all converted to this pair.

    Attributes:
        x0: estimate of the clean state.
        noise: estimate of the noise.
        variance_fraction: position of a learned reverse variance between the smallest (0) and
            the largest (1) admissible one, in logs; None where the variance is not learned.
    """

    x0: Float[Tensor, " batch *state"]
    noise: Float[Tensor, " batch *state"]
    variance_fraction: Float[Tensor, " batch *state"] | None = None


Projection = Callable[[Estimate, Tensor, NoiseLevel], Estimate]
# The sampling loop adds a method ``noise(state, rng)``: a draw of the process's noise.
EstimateAt = Callable[[Tensor, NoiseLevel], Estimate]


@runtime_checkable
class Denoiser(Protocol):
    """Any network that reads a noisy state; the process defines the meaning of its output."""

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the prediction, shaped like ``xt`` (twice the channels with learned variance)."""
        ...


@runtime_checkable
class Process(Protocol):
    """Corruption of a state, and the way a denoiser's output undoes it."""

    def draw_level(self, batch: int, rng: Rng | None) -> Level:
        """Draw a training level for each sample."""
        ...

    def corrupt(
        self, x0: Tensor, level: Level, rng: Rng | None, mask: Tensor | None = None
    ) -> Corruption:
        """Draw from q(xt | x0) at that level.

        The mask marks the positions that count: a process that counts positions needs it, one
        that adds noise to each may ignore it.
        """
        ...

    def loss(
        self, output: Tensor, corrupted: Corruption, mask: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """Return one loss for each sample."""
        ...

    def estimate(self, output: Tensor, xt: Tensor, level: Level) -> Reading:
        """Read a denoiser's output, for instance as the pair (x0, noise)."""
        ...

    def prior(self, shape: Sequence[int], rng: Rng | None) -> Tensor:
        """Draw from the noisiest distribution, where sampling starts."""
        ...

    def levels(self, times: TimestepSchedule) -> list[Level]:
        """Return the levels of a reverse trajectory: one for each step, and the final one."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """One reverse step. State kept between steps travels through ``memory``."""

    def step(
        self,
        estimate_at: EstimateAt,
        xt: Tensor,
        level: NoiseLevel,
        next_level: NoiseLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """Return the state at ``next_level`` and the memory for the next step (None at first)."""
        ...


def check_sampler(sampler: Any, arguments: int | None = None, other: str = "") -> None:
    """Reject a class or a name where a sampler instance is needed.

    Args:
        sampler: the sampler.
        arguments: number of arguments of its steps: samplers of masks have one less.
        other: what to do with a sampler of the other kind.

    Raises:
        TypeError: if it is not a sampler, or one of the other kind.
    """
    if isinstance(sampler, type):
        raise TypeError(f"{sampler.__name__} is a class: pass an instance, {sampler.__name__}()")
    if not callable(getattr(sampler, "step", None)):
        raise TypeError(
            f"sampler {sampler!r} has no step method: pass a sampler such as md.DDIM(), "
            "md.DDPM(), md.Heun() or md.DPMSolverPP()"
        )
    if arguments is None or torch.compiler.is_compiling():
        return
    try:
        inspect.signature(sampler.step).bind(*range(arguments))
    except TypeError as error:
        raise TypeError(f"{type(sampler).__name__} is not a sampler of this: {other}") from error


def check_process(process: Any) -> None:
    """Reject an object without a prior to start from, such as a schedule.

    Raises:
        TypeError: if it is not a process.
    """
    if isinstance(process, type) or not callable(getattr(process, "prior", None)):
        raise TypeError(
            f"process {process!r}: give a process, such as GaussianProcess(BetaSchedule.cosine())"
        )


def check_times(times: Any) -> None:
    """Reject a number of steps where a timestep schedule is needed.

    Raises:
        TypeError: if it is not a timestep schedule.
    """
    if not isinstance(times, TimestepSchedule):
        raise TypeError(f"times {times!r}: pass a timestep schedule, such as uniform_timesteps(50)")


class Domain:
    """Media to state and back: a new modality overrides :meth:`encode` and :meth:`decode`.

    Attributes:
        droppable: keys of the parts of the condition that training may drop for classifier-free
            guidance. Required if there are several parts besides boolean tensors.
    """

    droppable: Sequence[str | int] | None = None

    def encode(self, batch: Any, rng: Rng | None) -> Encoded:
        """Encode a batch of media as states near zero mean and unit variance, and a condition."""
        raise NotImplementedError(f"{type(self).__name__} does not implement encode")

    def decode(self, state: Tensor, condition: Condition = None) -> Any:
        """Decode states to media; the condition helps in domains that need it."""
        raise NotImplementedError(f"{type(self).__name__} does not implement decode")

    def target(self, encoded: Encoded, corrupted: Corruption, process: Process) -> Corruption:
        """Return the training target of the output: by default the corrupted state itself."""
        return corrupted

    def extra_losses(
        self, encoded: Encoded, corrupted: Corruption, estimate: Reading, process: Process
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return losses besides the process's own, by name; none by default."""
        return {}

    def project(
        self, estimate: Reading, xt: Tensor, level: Level, condition: Condition = None
    ) -> Reading:
        """Impose known properties of every clean state on an estimate; none by default."""
        return estimate
