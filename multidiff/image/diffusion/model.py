"""Image models by Gaussian diffusion, in pixels or in latents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from multidiff.core.gaussian.distillation import Distillation, DistillationTask
from multidiff.core.gaussian.edm import ScaledInput
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.guidance import ClassifierFreeGuidance, map_condition
from multidiff.core.joint.guidance import MultiConditionGuidance
from multidiff.core.projections import clip, compose, inpaint
from multidiff.core.protocols import Condition, Denoiser, Projection
from multidiff.core.random import generators
from multidiff.core.sample import Step, sample
from multidiff.core.task import DiffusionTask
from multidiff.image.canvas import STRENGTH, Canvas
from multidiff.image.data.image_files import from_unit, pad_to_multiple, to_unit
from multidiff.image.diffusion.domains import LatentDomain, PixelDomain
from multidiff.image.diffusion.prompt_unet import PromptUNet
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.diffusion.unet import UNet
from multidiff.image.generation import (
    OnBatch,
    Part,
    Seed,
    check_guidance,
    check_precision,
    in_batches,
    warn_of_size,
)
from multidiff.models.base import DomainModel
from multidiff.models.requests import one_each
from multidiff.utils.errors import InputError

__all__ = ["STRENGTH", "Canvas", "ImageDiffusion", "Size"]

logger = logging.getLogger(__name__)

Size = tuple[int, int]


@dataclass(frozen=True)
class _Request:
    """One call of ``generate``, checked."""

    config: ImageSamplingConfig
    times: TimestepSchedule
    size: Size
    negative_prompt: str
    canvas: Canvas | None


class ImageDiffusion(DomainModel):
    """An image model by Gaussian diffusion.

    Args:
        domain: codec between images and states, captions or classes and conditions.
        process: process that the denoiser is trained on.
        denoiser: the network.
        sampling: default sampling options.
        drop_condition: fraction of the classes that training drops, for guidance; of prompts
            one fraction for each part, ``{words: 0.1, style: 0.1}``. (Captions of latents are
            dropped by the domain.)
        subjects: prompt for each label of the data, for evaluation; by default the classes.
        distillation: settings of training as a few-step student of the weights that training
            starts from; None for training on the data themselves.

    Raises:
        ValueError: if domain, denoiser and sampling options do not fit each other.
    """

    domain: PixelDomain | LatentDomain
    writes_files = True  # even if the lines about them are not read

    def __init__(
        self,
        domain: PixelDomain | LatentDomain,
        process: GaussianProcess,
        denoiser: UNet | ScaledInput | PromptUNet,
        sampling: ImageSamplingConfig | None = None,
        drop_condition: float | Mapping[str, float] = 0.0,
        subjects: tuple[str, ...] = (),
        distillation: Distillation | None = None,
    ):
        _check_fit(domain, denoiser)
        super().__init__(domain)
        self.subjects = subjects or getattr(domain, "classes", ())
        self.process, self.denoiser = process, denoiser
        self.sampling = ImageSamplingConfig() if sampling is None else sampling
        self.drop_condition, self.distillation = drop_condition, distillation
        check_guidance(self.sampling.guidance_scale, domain.reads)
        if distillation is not None:
            check_guidance(distillation.guidance_scale, domain.reads)

    def task(self) -> DiffusionTask:
        """Return the training task: that of a student, of a copy of the weights now, if set."""
        if self.distillation is None:
            return DiffusionTask(self.domain, self.process, self.denoiser, self.drop_condition)
        return DistillationTask(
            self.domain,
            self.process,
            self.denoiser,
            self.distillation,
            negative=partial(self._negative, ""),
            project=self.projection(),
        )

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        return {"kind": "images", "channels": str(self.domain.channels)}

    @torch.no_grad()
    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        negative_prompt: str = "",
        size: Size | None = None,
        canvas: Canvas | None = None,
        seed: Seed = 0,
        config: ImageSamplingConfig | None = None,
        batch_size: int = 16,
        on_step: Callable[[Step], None] | None = None,
        on_batch: OnBatch | None = None,
        **overrides: Any,
    ) -> UInt8[Tensor, "count channels height width"]:
        """Generate an image for each prompt.

        Args:
            prompts: captions, or names of classes; empty texts for a model without either. A
                single text is one prompt.
            negative_prompt: caption that guidance leads away from.
            size: width and height in pixels; by default the canvas's or the model's.
            canvas: initial image (img2img), or one for each prompt, and the mask for inpainting.
                Pixels outside the mask are returned to the bit.
            seed: random seed of the first image; image ``i`` uses ``seed + i``, or the i-th of
                several. None draws one from the system. An image depends only on its own seed,
                not on its batch.
            config: sampling options; the model's own, ``sampling``, by default.
            batch_size: number of images in a batch.
            on_step: function called after each step of each batch.
            on_batch: function called after each batch with the index of its first image and the
                images.
            **overrides: single options that replace the config's, by the names of
                :class:`~multidiff.image.diffusion.sampling_config.ImageSamplingConfig`.

        Raises:
            InputError: if the model cannot fulfil the request.
            TypeError: if an option is unknown.
        """
        prompts = one_each(prompts, str, "prompt")
        self.domain.check_prompts(prompts)
        config = self.checked_config((config or self.sampling).replace(**overrides))
        size = self._checked_size(size, canvas)
        if canvas is not None:
            canvas.check_count(len(prompts))
        strength = 1.0 if canvas is None else canvas.strength
        times = config.times_from(strength or 1.0, self.process.schedule)
        request = _Request(config, times, size, negative_prompt, canvas)
        make = partial(self._made, request=request, on_step=on_step)
        return in_batches(make, prompts, seed, batch_size, on_batch)

    def _made(
        self, part: Part, request: _Request, on_step: Callable[[Step], None] | None
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Generate the images of one batch."""
        canvas = None if request.canvas is None else request.canvas.rows(part.rows)
        if canvas is not None and canvas.strength == 0:
            return canvas.image.expand(len(part.prompts), -1, -1, -1).clone()
        shape = self.domain.state_shape(len(part.prompts), request.size)
        rng = generators(part.seeds)
        state = sample(
            self.process,
            self.guided(request.config, request.negative_prompt, len(part.prompts)),
            request.config.build_sampler(),
            shape,
            request.times,
            condition=self.condition(part.prompts),
            project=self.projection(canvas, shape),
            rng=rng,
            start=self._begun(canvas, shape, rng),
            device=self.device,
            on_step=on_step,
        )
        made = from_unit(self.domain.to_image(state, request.size)).cpu()
        if canvas is None or canvas.mask is None:
            return made
        return torch.where(canvas.mask.cpu(), made, canvas.image.cpu())

    def condition(self, prompts: list[str]) -> Condition:
        """Return the denoiser's condition for prompts, on the model's device."""
        return map_condition(lambda one: one.to(self.device), self.domain.condition(prompts))

    def guided(self, config: ImageSamplingConfig, negative_prompt: str, count: int) -> Denoiser:
        """Return the denoiser under classifier-free guidance, for a number of samples."""
        words, style = config.guidance_scale, config.style_guidance_scale
        apart = style is not None and style != words
        if words == 1 and not apart:
            return self.denoiser
        away = self._negative(negative_prompt, count)
        if style is not None and apart:
            return MultiConditionGuidance(self.denoiser, {"words": words, "style": style}, away)
        channels = self.denoiser.in_channels if self.process.learns_variance else None
        return ClassifierFreeGuidance(
            self.denoiser,
            words,
            rescale=config.rescale,
            negative=away,
            channels=channels,
        )

    def _negative(self, prompt: str, count: int) -> Condition:
        """Return the condition that guidance leads away from; None for the null condition."""
        if self.domain.reads != "prompt":
            return None
        away = self.condition([prompt])
        return map_condition(lambda one: one.expand(count, *one.shape[1:]), away)

    def checked_config(self, config: ImageSamplingConfig) -> ImageSamplingConfig:
        """Return sampling options that the model can follow, and warn of what it was not made for.

        Raises:
            InputError: if it cannot, or its weights are not in float32.
        """
        check_guidance(config.guidance_scale, self.domain.reads)
        if config.style_guidance_scale is not None:
            if not isinstance(self.denoiser, PromptUNet):
                raise InputError("--style-guidance-scale: this model's prompts have no styles")
            if config.rescale:
                raise InputError("--rescale with --style-guidance-scale: leave one of them out")
        check_precision(self.denoiser)
        if isinstance(self.domain, LatentDomain) and self.domain.text_encoder is not None:
            check_precision(self.domain.text_encoder)
        for line in () if self.distillation is None else self.distillation.misuses(config):
            logger.warning(line)
        return config

    def _begun(
        self, canvas: Canvas | None, shape: tuple[int, ...], rng: list[torch.Generator]
    ) -> Tensor | None:
        """Return a canvas as noisy states; None if sampling starts from the prior."""
        if canvas is None or canvas.strength == 1:
            return None
        x0 = self._state_of(canvas).expand(shape)
        time = torch.full((shape[0],), canvas.strength, dtype=torch.float64)
        level = self.process.schedule.at(time).to(self.device)
        return self.process.corrupt(x0, level, rng).xt

    def _state_of(self, canvas: Canvas) -> Tensor:
        return self.domain.to_state(to_unit(canvas.image).to(self.device)).float()

    def projection(
        self, canvas: Canvas | None = None, shape: tuple[int, ...] = ()
    ) -> Projection | None:
        """Return the projection of estimates: into [-1, 1] in pixels, onto a canvas where kept."""
        projections = [clip()] if isinstance(self.domain, PixelDomain) else []
        if canvas is not None and canvas.mask is not None:
            free = pad_to_multiple(canvas.mask[None, None].float(), self.domain.pad_to)
            kept = 1 - F.adaptive_max_pool2d(free, shape[2:])  # kept only if all its pixels are
            projections.append(inpaint(self._state_of(canvas), kept))
        return compose(*projections) if projections else None

    def _checked_size(self, size: Size | None, canvas: Canvas | None) -> Size:
        if canvas is not None:
            channels, height, width = canvas.image.shape[1:]
            if channels != self.domain.channels:
                raise InputError(
                    f"the initial image has {channels} channels, not {self.domain.channels}"
                )
            if size is not None and size != (width, height):
                raise InputError(
                    f"--size {size[0]}x{size[1]}: the initial image has {width}x{height}; "
                    "remove the size, or resize the image"
                )
            size = (width, height)
        size = self.domain.size if size is None else size
        multiple = self.domain.multiple
        of = "" if canvas is None else " of the initial image"
        if min(size) < 1 or any(length % multiple for length in size):
            near = "x".join(str(max(round(n / multiple), 1) * multiple) for n in size)
            raise InputError(
                f"size {size[0]}x{size[1]}{of}: width and height must be multiples of {multiple}; "
                f"the nearest is {near}"
            )
        warn_of_size(size, self.domain.size)
        return size


