"""Sampling options of text models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from multidiff.config.option_set import option
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
from multidiff.core.gaussian.sampler_registry import SAMPLERS
from multidiff.models.sampling_config import (
    MOST_STEPS,
    GaussianSamplingConfig,
    SamplingConfig,
    candidates_option,
)

# Samplers of masked texts, from a rule for token draws.
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
class TextSamplingConfig(GaussianSamplingConfig):
    """Options of sampling word embeddings (Diffusion-LM).

    Attributes:
        steps: number of reverse steps.
        sampler: name in :mod:`multidiff.core.gaussian.sampler_registry`.
        guidance_scale: scale of classifier-free guidance, for requests with a meaning
            representation; 1 is off.
        timestep_spacing: see :class:`~multidiff.models.sampling_config.GaussianSamplingConfig`.
        temperature: temperature of the words that clamping chooses among; None is that of the
            number of steps.
        num_candidates: number of candidates drawn for each text, of which the one most like the
            others is kept (minimum Bayes risk, Kumar & Byrne 2004).
        temperature_by_steps: pairs of a number of steps and the temperature at which samples are
            as diverse as real texts, by ascending steps. Each estimate that self-conditioning
            hands on sharpens the next, so more steps want a higher one. Between two pairs the
            temperature is linear in the logarithm of the steps, and constant beyond; 1 without.
    """

    steps: int = option(200, "number of reverse steps", least=1, most=MOST_STEPS)
    sampler: str = option("ddpm", "rule for one reverse step", choices=SAMPLERS)
    temperature: float | None = option(
        None,
        "temperature of the words that clamping chooses among",
        above=0,
        note="1 is as learned; by default the model's for the number of steps",
    )
    num_candidates: int = candidates_option()
    temperature_by_steps: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        steps, temperatures = self._by_steps()
        if min([*steps, *temperatures], default=1) <= 0 or sorted(set(steps)) != steps:
            raise ValueError(
                f"temperature_by_steps {self.temperature_by_steps}: pairs of a number of steps "
                "and a temperature above 0, by ascending steps"
            )

    def word_temperature(self) -> float:
        """Return the temperature: the one set, or that of the number of steps."""
        if self.temperature is not None:
            return self.temperature
        steps, temperatures = self._by_steps()
        if not steps:
            return 1.0
        return float(
            np.interp(math.log(self.steps), [math.log(one) for one in steps], temperatures)
        )

    def _by_steps(self) -> tuple[list[int], list[float]]:
        pairs = self.temperature_by_steps
        return [steps for steps, _ in pairs], [temperature for _, temperature in pairs]


@dataclass(frozen=True)
class TokenSamplingConfig(SamplingConfig):
    """Options of sampling tokens, of every discrete process.

    Attributes:
        steps: number of reverse steps, for each block if texts are generated in blocks; 0 for one
            per token.
        guidance_scale: scale of classifier-free guidance, for requests with a condition; 1 is off.
        temperature: temperature of the tokens' distribution; 0 takes the likeliest.
        top_p: nucleus sampling: draw among the likeliest tokens up to this probability.
        num_candidates: number of candidates drawn for each text, of which the one most like the
            others is kept (minimum Bayes risk, Kumar & Byrne 2004).
    """

    steps: int = option(
        0, "number of reverse steps", least=0, most=MOST_STEPS, note="0 makes one for each token"
    )
    temperature: float = option(
        1.0, "temperature of the tokens' distribution", least=0, note="0 takes the likeliest"
    )
    top_p: float = option(
        1.0,
        "draw among the likeliest tokens up to this probability",
        above=0,
        most=1,
        note="1 is all",
    )
    num_candidates: int = candidates_option()


@dataclass(frozen=True)
class UniformTextSamplingConfig(TokenSamplingConfig):
    """Options of sampling uniform diffusion, whose steps may change every token.

    Attributes:
        sampler: rule for one reverse step; ancestral is the only one.
    """

    sampler: str = option("ancestral", "rule for one reverse step", choices=("ancestral",))


@dataclass(frozen=True)
class MaskedTextSamplingConfig(TokenSamplingConfig):
    """Options of sampling masked texts.

    Attributes:
        sampler: masked tokens that each step predicts: each by chance (ancestral), the most
            confident (confidence), random ones, or all of which the least confident are masked
            again (remasking); also entropy, margin, remdm and first-hitting
            (:mod:`multidiff.core.discrete.adaptive_samplers`).
        repetition_penalty: factor of the log probability of tokens that are already in the text
            (:class:`~multidiff.text.masked.repetition.RepetitionPenalty`); 1 is off.
    """

    sampler: str = option(
        "random", "which masked tokens each step predicts", choices=UNMASKING_SAMPLERS
    )
    repetition_penalty: float = option(
        1.0, "factor of the log probability of tokens already in the text", above=0, note="1 is off"
    )

    def unmasking_sampler(self) -> UnmaskingSampler:
        """Return the sampler."""
        return UNMASKING_SAMPLERS[self.sampler](TokenDraw(self.temperature, self.top_p))
