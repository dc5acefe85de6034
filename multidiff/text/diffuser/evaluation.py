"""How good an editor is: at leaving texts alone, at repairing, writing and rewriting them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multidiff.text.data.inspection import note_unknown
from multidiff.text.data.listing import TextSource
from multidiff.text.data.split import held_out_of
from multidiff.text.diffuser.bench import Bench
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.repair import leave_alone, repair_corrupted
from multidiff.text.diffuser.rewriting import compared, pairs_of, rewritten
from multidiff.text.diffuser.sampling_config import EditSamplingConfig, EditsPerStep, drawn
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
    model: EditedText, data: str | None, folder: Path, *, steps: int | None = None,
    sampler: str | None = None, seed: int = 0, num: int = 200, fixed: int = 0, repair: int = 0,
    from_noise: int = 0, from_nothing: int = 0, bootstrap: TextModel | None = None,
    rewrite: int = 0, beside: EditedText | None = None, conditional: bool = False,
    beam: int | None = None, revision_beams: int | None = None, top_p: float | None = None,
    temperature: float | None = None, edits_per_step: EditsPerStep | None = None,
    edit_margin: float | None = None,
    num_candidates: int | None = None, column: str = "text", meaning_column: str | None = None,
    source_column: str | None = None, headless: bool = False, held_out_every: int | None = None,
) -> Report:  # fmt: skip
    """What an editor does to clean and to corrupted texts, or what else is asked for.

    Args:
        model: the model.
        data: held-out texts, or all of which every so many-th group is held out.
        folder: of the model, whose recipe says what it was trained on.
        steps: most revisions.
        sampler: none is known here.
        seed: of the first text's draws; the others follow.
        num: drafts of the bootstrap; clean and corrupted texts where nothing is asked for.
        fixed: clean texts: how much of them is left alone.
        repair: texts corrupted by 1, 2 and 3 steps: how far from the originals they are.
        from_noise: texts that begin as noise, beside real ones.
        from_nothing: texts that begin as nothing, likewise.
        bootstrap: a model whose drafts of real meanings are revised.
        rewrite: texts that are rewritten, beside what they are to become.
        beside: a model that rewrites them too.
        conditional: the model is told what the texts say.
        beam: see :class:`~multidiff.text.diffuser.sampling_config.EditSamplingConfig`.
        revision_beams: likewise.
        top_p: likewise; tokens are drawn where texts begin from noise or nothing.
        temperature: likewise.
        edits_per_step: likewise.
        edit_margin: likewise.
        num_candidates: likewise.
        column: of the texts.
        meaning_column: of their meanings.
        source_column: of what they are made from.
        headless: the data's first row names no columns, which are called 0, 1 and so on.
        held_out_every: of the split; the recipe's where the data trained the model, 0 for all.

    Raises:
        InputError: if there is nothing to measure by, or an option is wrong.
    """
    _check_options(model, sampler, conditional, beside is not None and not rewrite)
    given: dict[str, Any] = {
        "steps": steps,
        "edits_per_step": edits_per_step,
        "edit_margin": edit_margin,
        "beam": beam,
    }
    given |= {"temperature": temperature, "top_p": top_p}
    given |= {"revision_beams": revision_beams, "num_candidates": num_candidates}
    sampling = model.sampling.changed(given)
    source = source_of(data, column, meaning_column, source_column, not headless)
    source = held_out_of(source, folder, held_out_every, report := Report())
    asked = (fixed, repair, from_noise, from_nothing, rewrite)
    counts = _counts(asked, num, bootstrap is not None)
    if rewrite:
        _rewrite(model, beside, source, rewrite, sampling, seed, report)
    if max(counts[name] for name in (*COMPONENTS, "num")):
        bench = _bench(model, sampling, source, max(counts.values()), conditional, seed, report)
        fresh = replace(bench, sampling=model.sampling.changed(drawn(given)))
        _measure(bench, fresh, counts, bootstrap, report)
    return report


def _check_options(model: EditedText, sampler: str | None, conditional: bool, idle: bool) -> None:
    """See whether each option does something.

    Raises:
        InputError: if one would be ignored.
    """
    if sampler is not None:
        raise InputError(f"--sampler {sampler}: editing has none; leave it out")
    if conditional and model.domain.meanings is None:
        raise InputError("--conditional: this model was trained without meanings; leave it out")
    if idle:
        raise InputError("--beside: rewrites too; say how many texts by --rewrite")


def _counts(asked: Sequence[int], num: int, drafts: bool) -> dict[str, int]:
    """How many texts each part and rewriting have, and another model's drafts.

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
    """The model beside real texts.

    Raises:
        InputError: if the model reads sources and none are told.
    """
    if model.domain.source_length and source.source_column is None:
        raise InputError(
            f"{source.path}: this model makes texts from others; name their --source-column"
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
    """The parts that are asked for; texts that begin afresh are drawn."""
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
    """Texts that are rewritten, by another model too, and what they were to become."""
    sources, wanted = pairs_of(source, count)
    made = {"rewritten": rewritten(model, sources, sampling, seed)}
    if beside is not None:
        made["beside"] = rewritten(beside, sources, None, seed)
    facts = compared(sources, wanted, {**made})
    report.facts["rewrite"] = {**facts, "texts": len(sources)}
    report.lines.extend(columns_of(facts, [*facts]))
