"""Options of sampling, which recipe, command line and ``generate`` share.

Each family has one class, derived from :class:`SamplingConfig`. The recipe's ``sampling:`` holds a
model's defaults, ``model.sampling``; ``generate(..., config=..., **overrides)`` and the options of
``multidiff sample`` replace some of them for one call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from multidiff.config.option_set import OptionSet, flag, option
from multidiff.core.gaussian.flow import shifted_timesteps
from multidiff.core.gaussian.sampler_registry import SAMPLERS
from multidiff.core.gaussian.schedules import NoiseSchedule
from multidiff.core.gaussian.timesteps import (
    TimestepSchedule,
    karras_timesteps,
    leading_timesteps,
    linspace_timesteps,
    log_snr_timesteps,
    trailing_timesteps,
    uniform_timesteps,
)
from multidiff.core.protocols import Sampler
from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion

Spacing = Literal["leading", "trailing", "linspace", "even", "log-snr", "karras", "shifted"]
SPACINGS: dict[str, Callable[[int], TimestepSchedule]] = {
    # As released Stable Diffusion: one timestep later than the plain spacing, and a last step
    # to the schedule's first level instead of the clean one.
    "leading": partial(leading_timesteps, offset=1, stop_short=True),
    "trailing": trailing_timesteps,
    "linspace": linspace_timesteps,
    "even": uniform_timesteps,
    "log-snr": log_snr_timesteps,
    "karras": karras_timesteps,
    "shifted": shifted_timesteps,
}
MOST_STEPS = 10_000
MOST_CANDIDATES = 1000


@dataclass(frozen=True)
class SamplingConfig(OptionSet):
    """Options of every model that is sampled step by step under guidance.

    Attributes:
        steps: number of reverse steps.
        sampler: name of the rule for one step.
        guidance_scale: scale of classifier-free guidance (Ho & Salimans 2022); 1 is off.
    """

    steps: int = option(50, "number of reverse steps", least=1, most=MOST_STEPS)
    sampler: str = option("ddim", "rule for one reverse step", choices=SAMPLERS)
    guidance_scale: float = option(
        1.0, "scale of classifier-free guidance", least=0, note="1 is off"
    )


@dataclass(frozen=True)
class GaussianSamplingConfig(SamplingConfig):
    """Options of a Gaussian process.

    Attributes:
        steps: number of reverse steps.
        sampler: name in :mod:`multidiff.core.gaussian.sampler_registry`.
        guidance_scale: scale of classifier-free guidance; 1 is off.
        timestep_spacing: leading, trailing or linspace on the schedule's table (Lin et al. 2023,
            table 2), even in time, even in log SNR, karras (Karras et al. 2022) or shifted.
    """

    timestep_spacing: Spacing = option("even", "spacing of the times", choices=SPACINGS)

    def times(self, schedule: NoiseSchedule) -> TimestepSchedule:
        """Return the times to visit.

        Raises:
            InputError: if the schedule has no table for the spacing, or the steps do not fit.
        """
        found = SPACINGS[self.timestep_spacing](self.steps)
        return self._checked(found, schedule)

    def _checked(self, times: TimestepSchedule, schedule: NoiseSchedule) -> TimestepSchedule:
        try:
            times.times(schedule)
        except ValueError as error:
            given = f"--steps {self.steps} --timestep-spacing {self.timestep_spacing}"
            raise InputError(f"{given}: {error}") from error
        return times

    def build_sampler(self) -> Sampler:
        """Return the rule for one step."""
        return SAMPLERS[self.sampler]()


def candidates_option() -> Any:
    """Return the option for the number of candidates, which families of texts share."""
    return option(
        1,
        "candidates drawn for each sample, of which one is chosen",
        least=1,
        most=MOST_CANDIDATES,
    )


def sampler_named(name: str) -> Sampler:
    """Return the sampler of a name, with its defaults.

    Raises:
        InputError: if the sampler is unknown.
    """
    if name not in SAMPLERS:
        raise InputError(f"{flag('sampler')} {name}: {suggestion(name, SAMPLERS)}")
    return SAMPLERS[name]()
