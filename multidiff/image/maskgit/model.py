"""MaskGIT: images by masked tokens, all masked at first, in a few parallel steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from multidiff.core.discrete.absorbing import MaskProcess, nelbo
from multidiff.core.discrete.unmasking import unmask
from multidiff.core.guidance import ClassifierFreeGuidance
from multidiff.core.protocols import Denoiser
from multidiff.core.random import generators
from multidiff.core.task import DiffusionTask
from multidiff.image.canvas import checked_image, checked_mask
from multidiff.image.data.image_files import pad_to_multiple
from multidiff.image.generation import (
    OnBatch,
    Part,
    Seed,
    check_guidance,
    check_precision,
    in_batches,
)
from multidiff.image.maskgit.domain import ImageTokenDomain
from multidiff.image.maskgit.sampling_config import MaskGITSamplingConfig
from multidiff.models.base import DomainModel
from multidiff.nn.token_denoiser import SourceEncoder, TokenDenoiser
from multidiff.utils.errors import InputError

# Number of mask draws for each image whose likelihood is bounded.
LOOKS = 32


@dataclass(frozen=True)
class TokenDraft:
    """An image of which a part is inpainted.

    Attributes:
        image: bytes ``(1, channels, height, width)``.
        mask: ``(height, width)``, true where it is inpainted; numbers are converted by
            :func:`~multidiff.image.canvas.checked_mask`.

    Raises:
        InputError: if these are not an image and a mask, or do not fit each other.
    """

    image: UInt8[Tensor, "one channels height width"]
    mask: Bool[Tensor, "height width"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", checked_image(self.image))
        if len(self.image) != 1:
            raise InputError(f"a draft of {len(self.image)} images: give one, used for all")
        object.__setattr__(self, "mask", checked_mask(self.mask, self.image))


@dataclass(frozen=True)
class _TokenPlan:
    """One call of ``generate``, checked."""

    config: MaskGITSamplingConfig
    steps: int
    known: Int[Tensor, "one length"] | None
    draft: TokenDraft | None


class MaskGIT(DomainModel):
    """An image model by masked diffusion of tokens (Chang et al. 2022).

    Args:
        domain: images as tokens.
        process: process that the denoiser is trained on.
        denoiser: the network.
        sampling: default sampling options.
        drop_condition: fraction of the conditions that training drops, for guidance.
        subjects: prompt for each label of the data, for evaluation; by default the classes.

    Raises:
        ValueError: if these do not fit each other.
    """

    pipeline_tag = "unconditional-image-generation"
    domain: ImageTokenDomain
    writes_files = True  # even if the lines about them are not read

    def __init__(
        self,
        domain: ImageTokenDomain,
        process: MaskProcess,
        denoiser: TokenDenoiser,
        sampling: MaskGITSamplingConfig | None = None,
        drop_condition: float = 0.0,
        subjects: tuple[str, ...] = (),
    ):
        if len({domain.codes, process.size, denoiser.size}) > 1:
            raise ValueError(
                f"a codebook of {domain.codes} for a process of size {process.size} and a denoiser "
                f"of size {denoiser.size}: make them alike"
            )
        if denoiser.positions.num_embeddings != domain.length:
            raise ValueError(
                f"a denoiser of length {denoiser.positions.num_embeddings} for images of "
                f"{domain.length} tokens ({domain.grid[0]} rows): make them alike"
            )
        _check_reader(domain, denoiser.source)
        super().__init__(domain)
        self.process, self.denoiser = process, denoiser
        self.sampling = MaskGITSamplingConfig() if sampling is None else sampling
        self.drop_condition = drop_condition
        self.subjects = subjects or domain.classes
        check_guidance(self.sampling.guidance_scale, domain.reads)

    def task(self) -> DiffusionTask:
        """Return the training task."""
        return DiffusionTask(self.domain, self.process, self.denoiser, self.drop_condition)

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        return {"kind": "image tokens", "codes": str(self.domain.codes)}

    @torch.no_grad()
    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        draft: TokenDraft | None = None,
        seed: Seed = 0,
        config: MaskGITSamplingConfig | None = None,
        batch_size: int = 64,
        on_step: Callable[[int, Tensor], None] | None = None,
        on_batch: OnBatch | None = None,
        **overrides: Any,
    ) -> UInt8[Tensor, "count channels height width"]:
        """Generate an image for each prompt.

        Args:
            prompts: classes or captions; empty texts for a model without either. A single text is
                one prompt.
            draft: image of which a part is inpainted. Pixels outside the mask are returned to the
                bit, and tokens that lie wholly there are known.
            seed: random seed of the first image; image ``i`` uses ``seed + i``, or the i-th of
                several. None draws one from the system. An image depends only on its own seed,
                not on its batch.
            config: sampling options; the model's own, ``sampling``, by default.
            batch_size: number of images in a batch.
            on_step: function called with the steps done and the tokens after each step.
            on_batch: function called after each batch with the index of its first image and the
                images.
            **overrides: single options that replace the config's, by the names of
                :class:`~multidiff.image.maskgit.sampling_config.MaskGITSamplingConfig`.

        Raises:
            InputError: if the model cannot fulfil the request.
            TypeError: if an option is unknown.
        """
        config = (config or self.sampling).replace(**overrides)
        check_guidance(config.guidance_scale, self.domain.reads)
        check_precision(self)
        steps = config.token_steps(self.domain.length)
        plan = _TokenPlan(config, steps, None if draft is None else self.known(draft), draft)
        make = partial(self._made, plan=plan, on_step=on_step)
        return in_batches(make, prompts, seed, batch_size, on_batch)

    def _made(
        self, part: Part, plan: _TokenPlan, on_step: Callable[[int, Tensor], None] | None
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Generate the images of one batch."""
        shape = (len(part.prompts), self.domain.length)
        denoiser: Denoiser = self.denoiser
        if plan.config.guidance_scale != 1 and any(part.prompts):
            denoiser = ClassifierFreeGuidance(denoiser, plan.config.guidance_scale)
        tokens = unmask(
            self.process,
            denoiser,
            plan.config.unmasking_sampler(self.domain.grid),
            shape,
            plan.steps,
            condition=self.domain.condition(part.prompts),
            known=None if plan.known is None else plan.known.expand(shape),
            rng=generators(part.seeds),
            device=self.device,
            on_step=on_step,
        )
        made = self.domain.images(tokens).cpu()
        if plan.draft is None:
            return made
        return torch.where(plan.draft.mask.cpu(), made, plan.draft.image.cpu())

    def known(self, draft: TokenDraft) -> Int[Tensor, "one length"]:
        """Return the tokens of a draft, with the mask's number for tokens with any masked pixel.

        Raises:
            InputError: if the image's size or channels are not the model's.
        """
        channels, height, width = draft.image.shape[1:]
        if (width, height) != tuple(self.domain.size) or channels != self.domain.channels:
            wanted = "x".join(map(str, self.domain.size))
            raise InputError(
                f"an image of {width}x{height} with {channels} channels: this model generates "
                f"{wanted} with {self.domain.channels}; resize it"
            )
        painted = pad_to_multiple(draft.mask[None, None].float(), self.domain.pad_to)
        cells = nn.functional.max_pool2d(painted, self.domain.autoencoder.factor)
        tokens = self.domain.tokens(draft.image)
        return tokens.masked_fill(cells.flatten(1).to(tokens.device) > 0, self.process.size)

    @torch.no_grad()
    def nats_per_token(
        self,
        image: UInt8[Tensor, "batch channels height width"],
        prompts: Sequence[str],
        *,
        seed: int = 0,
        looks: int = LOOKS,
    ) -> Float[Tensor, " batch"]:
        """Return an upper bound on the cost of images, in nats a token, given their prompts.

        Args:
            image: images of the domain's size.
            prompts: prompt of each; empty without a condition.
            seed: random seed of the first image's masks; image ``i`` uses ``seed + i``.
            looks: number of evaluations for each image.
        """
        bound: Any = nelbo(
            self.process,
            self.denoiser,
            self.domain.tokens(image),
            self.domain.condition(list(prompts)),
            num_times=looks,
            rng=generators([seed + row for row in range(len(image))]),
        )
        return bound.per_token


def _check_reader(domain: ImageTokenDomain, reader: SourceEncoder | None) -> None:
    """Check that a network reads the domain's conditions.

    Raises:
        ValueError: if it does not.
    """
    sources = 0 if reader is None else reader.size
    if domain.reads == "prompt" and sources == 0:
        raise ValueError("a denoiser with sources 0 for captions: set the number of caption tokens")
    if sources < len(domain.classes) or (domain.reads == "nothing" and sources > 0):
        raise ValueError(
            f"a denoiser with sources {sources} for {len(domain.classes)} classes: set "
            f"sources: {len(domain.classes)}"
        )
    longest = 0 if domain.tokenizer is None else domain.tokenizer.length
    if reader is not None and reader.length < longest:
        raise ValueError(
            f"a denoiser of source_length {reader.length} for captions of {longest} tokens: make "
            "them alike"
        )
