"""Mapping of diffusers schedulers to our samplers, and what is not reproduced.

A folder names the class of its scheduler and that class's options. Some of both have an exact
counterpart; for the others a line describes the replacement, which is printed when the folder is
read and stored in every image's file. A class that belongs to another process (flow matching,
EDM's preconditioning, consistency models) is rejected: a replacement would make wrong images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multidiff.utils.errors import InputError

# Options shared by several classes, with the values of the plain class.
THRESHOLD = {"thresholding": False}
SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
MULTISTEP = {
    **THRESHOLD,
    **SIGMAS,
    "solver_order": 2,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
}
DPM = {
    **MULTISTEP,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "euler_at_final": False,
    "use_lu_lambdas": False,
}
DISTILLED = {
    **THRESHOLD,
    "set_alpha_to_one": True,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
}


@dataclass(frozen=True)
class Scheduler:
    """A scheduler class of the diffusers library.

    Attributes:
        spacing: its timestep_spacing if the configuration gives none.
        plain: its own options and their values in the plain scheduler; others are left over from
            another class, and diffusers does not read them either.
        sampler: our sampler that replaces it.
        exact: the spacings on which that sampler computes the same; empty if it never does.
    """

    spacing: str
    plain: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = "ddim"
    exact: tuple[str, ...] = ()


DDIM = Scheduler("leading", THRESHOLD, "ddim", ("leading", "trailing", "linspace"))
DDPM = Scheduler(
    "leading", {**THRESHOLD, "variance_type": "fixed_small"}, "ddpm", ("trailing", "linspace")
)
KNOWN = {
    "DDIMScheduler": DDIM,
    "DDIMParallelScheduler": DDIM,
    "DDPMScheduler": DDPM,
    "DDPMParallelScheduler": DDPM,
    "DPMSolverMultistepScheduler": Scheduler("linspace", DPM, "dpm++", ("trailing",)),
    # Over sigma / alpha, while ours steps over alpha / sigma: the same ODE, other steps.
    "HeunDiscreteScheduler": Scheduler("linspace", SIGMAS, "heun"),
    "PNDMScheduler": Scheduler("leading", {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "LMSDiscreteScheduler": Scheduler("linspace", SIGMAS),
    "EulerDiscreteScheduler": Scheduler(
        "linspace",
        {
            **SIGMAS,
            "interpolation_type": "linear",
            "timestep_type": "discrete",
            "final_sigmas_type": "zero",
            "sigma_min": None,
            "sigma_max": None,
        },
    ),
    "EulerAncestralDiscreteScheduler": Scheduler("linspace"),
    "KDPM2DiscreteScheduler": Scheduler("linspace", SIGMAS),
    "KDPM2AncestralDiscreteScheduler": Scheduler("linspace", SIGMAS),
    "DPMSolverSDEScheduler": Scheduler("linspace", SIGMAS),
    "DPMSolverSinglestepScheduler": Scheduler("linspace", {**DPM, "lower_order_final": False}),
    "DEISMultistepScheduler": Scheduler(
        "linspace", {**MULTISTEP, "algorithm_type": "deis", "solver_type": "logrho"}
    ),
    "UniPCMultistepScheduler": Scheduler(
        "linspace",
        {**MULTISTEP, "predict_x0": True, "solver_type": "bh2", "disable_corrector": []},
    ),
    "SASolverScheduler": Scheduler(
        "linspace",
        {**THRESHOLD, **SIGMAS, "predictor_order": 2, "corrector_order": 2,
         "algorithm_type": "data_prediction", "lower_order_final": True},
    ),
    "LCMScheduler": Scheduler("leading", DISTILLED),
    "TCDScheduler": Scheduler("leading", DISTILLED),
}  # fmt: skip
SPACINGS = ("leading", "trailing", "linspace")
# The plain variance by another name: its logarithm is taken and undone.
ALIKE = {"fixed_small_log": "fixed_small"}


@dataclass(frozen=True)
class Sampling:
    """Sampling of a folder's images here.

    Attributes:
        sampler: name of the sampler.
        grid: spacing of the timesteps.
        replaces: the scheduler that these replace, and what of it is not reproduced; empty if
            everything is.
    """

    sampler: str
    grid: str
    replaces: str


def sampling_of(path: Path, config: Mapping[str, Any]) -> Sampling:
    """Return the replacement of a scheduler.

    Args:
        path: path of its configuration, for messages.
        config: the configuration.

    Raises:
        InputError: if the class is unknown, or belongs to another process.
    """
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
    kind = KNOWN[name]
    grid = config.get("timestep_spacing", kind.spacing)
    if grid not in SPACINGS:
        raise InputError(f"{path}: timestep_spacing {grid!r} is not one of {', '.join(SPACINGS)}")
    lost = _lost(kind, config, grid)
    if not kind.exact or lost:
        rest = f"; not reproduced: {', '.join(lost)}" if lost else ""
        return Sampling(kind.sampler, grid, f"{name} by {kind.sampler} on the {grid} grid{rest}")
    return Sampling(kind.sampler, grid, "")


def _lost(kind: Scheduler, config: Mapping[str, Any], grid: str) -> list[str]:
    """Return the options that are not reproduced, each with its value."""
    lost = []
    for option, plain in kind.plain.items():
        value = config.get(option, plain)
        if value != plain and ALIKE.get(str(value)) != plain:
            lost.append(f"{option} {json.dumps(value)}")
    if kind is DDIM:
        # Our leading grid ends at the table's first level, as published; the others end clean.
        ends_clean = config.get("set_alpha_to_one", True)
        if ends_clean is not (grid != "leading"):
            lost.append(f"set_alpha_to_one {json.dumps(ends_clean)}")
    elif kind.exact and grid not in kind.exact:
        lost.append(f'timestep_spacing "{grid}"')
    return lost
