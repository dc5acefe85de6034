"""Schedulers of other libraries, each walked through an exact network on a Gaussian path.

Every walk has the same form: ``walk(network, noise, evaluations)`` starts from standard normal
noise and returns the end, or None where the system cannot make so few evaluations. The network is
``(xt, alpha, sigma) -> x0`` in float64 and counts its calls. It is asked at the level that a
trained network would read: diffusers hands over a timestep, so the level is the one of that
timestep, whether or not the state is there.
"""

from __future__ import annotations

import importlib
import math
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
Walk = Callable[[Network, Tensor, int], Tensor | None]
TABLE = 1000
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SPACINGS = ("leading", "trailing", "linspace")
SPECIAL = ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas", "use_beta_sigmas")
# diffusers' schedulers: class, its own options, evaluations of n steps.
MULTISTEP = {
    "DPM++2M": ("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "DPM++3M": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "UniPC-2": ("UniPCMultistepScheduler", {"solver_order": 2}),
    "UniPC-3": ("UniPCMultistepScheduler", {"solver_order": 3}),
    "DEIS-2": ("DEISMultistepScheduler", {"solver_order": 2}),
    "DEIS-3": ("DEISMultistepScheduler", {"solver_order": 3}),
}


def peers(path: str) -> Iterator[tuple[str, str, Walk]]:
    """Yield library, system and walk of every scheduler and grid on "vp", "flow" or "edm"."""
    if find_spec("diffusers"):
        yield from ((("diffusers", *one)) for one in _diffusers(path))
    if find_spec("k_diffusion") and path != "flow":
        yield from ((("k-diffusion", *one)) for one in _k_diffusion(path))
    if find_spec("azula"):
        yield from ((("azula", *one)) for one in _azula(path))


# ------------------------------------------------------------------------- diffusers


def _diffusers(path: str) -> Iterator[tuple[str, Walk]]:
    if path == "vp":
        for spacing in SPACINGS:
            options = {"timestep_spacing": spacing, "clip_sample": False, "set_alpha_to_one": True}
            yield f"DDIM, {spacing}", _scheduler("DDIMScheduler", {**BETAS, **options}, path)
            for name in ("Euler", "Heun"):
                made = _scheduler(
                    f"{name}DiscreteScheduler", {**BETAS, "timestep_spacing": spacing}, path
                )
                yield f"{name}, {spacing}", made
    if path == "flow":
        for shift in (1.0, 3.0):
            for name in ("Euler", "Heun"):
                made = _scheduler(f"FlowMatch{name}DiscreteScheduler", {"shift": shift}, path)
                yield f"{name}, shift {shift:g}", made
    if path == "edm":
        for grid in ("karras", "exponential"):
            options = {"sigma_schedule": grid, "sigma_data": 0.5}
            yield f"Euler, {grid}", _scheduler("EDMEulerScheduler", options, path)
            for order in (2, 3):
                options = {**options, "solver_order": order, "final_sigmas_type": "zero"}
                made = _scheduler("EDMDPMSolverMultistepScheduler", options, path)
                yield f"DPM++{order}M, {grid}", made
        return
    for name, (kind, options) in MULTISTEP.items():
        for grid, more in _diffusers_grids(path):
            yield f"{name}, {grid}", _scheduler(kind, {**options, **more}, path)


def _diffusers_grids(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if path == "flow":
        for shift in (1.0, 3.0):
            options = {"use_flow_sigmas": True, "flow_shift": shift}
            yield f"shift {shift:g}", {**options, "prediction_type": "flow_prediction"}
        return
    for spacing in SPACINGS:
        yield spacing, {**BETAS, "timestep_spacing": spacing, "prediction_type": "sample"}
    for one in SPECIAL:
        yield one.split("_", 1)[1], {**BETAS, one: True, "prediction_type": "sample"}


def _scheduler(kind: str, options: dict[str, Any], path: str) -> Walk:
    def walk(network: Network, noise: Tensor, evaluations: int) -> Tensor | None:
        import diffusers

        steps = (evaluations + 1) // 2 if "Heun" in kind else evaluations
        scheduler = getattr(diffusers, kind)(num_train_timesteps=TABLE, **options)
        scheduler.set_timesteps(steps)
        state = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
        for number, step in enumerate(scheduler.timesteps):
            scales = hasattr(scheduler, "scale_model_input")
            read = scheduler.scale_model_input(state, step) if scales else state
            output = _output(scheduler, network, read, state, step, path)
            if getattr(scheduler, "step_index", number) is None:
                scheduler._init_step_index(step)
            state = scheduler.step(output, step, state).prev_sample.double()
        return state

    return walk


def _output(
    scheduler: Any, network: Network, read: Tensor, state: Tensor, step: Tensor, path: str
) -> Tensor:
    """Return the network's output in the terms of a scheduler, at the timestep it names."""
    time = step.double().reshape(1)
    if path == "edm":
        sigma, data = torch.exp(4 * time), scheduler.config.sigma_data
        x0 = network(state, torch.ones(1).double(), sigma)
        total = torch.sqrt(sigma**2 + data**2)
        return (x0 - data**2 / total**2 * state) / (sigma * data / total)
    if path == "flow":
        sigma = time / TABLE
        return (read - network(read, 1 - sigma, sigma)) / sigma
    alpha = torch.cumprod(1 - torch.linspace(1e-4, 0.02, TABLE).double(), 0).sqrt()
    below = time.floor().long().clamp(max=TABLE - 2)
    alpha = torch.lerp(alpha[below], alpha[below + 1], time - below)
    sigma = (1 - alpha**2).sqrt()
    x0 = network(read, alpha, sigma)
    if scheduler.config.prediction_type == "sample":
        return x0
    return (read - alpha * x0) / sigma


# ----------------------------------------------------------------------- k-diffusion


def _k_diffusion(path: str) -> Iterator[tuple[str, Walk]]:
    sampling = _sampling_of_k_diffusion()
    lowest, highest = (SIGMA_MIN, SIGMA_MAX) if path == "edm" else (0.01, 157.4)
    grids = {
        "karras": lambda n: sampling.get_sigmas_karras(n, lowest, highest),
        "exponential": lambda n: sampling.get_sigmas_exponential(n, lowest, highest),
        "polyexponential 1.5": lambda n: sampling.get_sigmas_polyexponential(
            n, lowest, highest, 1.5
        ),
    }
    if path == "vp":
        grids["vp"] = lambda n: sampling.get_sigmas_vp(n)
    for name in ("euler", "heun", "dpm_2", "lms", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde"):
        for grid, sigmas in grids.items():
            yield f"{name}, {grid}", _k_walk(getattr(sampling, f"sample_{name}"), sigmas, name)


def _sampling_of_k_diffusion() -> Any:
    """Import the samplers without the rest of the package, which pulls in training tools."""
    spec = find_spec("k_diffusion")
    if "k_diffusion" not in sys.modules and spec is not None:
        package: Any = types.ModuleType("k_diffusion")
        package.__path__ = list(spec.submodule_search_locations or [])
        utils: Any = types.ModuleType("k_diffusion.utils")
        utils.append_dims = lambda x, dims: x[(..., *[None] * (dims - x.ndim))]
        package.utils, package.__spec__ = utils, spec
        sys.modules.update({"k_diffusion": package, "k_diffusion.utils": utils})
    return importlib.import_module("k_diffusion.sampling")


def _k_walk(sampler: Any, sigmas: Any, name: str) -> Walk:
    def walk(network: Network, noise: Tensor, evaluations: int) -> Tensor | None:
        steps = (evaluations + 1) // 2 if name in ("heun", "dpm_2") else evaluations

        def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
            alpha = torch.rsqrt(1 + sigma[:1].double() ** 2)  # its states are xt / alpha
            return network(x.double() * alpha, alpha, alpha * sigma[:1])

        levels = sigmas(steps).double()
        options = {"eta": 0.0} if name.endswith("sde") else {}
        return sampler(model, noise * float(levels[0]), levels, disable=True, **options)

    return walk


# ----------------------------------------------------------------------------- azula


def _azula(path: str) -> Iterator[tuple[str, Walk]]:
    noise, sample = (importlib.import_module(f"azula.{one}") for one in ("noise", "sample"))
    schedules = {
        "vp": {"VPSchedule": noise.VPSchedule(0.00635, 1e-2),
               "CosineSchedule": noise.CosineSchedule(0.00635, 1e-2)},
        "flow": {"RectifiedSchedule": noise.RectifiedSchedule(),
                 "DecaySchedule .1": noise.DecaySchedule(gamma=0.1),
                 "DecaySchedule .5": noise.DecaySchedule(gamma=0.5)},
        "edm": {"VESchedule": noise.VESchedule(SIGMA_MIN, SIGMA_MAX)},
    }[path]  # fmt: skip
    for name in ("DDIM", "Euler", "Heun", "zAB", "vAB", "zEAB", "xEAB", "REAB"):
        for order in (2, 3) if name.endswith("AB") else (1,):
            for grid, schedule in schedules.items():
                kind = getattr(sample, f"{name}Sampler")
                yield f"{name}-{order}, {grid}", _azula_walk(kind, order, schedule)


def _azula_walk(kind: Any, order: int, schedule: Any) -> Walk:
    def walk(network: Network, noise: Tensor, evaluations: int) -> Tensor | None:
        denoise = importlib.import_module("azula.denoise")

        class Exact(denoise.Denoiser):
            def __init__(self) -> None:
                super().__init__()
                self.schedule = schedule

            def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
                alpha, sigma = schedule(t)
                return denoise.DiracPosterior(network(x_t, alpha.reshape(1), sigma.reshape(1)))

        double = kind.__name__ == "HeunSampler"
        options = {"order": order} if order > 1 else {}
        # The last evaluation is the x0 estimate at the cleanest level, as elsewhere.
        steps = (evaluations - 1) // 2 if double else evaluations - 1
        sampler = kind(Exact(), steps=steps, silent=True, dtype=torch.float64, **options)
        alpha, sigma = schedule(sampler.timesteps[0])
        end = sampler(noise * torch.hypot(alpha, sigma))
        return network(end, *(one.reshape(1) for one in schedule(sampler.timesteps[-1])))

    return walk


def walked(walk: Walk, network: Network, noise: Tensor, evaluations: int) -> Tensor | None:
    """Return the end of a walk; None where the system refuses it or leaves the numbers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            end = walk(network, noise, evaluations)
    except Exception:  # whatever a peer raises for so few steps
        return None
    return end if end is not None and math.isfinite(float(end.abs().max())) else None
