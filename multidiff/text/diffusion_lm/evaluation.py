"""How good a text model is: probable, varied, obedient, and no copyist."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multidiff.text.data.inspection import note_unknown
from multidiff.text.data.listing import TextSource
from multidiff.text.data.split import held_out_of
from multidiff.text.diffusion_lm.model import TextDiffusion
from multidiff.text.metrics.comparison import compare, language_model_facts
from multidiff.text.metrics.eval_split import EvalSplit, eval_split, source_of
from multidiff.text.metrics.infilling import fill_blanks
from multidiff.text.model import TextModel
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, checked_counts


def measure(
    model: TextDiffusion,
    data: str | None,
    folder: Path,
    *,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    guidance_scale: float | None = None,
    temperature: float | None = None,
    num: int = 500,
    unconditional: bool = False,
    num_candidates: int = 1,
    bound: int = 0,
    blanks: int = 0,
    language_model: Path | None = None,
    column: str = "text",
    meaning_column: str | None = None,
    source_column: str | None = None,
    held_out_every: int | None = None,
) -> Report:
    """Samples beside real texts, under an n-gram that was trained on others.

    Args:
        model: the model.
        data: held-out texts, or all of which every so many-th group is held out.
        folder: of the model, whose recipe says what it was trained on.
        steps: of the sampler.
        sampler: its name.
        seed: of the first sample's noise; the others follow.
        guidance_scale: scale of the meanings, or of the sources.
        temperature: of the words that clamping chooses among.
        num: samples; 0 draws none.
        unconditional: samples are told no meaning, and no source.
        num_candidates: drawn for each sample.
        bound: texts whose likelihood is bounded.
        blanks: texts of which a third of the tokens is filled in again.
        language_model: folder of a causal language model that judges too.
        column: of the texts.
        meaning_column: of their meanings.
        source_column: of what they are made from, for models that read that.
        held_out_every: of the split; the recipe's where the data trained the model, 0 for all.

    Raises:
        InputError: if there is nothing to measure by, or the model cannot do it.
    """
    most = checked_counts({"num": num, "bound": bound, "blanks": blanks})
    source, report = source_of(data, column, meaning_column, source_column), Report()
    source, split = measured(model, source, folder, held_out_every, most, report)
    how: dict[str, Any] = {
        "steps": steps,
        "sampler": sampler,
        "guidance_scale": guidance_scale,
        "seed": seed,
    }
    how |= {"temperature": temperature, "num_candidates": num_candidates}
    requests = requests_like(model, source, split, unconditional)
    report_made(model, requests, split, how, num, blanks, language_model, report)
    if bound:
        _bound(model, requests, split, bound, seed, report)
    return report


def measured(
    model: TextModel,
    source: TextSource,
    folder: Path,
    held_out_every: int | None,
    most: int,
    report: Report,
) -> tuple[TextSource, EvalSplit]:
    """The source with the split of the model's recipe, and its held-out texts in two parts.

    Raises:
        InputError: if the model was trained on all of them, or does not know their words.
    """
    source = held_out_of(source, folder, held_out_every, report)
    split = eval_split(source, model.domain.vocabulary, most)
    note_unknown(source.path, model.domain.vocabulary, split.texts, report)
    return source, split


def report_made(
    model: TextModel,
    requests: Sequence[TextRequest],
    split: EvalSplit,
    how: dict[str, Any],
    num: int,
    blanks: int,
    language_model: Path | None,
    report: Report,
) -> None:
    """So many samples beside real texts, and so many texts of which blanks are filled in."""
    if num:
        compare(model, first_of(requests, num), split, how, report)
        language_model_facts(language_model, split, report)
    if blanks:
        fill_blanks(model, requests, blanks, split, how, report)


def _bound(
    model: TextModel,
    requests: Sequence[TextRequest],
    split: EvalSplit,
    count: int,
    seed: int,
    report: Report,
) -> None:
    """The likelihood of real texts, at least."""
    rows = split.fitting(model.domain.length, count, "bound")
    terms = bound_of(model, [requests[row] for row in rows], split, rows, seed)
    report.facts["bound"] = {name: round(value, 4) for name, value in terms.items()}
    listed = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
    report.lines.append(f"nats for each token, at most: {listed}")


def requests_like(
    model: TextModel, source: TextSource, split: EvalSplit, unconditional: bool
) -> list[TextRequest]:
    """An order for each of the real texts: what it says, or is made from, where models read that.

    Raises:
        InputError: if a model reads sources and none are told.
    """
    domain = model.domain
    if unconditional or (domain.meanings is None and not domain.source_length):
        return [TextRequest() for _ in split.texts]
    if domain.meanings is not None:
        return [TextRequest(meaning) for meaning in split.meanings]
    if source.source_column is None:
        raise InputError(
            f"{source.path}: this model makes texts from others; name their --source-column, or "
            "measure it --unconditional"
        )
    return [TextRequest(source=one) for one in split.sources]


def first_of(requests: Sequence[TextRequest], num: int) -> list[TextRequest]:
    """So many of them, over and over."""
    return [requests[position % len(requests)] for position in range(num)]


def bound_of(
    model: TextModel,
    requests: Sequence[TextRequest],
    split: EvalSplit,
    rows: Sequence[int],
    seed: int,
) -> dict[str, float]:
    """What some of the real texts cost at most, told what their orders say."""
    return model.nats_per_token(
        [split.texts[row] for row in rows],
        [request.meaning for request in requests],
        seed=seed,
        sources=[request.source for request in requests],
    )
