"""Image models by Gaussian diffusion, in pixels or in latents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor, nn

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
from multidiff.image.data.image_files import from_unit, pad_to_multiple
from multidiff.image.diffusion.dit import DiT
from multidiff.image.diffusion.domains import LatentDomain, PixelDomain
from multidiff.image.diffusion.fit import check_fit, checked_size
from multidiff.image.diffusion.inpainting import (
    InpaintingDenoiser,
    input_channels,
    mask_and_image,
)
from multidiff.image.diffusion.mmdit import MMDiT
from multidiff.image.diffusion.prompt_unet import PromptUNet
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.diffusion.starts import CheckedRequest, Size, first_states, state_of
from multidiff.image.diffusion.unet import UNet
from multidiff.image.generation import (
    OnBatch,
    Part,
    Seed,
    check_guidance,
    check_negatives,
    check_precision,
    checked_negatives,
    in_batches,
)
from multidiff.image.stable_diffusion.lora_training import ImageLoRA, LoraTask
from multidiff.image.variations import Variation
from multidiff.models.base import DomainModel
from multidiff.models.requests import one_each
from multidiff.utils.errors import InputError

__all__ = ["STRENGTH", "Canvas", "ImageDiffusion", "Size"]

logger = logging.getLogger(__name__)


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
        lora: what training changes in place of the weights; None for the weights.

    Raises:
        ValueError: if domain, denoiser and sampling options do not fit each other.
    """

    domain: PixelDomain | LatentDomain
    writes_files = True  # even if the lines about them are not read
    half_parts = ("denoiser.", "domain.text_encoder.")  # weights that may have half precision

    def __init__(
        self,
        domain: PixelDomain | LatentDomain,
        process: GaussianProcess,
        denoiser: UNet | DiT | MMDiT | ScaledInput | PromptUNet,
        sampling: ImageSamplingConfig | None = None,
        drop_condition: float | Mapping[str, float] = 0.0,
        subjects: tuple[str, ...] = (),
        distillation: Distillation | None = None,
        lora: ImageLoRA | None = None,
    ):
        check_fit(domain, denoiser, process.learns_variance)
        super().__init__(domain)
        reads_text = getattr(domain, "text_encoder", None) is not None
        self.pipeline_tag = "text-to-image" if reads_text else "unconditional-image-generation"
        self.subjects = subjects or getattr(domain, "classes", ())
        self.process, self.denoiser = process, denoiser
        self.sampling = ImageSamplingConfig() if sampling is None else sampling
        self.drop_condition, self.distillation, self.lora = drop_condition, distillation, lora
        if lora is not None and distillation is not None:
            raise ValueError("lora and distillation: a student trains its weights; leave one out")
        check_guidance(self.sampling.guidance_scale, domain.reads)
        if distillation is not None:
            check_guidance(distillation.guidance_scale, domain.reads)

    @property
    def inpaints(self) -> bool:
        """Return whether the network reads a mask and the rest of the image."""
        if not isinstance(self.domain, LatentDomain):
            return False
        latents = self.domain.autoencoder.latent_channels
        return self.denoiser.in_channels == input_channels(latents)

    def task(self) -> DiffusionTask:
        """Return the training task: of a student, of a copy of the weights now, or of a LoRA."""
        if self.inpaints:
            raise InputError("inpainting models are not trained here, only sampled")
        if self.lora is not None:
            return LoraTask(self, self.lora)
        if self.distillation is None:
            return DiffusionTask(self.domain, self.process, self.denoiser, self.drop_condition)
        return DistillationTask(
            self.domain,
            self.process,
            self.denoiser,
            self.distillation,
            negative=partial(self._negative, None),
            project=self.projection(),
        )

    def offloaded_parts(self) -> dict[str, tuple[nn.Module, list[nn.Module]]]:
        """Return the parts that compute one after the other; empty for pixels."""
        if not isinstance(self.domain, LatentDomain):
            return {}
        coder, text = self.domain.autoencoder, self.domain.text_encoder
        parts: dict[str, tuple[nn.Module, list[nn.Module]]] = {
            "denoiser": (self.denoiser, [self.denoiser]),
            "autoencoder": (coder, [coder.encoder, coder.post_quant_conv]),
        }
        return parts if text is None else {**parts, "text encoder": (text, [text])}

    def sampling_calls(self) -> dict[str, Callable[[], Tensor]]:
        """Return the calls that sampling one image makes, by part, to estimate their cost."""
        config, domain = self.sampling, self.domain
        count = 1 if config.guidance_scale == 1 else 2
        level = self.process.levels(config.times(self.process.schedule))[0]
        _, channels, *sides = domain.state_shape(1, domain.size)
        named = [next(iter(domain.classes), "")] * count

        def denoise() -> Tensor:
            condition = domain.condition(named, domain.size)
            xt = torch.zeros(count, self.denoiser.in_channels, *sides)
            return self.denoiser(xt, level.expand(count), condition)

        calls = {"denoiser": denoise}
        if isinstance(domain, LatentDomain):
            latent = torch.zeros(1, channels, *sides)
            calls["autoencoder"] = lambda: domain.autoencoder.decode_unchecked(latent)
        return calls

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        return {"kind": "images", "channels": str(self.domain.channels)}

    @torch.no_grad()
    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str | None] | None = None,
        size: Size | None = None,
        canvas: Canvas | None = None,
        seed: Seed = 0,
        config: ImageSamplingConfig | None = None,
        batch_size: int = 16,
        on_step: Callable[[Step], None] | None = None,
        on_batch: OnBatch | None = None,
        variation: Variation | None = None,
        on_latents: OnBatch | None = None,
        **overrides: Any,
    ) -> UInt8[Tensor, "count channels height width"]:
        """Generate an image for each prompt.

        Args:
            prompts: captions, or names of classes; empty texts for a model without either. A
                single text is one prompt.
            negative_prompt: caption that guidance leads away from; one for all, or one each.
                Stable Diffusion XL distinguishes an empty one from none.
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
            variation: noise of other seeds that each image's own is mixed with.
            on_latents: function called before ``on_batch`` with the index and the final states.
            **overrides: single options that replace the config's, by the names of
                :class:`~multidiff.image.diffusion.sampling_config.ImageSamplingConfig`.

        Raises:
            InputError: if the model cannot fulfil the request.
            TypeError: if an option is unknown.
        """
        prompts = one_each(prompts, str, "prompt")
        self.domain.check_prompts(prompts)
        config = self.checked_config((config or self.sampling).replace(**overrides))
        size = checked_size(self.domain, size, canvas)
        if canvas is not None:
            canvas.check_count(len(prompts))
        strength = 1.0 if canvas is None else canvas.strength
        times = config.times_from(strength or 1.0, self.process.schedule)
        negatives = checked_negatives(negative_prompt, len(prompts))
        check_negatives(negatives, config.is_guided, self.domain.reads)
        if variation is not None and len(variation.seeds) != len(prompts):
            raise InputError(f"{len(variation.seeds)} variation seeds for {len(prompts)} prompts")
        request = CheckedRequest(config, times, size, negatives, canvas, variation)
        make = partial(self._made, request=request, on_step=on_step, on_latents=on_latents)
        pieces = [self.pieces(pair, config) for pair in zip(prompts, negatives, strict=True)]
        return in_batches(make, prompts, seed, batch_size, on_batch, pieces.__getitem__)

    def _made(
        self,
        part: Part,
        request: CheckedRequest,
        on_step: Callable[[Step], None] | None,
        on_latents: OnBatch | None,
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Generate the images of one batch."""
        canvas = None if request.canvas is None else request.canvas.rows(part.rows)
        shape = self.domain.state_shape(len(part.prompts), request.size)
        if canvas is not None and canvas.strength == 0:
            if on_latents is not None:
                on_latents(part.rows.start, state_of(self, canvas).expand(shape))
            return canvas.image.expand(len(part.prompts), -1, -1, -1).clone()
        rng, negatives = generators(part.seeds), request.negatives[part.rows]
        pieces = self.pieces([part.prompts[0], negatives[0]], request.config)
        state = sample(
            self.process,
            self.guided(request.config, negatives, pieces, request.size, canvas),
            request.config.build_sampler(request.times.num_steps),
            shape,
            request.times,
            condition=self.condition(part.prompts, pieces, request.config, request.size),
            project=self.projection(canvas, shape, request.config),
            rng=rng,
            start=first_states(self, request, part, canvas, shape, rng),
            device=self.device,
            on_step=on_step,
        )
        if on_latents is not None:
            on_latents(part.rows.start, state)
        made = from_unit(self.domain.to_image(state, request.size)).cpu()
        opacity = None if canvas is None else canvas.opacity()
        if canvas is None or opacity is None:
            return made
        kept, opacity = canvas.image.cpu().float(), opacity.cpu()
        return torch.lerp(kept, made.float(), opacity).round().to(torch.uint8)

    def condition(
        self,
        prompts: list[str],
        pieces: int = 1,
        config: ImageSamplingConfig | None = None,
        size: Size | None = None,
    ) -> Condition:
        """Return the denoiser's condition for prompts, on the model's device.

        Args:
            prompts: prompt of each sample.
            pieces: number of pieces of each that a text encoder reads one by one.
            config: sampling options; the model's own by default.
            size: width and height of the images, the model's by default.
        """
        found = self.domain
        if isinstance(found, LatentDomain):
            weighted = not (config or self.sampling).literal_prompts
            condition = found.prompted(prompts, pieces, weighted, size)
        else:
            condition = found.condition(prompts)
        return map_condition(lambda one: one.to(self.device), condition)

    def pieces(self, prompts: Sequence[str | None], config: ImageSamplingConfig) -> int:
        """Return the number of pieces that a text encoder reads the longest of prompts in."""
        if not isinstance(self.domain, LatentDomain):
            return 1
        weighted = not config.literal_prompts
        return max(self.domain.pieces(prompt or "", weighted) for prompt in prompts)

    def guided(
        self,
        config: ImageSamplingConfig,
        negatives: Sequence[str | None],
        pieces: int = 1,
        size: Size | None = None,
        canvas: Canvas | None = None,
    ) -> Denoiser:
        """Return the denoiser under classifier-free guidance.

        Args:
            config: sampling options.
            negatives: negative prompt of each sample, or None.
            pieces: see :meth:`condition`.
            size: see :meth:`condition`.
            canvas: image and mask, which inpainting networks read.
        """
        denoiser: Denoiser = self.denoiser
        if self.inpaints:
            beside = mask_and_image(self, canvas, size or self.domain.size)
            denoiser = InpaintingDenoiser(denoiser, beside)
        if not config.is_guided:
            return denoiser
        words, style = config.guidance_scale, config.style_guidance_scale
        away = self._negatives(negatives, pieces, config, size)
        if style is not None and config.guides_style_apart:
            return MultiConditionGuidance(denoiser, {"words": words, "style": style}, away)
        channels = self.denoiser.in_channels if self.process.learns_variance else None
        return ClassifierFreeGuidance(
            denoiser, words, rescale=config.rescale, negative=away, channels=channels
        )

    def _negative(self, prompt: str | None, count: int) -> Condition:
        return self._negatives([prompt] * count)

    def _negatives(
        self,
        prompts: Sequence[str | None],
        pieces: int = 1,
        config: ImageSamplingConfig | None = None,
        size: Size | None = None,
    ) -> Condition:
        """Return the condition that guidance leads away from; None for the null condition."""
        if self.domain.reads != "prompt":
            return None
        distinct = [*dict.fromkeys(prompts)]
        found = [self.condition([one or ""], pieces, config, size) for one in distinct]
        found = [
            self.domain.null_prompt(away) if one is None else away
            for one, away in zip(distinct, found, strict=True)
        ]
        rows = [distinct.index(prompt) for prompt in prompts]
        return map_condition(lambda *parts: torch.cat(parts)[rows], *found)

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
        check_precision(self.denoiser, half=True)
        if isinstance(self.domain, LatentDomain) and self.domain.text_encoder is not None:
            check_precision(self.domain.text_encoder, half=True)
        for line in () if self.distillation is None else self.distillation.misuses(config):
            logger.warning(line)
        return config

    def start_from(
        self, noise: Tensor, config: ImageSamplingConfig, times: TimestepSchedule
    ) -> Tensor:
        """Return noise of unit variance as states at the first level, on the model's device."""
        level = self.process.levels(times)[0]
        scale = config.start_scale(level)
        noise = self.process.start_at(noise, level)
        return (noise if scale == 1 else scale * noise).to(self.device)

    def projection(
        self,
        canvas: Canvas | None = None,
        shape: tuple[int, ...] = (),
        config: ImageSamplingConfig | None = None,
    ) -> Projection | None:
        """Return the projection of estimates: into [-1, 1] in pixels, onto a canvas where kept."""
        bounds = clip() if isinstance(self.domain, PixelDomain) else None
        bounds = (config or self.sampling).projection(bounds)
        projections = [] if bounds is None else [bounds]
        opacity = None if canvas is None or self.inpaints else canvas.opacity()
        if canvas is not None and opacity is not None:
            area = (opacity > 0).float()[None, None]
            free = pad_to_multiple(area, self.domain.pad_to)
            kept = 1 - F.adaptive_max_pool2d(free, shape[2:])  # kept only if all its pixels are
            projections.append(inpaint(state_of(self, canvas), kept))
        return compose(*projections) if projections else None
