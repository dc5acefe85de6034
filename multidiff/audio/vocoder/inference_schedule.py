"""Inference schedules of a vocoder: levels to visit, and mel projections at each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.timesteps import TimestepSchedule, explicit_log_snrs
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write
from multidiff.utils.readers import read_json, reading

PLANS = "plans.json"
MOST_STEPS = 10_000
LOG_SNR_LIMIT = 100


@dataclass(frozen=True)
class InferenceSchedule:
    """A sampling trajectory of a few network evaluations.

    Attributes:
        log_snrs: log SNR of the levels visited, noisiest first.
        projections: number of iterations of the mel projection on each x0 estimate.
        final_projections: number of iterations on the finished waveform.
    """

    log_snrs: Sequence[float]
    projections: Sequence[int]
    final_projections: int = 0

    def __post_init__(self) -> None:
        if len(self.projections) != len(self.log_snrs):
            raise ValueError(
                f"{len(self.projections)} projections for {len(self.log_snrs)} levels: one each"
            )
        if any(a >= b for a, b in itertools.pairwise(self.log_snrs)):
            raise ValueError(f"levels {list(self.log_snrs)} must increase: noisiest first")

    @property
    def num_steps(self) -> int:
        """Number of network evaluations of a sampler that makes one a step."""
        return len(self.log_snrs)

    @property
    def times(self) -> TimestepSchedule:
        """Levels as a timestep schedule for sampling."""
        return explicit_log_snrs(self.log_snrs)

    def projections_at(self, level: NoiseLevel) -> int:
        """Return the number of iterations at the visited level nearest to the given one."""
        here = float(level.log_snr[0])
        nearest = min(range(self.num_steps), key=lambda i: abs(self.log_snrs[i] - here))
        return self.projections[nearest]


@dataclass(frozen=True)
class EvenSchedules:
    """Inference schedules of any number of steps: levels evenly spaced in log SNR.

    Attributes:
        lowest: log SNR of the first level.
        highest: log SNR of the last level.
        projections: number of iterations of the mel projection at each level.
        final_projections: number of iterations on the finished waveform.
        steps: default number of steps.
    """

    lowest: float = -6.0
    highest: float = 8.0
    projections: int = 0
    final_projections: int = 0
    steps: int = 8

    def __post_init__(self) -> None:
        if not -LOG_SNR_LIMIT <= self.lowest < self.highest <= LOG_SNR_LIMIT:
            raise ValueError(
                f"lowest {self.lowest:g} must be below highest {self.highest:g}, and both within "
                f"{LOG_SNR_LIMIT} of 0"
            )

    def plan(self, num_steps: int) -> InferenceSchedule:
        """Return the schedule for that many steps.

        Raises:
            InputError: if the number is less than 1 or absurdly large.
        """
        if not 1 <= num_steps <= MOST_STEPS:
            raise InputError(f"--steps {num_steps}: give a number from 1 to {MOST_STEPS}")
        levels = torch.linspace(self.lowest, self.highest, num_steps, dtype=torch.float64).tolist()
        return InferenceSchedule(
            tuple(levels), (self.projections,) * num_steps, self.final_projections
        )


def read_plans(folder: Path) -> dict[int, InferenceSchedule]:
    """Return the searched schedules stored beside a model's weights, by their number of steps.

    Raises:
        InputError: if the file exists and is not one of ours.
    """
    path = folder / PLANS
    if not path.is_file():
        return {}
    found = read_json(path)
    with reading(path, "is not a file of inference schedules", "remove it"):
        return {int(steps): InferenceSchedule(**fields) for steps, fields in found.items()}


def write_plans(folder: Path, plans: Mapping[int, InferenceSchedule]) -> None:
    """Write searched schedules beside a model's weights.

    Raises:
        InputError: if the system refuses.
    """
    with atomic_write(folder / PLANS) as partial:
        text = json.dumps({str(steps): asdict(plans[steps]) for steps in sorted(plans)}, indent=1)
        partial.write_text(text + "\n")
