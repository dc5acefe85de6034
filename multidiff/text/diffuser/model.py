"""Texts by edits: a draft is tagged and rewritten repeatedly (DiffusER, Reid et al. 2022).

The paper has no code. Choices that it leaves open, besides those of
:mod:`multidiff.core.edit.process`:

- **Training target.** The clean text, or the state before the last step, as the recipe sets.
  Far from clean text the state before is noise too, and similar to the one after it:
  small models use the clean text.
- **Unit of an edit.** Everything between two kept tokens: which of the removed tokens are
  replaced and which deleted follows from the alignment's tie-breaking, and cannot be predicted.
- **Training drafts.** Corrupted texts, and for a fraction of them (``from_own``) what
  the editor itself makes of those: noise is easy to detect, its own mistakes are not.
- **End of editing**: when the tagger keeps every token and fills no gap.
- **Edits per step**: all edits that the tagger wants, or an even fraction of them,
  the most certain first, so that a text started from noise takes the requested number of
  revisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from multidiff.core.edit.process import EditProcess
from multidiff.core.random import generators, mixed_seed
from multidiff.models.base import DomainModel
from multidiff.models.requests import Seed, checked_seeds, one_each
from multidiff.text.data.vocabulary import FIRST
from multidiff.text.diffuser.mistakes import Mistakes
from multidiff.text.diffuser.network import Editor
from multidiff.text.diffuser.reviser import History, Reviser
from multidiff.text.diffuser.sampling_config import EditSamplingConfig
from multidiff.text.diffuser.task import EditTask, Target
from multidiff.text.diffuser.writing_mistakes import WritingMistakes
from multidiff.text.domain import TextDomain
from multidiff.text.request import TextRequest, candidate_seeds, condition_of, drawn_index
from multidiff.utils.errors import InputError

Noise = Literal["uniform", "frequency", "mixed"]


class EditedText(DomainModel):
    """A model that edits texts.

    Args:
        domain: texts to tokens, and their conditions.
        process: corruption in training.
        editor: the network.
        sampling: default options of revising.
        noise: distribution of the corruption's tokens: uniform, by frequency in the texts, or the
            mean of both.
        target: see :class:`~multidiff.text.diffuser.task.EditTask`.
        drop_condition: see there.
        from_source: see there.
        from_nothing: see there.
        from_own: see there.
        mistakes: see there; those in tokens learn from the training texts by
            :class:`~multidiff.text.diffuser.mistakes.LearnMistakes`.
        by_sentence: whether drafts given as text are revised sentence by sentence.

    Raises:
        ValueError: if these do not fit each other.
    """

    pipeline_tag = "text-generation"
    domain: TextDomain

    def __init__(
        self,
        domain: TextDomain,
        process: EditProcess,
        editor: Editor,
        sampling: EditSamplingConfig | None = None,
        noise: Noise = "uniform",
        target: Target = "clean",
        drop_condition: float = 0.0,
        from_source: float = 0.0,
        from_nothing: float = 0.0,
        from_own: float = 0.0,
        mistakes: Mistakes | WritingMistakes | None = None,
        by_sentence: bool = False,
    ):
        sizes = {domain.vocabulary.size, process.size, editor.size}
        if len(sizes) > 1:
            raise ValueError(
                f"a vocabulary of {domain.vocabulary.size} for a process of size {process.size} "
                f"and an editor of size {editor.size}: make them alike"
            )
        if editor.nearest_words and not hasattr(domain.vocabulary, "nearest"):
            raise ValueError(
                f"nearest_words {editor.nearest_words}: a {type(domain.vocabulary).__name__} has "
                "no words in characters; use a HybridVocabulary, or 0"
            )
        super().__init__(domain)
        domain.check_reader(editor)
        self.process, self.editor = process, editor
        self.sampling = EditSamplingConfig() if sampling is None else sampling
        self.noise: Noise = noise
        self.target: Target = target
        self.drop_condition = drop_condition
        self.from_source, self.from_nothing = from_source, from_nothing
        self.from_own, self.mistakes = from_own, mistakes
        self.by_sentence = by_sentence
        if noise == "uniform":
            self.corruption()

    def corruption(self, noise: Noise | None = None) -> EditProcess:
        """Return the process with its distribution of written tokens.

        Args:
            noise: distribution in place of the model's own.

        Raises:
            InputError: if the vocabulary does not count its tokens, and the distribution needs it.
        """
        noise = self.noise if noise is None else noise
        weights = torch.tensor([0.0] * FIRST + [1.0] * (self.process.size - FIRST)).double()
        if noise != "uniform":
            counts = getattr(self.domain.vocabulary, "counts", None)
            if counts is None:
                raise InputError(
                    f"noise: {noise}: a {type(self.domain.vocabulary).__name__} does not count "
                    "its pieces; set noise: uniform"
                )
            frequency = torch.tensor([0.0] * FIRST + [float(n) for n in counts.values()]).double()
            frequency = frequency / frequency.sum()
            mixed = (weights / weights.sum() + frequency) / 2
            weights = frequency if noise == "frequency" else mixed
        self.process.write(weights.tolist())
        return self.process

    def task(self) -> EditTask:
        """Return the training task."""
        return EditTask(
            self.domain,
            self.corruption(),
            self.editor,
            self.target,
            self.drop_condition,
            self.from_source,
            self.from_nothing,
            self.from_own,
            self.mistakes,
        )

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        return {"kind": "texts"}

    @torch.no_grad()
    def revise(
        self,
        drafts: Sequence[Sequence[int]],
        requests: Sequence[TextRequest] | None = None,
        *,
        seed: Seed = 0,
        config: EditSamplingConfig | None = None,
        batch_size: int = 64,
        on_history: Callable[[History], None] | None = None,
        **overrides: Any,
    ) -> list[History]:
        """Return every revision of each draft, the draft itself first.

        Args:
            drafts: tokens of each draft.
            requests: request for each text.
            seed: random seed of the first draft; draft ``i`` uses ``seed + i``, or the i-th of
                several. None draws one from the system.
            config: options of revising; the model's own, ``sampling``, by default.
            batch_size: number of drafts in a batch, each candidate counted.
            on_history: function that receives the revisions of each draft in turn.
            **overrides: single options that replace the config's, by the names of
                :class:`~multidiff.text.diffuser.sampling_config.EditSamplingConfig`.

        Raises:
            InputError: if a draft is longer than the model reads.
            TypeError: if an option is unknown.
        """
        config = (config or self.sampling).replace(**overrides)
        most = self.editor.length
        for draft in drafts:
            if len(draft) > most:
                raise InputError(
                    f"a draft of {len(draft)} tokens: this model reads {most}; shorten it"
                )
        nothing = [TextRequest() for _ in drafts]
        asked = nothing if requests is None else one_each(requests, TextRequest, "request")
        seeds = checked_seeds(seed, len(drafts))
        rngs = [generators(candidate_seeds(one, config.num_candidates)) for one in seeds]
        reviser = Reviser(self.domain, self.editor, config)
        at_once = max(1, batch_size // config.num_candidates)
        found: list[History] = []
        for first in range(0, len(drafts), at_once):
            rows = slice(first, first + at_once)
            done = reviser(drafts[rows], asked[rows], rngs[rows])
            found += done
            if on_history is not None:
                for history in done:
                    on_history(history)
        return found

    def noise_drafts(
        self, requests: Sequence[TextRequest], *, seed: Seed = 0
    ) -> list[tuple[int, ...]]:
        """Return random tokens for each request, of the requested or a typical length.

        Raises:
            InputError: if a requested length exceeds what the model reads.
        """
        # Mixed, so that tokens written later do not repeat the draws of their own noise.
        requests = one_each(requests, TextRequest, "request")
        rngs = generators([mixed_seed(one, 1) for one in checked_seeds(seed, len(requests))])
        lengths = [self._length(request, rng) for request, rng in zip(requests, rngs, strict=True)]
        return self.corruption().prior(lengths, rngs)

    def _length(self, request: TextRequest, rng: torch.Generator) -> int:
        """Return the number of tokens of a text, without END."""
        most, end = self.editor.length, int(self.domain.ends)
        if request.length is not None:
            if not 1 <= request.length <= most:
                raise InputError(
                    f"a length of {request.length}: this model reads 1 to {most} tokens"
                )
            return request.length
        cond = None
        if request.meaning or request.source:
            cond = condition_of(self.domain, [request], torch.ones(1, 1, dtype=torch.bool)).get(
                "source"
            )
        logits = self.domain.length_logits(1, cond)[0].cpu().double()
        return 1 + drawn_index(logits[1 + end : 1 + end + most], rng)

    def texts(self, histories: Sequence[History]) -> list[str]:
        """Return the last revision of each draft as text."""
        return [self.domain.vocabulary.text(one[-1].tokens) for one in histories]

    def numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts, as drafts."""
        return [self.domain.vocabulary.numbers(text) for text in texts]
