"""Base of text models: requests to lengths, batches and candidates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    drawn_index,
)
from multidiff.text.sampling_config import TextSamplingConfig, TokenSamplingConfig
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

    pipeline_tag = "text-generation"
    domain: TextDomain
    sampling: TextSamplingConfig | TokenSamplingConfig

    def __init__(
        self,
        domain: TextDomain,
        process: Process,
        denoiser: nn.Module,
        sampling: TextSamplingConfig | TokenSamplingConfig,
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
        seed: Seed = 0,
        config: Any = None,
        batch_size: int = 64,
        on_text: OnText | None = None,
        **overrides: Any,
    ) -> list[str]:
        """Return a text for each request.

        Args:
            requests: what is asked of each text.
            seed: random seed of the first text; text ``i`` has ``seed + i``, or the i-th of
                several. None draws one from the system.
            config: options of sampling; the model's own, ``sampling``, by default.
            batch_size: texts at a time.
            on_text: receives each text in turn, as soon as it and all before it are done.
            **overrides: single options in place of the config's.
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
        """Return an upper bound on the cost of texts, and its terms, in nats per token.

        Args:
            texts: the texts.
            meanings: meaning representation of each.
            seed: random seed of the first text's draws; the others count up.
            sources: source of each, for models that read one.
        """

    def _texts(
        self,
        requests: Sequence[TextRequest],
        seed: Seed,
        num_candidates: int,
        batch_size: int,
        make: Make,
        on_text: OnText | None = None,
    ) -> list[str]:
        """Return a text for each request, the best of its candidates."""
        requests = one_each(requests, TextRequest, "request")
        seeds = checked_seeds(seed, len(requests))
        every = [request for request in requests for _ in range(num_candidates)]
        rngs = generators([n for one in seeds for n in candidate_seeds(one, num_candidates)])
        lengths = [self._length(request, rng) for request, rng in zip(every, rngs, strict=True)]
        made: list[str | None] = [None] * len(every)
        texts: list[str] = []
        for rows in batches_of(lengths, batch_size):
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
        source = self._length_condition(request)
        logits = self.domain.length_logits(1, source)[0].cpu().double()
        # At least one word, and all known tokens.
        logits[: max(2 + max(request.known, default=0), 1 + request.least)] = -torch.inf
        return drawn_index(logits, rng)

    def _length_condition(self, request: TextRequest) -> Tensor | None:
        """Return the condition of a text's length; None without one."""
        if self.domain.source_length and request.source:
            return self.domain.source_tokens([request.source])
        if request.meaning and self.domain.meanings is not None:
            cond = self.domain.meanings.partial(request.meaning)
            return torch.tensor([cond], device=self.device)
        return None
