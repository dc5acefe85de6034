"""Sampling options of image token models."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from multidiff.config.option_set import option
from multidiff.core.discrete.adaptive_samplers import (
    FirstHittingSampler,
    ReMDMSampler,
    SuretySampler,
)
from multidiff.core.discrete.samplers import (
    AncestralSampler,
    FixedOrderSampler,
    MaskGITSampler,
    MaskPredictSampler,
    RandomOrderSampler,
    TokenDraw,
    UnmaskingSampler,
)
from multidiff.models.sampling_config import MOST_STEPS, SamplingConfig

logger = logging.getLogger(__name__)

Grid = tuple[int, int]
# Samplers from a rule for token draws, noise on the confidence, and the grid of tokens.
UNMASKING_SAMPLERS: dict[str, Callable[[TokenDraw, float, Grid], UnmaskingSampler]] = {
    "confidence": lambda draw, noise, grid: MaskGITSampler(noise=noise, draw=draw),
    "random": lambda draw, noise, grid: RandomOrderSampler(draw=draw),
    "halton": lambda draw, noise, grid: FixedOrderSampler(halton_order(*grid), draw=draw),
    "remasking": lambda draw, noise, grid: MaskPredictSampler(pace="schedule", draw=draw),
    "ancestral": lambda draw, noise, grid: AncestralSampler(draw=draw),
    "entropy": lambda draw, noise, grid: SuretySampler("entropy", noise, draw=draw),
    "margin": lambda draw, noise, grid: SuretySampler("margin", noise, draw=draw),
    "remdm": lambda draw, noise, grid: ReMDMSampler(draw=draw),
    "first-hitting": lambda draw, noise, grid: FirstHittingSampler(draw),
}


@dataclass(frozen=True)
class MaskGITSamplingConfig(SamplingConfig):
    """Options of sampling.

    Attributes:
        steps: number of reverse steps, at most one for each token.
        sampler: masked tokens that each step predicts: the most confident (confidence, MaskGIT),
            random ones, those of a Halton sequence (Besnier et al. 2025: any number of its first
            ones cover the image), all of which the least confident are masked again (remasking,
            Mask-Predict), or each by chance (ancestral); also entropy, margin, remdm and
            first-hitting (:mod:`multidiff.core.discrete.adaptive_samplers`).
        guidance_scale: scale of classifier-free guidance; 1 is off.
        temperature: temperature of the tokens' distribution; 0 takes the likeliest.
        noise: scale of Gumbel noise on the confidence, annealed to 0; 4.5 in MaskGIT. Without
            noise the easiest tokens come first, and images lose diversity.
    """

    steps: int = option(
        8, "number of reverse steps, at most one for each token", least=1, most=MOST_STEPS
    )
    sampler: str = option(
        "confidence", "which masked tokens each step predicts", choices=UNMASKING_SAMPLERS
    )
    temperature: float = option(
        1.0, "temperature of the tokens' distribution", least=0, note="0 takes the likeliest"
    )
    noise: float = option(
        4.5, "Gumbel noise on the confidence", least=0, note="0 takes the most confident first"
    )

    def token_steps(self, tokens: int) -> int:
        """Return the number of steps for an image's tokens: each step predicts at least one."""
        if self.steps > tokens:
            logger.warning(
                "--steps %d: an image has %d tokens, so %d steps are made",
                self.steps, tokens, tokens,
            )  # fmt: skip
        return min(self.steps, tokens)

    def unmasking_sampler(self, grid: Grid) -> UnmaskingSampler:
        """Return the sampler for a grid of tokens, rows and columns."""
        make = UNMASKING_SAMPLERS[self.sampler]
        return make(TokenDraw(self.temperature), self.noise, grid)


def halton_order(rows: int, columns: int) -> list[int]:
    """Return the cells of a grid in the order in which a Halton sequence first visits them.

    The sequence of bases 2 (down) and 3 (across) spreads any number of its first points evenly
    over the image (Halton 1964; Besnier et al. 2025, section 4).

    Args:
        rows: number of rows of the grid.
        columns: number of columns of the grid.

    Returns:
        Indices of the cells, row by row from the top.
    """
    met: dict[int, None] = {}
    number = 0
    while len(met) < rows * columns:
        number += 1
        row, column = int(_radical(number, 2) * rows), int(_radical(number, 3) * columns)
        met.setdefault(row * columns + column)
    return list(met)


def _radical(number: int, base: int) -> float:
    """Return the digits of a number in a base, mirrored at the point (radical inverse)."""
    value, ratio = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        ratio /= base
        value += digit * ratio
    return value
