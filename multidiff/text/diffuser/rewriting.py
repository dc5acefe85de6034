"""Evaluation of an editor on texts with given rewritings."""

from __future__ import annotations

from collections.abc import Sequence

from multidiff.text.data.listing import TextSource
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.reviser import EditSamplingConfig
from multidiff.text.metrics.scores import bleu, sari
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError


def pairs_of(source: TextSource, num: int) -> tuple[list[str], list[str]]:
    """Return held-out texts to rewrite, and their targets; all texts if none are held out.

    Raises:
        InputError: if the data have no source texts.
    """
    found = source.listing()
    if found.sources is None:
        raise InputError(f"{source.path}: name --source-column, the texts to be rewritten")
    rows = source.rows(found, source.held_out_every > 0)[:num]
    return [found.sources[row] for row in rows], [found.texts[row] for row in rows]


def rewritten(
    model: EditedText, sources: Sequence[str], sampling: EditSamplingConfig | None, seed: int
) -> list[str]:
    """Return a model's rewritings: it edits texts, reads them beside a draft, or both."""
    reads = model.domain.source_length > 0
    requests = [TextRequest(source=one if reads else "") for one in sources]
    if model.from_source > 0 or not reads:
        most = model.editor.length
        drafts = [numbers[:most] for numbers in model.numbers(sources)]
    elif model.from_nothing == 1:
        drafts = [[] for _ in sources]
    else:
        seeds = range(seed, seed + len(sources))
        drafts = [[*one] for one in model.noise_drafts(requests, seed=seeds)]
    return model.texts(model.revise(drafts, requests, config=sampling, seed=seed))


def compared(
    sources: Sequence[str], references: Sequence[str], made: dict[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Return BLEU and SARI of several rewritings and of the unchanged sources, split at spaces."""
    described = [text.split() for text in sources]
    wanted = [[text.split()] for text in references]
    facts = {}
    for name, texts in {**made, "copied": sources}.items():
        words = [text.split() for text in texts]
        same = sum(one == other for one, other in zip(words, described, strict=True))
        facts[name] = {
            "bleu": bleu(words, wanted),
            "sari": sari(described, words, wanted),
            "unchanged": same / len(words),
            "exact": sum(one == other[0] for one, other in zip(words, wanted, strict=True))
            / len(words),
        }
    return facts
