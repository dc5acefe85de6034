"""First states of sampling: noise, varied or not, and initial images under noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multidiff.core.gaussian.predictions import combine
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.random import generators
from multidiff.image.autoencoders.kl import LatentGaussian
from multidiff.image.canvas import Canvas
from multidiff.image.data.image_files import to_unit
from multidiff.image.diffusion.domains import LatentDomain
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.generation import Part
from multidiff.image.variations import Variation, slerp

if TYPE_CHECKING:
    from multidiff.image.diffusion.model import ImageDiffusion

Size = tuple[int, int]


@dataclass(frozen=True)
class CheckedRequest:
    """One call of ``generate``, checked."""

    config: ImageSamplingConfig
    times: TimestepSchedule
    size: Size
    negatives: list[str | None]
    canvas: Canvas | None
    variation: Variation | None


def first_states(
    model: ImageDiffusion,
    request: CheckedRequest,
    part: Part,
    canvas: Canvas | None,
    shape: tuple[int, ...],
    rng: list[torch.Generator],
) -> Tensor | None:
    """Return the states where sampling starts; None if that is the plain prior.

    Args:
        model: the model.
        request: the whole request.
        part: its images of one batch.
        canvas: their initial images; None without.
        shape: shape of the states.
        rng: random generator of each image.
    """
    config, process, variation = request.config, model.process, request.variation
    level = process.levels(request.times)[0]

    def draw(kind: str) -> Tensor:
        first = getattr(process, kind)(shape, rng)
        if variation is None:
            return first
        other = getattr(process, kind)(shape, generators(variation.seeds[part.rows]))
        weight = torch.full((len(first),), variation.strength, dtype=torch.float64)
        return slerp(first, other, weight)

    if canvas is None or (canvas.strength == 1 and config.strength_of == "time"):
        if variation is None and config.start_scale(level) == 1:
            return None
        return model.start_from(draw("prior"), config, request.times)
    x0 = state_of(model, canvas).expand(shape)
    if config.strength_of == "steps" and isinstance(model.domain, LatentDomain):
        x0 = _drawn(model, canvas, shape, rng)  # as diffusers, of whose convention this is
    levels = level.to(model.device).expand(shape[0])
    if variation is None:
        return process.corrupt(x0, levels, rng).xt
    return combine(levels.alpha, x0, levels.sigma, draw("noise").to(x0))


def state_of(model: ImageDiffusion, canvas: Canvas) -> Tensor:
    """Return the states of a canvas: its latents, or its images encoded."""
    if canvas.latents is not None:
        return canvas.latents.to(model.device).float()
    return model.domain.to_state(to_unit(canvas.image).to(model.device)).float()


def _drawn(
    model: ImageDiffusion, canvas: Canvas, shape: tuple[int, ...], rng: list[torch.Generator]
) -> Tensor:
    """Return latents of a canvas drawn from the autoencoder's Gaussian."""
    domain = model.domain
    assert isinstance(domain, LatentDomain)
    if canvas.latents is not None:
        return state_of(model, canvas).expand(shape)
    found = domain.gaussian(to_unit(canvas.image).to(model.device))
    rows = LatentGaussian(found.mean.expand(shape), found.log_variance.expand(shape))
    return domain.autoencoder.to_state(rows.sample(rng))
