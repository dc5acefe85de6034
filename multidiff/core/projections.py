"""Projections: known properties of the clean state, imposed on every estimate.

The noise is derived again, so that the pair still fits the noisy state.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.context import DIFFERENTIATES
from multidiff.core.devices import finest_dtype
from multidiff.core.gaussian.predictions import with_x0
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.masks import real_positions
from multidiff.core.protocols import Estimate, Projection

# Marks projections that leave some of the state unchanged.
UNBOUNDED = "leaves_some_unbounded"


def clip(low: float = -1.0, high: float = 1.0, *, keep_noise: bool = False) -> Projection:
    """Clip the x0 estimate, for states that have bounds (pixels, not latents).

    Args:
        low: least value.
        high: largest value.
        keep_noise: whether the noise stays as it was, though it no longer fits the noisy state:
            diffusers' DDIM does so.
    """

    def project(estimate: Estimate, xt: Tensor, level: NoiseLevel) -> Estimate:
        return _with(estimate, estimate.x0.clamp(low, high), xt, level, keep_noise)

    return project


def _with(
    estimate: Estimate, x0: Tensor, xt: Tensor, level: NoiseLevel, keep_noise: bool
) -> Estimate:
    if keep_noise:
        return Estimate(x0, estimate.noise, estimate.variance_fraction)
    return with_x0(estimate, x0, xt, level)


def dynamic_threshold(
    quantile: float = 0.995,
    limit: float = 1.0,
    most: float = math.inf,
    *,
    keep_noise: bool = False,
    mask: Tensor | None = None,
) -> Projection:
    """Return a projection that scales large estimates down (Saharia et al. 2022, section 2.3).

    Each x0 estimate is clipped at a quantile of its absolute values, where that exceeds the
    limit, and divided by it: strong guidance then keeps contrast that clipping would flatten.

    Args:
        quantile: quantile of the absolute values of a sample, linear between two of them.
        limit: bound of the data, 1 for pixels in [-1, 1].
        most: largest value at which estimates are clipped; at the limit this is :func:`clip`.
        keep_noise: see :func:`clip`.
        mask: 1 at real positions, 0 at padding, which the quantile then leaves out; broadcastable
            to the state ``(batch, ...)``.

    Raises:
        ValueError: if the quantile is not in (0, 1], or the limit not above 0; in use, if the mask
            does not fit the state.
    """
    if not 0 < quantile <= 1 or not limit > 0:
        raise ValueError(f"dynamic threshold: quantile {quantile:g} in (0, 1], limit {limit:g} > 0")

    def project(estimate: Estimate, xt: Tensor, level: NoiseLevel) -> Estimate:
        sizes = estimate.x0.abs()
        found = _quantile(sizes, quantile) if mask is None else _of_real(sizes, quantile, mask)
        bound = found.clamp(min=limit, max=most)
        bound = bound.to(estimate.x0).reshape(-1, *[1] * (estimate.x0.ndim - 1))
        x0 = estimate.x0.clamp(-bound, bound) * (limit / bound)
        return _with(estimate, x0, xt, level, keep_noise)

    return project


def _quantile(sizes: Tensor, quantile: float) -> Float[Tensor, " batch"]:
    """Return the quantile of each sample, linear between two values."""
    sizes = sizes.flatten(1).float()
    # torch.quantile rejects more than 2^24 values; a k-th value does not.
    position = quantile * (sizes.shape[1] - 1)
    low, high = (
        sizes.kthvalue(1 + rank, dim=1).values
        for rank in (math.floor(position), math.ceil(position))
    )
    return torch.lerp(low, high, position % 1)


def _of_real(sizes: Tensor, quantile: float, mask: Tensor) -> Float[Tensor, " batch"]:
    """Return the quantile of the real values of each sample; below 0 where there are none."""
    real = real_positions(mask, sizes)
    # Sizes are 0 or more, so that padding of -1 comes before all that is real.
    ordered = sizes.float().masked_fill(~real, -1).flatten(1).sort(dim=1).values
    count = real.flatten(1).sum(dim=1).clamp(min=1)
    # Positions of float32 would be off by one beyond 2^24 values.
    position = quantile * (count - 1).to(finest_dtype(sizes.device))
    first = ordered.shape[1] - count
    low, high = (
        ordered.gather(1, (first + rank.long())[:, None])[:, 0]
        for rank in (position.floor(), position.ceil())
    )
    return torch.lerp(low, high, position.frac().to(low))


def inpaint(known: Tensor, mask: Tensor) -> Projection:
    """Keep ``known`` where ``mask`` is 1: inpainting. The last estimate equals it to the bit.

    Args:
        known: clean states, broadcastable to the batch.
        mask: 1 where known, 0 where free, broadcastable to the batch.
    """

    def project(estimate: Estimate, xt: Tensor, level: NoiseLevel) -> Estimate:
        kept = torch.where(mask.to(xt.device).bool(), known.to(xt), estimate.x0)
        return with_x0(estimate, kept, xt, level)

    setattr(project, UNBOUNDED, True)
    return project


def compose(*projections: Projection) -> Projection:
    """Apply several projections, one after the other."""

    def project(estimate: Estimate, xt: Tensor, level: NoiseLevel) -> Estimate:
        for one in projections:
            estimate = one(estimate, xt, level)
        return estimate

    setattr(project, UNBOUNDED, all(not keeps_in_bounds(one) for one in projections))
    setattr(
        project, DIFFERENTIATES, any(getattr(one, DIFFERENTIATES, False) for one in projections)
    )
    return project


def keeps_in_bounds(projection: Projection | None) -> bool:
    """Return whether a projection may keep the whole state within bounds, as far as is known."""
    return projection is not None and not getattr(projection, UNBOUNDED, False)
