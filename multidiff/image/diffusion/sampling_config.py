"""Sampling options of Gaussian-diffusion image models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from multidiff.config.option_set import flag, option
from multidiff.core.gaussian.sampler_registry import SAMPLERS
from multidiff.core.gaussian.schedules import NoiseLevel, NoiseSchedule
from multidiff.core.gaussian.table_timesteps import lcm_timesteps
from multidiff.core.gaussian.timesteps import TimestepSchedule, uniform_timesteps
from multidiff.core.protocols import Projection, Sampler
from multidiff.image.diffusion.scheduler import FLOW, INNER, SchedulerConfig
from multidiff.models.sampling_config import SPACINGS, GaussianSamplingConfig, Spacing
from multidiff.utils.errors import InputError

# Name of the model's own scheduler among samplers and spacings.
SCHEDULER = "scheduler"
# Samplers that are right on the spacing of Stable Diffusion 1, which ends before the clean level.
FIRST_ORDER = ("ddim", "ddpm", "euler", "euler-ancestral", "plms")
ImageSpacing = Literal[Spacing, "lcm", "scheduler"]
IMAGE_SPACINGS = {**SPACINGS, "lcm": lcm_timesteps}


@dataclass(frozen=True)
class ImageSamplingConfig(GaussianSamplingConfig):
    """Options of sampling.

    Attributes:
        steps: number of reverse steps.
        sampler: name in :mod:`multidiff.core.gaussian.sampler_registry`, or "scheduler".
        guidance_scale: scale of classifier-free guidance; 1 is off.
        timestep_spacing: see :class:`~multidiff.models.sampling_config.GaussianSamplingConfig`;
            also "lcm", the timesteps of distilled models, and "scheduler". Where another sampler
            replaces a published model's own and no spacing is given, it is one that suits.
        rescale: fraction by which guided predictions are brought back to the standard deviation
            of the conditional ones, 0 to 1 (Lin et al. 2023, section 3.4).
        style_guidance_scale: scale of guidance by the style of a prompt, where it is to differ
            from that by the words; costs a third evaluation.
        literal_prompts: whether brackets in prompts of Stable Diffusion are text; otherwise they
            are weights (see :mod:`~multidiff.image.prompt_weights`).
        strength_of: what a strength is a fraction of: the time, from where all steps are made, or
            the steps, of which only that fraction is made (diffusers).
        scheduler: a published model's scheduler, which the name "scheduler" stands for.
        replaces: scheduler of a published model that these options replace, and what of it is
            not reproduced; empty for none. It is stored in images' files.
    """

    sampler: str = option(
        "ddim",
        "rule for one reverse step",
        choices=(*SAMPLERS, SCHEDULER),
        note="scheduler is the published model's own",
    )
    timestep_spacing: ImageSpacing = option(
        "even", "spacing of the times", choices=(*IMAGE_SPACINGS, SCHEDULER)
    )  # pyright: ignore[reportIncompatibleVariableOverride]

    rescale: float = option(
        0.0, "fraction of guidance rescale (Lin et al. 2023)", least=0, most=1, note="0 is off"
    )
    style_guidance_scale: float | None = option(
        None, "scale of guidance by a prompt's style", least=0, note="by default that of the words"
    )
    literal_prompts: bool = option(
        False, "brackets in prompts are text", note="otherwise (words:1.2) are weights"
    )
    strength_of: str = option(
        "time",
        "what --strength is a fraction of",
        choices=("time", "steps"),
        note="steps makes fewer, as diffusers does",
    )
    scheduler: SchedulerConfig | None = None
    replaces: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sampler", "timestep_spacing"):
            if getattr(self, name) == SCHEDULER and self.scheduler is None:
                raise InputError(f"{flag(name)} {SCHEDULER}: this model has none; choose a name")
        if self.rescale and self.guides_style_apart:
            raise InputError("--rescale: not beside --style-guidance-scale; leave one of them out")

    @property
    def guides_style_apart(self) -> bool:
        """Return whether the style's guidance has a scale of its own."""
        return self.style_guidance_scale not in (None, self.guidance_scale)

    @property
    def is_guided(self) -> bool:
        """Return whether there is guidance."""
        return self.guidance_scale != 1 or self.guides_style_apart

    def with_overrides(self, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Self:
        """See :class:`~multidiff.config.option_set.OptionSet`; a new sampler gets its spacing."""
        named = {**self.overrides, **overrides}
        if "sampler" in overrides and "timestep_spacing" not in named:
            values = {**values, "timestep_spacing": self._spacing_of(overrides["sampler"])}
        return super().with_overrides(values, overrides)

    def _spacing_of(self, sampler: str) -> str:
        """Return a spacing on which a sampler is right: the present one, if it is."""
        own = self.timestep_spacing
        if own not in (SCHEDULER, "leading") or sampler == SCHEDULER:
            return SCHEDULER if sampler == SCHEDULER else own
        if sampler == "lcm":
            return "lcm"
        ends_clean = (
            own == SCHEDULER
            and self.scheduler is not None
            and self.scheduler.kind in (*INNER, FLOW)
        )
        return own if ends_clean or sampler in FIRST_ORDER else "trailing"

    def times(self, schedule: NoiseSchedule) -> TimestepSchedule:
        """See :class:`~multidiff.models.sampling_config.GaussianSamplingConfig`."""
        own = self.scheduler if self.timestep_spacing == SCHEDULER else None
        find = IMAGE_SPACINGS[self.timestep_spacing] if own is None else own.times
        try:
            return self._checked(find(self.steps), schedule)
        except ValueError as error:
            raise InputError(f"--steps {self.steps}: {error}") from error

    def build_sampler(self, visited: int | None = None) -> Sampler:
        """Return the rule for one step.

        Args:
            visited: number of steps that are made; ``steps`` by default.
        """
        if self.sampler == SCHEDULER and self.scheduler is not None:
            return self.scheduler.sampler(self.steps, visited or self.steps)
        return SAMPLERS[self.sampler]()

    def projection(self, usual: Projection | None) -> Projection | None:
        """Return the scheduler's projection of estimates; the usual one without a scheduler."""
        own = self.scheduler if self.sampler == SCHEDULER else None
        return usual if own is None else own.projection()

    def start_scale(self, level: NoiseLevel) -> float:
        """Return the standard deviation of the noise at the first level, as the scheduler has it.

        Args:
            level: that level.
        """
        own = self.scheduler if self.sampler == self.timestep_spacing == SCHEDULER else None
        return 1.0 if own is None else own.start_scale(level)

    def times_from(self, strength: float, schedule: NoiseSchedule) -> TimestepSchedule:
        """Return the times from an intermediate time on, spaced as in the full number of steps.

        Args:
            strength: first time; 1 is pure noise.
            schedule: noise schedule of the process.

        Raises:
            InputError: if the schedule has no such times.
        """
        if self.strength_of == "steps":
            return self._last_times(strength, schedule)
        if strength == 1:
            return self.times(schedule)
        return uniform_timesteps(self.steps, strength)

    def _last_times(self, strength: float, schedule: NoiseSchedule) -> TimestepSchedule:
        count = min(int(self.steps * strength), self.steps)
        if count < 1:
            raise InputError(
                f"--strength {strength:g} of --steps {self.steps} makes no step: give at least "
                f"{1 / self.steps:g}, or leave out --strength-of"
            )
        return self.times(schedule).tail(count)
