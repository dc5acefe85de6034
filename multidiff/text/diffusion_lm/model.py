"""Text models by Gaussian diffusion of word embeddings (Diffusion-LM, Li et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from multidiff.core.gaussian.classifier_guidance import ClassifierGuidance
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.self_conditioning import SelfConditionedDenoiser, SelfConditioning
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.guidance import ClassifierFreeGuidance
from multidiff.core.projections import compose, inpaint
from multidiff.core.protocols import Sampler
from multidiff.core.sample import Step, sample
from multidiff.core.task import DiffusionTask
from multidiff.models.requests import Seed
from multidiff.text.data.vocabulary import PAD
from multidiff.text.diffusion_lm.denoiser import TextDenoiser
from multidiff.text.diffusion_lm.domain import EmbeddedDomain
from multidiff.text.domain import UNWRITTEN
from multidiff.text.model import OnText, TextModel
from multidiff.text.request import (
    Control,
    TextRequest,
    canvas_of,
    condition_of,
    laid_out,
)
from multidiff.text.sampling_config import TextSamplingConfig


@dataclass(frozen=True)
class _Plan:
    """One call of ``generate``, checked."""

    config: TextSamplingConfig
    times: TimestepSchedule
    control: Control | None


class TextDiffusion(TextModel):
    """A text model by Gaussian diffusion of embeddings.

    Args:
        domain: codec between texts and states.
        process: process that the denoiser is trained on.
        denoiser: the network.
        sampling: default sampling options.
        drop_condition: fraction of the conditions that training drops, for guidance.
        self_conditioning: fraction of the samples that receive their last estimate in training,
            for denoisers that read it.
        known: fraction of the texts of which training reveals some tokens, for infilling.
        classifier: name of the default model of classifier guidance.
    """

    domain: EmbeddedDomain
    process: GaussianProcess
    denoiser: TextDenoiser
    sampling: TextSamplingConfig

    def __init__(
        self,
        domain: EmbeddedDomain,
        process: GaussianProcess,
        denoiser: TextDenoiser,
        sampling: TextSamplingConfig | None = None,
        drop_condition: float = 0.0,
        self_conditioning: float = 0.5,
        known: float = 0.0,
        classifier: str | None = None,
    ):
        if denoiser.state_width != domain.width:
            raise ValueError(
                f"the denoiser's state_width {denoiser.state_width} is not the domain's width, "
                f"{domain.width}"
            )
        super().__init__(
            domain, process, denoiser, sampling or TextSamplingConfig(), drop_condition
        )
        self.classifier = classifier
        described = denoiser.self_conditioned
        self.memory = SelfConditioning(self_conditioning, known=known) if described else None

    @property
    def companions(self) -> dict[str, str]:
        """Return models that commands use with it, by option."""
        return {} if self.classifier is None else {"classifier": self.classifier}

    def task(self) -> DiffusionTask:
        """Return the training task."""
        return DiffusionTask(
            self.domain, self.process, self.denoiser, self.drop_condition, self.memory
        )

    def nats_per_token(
        self,
        texts: Sequence[str],
        meanings: Sequence[Mapping[str, str]],
        *,
        seed: int = 0,
        sources: Sequence[str] = (),
    ) -> dict[str, float]:
        """See :class:`TextModel` and :mod:`multidiff.text.diffusion_lm.likelihood`."""
        from multidiff.text.diffusion_lm.likelihood import nats_per_token

        return nats_per_token(self, texts, meanings, seed=seed, sources=sources)

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[TextRequest],
        *,
        control: Control | None = None,
        seed: Seed = 0,
        config: TextSamplingConfig | None = None,
        batch_size: int = 64,
        on_step: Callable[[Step], None] | None = None,
        on_text: OnText | None = None,
        **overrides: Any,
    ) -> list[str]:
        """Generate a text for each request.

        Args:
            requests: request for each text.
            control: classifier guidance towards attributes.
            seed: random seed of the first text; text ``i`` uses ``seed + i``, or the i-th of
                several. None draws one from the system. A text depends only on its own seed,
                not on its batch.
            config: sampling options; the model's own, ``sampling``, by default.
            batch_size: number of texts in a batch.
            on_step: function called after each step of each batch.
            on_text: function that receives each text in turn, once it and all before it are done.
            **overrides: single options that replace the config's, by the names of
                :class:`~multidiff.text.sampling_config.TextSamplingConfig`.

        Raises:
            InputError: if the model cannot fulfil the request.
            TypeError: if an option is unknown.
        """
        config = (config or self.sampling).replace(**overrides)
        if control is not None:
            control.classifier.check_fits(self.domain)
        plan = _Plan(config, config.times(self.process.schedule), control)
        make = partial(self._made, plan=plan, on_step=on_step)
        return self._texts(requests, seed, config.num_candidates, batch_size, make, on_text)

    def _made(
        self,
        requests: list[TextRequest],
        lengths: list[int],
        rng: list[torch.Generator],
        plan: _Plan,
        on_step: Callable[[Step], None] | None,
    ) -> list[str]:
        """Generate the texts of one batch, all on canvases of one size."""
        canvas = min(canvas_of(lengths[0]), self.domain.length)
        tokens, is_known = laid_out(requests, lengths, canvas)
        tokens, is_known = tokens.to(self.device), is_known.to(self.device)
        real = torch.arange(canvas, device=self.device) < torch.tensor(
            lengths, device=self.device
        ).unsqueeze(1)
        known = self.domain.embed(tokens)
        clamp = partial(
            self.domain.clamped,
            clamp=self.domain.clamp,
            temperature=plan.config.word_temperature(),
            unwritten=UNWRITTEN,
        )
        project = compose(clamp, inpaint(known, is_known[..., None]))
        denoiser = self._guided(plan, requests)
        if self.memory is not None:
            denoiser = SelfConditionedDenoiser(
                denoiser, self.memory, project, known * is_known[..., None]
            )
            project = denoiser.project
        condition = condition_of(self.domain, requests, real)
        state = sample(
            self.process,
            denoiser,
            self._controlled(plan, real),
            (len(requests), canvas, self.domain.width),
            plan.times,
            condition=condition,
            project=project,
            rng=rng,
            device=self.device,
            on_step=on_step,
        )
        return self._written(state, tokens, is_known, real)

    def _written(self, state: Tensor, tokens: Tensor, is_known: Tensor, real: Tensor) -> list[str]:
        """Return the words of a state; known tokens stay, whatever the head predicts."""
        logits = self.domain.logits(state)
        logits[..., list(UNWRITTEN)] = -torch.inf
        numbers = torch.where(is_known, tokens, logits.argmax(dim=-1))
        numbers = torch.where(real, numbers, PAD)
        return self.domain.written(numbers)

    def _guided(self, plan: _Plan, requests: list[TextRequest]) -> Any:
        if plan.config.guidance_scale == 1 or not any(
            request.meaning or request.source for request in requests
        ):
            return self.denoiser
        return ClassifierFreeGuidance(self.denoiser, plan.config.guidance_scale)

    def _controlled(self, plan: _Plan, real: Tensor) -> Sampler:
        control, sampler = plan.control, plan.config.build_sampler()
        if control is None or not control.wanted:
            return sampler
        wanted = control.classifier.wanted(control.wanted, real)
        return ClassifierGuidance(sampler, wanted, control.updates, control.rate, control.fluency)
