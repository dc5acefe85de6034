"""multidiff: diffusion models for image, audio and text on one core.

The public names, by theme. A name is imported when it is first used, so that ``import multidiff``
and ``multidiff --help`` load neither torch nor a modality package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Theme -> module -> names; ``public=name`` if the module uses another name.
_THEMES: dict[str, dict[str, str]] = {
    "Interfaces": {
        "core.protocols": "Denoiser Domain Encoded Estimate Process Sampler",
        "core.task": "DiffusionTask",
    },
    "Gaussian diffusion": {
        "core.gaussian.process": "GaussianProcess",
        "core.gaussian.subspace": "LinearSubspace SubspaceProcess ZeroMean",
        "core.gaussian.schedules": "BetaSchedule LogSNRSchedule NoiseLevel",
        "core.gaussian.flow": "RectifiedFlow shifted_timesteps",
        "core.gaussian.edm": "ScaledInput VarianceExploding",
        "core.gaussian.time_laws": "LogNormalSigmas LogitNormalTimes",
        "core.gaussian.losses": "HybridLoss MinSNR SimpleLoss",
        "core.gaussian.distillation": "Distillation DistillationTask",
        "core.gaussian.rollout": "RolloutTask",
        "core.gaussian.timesteps": (
            "TimestepSchedule karras_timesteps leading_timesteps linspace_timesteps "
            "log_snr_timesteps trailing_timesteps uniform_timesteps"
        ),
        "core.gaussian.samplers": "DDIM DDPM DPMSolverPP Heun",
        "core.gaussian.multistep": "AdamsBashforth DEIS FlowABM UniPC",
        "core.gaussian.stochastic": "ConsistencySampler DPMSolverPPSDE EDMChurn",
        "core.gaussian.adaptive": "RK45",
        "core.gaussian.self_conditioning": "SelfConditionedDenoiser SelfConditioning",
    },
    "Discrete diffusion": {
        "core.discrete.absorbing": "MaskProcess",
        "core.discrete.blocks": "BlockMaskProcess",
        "core.discrete.schedules": "CosineMasks LogLinearMasks PolynomialMasks",
        "core.discrete.samplers": (
            "AncestralSampler FixedOrderSampler MaskGITSampler MaskPredictSampler "
            "RandomOrderSampler"
        ),
        "core.discrete.adaptive_samplers": "FirstHittingSampler ReMDMSampler SuretySampler",
        "core.discrete.unmasking": "unmask",
        "core.discrete.uniform": "UniformAncestralSampler UniformProcess",
    },
    "Edits": {
        "core.edit.process": "EditProcess",
        "core.edit.alignment": "align",
    },
    "Joint diffusion": {
        "core.joint.process": "JointProcess",
        "core.joint.level": "JointSchedule",
        "core.joint.task": "JointDomain JointTask",
        "core.joint.sampler": "JointSampler sample_joint",
        "core.joint.guidance": "JointGuidance MultiConditionGuidance",
    },
    "Sampling, guidance, projections": {
        "core.sample": "encode sample",
        "core.guidance": "ClassifierFreeGuidance",
        "core.guidance_variants": "Autoguidance IntervalGuidance",
        "core.gaussian.classifier_guidance": "ClassifierGuidance",
        "core.projections": "clip compose dynamic_threshold inpaint",
        "core.gaussian.inverse": "DPS MMPS PiGDM RePaint",
        "core.random": "generators",
    },
    "Likelihood bounds (ELBO)": {
        "core.gaussian.decoders": "ContinuousDecoder DiscretisedDecoder",
        "core.gaussian.likelihood": "vlb",
        "core.gaussian.flow_likelihood": "flow_log_likelihood",
        "core.discrete.absorbing": "nelbo",
        "core.joint.bound": "joint_nelbo",
    },
    "Training": {
        "training.trainer": "Trainer",
        "training.best": "EarlyStopping",
        "training.callbacks": "Callback",
        "training.posthoc_ema": "PosthocEMA",
        "data.batches": "Batches TensorExamples",
        "models.train": "train=train_recipe",
    },
    "Models and requests": {
        "models.loading": "load save=save_model",
        "audio.vocoder.model": "Vocoder",
        "image.diffusion.model": "ImageDiffusion",
        "image.maskgit.model": "MaskGIT",
        "image.canvas": "Canvas",
        "text.diffusion_lm.model": "TextDiffusion",
        "text.masked.model": "MaskedText",
        "text.masked.uniform": "UniformText",
        "text.masked_lm.model": "PromptedText",
        "text.diffuser.model": "EditedText",
        "text.request": "Control TextRequest",
        "joint.model": "JointModel",
        "joint.records": "Records",
        "joint.streams": "TokenStream",
        "models.sampling_config": "SamplingConfig",
    },
}
_HOMES = {
    public: (module, name or public)
    for modules in _THEMES.values()
    for module, names in modules.items()
    for public, _, name in (entry.partition("=") for entry in names.split())
}
__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from multidiff.audio.vocoder.model import Vocoder as Vocoder
    from multidiff.core.discrete.absorbing import MaskProcess as MaskProcess
    from multidiff.core.discrete.absorbing import nelbo as nelbo
    from multidiff.core.discrete.adaptive_samplers import FirstHittingSampler as FirstHittingSampler
    from multidiff.core.discrete.adaptive_samplers import ReMDMSampler as ReMDMSampler
    from multidiff.core.discrete.adaptive_samplers import SuretySampler as SuretySampler
    from multidiff.core.discrete.blocks import BlockMaskProcess as BlockMaskProcess
    from multidiff.core.discrete.samplers import AncestralSampler as AncestralSampler
    from multidiff.core.discrete.samplers import FixedOrderSampler as FixedOrderSampler
    from multidiff.core.discrete.samplers import MaskGITSampler as MaskGITSampler
    from multidiff.core.discrete.samplers import MaskPredictSampler as MaskPredictSampler
    from multidiff.core.discrete.samplers import RandomOrderSampler as RandomOrderSampler
    from multidiff.core.discrete.schedules import CosineMasks as CosineMasks
    from multidiff.core.discrete.schedules import LogLinearMasks as LogLinearMasks
    from multidiff.core.discrete.schedules import PolynomialMasks as PolynomialMasks
    from multidiff.core.discrete.uniform import UniformAncestralSampler as UniformAncestralSampler
    from multidiff.core.discrete.uniform import UniformProcess as UniformProcess
    from multidiff.core.discrete.unmasking import unmask as unmask
    from multidiff.core.edit.alignment import align as align
    from multidiff.core.edit.process import EditProcess as EditProcess
    from multidiff.core.gaussian.adaptive import RK45 as RK45
    from multidiff.core.gaussian.classifier_guidance import ClassifierGuidance as ClassifierGuidance
    from multidiff.core.gaussian.decoders import ContinuousDecoder as ContinuousDecoder
    from multidiff.core.gaussian.decoders import DiscretisedDecoder as DiscretisedDecoder
    from multidiff.core.gaussian.distillation import Distillation as Distillation
    from multidiff.core.gaussian.distillation import DistillationTask as DistillationTask
    from multidiff.core.gaussian.edm import ScaledInput as ScaledInput
    from multidiff.core.gaussian.edm import VarianceExploding as VarianceExploding
    from multidiff.core.gaussian.flow import RectifiedFlow as RectifiedFlow
    from multidiff.core.gaussian.flow import shifted_timesteps as shifted_timesteps
    from multidiff.core.gaussian.flow_likelihood import flow_log_likelihood as flow_log_likelihood
    from multidiff.core.gaussian.inverse import DPS as DPS
    from multidiff.core.gaussian.inverse import MMPS as MMPS
    from multidiff.core.gaussian.inverse import PiGDM as PiGDM
    from multidiff.core.gaussian.inverse import RePaint as RePaint
    from multidiff.core.gaussian.likelihood import vlb as vlb
    from multidiff.core.gaussian.losses import HybridLoss as HybridLoss
    from multidiff.core.gaussian.losses import MinSNR as MinSNR
    from multidiff.core.gaussian.losses import SimpleLoss as SimpleLoss
    from multidiff.core.gaussian.multistep import DEIS as DEIS
    from multidiff.core.gaussian.multistep import AdamsBashforth as AdamsBashforth
    from multidiff.core.gaussian.multistep import FlowABM as FlowABM
    from multidiff.core.gaussian.multistep import UniPC as UniPC
    from multidiff.core.gaussian.process import GaussianProcess as GaussianProcess
    from multidiff.core.gaussian.rollout import RolloutTask as RolloutTask
    from multidiff.core.gaussian.samplers import DDIM as DDIM
    from multidiff.core.gaussian.samplers import DDPM as DDPM
    from multidiff.core.gaussian.samplers import DPMSolverPP as DPMSolverPP
    from multidiff.core.gaussian.samplers import Heun as Heun
    from multidiff.core.gaussian.schedules import BetaSchedule as BetaSchedule
    from multidiff.core.gaussian.schedules import LogSNRSchedule as LogSNRSchedule
    from multidiff.core.gaussian.schedules import NoiseLevel as NoiseLevel
    from multidiff.core.gaussian.self_conditioning import (
        SelfConditionedDenoiser as SelfConditionedDenoiser,
    )
    from multidiff.core.gaussian.self_conditioning import SelfConditioning as SelfConditioning
    from multidiff.core.gaussian.stochastic import ConsistencySampler as ConsistencySampler
    from multidiff.core.gaussian.stochastic import DPMSolverPPSDE as DPMSolverPPSDE
    from multidiff.core.gaussian.stochastic import EDMChurn as EDMChurn
    from multidiff.core.gaussian.subspace import LinearSubspace as LinearSubspace
    from multidiff.core.gaussian.subspace import SubspaceProcess as SubspaceProcess
    from multidiff.core.gaussian.subspace import ZeroMean as ZeroMean
    from multidiff.core.gaussian.time_laws import LogitNormalTimes as LogitNormalTimes
    from multidiff.core.gaussian.time_laws import LogNormalSigmas as LogNormalSigmas
    from multidiff.core.gaussian.timesteps import TimestepSchedule as TimestepSchedule
    from multidiff.core.gaussian.timesteps import karras_timesteps as karras_timesteps
    from multidiff.core.gaussian.timesteps import leading_timesteps as leading_timesteps
    from multidiff.core.gaussian.timesteps import linspace_timesteps as linspace_timesteps
    from multidiff.core.gaussian.timesteps import log_snr_timesteps as log_snr_timesteps
    from multidiff.core.gaussian.timesteps import trailing_timesteps as trailing_timesteps
    from multidiff.core.gaussian.timesteps import uniform_timesteps as uniform_timesteps
    from multidiff.core.guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
    from multidiff.core.guidance_variants import Autoguidance as Autoguidance
    from multidiff.core.guidance_variants import IntervalGuidance as IntervalGuidance
    from multidiff.core.joint.bound import joint_nelbo as joint_nelbo
    from multidiff.core.joint.guidance import JointGuidance as JointGuidance
    from multidiff.core.joint.guidance import MultiConditionGuidance as MultiConditionGuidance
    from multidiff.core.joint.level import JointSchedule as JointSchedule
    from multidiff.core.joint.process import JointProcess as JointProcess
    from multidiff.core.joint.sampler import JointSampler as JointSampler
    from multidiff.core.joint.sampler import sample_joint as sample_joint
    from multidiff.core.joint.task import JointDomain as JointDomain
    from multidiff.core.joint.task import JointTask as JointTask
    from multidiff.core.projections import clip as clip
    from multidiff.core.projections import compose as compose
    from multidiff.core.projections import dynamic_threshold as dynamic_threshold
    from multidiff.core.projections import inpaint as inpaint
    from multidiff.core.protocols import Denoiser as Denoiser
    from multidiff.core.protocols import Domain as Domain
    from multidiff.core.protocols import Encoded as Encoded
    from multidiff.core.protocols import Estimate as Estimate
    from multidiff.core.protocols import Process as Process
    from multidiff.core.protocols import Sampler as Sampler
    from multidiff.core.random import generators as generators
    from multidiff.core.sample import encode as encode
    from multidiff.core.sample import sample as sample
    from multidiff.core.task import DiffusionTask as DiffusionTask
    from multidiff.data.batches import Batches as Batches
    from multidiff.data.batches import TensorExamples as TensorExamples
    from multidiff.image.canvas import Canvas as Canvas
    from multidiff.image.diffusion.model import ImageDiffusion as ImageDiffusion
    from multidiff.image.maskgit.model import MaskGIT as MaskGIT
    from multidiff.joint.model import JointModel as JointModel
    from multidiff.joint.records import Records as Records
    from multidiff.joint.streams import TokenStream as TokenStream
    from multidiff.models.loading import load as load
    from multidiff.models.loading import save_model as save  # noqa: F401
    from multidiff.models.sampling_config import SamplingConfig as SamplingConfig
    from multidiff.models.train import train_recipe as train  # noqa: F401
    from multidiff.text.diffuser.model import EditedText as EditedText
    from multidiff.text.diffusion_lm.model import TextDiffusion as TextDiffusion
    from multidiff.text.masked.model import MaskedText as MaskedText
    from multidiff.text.masked.uniform import UniformText as UniformText
    from multidiff.text.masked_lm.model import PromptedText as PromptedText
    from multidiff.text.request import Control as Control
    from multidiff.text.request import TextRequest as TextRequest
    from multidiff.training.best import EarlyStopping as EarlyStopping
    from multidiff.training.callbacks import Callback as Callback
    from multidiff.training.posthoc_ema import PosthocEMA as PosthocEMA
    from multidiff.training.trainer import Trainer as Trainer


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'multidiff' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(f"multidiff.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
