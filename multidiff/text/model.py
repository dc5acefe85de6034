"""Base of text models: requests to lengths, batches and candidates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from multidiff.core.protocols import Process
from multidiff.core.random import generators
from multidiff.core.task import DiffusionTask
from multidiff.models.base import DomainModel
from multidiff.models.requests import Seed, checked_seeds, one_each
from multidiff.text.domain import TextDomain
from multidiff.text.metrics.scores import minimum_bayes_risk
from multidiff.text.request import (
    TextRequest,
    batches_of,
    candidate_seeds,
    check_candidates,
    drawn_index,
)
from multidiff.text.sampling_config import TextSamplingConfig
from multidiff.utils.errors import InputError

# Maps requests, their lengths in tokens and their generators to texts, on one canvas.
Make = Callable[[list[TextRequest], list[int], list[torch.Generator]], list[str]]
# Receives each text, in the order of the requests, once it and all before it are done.
OnText = Callable[[str], None]


class TextModel(DomainModel):
    """A model of texts: a domain, a process and a network.

    Args:
        domain: texts as states.
        process: process that the denoiser is trained on.
        denoiser: the network.
        sampling: default sampling configuration.
        drop_condition: fraction of the conditions that training drops, for guidance.
    """

    domain: TextDomain
    sampling: TextSamplingConfig

    def __init__(
        self,
        domain: TextDomain,
        process: Process,
        denoiser: nn.Module,
        sampling: TextSamplingConfig,
        drop_condition: float,
    ):
        super().__init__(domain)
        domain.check_reader(denoiser)
        self.process, self.denoiser = process, denoiser
        self.sampling, self.drop_condition = sampling, drop_condition

    def task(self) -> DiffusionTask:
        """Return the training task."""
        return DiffusionTask(self.domain, self.process, self.denoiser, self.drop_condition)

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        return {"kind": "texts"}

    @abstractmethod
    def generate(
        self,
        requests: Sequence[TextRequest],
        *,
        steps: int | None = None,
        sampler: str | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        seed: Seed = 0,
        num_candidates: int = 1,
        batch_size: int = 64,
        on_text: OnText | None = None,
    ) -> list[str]:
        """Generate texts, one for each request; models add options of their own.

        Args:
            requests: request for each text.
            steps: number of sampling steps.
            sampler: name of the sampler.
            guidance_scale: guidance scale, for requests with a condition; 1 is off.
            temperature: temperature of the drawn tokens.
            seed: random seed of the first text; text ``i`` uses ``seed + i``, or the i-th seed.
            num_candidates: number drawn for each text; the one most like the others is kept.
            batch_size: number of texts in a batch.
            on_text: function that receives each text in turn, once it and all before it are done.
        """

    @abstractmethod
    def nats_per_token(
        self,
        texts: Sequence[str],
        meanings: Sequence[Mapping[str, str]],
        *,
        seed: int = 0,
        sources: Sequence[str] = (),
    ) -> dict[str, float]:
        """Return an upper bound on the cost of texts and its terms, in nats for each token.

        Args:
            texts: texts to measure.
            meanings: meaning of each, as the model's condition.
            seed: random seed of the first text; text ``i`` uses ``seed + i``.
            sources: source of each, for models with sources; empty if not given.
        """

    def _texts(
        self, requests: Sequence[TextRequest], seed: Seed, num_candidates: int, most: int,
        make: Make, on_text: OnText | None = None,
    ) -> list[str]:  # fmt: skip
        """Return a text for each request, the best of its candidates, in batches of ``most``."""
        requests = one_each(requests, TextRequest, "request")
        seeds = checked_seeds(seed, len(requests))
        check_candidates(num_candidates)
        every = [request for request in requests for _ in range(num_candidates)]
        rngs = generators([n for one in seeds for n in candidate_seeds(one, num_candidates)])
        lengths = [self._length(request, rng) for request, rng in zip(every, rngs, strict=True)]
        made: list[str | None] = [None] * len(every)
        texts: list[str] = []
        for rows in batches_of(lengths, most):
            batch = make(
                [every[i] for i in rows], [lengths[i] for i in rows], [rngs[i] for i in rows]
            )
            for row, text in zip(rows, batch, strict=True):
                made[row] = text
            while len(texts) < len(requests):
                first = len(texts) * num_candidates
                group = [one for one in made[first : first + num_candidates] if one is not None]
                if len(group) < num_candidates:
                    break
                texts.append(self._best(group))
                if on_text is not None:
                    on_text(texts[-1])
        return texts

    def _best(self, num_candidates: list[str]) -> str:
        """Return the candidate most like the others (minimum Bayes risk, Kumar & Byrne 2004)."""
        if len(num_candidates) == 1:
            return num_candidates[0]
        words = [self.domain.vocabulary.numbers(text) for text in num_candidates]
        return num_candidates[minimum_bayes_risk(words)]

    def _length(self, request: TextRequest, rng: torch.Generator) -> int:
        """Return the number of tokens of a text, including END."""
        if request.length is None:
            return self._drawn_length(request, rng) if self.domain.ends else self.domain.length
        if not 1 <= request.length <= self.most_words:
            raise InputError(
                f"length {request.length}: this model writes 1 to {self.most_words} tokens"
            )
        return request.length + int(self.domain.ends)

    @property
    def most_words(self) -> int:
        """Largest number of tokens that it writes, without END."""
        return self._longest() - int(self.domain.ends)

    def _longest(self) -> int:
        """Return the largest number of tokens of a text, including END."""
        return self.domain.length

    def _drawn_length(self, request: TextRequest, rng: torch.Generator) -> int:
        source = self._told(request)
        logits = self.domain.length_logits(1, source)[0].cpu().double()
        # At least one word, and all known tokens.
        logits[: 2 + max(request.known, default=0)] = -torch.inf
        return drawn_index(logits, rng)

    def _told(self, request: TextRequest) -> Tensor | None:
        """Return the condition that a text's length depends on."""
        if self.domain.source_length and request.source:
            return self.domain.source_tokens([request.source])
        if request.meaning and self.domain.meanings is not None:
            cond = self.domain.meanings.partial(request.meaning)
            return torch.tensor([cond], device=self.device)
        return None
