"""Texts by edits: a draft is tagged and rewritten, again and again (DiffusER, Reid et al. 2022).

The paper has no code. What it leaves open, and is decided here, beside
:mod:`multidiff.core.edit.process`:

- **What training aims at.** The clean text, or the state before the last step; the recipe says.
  Far from clean text the state before is noise too, and looks like the one after it:
  small models aim at the clean text.
- **What an edit is.** All that happens between two kept tokens: which of the tokens that go are
  replaced and which deleted, ties of the alignment settle, and no text shows it.
- **Which drafts it learns from.** Corrupted texts, and for a share of them (``from_own``) what
  the editor itself makes of those: noise is easy to see, its own mistakes are not.
- **When editing ends**: where the tagger keeps every token and fills no gap.
- **How much of it is done at once**: all edits that the tagger wants, or an even share of them,
  the surest first, so that a text that starts from noise comes in as many revisions as are
  asked for.
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
from multidiff.text.diffuser.network import Editor
from multidiff.text.diffuser.reviser import History, Reviser
from multidiff.text.diffuser.sampling_config import EditSamplingConfig
from multidiff.text.diffuser.task import EditTask, Target
from multidiff.text.domain import TextDomain
from multidiff.text.request import TextRequest, candidate_seeds, condition_of, drawn_index
from multidiff.utils.errors import InputError

Noise = Literal["uniform", "frequency"]


class EditedText(DomainModel):
    """A model that edits texts.

    Args:
        domain: texts to tokens, and what they are made from.
        process: how training corrupts them.
        editor: the network.
        sampling: default options of revising.
        noise: what corruption writes: all tokens alike, or each as often as texts have it.
        target: see :class:`~multidiff.text.diffuser.task.EditTask`.
        drop_condition: see there.
        from_source: see there.
        from_nothing: see there.
        from_own: see there.

    Raises:
        ValueError: if these do not fit each other.
    """

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
    ):
        sizes = {domain.vocabulary.size, process.size, editor.size}
        if len(sizes) > 1:
            raise ValueError(
                f"a vocabulary of {domain.vocabulary.size} for a process of size {process.size} "
                f"and an editor of size {editor.size}: make them alike"
            )
        super().__init__(domain)
        domain.check_reader(editor)
        self.process, self.editor = process, editor
        self.sampling = EditSamplingConfig() if sampling is None else sampling
        self.noise: Noise = noise
        self.target: Target = target
        self.drop_condition = drop_condition
        self.from_source, self.from_nothing = from_source, from_nothing
        self.from_own = from_own
        if noise == "uniform":
            process.write([0.0] * FIRST + [1.0] * (process.size - FIRST))

    def corruption(self) -> EditProcess:
        """Return the process with the tokens that it writes."""
        if self.noise == "frequency":
            counts = getattr(self.domain.vocabulary, "counts", None)
            if counts is None:
                raise InputError(
                    f"noise: frequency: a {type(self.domain.vocabulary).__name__} does not count "
                    "its pieces; set noise: uniform"
                )
            self.process.write([0.0] * FIRST + [float(n) for n in counts.values()])
        return self.process

    def task(self) -> EditTask:
        """Return the task that a trainer trains."""
        return EditTask(
            self.domain,
            self.corruption(),
            self.editor,
            self.target,
            self.drop_condition,
            self.from_source,
            self.from_nothing,
            self.from_own,
        )

    def metadata(self) -> dict[str, str]:
        """Return what the weights were trained for."""
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
            requests: what is asked of each text.
            seed: random seed of the first draft; draft ``i`` has ``seed + i``, or the i-th of
                several. None draws one from the system.
            config: options of revising; the model's own, ``sampling``, by default.
            batch_size: drafts at a time, each of their candidates counted.
            on_history: receives the revisions of each draft in turn, batch by batch.
            **overrides: single options in place of the config's, by the names of
                :class:`~multidiff.text.diffuser.sampling_config.EditSamplingConfig`.

        Raises:
            InputError: if a draft is longer than the model reads.
            TypeError: if there is no option of a name.
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
        """Return random tokens for each request: as many as it asks for, or as training texts have.

        Raises:
            InputError: if a request asks for more than the model reads.
        """
        # Mixed, so that what is written later does not follow the draws of its own noise.
        requests = one_each(requests, TextRequest, "request")
        rngs = generators([mixed_seed(one, 1) for one in checked_seeds(seed, len(requests))])
        lengths = [self._length(request, rng) for request, rng in zip(requests, rngs, strict=True)]
        return self.corruption().prior(lengths, rngs)

    def _length(self, request: TextRequest, rng: torch.Generator) -> int:
        """Return the number of tokens of a text, END not counted."""
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
        """Return texts as drafts."""
        return [self.domain.vocabulary.numbers(text) for text in texts]
