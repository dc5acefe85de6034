"""Evaluation of an editor on clean texts and on corrupted texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from multidiff.core.edit.alignment import INSERT, KEEP, Edit, Span, align_many
from multidiff.core.edit.process import tag_disagreement
from multidiff.core.random import generators
from multidiff.text.diffuser.bench import Bench
from multidiff.text.metrics.comparison import columns_of
from multidiff.text.metrics.scores import edit_distance
from multidiff.utils.report import Report

# Numbers of corruption steps to repair.
STEPS = (1, 2, 3)


@torch.no_grad()
def leave_alone(bench: Bench, count: int, report: Report) -> None:
    """Report how much of clean texts is kept: tokens, gaps and whole texts after one revision."""
    rows = bench.rows(count, "fixed")
    drafts, requests = [bench.split.real[row] for row in rows], bench.requests(rows)
    edits = bench.tagged(drafts, requests)
    sampling = bench.sampling.replace(steps=1)
    histories = bench.model.revise(drafts, requests, config=sampling, seed=bench.seed)
    pairs = zip(histories, drafts, strict=True)
    facts = {
        "tokens_kept": _ratio(tag == KEEP for one in _tags(edits, drafts) for tag in one),
        "gaps_kept": 1
        - sum(span.edit == INSERT for one in edits for span in one)
        / max(1, sum(len(draft) + 1 for draft in drafts)),
        "texts_kept": _ratio([*one[-1].tokens] == draft for one, draft in pairs),
    }
    report.facts["fixed"] = {**facts, "texts": len(rows)}
    report.lines.extend(columns_of({"clean texts": facts}, ["clean texts"]))


@torch.no_grad()
def repair_corrupted(bench: Bench, count: int, report: Report) -> None:
    """Report the distance of corrupted texts from the originals, before and after."""
    steps = [step for step in STEPS if step <= bench.model.process.steps]
    facts = {_name(step): _repaired(bench, count, step) for step in steps}
    report.facts["repair"] = facts
    report.lines.extend(columns_of(facts, tuple(facts)))


def _name(steps: int) -> str:
    return f"{steps} step{'s' if steps > 1 else ''}"


def _repaired(bench: Bench, count: int, steps: int) -> dict[str, float]:
    """Return figures of texts corrupted by that number of steps."""
    rows = bench.rows(count, "repair")
    real, requests = [bench.split.real[row] for row in rows], bench.requests(rows)
    process, most = bench.model.corruption(bench.noise), bench.model.editor.length
    seeds = range(bench.seed, bench.seed + len(rows))
    states = [
        process.corrupt(text, steps, rng)[-1]
        for text, rng in zip(real, generators(seeds), strict=True)
    ]
    drafts = [one.tokens[:most] for one in states]
    histories = bench.model.revise(drafts, requests, config=bench.sampling, seed=bench.seed)
    after = [one[-1].tokens for one in histories]
    scripts = [one.passages() for one in align_many(drafts, real)]
    wanted = [tag for one in _tags(scripts, drafts) for tag in one]
    found = [tag for one in _tags(bench.tagged(drafts, requests), drafts) for tag in one]
    disagreement = tag_disagreement(states)
    far, near = _distance(drafts, real), _distance(after, real)
    return {
        "distance_before": far,
        "distance_after": near,
        "fall_percent": 100 * (1 - near / far) if far else 0.0,
        "repaired": _ratio([*one] == text for one, text in zip(after, real, strict=True)),
        "tags_right": _ratio(one == other for one, other in zip(found, wanted, strict=True)),
        "all_kept_right": _ratio(tag == KEEP for tag in wanted),
        "history_differs_in_tags": disagreement.tokens,
        "history_differs_in_gaps": disagreement.gaps,
        "revision_beams": sum(len(one) - 1 for one in histories) / len(histories),
    }


def _tags(edits: Sequence[Sequence[Span]], drafts: Sequence[Sequence[int]]) -> Iterator[list[Edit]]:
    """Yield KEEP, REPLACE or DELETE for each token of each draft."""
    for spans, draft in zip(edits, drafts, strict=True):
        tags = [KEEP] * len(draft)
        for span in spans:
            tags[span.start : span.stop] = [span.edit] * (span.stop - span.start)
        yield tags


def _ratio(facts: Iterable[bool]) -> float:
    described = list(facts)
    return sum(described) / max(1, len(described))


def _distance(texts: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    pairs = zip(texts, others, strict=True)
    return sum(edit_distance(one, other) for one, other in pairs) / len(texts)