def _check_fit(
    domain: PixelDomain | LatentDomain, denoiser: UNet | ScaledInput | PromptUNet
) -> None:
    """Check that the denoiser fits the domain's states and conditions.

    Raises:
        ValueError: if it does not.
    """
    states = domain.state_shape(1, domain.size)[1]
    reads, prediction = denoiser.in_channels, denoiser.out_channels
    if {reads, prediction} != {states}:
        raise ValueError(
            f"a denoiser of in_channels {reads} and out_channels {prediction} for states of "
            f"{states} channels: make them alike"
        )
    prompts = domain.tokenizer if isinstance(domain, PixelDomain) else None
    if isinstance(denoiser, PromptUNet):
        own = (denoiser.vocabulary, denoiser.styles, denoiser.length)
        known = prompts and (prompts.vocabulary, prompts.max_styles, prompts.length)
        if known != own:
            raise ValueError(
                f"a PromptUNet of vocabulary, styles and length {own} for prompts of {known}: make "
                "the domain's tokenizer and the denoiser alike"
            )
        return
    if prompts is not None:
        raise ValueError("the domain has a PromptTokenizer: the denoiser must be a PromptUNet")
    encoder = domain.text_encoder if isinstance(domain, LatentDomain) else None
    described = None if encoder is None else encoder.width
    if denoiser.condition_width != described:
        raise ValueError(
            f"a denoiser of condition_width {denoiser.condition_width} for conditions of width "
            f"{described}: make them alike"
        )
    classes = len(domain.classes) if isinstance(domain, PixelDomain) else 0
    if denoiser.classes != classes:
        raise ValueError(
            f"a denoiser of {denoiser.classes} classes for a domain of {classes}: make them alike"
        )
