"""multidiff: diffusion for image, audio and text on one core."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module. Imported when first used: ``multidiff --help`` waits for none of it.
_HOMES = {
    "BetaSchedule": "core.schedules",
    "LogSNRSchedule": "core.schedules",
    "NoiseLevel": "core.schedules",
    "GaussianProcess": "core.gaussian",
    "SimpleLoss": "core.losses",
    "MinSNR": "core.losses",
    "DDPM": "core.solvers",
    "DDIM": "core.solvers",
    "Heun": "core.solvers",
    "DPMSolverPP": "core.solvers",
    "ClassifierFreeGuidance": "core.guidance",
    "Domain": "core.protocols",
    "Encoded": "core.protocols",
    "Estimate": "core.protocols",
    "DiffusionTask": "core.task",
    "even_times": "core.times",
    "log_snr_times": "core.times",
    "sample": "core.sampling",
    "variational_bound": "core.likelihood",
    "ContinuousDecoder": "core.likelihood",
    "Trainer": "training.trainer",
    "Batches": "training.batches",
    "load": "loading",
}
__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from multidiff.core.gaussian import GaussianProcess as GaussianProcess
    from multidiff.core.guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
    from multidiff.core.likelihood import ContinuousDecoder as ContinuousDecoder
    from multidiff.core.likelihood import variational_bound as variational_bound
    from multidiff.core.losses import MinSNR as MinSNR
    from multidiff.core.losses import SimpleLoss as SimpleLoss
    from multidiff.core.protocols import Domain as Domain
    from multidiff.core.protocols import Encoded as Encoded
    from multidiff.core.protocols import Estimate as Estimate
    from multidiff.core.sampling import sample as sample
    from multidiff.core.schedules import BetaSchedule as BetaSchedule
    from multidiff.core.schedules import LogSNRSchedule as LogSNRSchedule
    from multidiff.core.schedules import NoiseLevel as NoiseLevel
    from multidiff.core.solvers import DDIM as DDIM
    from multidiff.core.solvers import DDPM as DDPM
    from multidiff.core.solvers import DPMSolverPP as DPMSolverPP
    from multidiff.core.solvers import Heun as Heun
    from multidiff.core.task import DiffusionTask as DiffusionTask
    from multidiff.core.times import even_times as even_times
    from multidiff.core.times import log_snr_times as log_snr_times
    from multidiff.loading import load as load
    from multidiff.training.batches import Batches as Batches
    from multidiff.training.trainer import Trainer as Trainer


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'multidiff' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"multidiff.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
