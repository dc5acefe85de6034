"""Distillation of a trained model to a few evaluations: the student learns the teacher's flow map.

The probability flow of a teacher, guided or not, carries each noisy state ``xt`` to one clean state
``f(xt, t)``, the consistency function (Song et al. 2023, section 3). The student's x0 estimate
is regressed onto it. Its target is the end of the teacher's own trajectory from ``xt``, solved in a
few steps of DPM-Solver++(2M), as in knowledge distillation (Luhman & Luhman 2021), but from every
level that few-step sampling visits; no target of the student's own is involved, so errors do not
accumulate from level to level. With classifier-free guidance in the teacher the student needs none
(Meng et al. 2023): one evaluation a step instead of two.

The target is written as the clean state of a :class:`~multidiff.core.protocols.Corrupted`, so the
process's own objective is the loss, whatever its path and prediction.
:class:`~multidiff.core.gaussian.stochastic.ConsistencySampler` samples the student.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.context import SamplerContext
from multidiff.core.gaussian.predictions import noise_between
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DPMSolverPP
from multidiff.core.gaussian.schedules import NoiseLevel, clean_level
from multidiff.core.guidance import ClassifierFreeGuidance, map_condition
from multidiff.core.protocols import (
    Condition,
    Corrupted,
    Denoiser,
    Domain,
    Process,
    Projection,
    Sampler,
)
from multidiff.core.random import Rng, uniform
from multidiff.core.sample import traverse
from multidiff.core.task import DiffusionTask, device_type, dtype_beside, full_precision

# Name of ConsistencySampler in the registry of samplers.
SAMPLER = "lcm"


@dataclass(frozen=True)
class Distillation:
    """Settings of distillation.

    Attributes:
        guidance_scale: guidance scale of the teacher, which the student answers at; 1 is off.
        steps: largest number of steps that the student is sampled with. It learns the evenly
            spaced levels of this number and of those that divide it: 1, 2 and 4 for 4.
        teacher_steps: number of steps of the teacher from each of these levels to the clean one.
        points: number of states of a trajectory that the student learns from, evenly spaced from
            its start on; more cost little beside the teacher.

    Raises:
        ValueError: if a number is out of range, or the points are not evenly spaced.
    """

    guidance_scale: float = 1.0
    steps: int = 4
    teacher_steps: int = 8
    points: int = 4

    def __post_init__(self) -> None:
        for name in ("steps", "teacher_steps", "points"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: must be at least 1")
        if not self.guidance_scale >= 0:
            raise ValueError(f"guidance_scale {self.guidance_scale:g}: must be 0 or more")
        if self.teacher_steps % self.points:
            raise ValueError(
                f"points {self.points}: must divide teacher_steps {self.teacher_steps}, so that "
                "they are evenly spaced"
            )

    @property
    def counts(self) -> list[int]:
        """Numbers of steps that the student learns, all equally."""
        return [count for count in range(1, self.steps + 1) if self.steps % count == 0]

    def misuses(self, sampling: Any) -> list[str]:
        """Return a line for each sampling option that a student was not trained for.

        Args:
            sampling: options with ``steps``, ``sampler`` and ``guidance_scale``.
        """
        lines = []
        if sampling.guidance_scale != 1:
            lines.append(
                f"--guidance-scale {sampling.guidance_scale:g}: guidance is distilled into this "
                f"model, of scale {self.guidance_scale:g}; guiding it again exaggerates it"
            )
        if sampling.steps not in self.counts:
            counts = ", ".join(map(str, self.counts))
            lines.append(f"--steps {sampling.steps}: this model was distilled for {counts}")
        if sampling.sampler != SAMPLER:
            lines.append(
                f"--sampler {sampling.sampler}: this model estimates whole samples, which "
                f"--sampler {SAMPLER} expects"
            )
        return lines


class DistillationTask(DiffusionTask):
    """Training task of a student: regression onto the ends of a teacher's trajectories.

    Args:
        domain: codec between media and states; it is frozen.
        process: Gaussian process of teacher and student.
        denoiser: the student, usually with the teacher's weights at first.
        how: settings.
        teacher: network of the same process; a frozen copy of the student by default.
        negative: function that returns the condition that guidance leads away from, for a number
            of samples; the null condition by default.
        project: projection of the teacher's estimates, as in its own sampling.
        sampler: deterministic sampler of the teacher.

    Raises:
        ValueError: if the process is not Gaussian, learns its variance, or learns the distribution
            of its times.
    """

    process: GaussianProcess

    def __init__(
        self,
        domain: Domain,
        process: Process,
        denoiser: nn.Module,
        how: Distillation,
        *,
        teacher: nn.Module | None = None,
        negative: Callable[[int], Condition] | None = None,
        project: Projection | None = None,
        sampler: Sampler | None = None,
    ):
        _check_process(process)
        super().__init__(domain, process, denoiser)
        if isinstance(domain, nn.Module):
            domain.requires_grad_(False)
        self.how, self.negative, self.project = how, negative, project
        self.sampler = DPMSolverPP() if sampler is None else sampler
        found = copy.deepcopy(denoiser) if teacher is None else teacher
        self.teacher = found.requires_grad_(False).eval()

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return the loss of each trained state, ``points`` times as many as there are samples."""
        on = device_type(self.denoiser)
        with torch.no_grad():
            with full_precision(on):
                encoded = self._encoded(batch, rng)
                level = self._start(len(encoded.x0), rng).to(encoded.x0.device)
                xt = self.process.corrupt(encoded.x0, level, rng, encoded.mask).xt
            found = self.trajectory(xt, level, encoded.condition, encoded.mask)
        condition, mask = map_condition(self._each_point, (encoded.condition, encoded.mask))
        output = self.denoiser(found.xt, found.level, condition)
        with full_precision(on):
            loss = self.process.loss(output.to(dtype_beside(encoded.x0)), found, mask)
        return {"distillation": loss}

    def trajectory(
        self, xt: Tensor, level: NoiseLevel, condition: Condition = None, mask: Tensor | None = None
    ) -> Corrupted:
        """Return states of the teacher's trajectories from noisy states, with their ends as x0.

        Args:
            xt: states at ``level``, ``(batch, ...)``.
            level: a level for each.
            condition: their condition.
            mask: 1 at real positions.

        Returns:
            ``points`` times as many states, those of the same number of steps together.
        """
        steps, schedule = self.how.teacher_steps, self.process.schedule
        levels = [schedule.at(level.time * (1 - done / steps)) for done in range(steps)]
        # So that the sampler need not read them, for which a GPU would have to be waited for.
        levels[1:] = [replace(one, end="between") for one in levels[1:]]
        states = [xt]
        end = traverse(
            SamplerContext(self._masked(mask), self._guided(len(xt)), condition, self.project),
            self.sampler,
            [*levels, clean_level(len(xt)).to(xt.device)],
            xt,
            on_step=lambda step: states.append(step.state),
            check=False,
        )
        kept = range(0, steps, steps // self.how.points)
        time, alpha, sigma = zip(*(levels[number].parts() for number in kept), strict=True)
        here = NoiseLevel(torch.cat(time), torch.cat(alpha), torch.cat(sigma))
        x0, xt = self._each_point(end), torch.cat([states[number] for number in kept])
        return Corrupted(xt, x0, noise_between(xt, x0, here), here)

    def _start(self, batch: int, rng: Rng | None) -> NoiseLevel:
        """Draw a number of steps for each sample, and one of the levels that they visit."""
        draws = uniform((batch, 2), rng)
        which = torch.floor(draws[:, 0] * len(self.how.counts)).long()
        count = torch.tensor(self.how.counts, dtype=torch.float64, device=draws.device)[which]
        return self.process.schedule.at((torch.floor(draws[:, 1] * count) + 1) / count)

    def _guided(self, count: int) -> Denoiser:
        if self.how.guidance_scale == 1:
            return self.teacher
        return ClassifierFreeGuidance(
            self.teacher,
            self.how.guidance_scale,
            negative=None if self.negative is None else self.negative(count),
            parts=getattr(self.domain, "droppable", None),
        )

    def _each_point(self, one: Tensor) -> Tensor:
        return one.repeat(self.how.points, *[1] * (one.ndim - 1))


def check_alike(student: Any, teacher: Any) -> None:
    """Reject a teacher of another path or prediction: its outputs would be misread.

    Args:
        student: process of the student.
        teacher: process of the teacher.

    Raises:
        ValueError: if they differ, naming the difference.
    """
    _check_process(student)
    if not isinstance(teacher, GaussianProcess):
        raise ValueError("the teacher has no Gaussian process")
    time = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    level, its_level = student.schedule.at(time), teacher.schedule.at(time)
    if not all(map(torch.allclose, level.parts(), its_level.parts())):
        raise ValueError("the teacher has another noise schedule than the recipe")
    one = torch.ones(20, 1, dtype=torch.float64)
    probe = Corrupted(one, one, -0.5 * one, level)
    own, its = student.prediction, teacher.prediction
    if not torch.allclose(own.target(probe), its.target(probe)):
        raise ValueError(
            f"the teacher's prediction is {type(its).__name__}, the recipe's {type(own).__name__}"
        )


def _check_process(process: Any) -> None:
    problem = ""
    if not isinstance(process, GaussianProcess):
        problem = "only a Gaussian process has a probability flow"
    elif process.learns_variance:
        problem = "a few-step student draws no learned variance; set learns_variance=False"
    elif isinstance(process.times, nn.Module):
        problem = "it trains the levels that sampling visits; remove the process's times"
    if problem:
        raise ValueError(f"distillation of {type(process).__name__}: {problem}")
