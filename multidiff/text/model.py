"""What every model of texts shares: orders to lengths, batches and candidates."""

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

# From some orders, their lengths in tokens and their generators to texts, on one canvas.
Make = Callable[[list[TextRequest], list[int], list[torch.Generator]], list[str]]
# Receives each text, in the order of the requests, once it and all before it are done.
OnText = Callable[[str], None]


class TextModel(DomainModel):
    """A model of texts: a domain, a process and a network.

    Args:
        domain: texts as states.
        process: what the denoiser is trained on.
        denoiser: the network.
        sampling: how to sample where nobody says otherwise.
        drop_condition: share of the conditions that training leaves out, for guidance.
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
        """What a trainer trains."""
        return DiffusionTask(self.domain, self.process, self.denoiser, self.drop_condition)

    def metadata(self) -> dict[str, str]:
        """What the weights were made for."""
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
        """Texts, one for each order; models add what their own walk is told.

        Args:
            requests: what is asked of each.
            steps: of the walk.
            sampler: its name.
            guidance_scale: scale, for orders with a condition; 1 is off.
            temperature: of the words that are chosen among.
            seed: of the draws: text ``i`` has ``seed + i``, or the i-th of several.
            num_candidates: drawn for each text, of which the one most like the others is taken.
            batch_size: texts at a time.
            on_text: receives each text in turn, as soon as it and all before it are done.
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
        """A bound on what texts cost and its terms, in nats for each token.

        Args:
            texts: what is measured.
            meanings: what the model is told of each.
            seed: of the first text's draws; the others follow.
            sources: what each is made from, for models that read that; nothing where not given.
        """

    def _texts(
        self, requests: Sequence[TextRequest], seed: Seed, num_candidates: int, most: int,
        make: Make, on_text: OnText | None = None,
    ) -> list[str]:  # fmt: skip
        """A text of each order, of so many candidates each, at most so many at a time."""
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
        """The one most like the others (minimum Bayes risk, Kumar & Byrne 2004)."""
        if len(num_candidates) == 1:
            return num_candidates[0]
        words = [self.domain.vocabulary.numbers(text) for text in num_candidates]
        return num_candidates[minimum_bayes_risk(words)]

    def _length(self, request: TextRequest, rng: torch.Generator) -> int:
        """How many tokens a text has, END counted."""
        if request.length is None:
            return self._drawn_length(request, rng) if self.domain.ends else self.domain.length
        if not 1 <= request.length <= self.most_words:
            raise InputError(
                f"a length of {request.length}: this model writes 1 to {self.most_words} tokens"
            )
        return request.length + int(self.domain.ends)

    @property
    def most_words(self) -> int:
        """The longest text that it writes, in tokens, END not counted."""
        return self._longest() - int(self.domain.ends)

    def _longest(self) -> int:
        """The most tokens of a text, END counted."""
        return self.domain.length

    def _drawn_length(self, request: TextRequest, rng: torch.Generator) -> int:
        source = self._told(request)
        logits = self.domain.length_logits(1, source)[0].cpu().double()
        # Room for a word, and for all that is known.
        logits[: 2 + max(request.known, default=0)] = -torch.inf
        return drawn_index(logits, rng)

    def _told(self, request: TextRequest) -> Tensor | None:
        """What a text's length may be told by."""
        if self.domain.source_length and request.source:
            return self.domain.source_tokens([request.source])
        if request.meaning and self.domain.meanings is not None:
            cond = self.domain.meanings.partial(request.meaning)
            return torch.tensor([cond], device=self.device)
        return None
