"""Evaluation of editors: leaving texts alone, repairing, writing and rewriting them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from multidiff.text.data.inspection import note_unknown
from multidiff.text.data.listing import TextSource
from multidiff.text.data.split import held_out_of
from multidiff.text.diffuser.bench import Bench
from multidiff.text.diffuser.model import EditedText, Noise
from multidiff.text.diffuser.repair import leave_alone, repair_corrupted
from multidiff.text.diffuser.rewriting import compared, pairs_of, rewritten
from multidiff.text.diffuser.sampling_config import EditSamplingConfig
from multidiff.text.diffuser.starts import revise_drafts, write_from_noise, write_from_nothing
from multidiff.text.metrics.comparison import columns_of
from multidiff.text.metrics.eval_split import eval_split, source_of
from multidiff.text.model import TextModel
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, checked_counts

COMPONENTS = {
    "fixed": leave_alone,
    "repair": repair_corrupted,
    "from-noise": write_from_noise,
    "from-nothing": write_from_nothing,
}
FRESH = ("from-noise", "from-nothing")


def measure(
    model: EditedText, data: str | None, folder: Path, *, seed: int, sampling: EditSamplingConfig,
    num: int = 200, fixed: int = 0, repair: int = 0, from_noise: int = 0, from_nothing: int = 0,
    bootstrap: TextModel | None = None, rewrite: int = 0, beside: EditedText | None = None,
    noise: str | None = None, conditional: bool = False, column: str = "text",
    meaning_column: str | None = None,
    source_column: str | None = None, headless: bool = False, held_out_every: int | None = None,
) -> Report:  # fmt: skip
    """Measure what an editor does to clean and to corrupted texts, or other requested figures.

    Args:
        model: the model.
        data: held-out texts, or all of which every n-th group is held out.
        folder: folder of the model, whose recipe has its training data.
        seed: random seed of the first text; text ``i`` uses ``seed + i``.
        sampling: options of revising.
        num: number of drafts of --bootstrap; of clean and corrupted texts by default.
        fixed: number of clean texts: how much of them is left alone.
        repair: number of texts corrupted by 1, 2 and 3 steps: their distance from the originals.
        from_noise: number of texts started from noise, compared with real ones; tokens are drawn.
        from_nothing: number of texts started empty, compared with real ones; tokens are drawn.
        bootstrap: model whose drafts of real meaning representations are revised.
        rewrite: number of texts to rewrite, compared with their targets.
        beside: another model that rewrites them too.
        noise: distribution of the corruption's words: uniform, frequency, mixed; the model's own
            by default.
        conditional: condition on the meaning representations.
        column: column of the texts.
        meaning_column: column of their meaning representations.
        source_column: column of their sources.
        headless: the data's first row has no column names; columns are called 0, 1 and so on.
        held_out_every: n of the held-out split; by default the recipe's for its data, 0 for all.

    Raises:
        InputError: if there is nothing to measure, or an option is wrong.
    """
    _check_options(model, conditional, beside is not None and not rewrite)
    if noise not in (None, *get_args(Noise)):
        raise InputError(f"--noise {noise}: choose among {', '.join(get_args(Noise))}")
    source = source_of(data, column, meaning_column, source_column, not headless)
    source = held_out_of(source, folder, held_out_every, report := Report())
    asked = (fixed, repair, from_noise, from_nothing, rewrite)
    counts = _counts(asked, num, bootstrap is not None)
    if rewrite:
        _rewrite(model, beside, source, rewrite, sampling, seed, report)
    if max(counts[name] for name in (*COMPONENTS, "num")):
        bench = _bench(model, sampling, source, max(counts.values()), conditional, seed, report)
        bench = replace(bench, noise=noise)
        fresh = replace(bench, sampling=sampling.for_new_texts(model.sampling))
        _measure(bench, fresh, counts, bootstrap, report)
    return report


def _check_options(model: EditedText, conditional: bool, idle: bool) -> None:
    """Check that each option has an effect.

    Raises:
        InputError: if one would be ignored.
    """
    if conditional and model.domain.meanings is None:
        raise InputError("--conditional: this model was trained without meanings; remove it")
    if idle:
        raise InputError("--beside: rewrites too; give the number of texts by --rewrite")


def _counts(asked: Sequence[int], num: int, drafts: bool) -> dict[str, int]:
    """Return the number of texts of each part, of rewriting, and of another model's drafts.

    Raises:
        InputError: if nothing is to be measured.
    """
    counts = dict(zip((*COMPONENTS, "rewrite"), asked, strict=True)) | {"num": num if drafts else 0}
    if not any(counts.values()):
        counts |= {"fixed": num, "repair": num}
    checked_counts(counts)
    return counts


def _bench(
    model: EditedText,
    sampling: EditSamplingConfig,
    source: TextSource,
    most: int,
    conditional: bool,
    seed: int,
    report: Report,
) -> Bench:
    """Return the model with real texts.

    Raises:
        InputError: if the model reads sources and there are none.
    """
    if model.domain.source_length and source.source_column is None:
        raise InputError(
            f"{source.path}: this model makes texts from source texts; name their --source-column"
        )
    split = eval_split(source, model.domain.vocabulary, most)
    note_unknown(source.path, model.domain.vocabulary, split.texts, report)
    return Bench(model, sampling, split, conditional, seed)


def _measure(
    bench: Bench,
    fresh: Bench,
    counts: Mapping[str, int],
    bootstrap: TextModel | None,
    report: Report,
) -> None:
    """Report the requested parts; texts from noise or nothing are drawn."""
    for name, part in COMPONENTS.items():
        if counts[name]:
            part(fresh if name in FRESH else bench, counts[name], report)
    if bootstrap is not None:
        revise_drafts(bench, bootstrap, counts["num"], report)


def _rewrite(
    model: EditedText,
    beside: EditedText | None,
    source: TextSource,
    count: int,
    sampling: EditSamplingConfig,
    seed: int,
    report: Report,
) -> None:
    """Report rewritten texts, another model's too, compared with their targets."""
    sources, wanted = pairs_of(source, count)
    made = {"rewritten": rewritten(model, sources, sampling, seed)}
    if beside is not None:
        made["beside"] = rewritten(beside, sources, None, seed)
    facts = compared(sources, wanted, {**made})
    report.facts["rewrite"] = {**facts, "texts": len(sources)}
    report.lines.extend(columns_of(facts, [*facts]))
