"""How an image model walks from noise to an image, where nobody says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.models.sampling_config import SamplingConfig


@dataclass(frozen=True)
class ImageSamplingConfig(SamplingConfig):
    """The walk's defaults.

    Attributes:
        steps: see :class:`~multidiff.models.sampling_config.SamplingConfig`.
        grid: likewise.
        sampler: likewise.
        guidance_scale: likewise.
        rescale: how far guided predictions are brought back to the conditional deviation,
            0 to 1 (Lin et al. 2023, section 3.4).
        replaces: the scheduler of a published model that this walk stands for, and what of it
            is not reproduced; empty where nothing is replaced. It goes into images' files.
    """

    rescale: float = 0.0
    replaces: str = ""

    def times_from(self, strength: float, steps: int | None, table: int | None) -> TimestepSchedule:
        """The times of a walk that begins at a middle time, and has all the steps.

        Args:
            strength: that time; 1 is the usual beginning.
            steps: how many; the default where None.
            table: length of the schedule's table, if it has one.

        Raises:
            InputError: if there cannot be so many.
        """
        if strength == 1:
            return self.times(steps, table)
        count = self.count(steps, None)
        visits = torch.linspace(strength, 0, count + 1, dtype=torch.float64)[:-1]
        return TimestepSchedule(count, lambda _: visits)
