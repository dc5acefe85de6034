"""multidiff: diffusion for image, audio and text on one core."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module. Imported on first use: ``multidiff --help`` waits for none of it.
_HOMES = {
    "BetaSchedule": "core.gaussian.schedules",
    "LogSNRSchedule": "core.gaussian.schedules",
    "NoiseLevel": "core.gaussian.schedules",
    "GaussianProcess": "core.gaussian.process",
    "SimpleLoss": "core.gaussian.losses",
    "MinSNR": "core.gaussian.losses",
    "DDPM": "core.gaussian.samplers",
    "DDIM": "core.gaussian.samplers",
    "Heun": "core.gaussian.samplers",
    "DPMSolverPP": "core.gaussian.samplers",
    "ClassifierFreeGuidance": "core.guidance",
    "Domain": "core.protocols",
    "Encoded": "core.protocols",
    "Estimate": "core.protocols",
    "DiffusionTask": "core.task",
    "uniform_timesteps": "core.gaussian.timesteps",
    "log_snr_timesteps": "core.gaussian.timesteps",
    "sample": "core.sample",
    "vlb": "core.gaussian.likelihood",
    "ContinuousDecoder": "core.gaussian.likelihood",
    "Trainer": "training.trainer",
    "Batches": "training.batches",
    "TensorExamples": "training.batches",
    "load": "models.loading",
}
__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from multidiff.core.gaussian.likelihood import ContinuousDecoder as ContinuousDecoder
    from multidiff.core.gaussian.likelihood import vlb as vlb
    from multidiff.core.gaussian.losses import MinSNR as MinSNR
    from multidiff.core.gaussian.losses import SimpleLoss as SimpleLoss
    from multidiff.core.gaussian.process import GaussianProcess as GaussianProcess
    from multidiff.core.gaussian.samplers import DDIM as DDIM
    from multidiff.core.gaussian.samplers import DDPM as DDPM
    from multidiff.core.gaussian.samplers import DPMSolverPP as DPMSolverPP
    from multidiff.core.gaussian.samplers import Heun as Heun
    from multidiff.core.gaussian.schedules import BetaSchedule as BetaSchedule
    from multidiff.core.gaussian.schedules import LogSNRSchedule as LogSNRSchedule
    from multidiff.core.gaussian.schedules import NoiseLevel as NoiseLevel
    from multidiff.core.gaussian.timesteps import log_snr_timesteps as log_snr_timesteps
    from multidiff.core.gaussian.timesteps import uniform_timesteps as uniform_timesteps
    from multidiff.core.guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
    from multidiff.core.protocols import Domain as Domain
    from multidiff.core.protocols import Encoded as Encoded
    from multidiff.core.protocols import Estimate as Estimate
    from multidiff.core.sample import sample as sample
    from multidiff.core.task import DiffusionTask as DiffusionTask
    from multidiff.models.loading import load as load
    from multidiff.training.batches import Batches as Batches
    from multidiff.training.batches import TensorExamples as TensorExamples
    from multidiff.training.trainer import Trainer as Trainer


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'multidiff' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"multidiff.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
