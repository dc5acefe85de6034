"""The samplers of Gaussian processes by the names that recipes and ``--sampler`` use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from multidiff.core.gaussian.adaptive import RK45
from multidiff.core.gaussian.multistep import DEIS, AdamsBashforth, FlowABM, UniPC
from multidiff.core.gaussian.published_samplers import PLMS
from multidiff.core.gaussian.samplers import DDIM, DDPM, DPMSolverPP, Heun
from multidiff.core.gaussian.stochastic import ConsistencySampler, DPMSolverPPSDE, EDMChurn
from multidiff.core.protocols import Sampler

SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "euler": DDIM,  # of the probability flow in sigma / alpha: the same step
    "euler-ancestral": partial(DDIM, eta=1.0),
    "heun": Heun,
    "edm-churn": EDMChurn,
    "dpm++": DPMSolverPP,
    "dpm++3m": partial(AdamsBashforth, order=3),
    "dpm++sde": DPMSolverPPSDE,
    "unipc": UniPC,
    "unipc3": partial(UniPC, order=3),
    "deis": DEIS,
    "lms": partial(DEIS, order=4, rho=1.0),
    "plms": PLMS,
    "abm": FlowABM,
    "rk45": RK45,
    "lcm": ConsistencySampler,
}
