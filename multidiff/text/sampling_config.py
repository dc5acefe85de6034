"""How a text model walks from noise to a text, where nobody says otherwise."""

from __future__ import annotations

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
    MaskGITSampler,
    MaskPredictSampler,
    RandomOrderSampler,
    TokenDraw,
    UnmaskingSampler,
)
from multidiff.models.sampling_config import SamplingConfig, named, token_temperature
from multidiff.utils.errors import InputError


@dataclass(frozen=True)
class TextSamplingConfig(SamplingConfig):
    """The walk's defaults.

    Attributes:
        steps: see :class:`~multidiff.models.sampling_config.SamplingConfig`.
        grid: likewise.
        sampler: likewise.
        guidance_scale: scale, for orders with a meaning; 1 is off.
        temperature: of the words that clamping chooses among.
    """

    steps: int = 200
    sampler: str = "ddpm"
    temperature: float = 1.0

    def checked_temperature(self, temperature: float | None) -> float:
        """A temperature; the default where None.

        Raises:
            InputError: if it is none.
        """
        temperature = self.temperature if temperature is None else temperature
        if not 0 < temperature < math.inf:
            raise InputError(f"--temperature {temperature:g}: more than 0; 1 is as learned")
        return temperature


# What the name of a walk from masks to tokens stands for.
UNMASKING_SAMPLERS: dict[str, Callable[[TokenDraw], UnmaskingSampler]] = {
    "ancestral": lambda draw: AncestralSampler(draw=draw),
    "confidence": lambda draw: MaskGITSampler(draw=draw),
    "random": lambda draw: RandomOrderSampler(draw=draw),
    "remasking": lambda draw: MaskPredictSampler(draw=draw),
    "entropy": lambda draw: SuretySampler("entropy", draw=draw),
    "margin": lambda draw: SuretySampler("margin", draw=draw),
    "remdm": lambda draw: ReMDMSampler(draw=draw),
    "first-hitting": lambda draw: FirstHittingSampler(draw),
}


@dataclass(frozen=True)
class MaskedTextSamplingConfig(TextSamplingConfig):
    """The defaults of a walk from masks to tokens.

    Attributes:
        steps: of the walk; 0 for as many as a text has tokens.
        grid: unused: its times are even.
        sampler: one of ancestral, confidence, random, remasking, entropy, margin, remdm and
            first-hitting.
        guidance_scale: see :class:`TextSamplingConfig`.
        temperature: of the tokens; 0 takes the likeliest.
        top_p: tokens are drawn among the likeliest up to this probability.
    """

    steps: int = 0
    sampler: str = "random"
    top_p: float = 1.0

    def mask_steps(self, steps: int | None) -> int | None:
        """How many steps are made; None for as many as there are tokens.

        Raises:
            InputError: if there cannot be so many.
        """
        return None if steps is None and self.steps == 0 else self.count(steps, None)

    def mask_sampler(
        self, name: str | None, temperature: float | None, top_p: float | None
    ) -> UnmaskingSampler:
        """A sampler; each of these the default where None.

        Raises:
            InputError: if there is none of that name, or tokens cannot be drawn so.
        """
        sampler = named(UNMASKING_SAMPLERS, self.sampler if name is None else name, "sampler")
        temperature = token_temperature(self.temperature if temperature is None else temperature)
        top_p = self.top_p if top_p is None else top_p
        if not 0 < top_p <= 1:
            raise InputError(f"--top-p {top_p:g}: above 0, up to 1 (all)")
        return sampler(TokenDraw(temperature, top_p))
