"""Sampling options of Gaussian-diffusion image models."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from multidiff.config.option_set import option
from multidiff.core.gaussian.schedules import NoiseSchedule
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.models.sampling_config import GaussianSamplingConfig


@dataclass(frozen=True)
class ImageSamplingConfig(GaussianSamplingConfig):
    """Options of sampling.

    Attributes:
        steps: number of reverse steps.
        sampler: name in :mod:`multidiff.core.gaussian.sampler_registry`.
        guidance_scale: scale of classifier-free guidance; 1 is off.
        timestep_spacing: see :class:`~multidiff.models.sampling_config.GaussianSamplingConfig`.
        rescale: fraction by which guided predictions are brought back to the standard deviation
            of the conditional ones, 0 to 1 (Lin et al. 2023, section 3.4).
        style_guidance_scale: scale of guidance by the style of a prompt, where it is to differ
            from that by the words; costs a third evaluation.
        replaces: scheduler of a published model that these options replace, and what of it is
            not reproduced; empty for none. It is stored in images' files.
    """

    rescale: float = option(
        0.0, "fraction of guidance rescale (Lin et al. 2023)", least=0, most=1, note="0 is off"
    )
    style_guidance_scale: float | None = option(
        None, "scale of guidance by a prompt's style", least=0, note="by default that of the words"
    )
    replaces: str = ""

    def times_from(self, strength: float, schedule: NoiseSchedule) -> TimestepSchedule:
        """Return the times from an intermediate time on, spaced as in the full number of steps.

        Args:
            strength: first time; 1 is pure noise.
            schedule: noise schedule of the process.

        Raises:
            InputError: if the schedule has no such times.
        """
        if strength == 1:
            return self.times(schedule)
        visits = torch.linspace(strength, 0, self.steps + 1, dtype=torch.float64)[:-1]
        return TimestepSchedule(self.steps, lambda _: visits)
