"""A published model's scheduler, by the names of diffusers' ``scheduler_config.json``.

It fixes what sampler and spacing leave open: the exact timesteps, the level that sampling ends at,
the order of the last step, and how estimates are clipped. A model's recipe holds it under
``sampling: {scheduler: ...}``, and ``sampler: scheduler``, ``timestep_spacing: scheduler`` use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from multidiff.core.gaussian.flow import flow_match_timesteps
from multidiff.core.gaussian.multistep import DEIS, UniPC
from multidiff.core.gaussian.posterior import ReverseVariance
from multidiff.core.gaussian.published_samplers import PLMS, TCD, FirstOrderUniPC, WithLastStep
from multidiff.core.gaussian.samplers import DDIM, DDPM, DPMSolverPP, Heun
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.stochastic import ConsistencySampler, DPMSolverPPSDE
from multidiff.core.gaussian.table_timesteps import lcm_timesteps, table_timesteps
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.projections import clip, dynamic_threshold
from multidiff.core.protocols import Projection, Sampler

Kind = Literal[
    "DDIM", "DDPM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete",
    "LMSDiscrete", "DPMSolverMultistep", "UniPCMultistep", "DEISMultistep", "LCM", "TCD",
    "FlowMatchEulerDiscrete",
]  # fmt: skip
# Their times may lie between two steps, and their ratios are interpolated.
FRACTIONAL = ("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete")
# They place their steps as one step more would be, without the cleanest.
INNER = ("DPMSolverMultistep", "UniPCMultistep", "DEISMultistep")
DISTILLED = ("LCM", "TCD")
FLOW = "FlowMatchEulerDiscrete"
# With fewer steps than this, lower_order_final makes the last one of first order.
FEW_STEPS = 15


@dataclass(frozen=True)
class SchedulerConfig:
    """A scheduler of the diffusers library, by the names of its own configuration.

    Attributes:
        kind: name of its class, without "Scheduler".
        timestep_spacing: position of the timesteps on the table (Lin et al. 2023, table 2).
        steps_offset: number of timesteps by which leading ones are moved towards the noise.
        set_alpha_to_one: whether sampling ends at the clean level, or at the first timestep's.
        final_sigmas_type: the same for the schedulers of sigmas: zero or sigma_min.
        use_karras_sigmas: whether ratios are spaced as in Karras et al. 2022 (eq. 5).
        algorithm_type: "sde-dpmsolver++" draws noise.
        solver_order: order of DPM-Solver++: 1 (DDIM) or 2.
        lower_order_final: whether the last of fewer than 15 steps is of first order.
        euler_at_final: whether the last step always is.
        variance_type: variance of DDPM's steps.
        original_inference_steps: number of steps that a distilled model was trained on.
        eta: TCD's fraction of each step that is noise.
        clip_sample: whether estimates are clipped, to ``clip_sample_range``.
        clip_sample_range: largest absolute value then.
        thresholding: whether large estimates are scaled down (Saharia et al. 2022).
        dynamic_thresholding_ratio: quantile of the absolute values for that.
        sample_max_value: largest value of that quantile.
        shift: factor by which FlowMatchEulerDiscrete moves times towards the noise.
    """

    kind: Kind
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "linspace"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    use_karras_sigmas: bool = False
    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++"
    solver_order: Literal[1, 2] = 2
    lower_order_final: bool = True
    euler_at_final: bool = False
    variance_type: Literal["fixed_small", "fixed_large", "learned"] = "fixed_small"
    original_inference_steps: int = 50
    eta: float = 0.3
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    shift: float = 1.0

    def __str__(self) -> str:
        """Return the class and its options that differ from this class's defaults."""
        changed = [
            f"{one.name}={getattr(self, one.name)}"
            for one in dataclasses.fields(self)[1:]
            if getattr(self, one.name) != one.default
        ]
        return " ".join([f"{self.kind}Scheduler", *changed])

    def times(self, num_steps: int) -> TimestepSchedule:
        """Return the timesteps, with the level at which sampling ends."""
        if self.kind == FLOW:
            return flow_match_timesteps(num_steps, self.shift)
        final = "clean" if self._ends_clean else "first"
        if self.kind in DISTILLED:
            return lcm_timesteps(num_steps, self.original_inference_steps, final)
        return table_timesteps(
            num_steps,
            self.timestep_spacing,
            offset=self.steps_offset,
            final=final,
            fractional=self.kind in FRACTIONAL,
            inner=self.kind in INNER,
            karras=self.use_karras_sigmas,
        )

    @property
    def _ends_clean(self) -> bool:
        if self.kind in ("DDIM", "PNDM"):
            return self.set_alpha_to_one
        return self.kind not in ("DEISMultistep", "TCD") and self.final_sigmas_type == "zero"

    def start_scale(self, level: NoiseLevel) -> float:
        """Return the standard deviation of the noise where sampling starts.

        Args:
            level: the first level.
        """
        scaled = self.kind in FRACTIONAL and self.timestep_spacing != "leading"
        return float(level.sigma[0]) if scaled else 1.0

    def sampler(self, num_steps: int, visited: int) -> Sampler:
        """Return the rule for one step.

        Args:
            num_steps: number of steps of the whole timestep schedule.
            visited: number of its steps that are made, fewer if an image is given to start from.
        """
        few = self.lower_order_final and num_steps < FEW_STEPS
        builders: dict[str, Callable[[], Sampler]] = {
            "DDIM": DDIM,
            "DDPM": lambda: DDPM(VARIANCES[self.variance_type]),
            "PNDM": PLMS if num_steps > 1 else DDIM,
            "EulerDiscrete": DDIM,
            FLOW: DDIM,
            "EulerAncestralDiscrete": lambda: DDIM(eta=1.0),
            "HeunDiscrete": lambda: Heun("noise"),
            "LMSDiscrete": lambda: DEIS(4, rho=1.0, extrapolates_to_clean=True),
            "DPMSolverMultistep": lambda: self._dpm_solver(few or self.euler_at_final, visited),
            "UniPCMultistep": lambda: self._unipc(visited),
            "DEISMultistep": lambda: _ending(few, DEIS(2, rho=float("inf")), DDIM(), visited),
            "LCM": ConsistencySampler,
            "TCD": lambda: TCD(self.eta),
        }
        return builders[self.kind]()

    def _dpm_solver(self, lower: bool, visited: int) -> Sampler:
        kind = DPMSolverPPSDE if self.algorithm_type.startswith("sde") else DPMSolverPP
        return DDIM() if self.solver_order == 1 else _ending(lower, kind(), kind(), visited)

    def _unipc(self, visited: int) -> Sampler:
        sampler, last = (kind(2, first_by_mean=True) for kind in (UniPC, FirstOrderUniPC))
        if not self.lower_order_final:
            return sampler
        return WithLastStep(sampler, last, visited, remembers=True)

    def projection(self) -> Projection | None:
        """Return the projection of estimates; None if they are neither clipped nor scaled."""
        keep_noise = self.kind == "DDIM"
        if self.thresholding:
            return dynamic_threshold(
                self.dynamic_thresholding_ratio, 1.0, self.sample_max_value, keep_noise=keep_noise
            )
        if not self.clip_sample:
            return None
        return clip(-self.clip_sample_range, self.clip_sample_range, keep_noise=keep_noise)


VARIANCES: dict[str, ReverseVariance] = {
    "fixed_small": "small",
    "fixed_large": "large",
    "learned": "learned",
}


def _ending(lower: bool, sampler: Sampler, last: Sampler, visited: int) -> Sampler:
    return WithLastStep(sampler, last, visited) if lower else sampler
