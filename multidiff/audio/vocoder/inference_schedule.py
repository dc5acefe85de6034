"""Inference schedules of a vocoder: levels to visit, and mel projections at each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from multidiff.audio.data.band import AUTO, check_band_limit
from multidiff.config.option_set import OptionSet, option
from multidiff.core.gaussian.sampler_registry import SAMPLERS
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.timesteps import TimestepSchedule, explicit_log_snrs
from multidiff.models.sampling_config import MOST_STEPS
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write
from multidiff.utils.readers import read_json, reading

PLANS = "plans.json"
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
class VocoderSamplingConfig(OptionSet):
    """Options of synthesis.

    Attributes:
        steps: number of network evaluations (of a sampler that makes one a step).
        sampler: name in :mod:`multidiff.core.gaussian.sampler_registry`.
        log_snr_min: log SNR of the first level.
        log_snr_max: log SNR of the last level; levels between them are evenly spaced.
        projections: iterations of the mel projection on the estimate at each level.
        final_projections: iterations of the mel projection on the finished waveform.
        band_limit: frequency in Hz above which sound is removed; ``auto`` is half of the
            recording's rate (mels have none), ``none`` is no limit.

    Raises:
        InputError: if an option is out of range.
    """

    steps: int = option(
        8, "network evaluations, at searched levels where there are any", least=1, most=MOST_STEPS
    )
    sampler: str = option("ddim", "rule for one reverse step", choices=SAMPLERS)
    log_snr_min: float = option(
        -6.0,
        "log SNR of the first of evenly spaced levels",
        least=-LOG_SNR_LIMIT,
        most=LOG_SNR_LIMIT,
    )
    log_snr_max: float = option(
        8.0, "log SNR of the last of evenly spaced levels", least=-LOG_SNR_LIMIT, most=LOG_SNR_LIMIT
    )
    projections: int = option(
        0, "mel projections at each of evenly spaced levels", least=0, most=MOST_STEPS
    )
    final_projections: int = option(
        0, "mel projections after evenly spaced levels", least=0, most=MOST_STEPS
    )
    band_limit: str = option(
        AUTO, "highest frequency in Hz, auto (half of a recording's rate) or none"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_band_limit(self.band_limit)
        if self.log_snr_min >= self.log_snr_max:
            raise InputError(
                f"--log-snr-min {self.log_snr_min:g}: must be under --log-snr-max "
                f"{self.log_snr_max:g}"
            )

    def plan(self) -> InferenceSchedule:
        """Return the schedule of evenly spaced levels."""
        ends = self.log_snr_min, self.log_snr_max
        levels = torch.linspace(*ends, self.steps, dtype=torch.float64).tolist()
        return InferenceSchedule(
            tuple(levels), (self.projections,) * self.steps, self.final_projections
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
