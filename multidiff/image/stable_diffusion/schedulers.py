"""Schedulers of the diffusers library: read as configured, or named as replaced.

A folder names the class of its scheduler and that class's options. Each class that is known has
the options that :class:`~multidiff.image.diffusion.scheduler.SchedulerConfig` reproduces, and
those that must have their plain value. With another value, or for a class without a counterpart,
a line describes the replacement, which is printed when the folder is read and stored in every
image's file. A class that belongs to another process (flow matching, EDM's preconditioning,
consistency models) is rejected: a replacement would make wrong images.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from multidiff.image.diffusion.sampling_config import SCHEDULER
from multidiff.image.diffusion.scheduler import SchedulerConfig
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

# Options shared by several classes, with the values that are assumed where one is absent.
THRESHOLD = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
CLIP = {"clip_sample_range": 1.0, **THRESHOLD}
KARRAS = {"use_karras_sigmas": False}
FINAL = {"final_sigmas_type": "zero"}
PLAIN_SIGMAS = {"use_exponential_sigmas": False, "use_beta_sigmas": False}
DISTILLED = {"original_inference_steps": 50, "clip_sample": False, **CLIP}
COMMON = {"steps_offset": 0}
SPACINGS = ("leading", "trailing", "linspace")


@dataclass(frozen=True)
class Known:
    """A scheduler class of the diffusers library.

    Attributes:
        spacing: its timestep_spacing if the configuration gives none.
        own: options that are reproduced, with their values where absent.
        plain: options that are reproduced with one value only, and that value.
        alike: names of a value that mean another one there, by option.
        rescales: whether the class reads ``rescale_betas_zero_snr``.
        is_replaced: whether the class has no counterpart.
    """

    spacing: str
    own: Mapping[str, Any] = field(default_factory=dict)
    plain: Mapping[str, Any] = field(default_factory=dict)
    alike: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rescales: bool = False
    is_replaced: bool = False


DDIM = Known("leading", {"set_alpha_to_one": True, "clip_sample": True, **CLIP}, rescales=True)
DDPM = Known(
    "leading",
    {"variance_type": "fixed_small", "clip_sample": True, **CLIP},
    # The logarithm of the first is taken and undone.
    alike={"variance_type": {"fixed_small_log": "fixed_small", "learned_range": "learned",
                             "learned": "its logarithm itself"}},
    rescales=True,
)  # fmt: skip
DPM = {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": True,
       "euler_at_final": False, **KARRAS, **FINAL, **THRESHOLD}  # fmt: skip
DISTILLED_KIND = Known("leading", DISTILLED, {"timestep_scaling": 10.0}, rescales=True)
ABSENT = Known("linspace", is_replaced=True)
KNOWN = {
    "DDIMScheduler": DDIM,
    "DDIMParallelScheduler": DDIM,
    "DDPMScheduler": DDPM,
    "DDPMParallelScheduler": DDPM,
    "PNDMScheduler": Known("leading", {"set_alpha_to_one": False}, {"skip_prk_steps": True}),
    "EulerDiscreteScheduler": Known(
        "linspace",
        {**KARRAS, **FINAL},
        {**PLAIN_SIGMAS, "interpolation_type": "linear", "timestep_type": "discrete",
         "sigma_min": None, "sigma_max": None},
        rescales=True,
    ),
    "EulerAncestralDiscreteScheduler": Known("linspace", rescales=True),
    "HeunDiscreteScheduler": Known(
        "linspace", {**KARRAS, "clip_sample": False, "clip_sample_range": 1.0}, PLAIN_SIGMAS
    ),
    "LMSDiscreteScheduler": Known("linspace", KARRAS, PLAIN_SIGMAS),
    "DPMSolverMultistepScheduler": Known(
        "linspace",
        DPM,
        {**PLAIN_SIGMAS, "solver_type": "midpoint", "use_lu_lambdas": False,
         "lambda_min_clipped": -float("inf"), "variance_type": None},
        {"solver_type": dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint"),
         "algorithm_type": {"deis": "dpmsolver++"}},
        rescales=True,
    ),
    "UniPCMultistepScheduler": Known(
        "linspace",
        {"lower_order_final": True, **KARRAS, **FINAL, **THRESHOLD},
        {**PLAIN_SIGMAS, "solver_order": 2, "predict_x0": True, "solver_type": "bh2",
         "disable_corrector": [], "solver_p": None},
        {"solver_type": dict.fromkeys(("midpoint", "heun", "logrho"), "bh2")},
        rescales=True,
    ),
    "DEISMultistepScheduler": Known(
        "linspace",
        {"lower_order_final": True, **KARRAS, **THRESHOLD},
        {**PLAIN_SIGMAS, "solver_order": 2, "algorithm_type": "deis", "solver_type": "logrho"},
        {"solver_type": dict.fromkeys(("midpoint", "heun", "bh1", "bh2"), "logrho"),
         "algorithm_type": dict.fromkeys(("dpmsolver", "dpmsolver++"), "deis")},
    ),
    "LCMScheduler": DISTILLED_KIND,
    "TCDScheduler": DISTILLED_KIND,
    "KDPM2DiscreteScheduler": ABSENT,
    "KDPM2AncestralDiscreteScheduler": ABSENT,
    "DPMSolverSDEScheduler": ABSENT,
    "DPMSolverSinglestepScheduler": ABSENT,
    "SASolverScheduler": ABSENT,
}  # fmt: skip
# What a class assumes where the option is absent, if not its plain value.
WHERE_ABSENT = {"skip_prk_steps": False}
REPLACEMENT = ("dpm++", "trailing")


@dataclass(frozen=True)
class Sampling:
    """Sampling of a folder's images here.

    Attributes:
        sampler: name of the sampler.
        grid: spacing of the timesteps.
        replaces: the scheduler that these replace, and what of it is not reproduced; empty if
            everything is.
        scheduler: values of the recipe's section; None if the scheduler is replaced.
    """

    sampler: str
    grid: str
    replaces: str = ""
    scheduler: Mapping[str, Any] | None = None


def sampling_of(path: Path, config: Mapping[str, Any]) -> Sampling:
    """Return the sampling that a scheduler describes, or its replacement.

    Args:
        path: path of its configuration, for messages.
        config: the configuration.

    Raises:
        InputError: if the class is unknown, or belongs to another process.
    """
    name, known = _known(path, config)
    spacing = config.get("timestep_spacing", known.spacing)
    if spacing not in SPACINGS:
        expected = ", ".join(SPACINGS)
        raise InputError(f"{path}: timestep_spacing {spacing!r} is not one of {expected}")
    values = {"timestep_spacing": spacing}
    for key, usual in {**known.own, **COMMON}.items():
        said = config.get(key)
        values[key] = _alike(known, key, usual if said is None else said)
    lost = _lost(name, known, config, values)
    if known.is_replaced or lost:
        sampler, grid = REPLACEMENT
        rest = f"; not reproduced: {', '.join(lost)}" if lost else ""
        return Sampling(sampler, grid, f"{name} by {sampler} on the {grid} grid{rest}")
    kind = name.removesuffix("Scheduler").removesuffix("Parallel")
    defaults = {one.name: one.default for one in dataclasses.fields(SchedulerConfig)}
    changed = {key: value for key, value in values.items() if value != defaults[key]}
    return Sampling(SCHEDULER, SCHEDULER, scheduler={"kind": kind, **changed})


def announce(source: Path, replaces: str) -> None:
    """Warn of a scheduler that is replaced, if one is."""
    if replaces:
        logger.warning("%s: replaces the scheduler %s", source, replaces)


def as_stable_diffusion(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as diffusers' StableDiffusionPipeline changes it on loading."""
    return {**config, "steps_offset": 1, "clip_sample": False}


