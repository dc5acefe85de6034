"""Shared parts of the evaluation of editors: real texts, and statistics of sets of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multidiff.core.edit.alignment import Span
from multidiff.text.diffuser.model import EditedText, Noise
from multidiff.text.diffuser.reviser import Reviser
from multidiff.text.diffuser.sampling_config import EditSamplingConfig
from multidiff.text.metrics.comparison import ORDER
from multidiff.text.metrics.eval_split import EvalSplit
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.metrics.scores import distinct, entropy
from multidiff.text.request import TextRequest

AT_ONCE = 64


@dataclass(frozen=True)
class Bench:
    """An editor and real texts.

    Attributes:
        model: the editor.
        sampling: options of revising.
        split: real texts.
        conditional: whether the editor is conditioned on the texts' meanings.
        seed: random seed of the first text; text ``i`` uses ``seed + i``.
        noise: distribution of the corruption's words; the model's own where None.
    """

    model: EditedText
    sampling: EditSamplingConfig
    split: EvalSplit
    conditional: bool
    seed: int
    noise: Noise | None = None

    def rows(self, count: int, option: str) -> list[int]:
        """Return the first ``count`` real texts that the model reads whole.

        Raises:
            InputError: if there are none.
        """
        return self.split.fitting(self.model.editor.length + 1, count, option)

    def requests(self, rows: Sequence[int]) -> list[TextRequest]:
        """Return requests for real texts: with their sources always, if the model reads them."""
        reads = self.model.domain.source_length > 0
        return [
            TextRequest(
                self.split.meanings[row] if self.conditional else {},
                source=self.split.sources[row] if reads else "",
            )
            for row in rows
        ]

    def tagged(
        self, drafts: Sequence[Sequence[int]], requests: Sequence[TextRequest]
    ) -> list[tuple[Span, ...]]:
        """Return the edits that the tagger wants in each text, all at once."""
        sampling = self.sampling.replace(edits_per_step="all")
        reviser = Reviser(self.model.domain, self.model.editor, sampling)
        found: list[tuple[Span, ...]] = []
        for first in range(0, len(drafts), AT_ONCE):
            rows = slice(first, first + AT_ONCE)
            encoding = reviser.read(drafts[rows], requests[rows])
            found += [one.spans for one in reviser.choices(drafts[rows], encoding, 1)]
        return found

    def described(self, sets: dict[str, Sequence[Sequence[int]]]) -> dict[str, dict[str, float]]:
        """Return statistics of sets of texts, under an n-gram trained on other texts."""
        ngram = NGramModel(self.split.other, ORDER)
        return {
            name: {
                "nats_per_token": ngram.nats_per_token(texts),
                "distinct_2": distinct(texts, 2),
                "entropy": entropy(texts),
                "length": sum(map(len, texts)) / len(texts),
            }
            for name, texts in sets.items()
        }
