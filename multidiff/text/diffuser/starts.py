"""Evaluation of an editor from noise, from empty texts, and from another model's drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multidiff.text.diffuser.bench import Bench
from multidiff.text.metrics.attribute_classifier import AttributeClassifier
from multidiff.text.metrics.comparison import columns_of
from multidiff.text.metrics.scores import edit_distance
from multidiff.text.model import TextModel
from multidiff.text.request import TextRequest
from multidiff.utils.report import Report

# Numbers of revisions after which texts are evaluated, besides the last.
LOOKS = (1, 4, 8, 12)


def write_from_noise(bench: Bench, count: int, report: Report) -> None:
    """Report texts started from random tokens, as many as a real text has, after revisions."""
    rows = bench.rows(count, "from-noise")
    lengths = [len(bench.split.real[row]) for row in rows]
    pairs = zip(bench.requests(rows), lengths, strict=True)
    asked = [replace(request, length=length) for request, length in pairs]
    drafts = bench.model.noise_drafts(asked, seed=bench.seed)
    _written(bench, rows, drafts, {"noise": drafts}, "from_noise", report)


def write_from_nothing(bench: Bench, count: int, report: Report) -> None:
    """Report texts started empty, after revisions."""
    rows = bench.rows(count, "from-nothing")
    _written(bench, rows, [() for _ in rows], {}, "from_nothing", report)


def _written(
    bench: Bench,
    rows: Sequence[int],
    drafts: Sequence[Sequence[int]],
    sets: dict[str, Sequence[Sequence[int]]],
    name: str,
    report: Report,
) -> None:
    histories = bench.model.revise(
        drafts, bench.requests(rows), config=bench.sampling, seed=bench.seed
    )
    steps = bench.sampling.steps
    for look in [*(look for look in LOOKS if look < steps), steps]:
        texts = [one[min(look, len(one) - 1)].tokens for one in histories]
        sets = {**sets, f"after {look}": texts}
    facts = bench.described({**sets, "real": bench.split.real})
    report.facts[name] = facts
    report.lines.extend(
        [f"{name.replace('_', ' ')}, after revisions", *columns_of(facts, [*facts])]
    )


def revise_drafts(bench: Bench, drafter: TextModel, count: int, report: Report) -> None:
    """Report another model's texts before and after, and how often they express their meaning."""
    split, model = bench.split, bench.model
    rows = [position % len(split.real) for position in range(count)]
    meanings = [split.meanings[row] for row in rows]
    asked = [TextRequest(one if drafter.domain.meanings is not None else {}) for one in meanings]
    typed = model.numbers(drafter.generate(asked, seed=bench.seed))
    drafts = [numbers[: model.editor.length] for numbers in typed]
    histories = model.revise(drafts, bench.requests(rows), config=bench.sampling, seed=bench.seed)
    revised = [[*one[-1].tokens] for one in histories]
    facts = bench.described({"drafts": drafts, "revised": revised, "real": split.real})
    distances = [edit_distance(*pair) for pair in zip(drafts, revised, strict=True)]
    facts["revised"]["edits"] = sum(distances) / count
    if any(meanings):
        classifier = AttributeClassifier(split.other, split.other_meanings)
        obeyed = {
            "drafts": classifier.accuracy(drafts, meanings),
            "revised": classifier.accuracy(revised, meanings),
            "real": classifier.accuracy(split.real, split.meanings),
        }
        report.facts["obeyed"] = obeyed
        for name, ratios in obeyed.items():
            facts[name]["obeyed"] = sum(ratios.values()) / len(ratios)
    report.facts["bootstrap"] = facts
    report.lines.extend(["drafts of another model", *columns_of(facts, [*facts])])