def rescales(path: Path, config: Mapping[str, Any]) -> bool:
    """Return whether a scheduler rescales its table to zero terminal SNR."""
    return bool(config.get("rescale_betas_zero_snr")) and _known(path, config)[1].rescales


def config_of(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's section as diffusers' configuration, without its table."""
    name = f"{scheduler['kind']}Scheduler"
    defaults = {one.name: one.default for one in dataclasses.fields(SchedulerConfig)}
    keys = (*KNOWN[name].own, *COMMON, "timestep_spacing")
    values = {key: scheduler.get(key, defaults[key]) for key in keys}
    if scheduler["kind"] == "PNDM":
        values["skip_prk_steps"] = True
    if values.get("variance_type") == "learned":
        values["variance_type"] = "learned_range"
    return {"_class_name": name, **values}


def _known(path: Path, config: Mapping[str, Any]) -> tuple[str, Known]:
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in KNOWN:
        raise InputError(
            f"{path}: the scheduler {name} is not supported for Stable Diffusion 1 and 2; "
            f"expected one of {', '.join(kind.removesuffix('Scheduler') for kind in KNOWN)}"
        )
    if config.get("use_flow_sigmas"):
        raise InputError(
            f"{path}: use_flow_sigmas is true: the model was trained by flow matching, which is "
            "not supported"
        )
    return name, KNOWN[name]


def _alike(known: Known, key: str, value: Any) -> Any:
    return known.alike.get(key, {}).get(value, value) if isinstance(value, str) else value


def _lost(
    name: str, known: Known, config: Mapping[str, Any], values: Mapping[str, Any]
) -> list[str]:
    """Return the options that are not reproduced, each with its value."""
    lost = [
        key
        for key, plain in known.plain.items()
        if _alike(known, key, config.get(key, WHERE_ABSENT.get(key, plain))) not in (plain, None)
    ]
    hints = get_type_hints(SchedulerConfig)
    allowed = {key: get_args(hint) for key, hint in hints.items() if get_origin(hint) is Literal}
    lost += [key for key, value in values.items() if value not in allowed.get(key, (value,))]
    if known is DDPM and values["variance_type"] not in ("fixed_small", *lost):
        # Other variances are added in a last step from above the first timestep too.
        starts_at_first = values["timestep_spacing"] == "leading" and values["steps_offset"] == 0
        lost += [] if starts_at_first else ["variance_type"]
    is_cosine = config.get("beta_schedule") == "squaredcos_cap_v2"
    if is_cosine and name.startswith("DPM") and values.get("use_karras_sigmas"):
        lost += ["use_karras_sigmas"]  # on this table times are cut, not rounded
    return [f"{key} {json.dumps(config.get(key, WHERE_ABSENT.get(key)))}" for key in lost]
