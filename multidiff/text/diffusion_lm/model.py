"""Text models by Gaussian diffusion of embeddings, and what people do with them."""

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
    """How the texts of one call are made, once it is checked."""

    times: TimestepSchedule
    sampler: Sampler
    guidance_scale: float
    temperature: float
    control: Control | None


class TextDiffusion(TextModel):
    """A model of texts by Gaussian diffusion of their embeddings.

    Args:
        domain: texts as states.
        process: what the denoiser is trained on.
        denoiser: the network.
        sampling: how to sample where nobody says otherwise.
        drop_condition: share of the conditions that training leaves out, for guidance.
        self_conditioning: how the denoiser is told its last estimate, if it reads that.
        known: share of the texts of which training tells some tokens, for filling in.
        classifier: name of the model that controls this one where no other is named.
    """

    domain: EmbeddedDomain
    process: GaussianProcess
    denoiser: TextDenoiser

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
        self.sampling.sampler_named(None)

    @property
    def companions(self) -> dict[str, str]:
        """Models that commands use beside it where no others are named."""
        return {} if self.classifier is None else {"classifier": self.classifier}

    def task(self) -> DiffusionTask:
        """What a trainer trains."""
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
        steps: int | None = None,
        sampler: str | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        control: Control | None = None,
        seed: Seed = 0,
        num_candidates: int = 1,
        batch_size: int = 64,
        on_step: Callable[[Step], None] | None = None,
        on_text: OnText | None = None,
    ) -> list[str]:
        """Texts, one for each order.

        Args:
            requests: what is asked of each.
            steps: of the sampler.
            sampler: its name.
            guidance_scale: scale, for orders with a meaning; 1 is off.
            temperature: of the words that clamping chooses among.
            control: what they are pulled towards.
            seed: of the noise: text ``i`` has ``seed + i``, or the i-th of several. A text
                depends on its own alone, whatever is made beside it.
            num_candidates: drawn for each text, of which the one most like the others is taken
                (minimum Bayes risk, Kumar & Byrne 2004).
            batch_size: texts at a time.
            on_step: told after each step of each batch.
            on_text: receives each text in turn, as soon as it and all before it are done.

        Raises:
            InputError: if the model cannot do what is asked.
        """
        plan = self._checked(steps, sampler, guidance_scale, temperature, control)
        make = partial(self._made, plan=plan, on_step=on_step)
        return self._texts(requests, seed, num_candidates, batch_size, make, on_text)

    def _made(
        self,
        requests: list[TextRequest],
        lengths: list[int],
        rng: list[torch.Generator],
        plan: _Plan,
        on_step: Callable[[Step], None] | None,
    ) -> list[str]:
        """One batch of texts, all on canvases of one size."""
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
            temperature=plan.temperature,
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
        """The words of a state; those that were known are themselves, whatever the head says."""
        logits = self.domain.logits(state)
        logits[..., list(UNWRITTEN)] = -torch.inf
        numbers = torch.where(is_known, tokens, logits.argmax(dim=-1))
        numbers = torch.where(real, numbers, PAD)
        return self.domain.written(numbers)

    def _guided(self, plan: _Plan, requests: list[TextRequest]) -> Any:
        if plan.guidance_scale == 1 or not any(
            request.meaning or request.source for request in requests
        ):
            return self.denoiser
        return ClassifierFreeGuidance(self.denoiser, plan.guidance_scale)

    def _controlled(self, plan: _Plan, real: Tensor) -> Sampler:
        control = plan.control
        if control is None or not control.wanted:
            return plan.sampler
        wanted = control.classifier.wanted(control.wanted, real)
        return ClassifierGuidance(
            plan.sampler, wanted, control.updates, control.rate, control.fluency
        )

    def _checked(
        self,
        steps: int | None,
        sampler: str | None,
        guidance_scale: float | None,
        temperature: float | None,
        control: Control | None,
    ) -> _Plan:
        if control is not None:
            control.classifier.check_fits(self.domain)
        return _Plan(
            self.sampling.times(steps, self.process.schedule.num_steps),
            self.sampling.sampler_named(sampler),
            self.sampling.checked_guidance(guidance_scale),
            self.sampling.checked_temperature(temperature),
            control,
        )
