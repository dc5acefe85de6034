"""Sampling defaults of speech."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from multidiff.models.sampling_config import GridName, SamplingConfig, sampler_named
from multidiff.utils.errors import InputError

MOST_STEPS = 1000
SLOWEST, FASTEST = 0.25, 4.0
HOTTEST = 2.0


@dataclass(frozen=True)
class SpeechSamplingConfig(SamplingConfig):
    """Defaults of speech.

    Attributes:
        steps: network evaluations; 0 gives the mean mel without diffusion.
        grid: which times are visited.
        sampler: its name.
        guidance_scale: 1; there is nothing to guide by.
        temperature: factor of the noise that sampling starts from.
        speed: speaking rate; 2 halves durations.
        duration_scale: factor of predicted durations at speed 1.
    """

    steps: int = 10
    grid: GridName = "even"
    sampler: str = "dpm++"
    guidance_scale: float = 1.0
    temperature: float = 0.3
    speed: float = 1.0
    duration_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= HOTTEST:
            raise InputError(f"--temperature {self.temperature:g}: from 0 to {HOTTEST:g}")
        if not SLOWEST <= self.speed <= FASTEST:
            raise InputError(f"--speed {self.speed:g}: from {SLOWEST:g} to {FASTEST:g}")
        if not 0 <= self.steps <= MOST_STEPS:
            raise InputError(f"--steps {self.steps}: from 0 (the mean mel) to {MOST_STEPS}")
        if not 0 < self.duration_scale < math.inf:
            raise ValueError(f"duration_scale {self.duration_scale:g}: above 0")
        sampler_named(self.sampler)

    def frames(self, log_durations: np.ndarray) -> np.ndarray:
        """Return whole frames of predicted durations, at least one each.

        Speed divides before rounding; what rounding takes from a phone goes to the next, so that
        a sentence is as long as its predicted durations together.

        Args:
            log_durations: natural logarithms of frames.
        """
        exact = np.exp(log_durations) * self.duration_scale / self.speed
        edges = np.round(np.cumsum(exact)).astype(np.int64)
        return np.maximum(np.diff(edges, prepend=0), 1)
