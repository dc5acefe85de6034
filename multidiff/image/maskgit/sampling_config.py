"""How a model of image tokens walks from masks to an image, where nobody says otherwise."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

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
from multidiff.models.sampling_config import SamplingConfig, named, token_temperature
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

Grid = tuple[int, int]
# What the name of an order stands for: from draw, noise of the confidence and grid.
ORDERS: dict[str, Callable[[TokenDraw, float, Grid], UnmaskingSampler]] = {
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
    """The walk's defaults.

    Attributes:
        steps: of the walk.
        grid: unused: its times are even.
        sampler: the order in which masks are lifted: one of confidence (MaskGIT), random, halton
            (Besnier et al. 2025: every few of the first cover the image), remasking
            (Mask-Predict), ancestral, entropy, margin, remdm and first-hitting.
        guidance_scale: see :class:`~multidiff.models.sampling_config.SamplingConfig`.
        temperature: of the tokens; 0 takes the likeliest.
        noise: Gumbel noise on the confidence, annealed to 0; 4.5 in MaskGIT. With none the
            easiest tokens come first, and images lose variety.
    """

    steps: int = 8
    sampler: str = "confidence"
    temperature: float = 1.0
    noise: float = 4.5

    def token_steps(self, steps: int | None, tokens: int) -> int:
        """How many steps are made: no more than there are tokens, for each lifts one at least.

        Raises:
            InputError: if there cannot be so many.
        """
        count = self.count(steps, None)
        if count > tokens:
            logger.warning(
                "--steps %d: an image has %d tokens, so %d steps are made", count, tokens, tokens
            )
        return min(count, tokens)

    def token_sampler(
        self, name: str | None, temperature: float | None, noise: float | None, grid: Grid
    ) -> UnmaskingSampler:
        """A sampler; each of these the default where None.

        Args:
            name: of the order.
            temperature: of the tokens.
            noise: of the confidence.
            grid: rows and columns of tokens.

        Raises:
            InputError: if there is none of that name, or tokens cannot be drawn so.
        """
        order = named(ORDERS, self.sampler if name is None else name, "order")
        draw = TokenDraw(
            token_temperature(self.temperature if temperature is None else temperature)
        )
        noise = self.noise if noise is None else noise
        if not 0 <= noise < math.inf:
            raise InputError(f"--noise {noise:g}: 0 (the surest first) or more")
        return order(draw, noise, grid)


def halton_order(rows: int, columns: int) -> list[int]:
    """The cells of a grid in the order in which a Halton sequence first meets them.

    The sequence of bases 2 (down) and 3 (across) spreads any number of its first points evenly
    over the image (Halton 1964; Besnier et al. 2025, section 4).

    Args:
        rows: of the grid.
        columns: of the grid.

    Returns:
        Numbers of the cells, row by row from the top.
    """
    met: dict[int, None] = {}
    number = 0
    while len(met) < rows * columns:
        number += 1
        row, column = int(_radical(number, 2) * rows), int(_radical(number, 3) * columns)
        met.setdefault(row * columns + column)
    return list(met)


def _radical(number: int, base: int) -> float:
    """The digits of a number in a base, mirrored at the point."""
    value, ratio = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        ratio /= base
        value += digit * ratio
    return value
