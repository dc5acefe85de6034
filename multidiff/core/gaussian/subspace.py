"""Gaussian noise inside a subspace, such as points with their centre of mass at zero.

The subspace is declared once, in the process. Noise, the prior and the steps of samplers are drawn
in it, the network's output is projected into it for losses and estimates, so that every sampler
stays inside, and bounds count its dimensions alone: a Gaussian of variance v on a subspace of
dimension d has the density (2 pi v)^(-d / 2) exp(-|x|^2 / (2 v)) there (Hoogeboom et al. 2022,
section 3.1, of the centre of mass).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.gaussian.losses import Objective
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import NoiseLevel, NoiseSchedule
from multidiff.core.gaussian.timesteps import TimeSampler
from multidiff.core.protocols import Corrupted, Estimate
from multidiff.core.random import Rng

# Tolerance, relative to its size, for a state outside the subspace: rounding, not another state.
TOLERANCE = 1e-4


@runtime_checkable
class Subspace(Protocol):
    """A linear subspace of states ``(batch, ...)``."""

    def project(self, state: Tensor) -> Tensor:
        """Return the nearest states in the subspace."""
        ...

    def dimension(self, state: Tensor) -> Float[Tensor, " batch"]:
        """Return the number of its dimensions for each sample."""
        ...


class ZeroMean:
    """States whose mean over one dimension is zero: points around their centre of mass.

    Args:
        dim: dimension of the points, such as 1 of ``(batch, points, 3)``.
        mask: 1 at real points, broadcastable to the states; the others are zero. All are real by
            default.
    """

    def __init__(self, dim: int = 1, mask: Tensor | None = None):
        if dim < 1:
            raise ValueError(f"dim {dim}: 1 or more, for dimension 0 is the batch")
        self.dim, self.mask = dim, mask

    def project(self, state: Tensor) -> Tensor:
        """See :class:`Subspace`."""
        if self.mask is None:
            return state - state.mean(dim=self.dim, keepdim=True)
        real = self._real(state)
        count = real.sum(dim=self.dim, keepdim=True).clamp(min=1)
        return real * (state - (real * state).sum(dim=self.dim, keepdim=True) / count)

    def dimension(self, state: Tensor) -> Float[Tensor, " batch"]:
        """See :class:`Subspace`."""
        real = torch.ones_like(state) if self.mask is None else self._real(state)
        means = real.sum(dim=self.dim) > 0
        return real.flatten(1).sum(dim=1) - means.reshape(len(state), -1).sum(dim=1)

    def _real(self, state: Tensor) -> Tensor:
        assert self.mask is not None
        return self.mask.to(state).expand_as(state)


class LinearSubspace:
    """The span of some vectors, of states flattened to one dimension.

    Args:
        vectors: vectors that span it, each of the size of a flattened state.

    Raises:
        ValueError: if the vectors are linearly dependent.
    """

    def __init__(self, vectors: Float[Tensor, "count size"]):
        basis, triangle = torch.linalg.qr(vectors.double().T)
        diagonal = triangle.diagonal().abs()
        if len(vectors) > vectors.shape[1] or bool((diagonal < 1e-9 * diagonal.max()).any()):
            raise ValueError(f"{len(vectors)} vectors that are linearly dependent: give a basis")
        self.basis = basis

    def project(self, state: Tensor) -> Tensor:
        """See :class:`Subspace`."""
        basis = self.basis.to(state)
        return (state.flatten(1) @ basis @ basis.T).view_as(state)

    def dimension(self, state: Tensor) -> Float[Tensor, " batch"]:
        """See :class:`Subspace`."""
        return state.new_full((len(state),), self.basis.shape[1])


class SubspaceProcess(GaussianProcess):
    """Gaussian diffusion of states in a subspace: see the module.

    Args:
        schedule: amount of noise over time.
        subspace: subspace of the states.
        prediction: see :class:`~multidiff.core.gaussian.process.GaussianProcess`.
        objective: training loss.
        times: distribution of the training times.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        subspace: Subspace,
        prediction: str = "epsilon",
        *,
        objective: Objective | None = None,
        times: TimeSampler | None = None,
    ):
        super().__init__(schedule, prediction, objective=objective, times=times)  # pyright: ignore[reportArgumentType]
        self.subspace = subspace

    def masked(self, mask: Tensor | None) -> SubspaceProcess:
        """Return the process of states that are real where the mask is 1, for one batch.

        Sampling states of different sizes needs it; training masks by itself.
        """
        if mask is None or not isinstance(self.subspace, ZeroMean):
            return self
        found = copy.copy(self)
        found.subspace = ZeroMean(self.subspace.dim, mask)
        return found

    def noise(self, shape: Sequence[int], rng: Rng | None) -> Tensor:
        """Draw standard normal noise in the subspace."""
        noise = super().noise(shape, rng)
        return self.subspace.project(noise)

    def corrupt(
        self, x0: Tensor, level: NoiseLevel, rng: Rng | None, mask: Tensor | None = None
    ) -> Corrupted:
        """Draw from q(x_t | x_0).

        Raises:
            ValueError: if the states do not lie in the subspace; only checked on the CPU, since
                a GPU would have to be waited for.
        """
        own = self.masked(mask)
        if x0.device.type == "cpu" and x0.is_floating_point():
            outside = float((x0 - own.subspace.project(x0)).detach().abs().max())
            if outside > TOLERANCE * max(1.0, float(x0.detach().abs().max())):
                raise ValueError(
                    f"the states leave the subspace of the process by {outside:.3g}: encode them "
                    "by subspace.project(x0)"
                )
        return super(SubspaceProcess, own).corrupt(x0, level, rng, mask)

    def loss(
        self, output: Tensor, corrupted: Corrupted, mask: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """Return the objective of the output's part in the subspace."""
        self._check_shape(output, corrupted.xt)
        return super().loss(self.masked(mask).subspace.project(output), corrupted, mask)

    def estimate(self, output: Tensor, xt: Tensor, level: NoiseLevel) -> Estimate:
        """Return the pair (x0, noise), both in the subspace."""
        self._check_shape(output, xt)
        found = super().estimate(self.subspace.project(output), xt, level)
        # Once more: near pure noise, rounding outside is divided by a small alpha.
        return self.in_subspace(found)

    def in_subspace(self, estimate: Estimate) -> Estimate:
        """Return an estimate with both of its states projected into the subspace."""
        x0, noise = (self.subspace.project(one) for one in (estimate.x0, estimate.noise))
        return Estimate(x0, noise)

    walk_state = corrupt
