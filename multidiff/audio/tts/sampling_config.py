"""Options of sampling speech from text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multidiff.config.option_set import OptionSet, option
from multidiff.core.gaussian.sampler_registry import SAMPLERS
from multidiff.core.gaussian.timesteps import TimestepSchedule, uniform_timesteps

MOST_STEPS = 1000
SLOWEST, FASTEST = 0.25, 4.0
HOTTEST = 2.0


@dataclass(frozen=True)
class SpeechSamplingConfig(OptionSet):
    """Options of sampling.

    Attributes:
        steps: number of network evaluations; 0 gives the mean mel without diffusion.
        sampler: name in :mod:`multidiff.core.gaussian.sampler_registry`.
        temperature: factor of the noise that sampling starts from.
        speed: speaking rate; 2 halves durations.
        duration_scale: factor of predicted durations at speed 1.

    Raises:
        InputError: if an option is out of range.
    """

    steps: int = option(
        10, "number of network evaluations", least=0, most=MOST_STEPS, note="0 gives the mean mel"
    )
    sampler: str = option("dpm++", "rule for one reverse step", choices=SAMPLERS)
    temperature: float = option(
        0.3, "factor of the noise that sampling starts from", least=0, most=HOTTEST
    )
    speed: float = option(
        1.0, "speaking rate", least=SLOWEST, most=FASTEST, note="2 is twice as fast"
    )
    duration_scale: float = option(1.0, "factor of durations at speed 1", above=0)

    def times(self, strength: float = 1.0) -> TimestepSchedule:
        """Return the times to visit: evenly spaced, from ``strength`` down."""
        return uniform_timesteps(self.steps, strength)

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
