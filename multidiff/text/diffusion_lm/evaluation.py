"""How good a text model is: probable, varied, obedient, and no copyist."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multidiff.text.data.inspection import note_unknown
from multidiff.text.data.listing import TextSource
from multidiff.text.data.split import held_out_of
from multidiff.text.diffusion_lm.model import TextDiffusion
from multidiff.text.metrics.comparison import compare, judge_by
from multidiff.text.metrics.eval_split import Halves, halved, source_of
from multidiff.text.metrics.infilling import fill_blanks
from multidiff.text.model import TextModel
from multidiff.text.request import TextOrder
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, checked_counts


def measure(
    model: TextDiffusion,
    data: str | None,
    folder: Path,
    *,
    steps: int | None = None,
    solver: str | None = None,
    seed: int = 0,
    guidance: float | None = None,
    temperature: float | None = None,
    num: int = 500,
    untold: bool = False,
    candidates: int = 1,
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
        steps: of the solver.
        solver: its name.
        seed: of the first sample's noise; the others follow.
        guidance: scale of the meanings, or of the sources.
        temperature: of the words that clamping chooses among.
        num: samples; 0 draws none.
        untold: samples are told no meaning, and no source.
        candidates: drawn for each sample.
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
    source, halves = measured(model, source, folder, held_out_every, most, report)
    how: dict[str, Any] = {"steps": steps, "solver": solver, "guidance": guidance, "seed": seed}
    how |= {"temperature": temperature, "candidates": candidates}
    orders = orders_like(model, source, halves, untold)
    tell_of_made(model, orders, halves, how, num, blanks, language_model, report)
    if bound:
        _bound(model, orders, halves, bound, seed, report)
    return report


def measured(
    model: TextModel,
    source: TextSource,
    folder: Path,
    held_out_every: int | None,
    most: int,
    report: Report,
) -> tuple[TextSource, Halves]:
    """The source with the split of the model's recipe, and its held-out texts in two parts.

    Raises:
        InputError: if the model was trained on all of them, or does not know their words.
    """
    source = held_out_of(source, folder, held_out_every, report)
    halves = halved(source, model.domain.vocabulary, most)
    note_unknown(source.path, model.domain.vocabulary, halves.texts, report)
    return source, halves


def tell_of_made(
    model: TextModel,
    orders: Sequence[TextOrder],
    halves: Halves,
    how: dict[str, Any],
    num: int,
    blanks: int,
    language_model: Path | None,
    report: Report,
) -> None:
    """So many samples beside real texts, and so many texts of which blanks are filled in."""
    if num:
        compare(model, first_of(orders, num), halves, how, report)
        judge_by(language_model, halves, report)
    if blanks:
        fill_blanks(model, orders, blanks, halves, how, report)


def _bound(
    model: TextModel,
    orders: Sequence[TextOrder],
    halves: Halves,
    count: int,
    seed: int,
    report: Report,
) -> None:
    """The likelihood of real texts, at least."""
    rows = halves.fitting(model.domain.length, count, "bound")
    terms = bound_of(model, [orders[row] for row in rows], halves, rows, seed)
    report.facts["bound"] = {name: round(value, 4) for name, value in terms.items()}
    listed = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
    report.lines.append(f"nats for each token, at most: {listed}")


def orders_like(
    model: TextModel, source: TextSource, halves: Halves, untold: bool
) -> list[TextOrder]:
    """An order for each of the real texts: what it says, or is made from, where models read that.

    Raises:
        InputError: if a model reads sources and none are told.
    """
    domain = model.domain
    if untold or (domain.meanings is None and not domain.source_length):
        return [TextOrder() for _ in halves.texts]
    if domain.meanings is not None:
        return [TextOrder(meaning) for meaning in halves.meanings]
    if source.source_column is None:
        raise InputError(
            f"{source.path}: this model makes texts from others; name their --source-column, or "
            "measure it --untold"
        )
    return [TextOrder(source=one) for one in halves.sources]


def first_of(orders: Sequence[TextOrder], num: int) -> list[TextOrder]:
    """So many of them, over and over."""
    return [orders[place % len(orders)] for place in range(num)]


def bound_of(
    model: TextModel, orders: Sequence[TextOrder], halves: Halves, rows: Sequence[int], seed: int
) -> dict[str, float]:
    """What some of the real texts cost at most, told what their orders say."""
    return model.nats_per_token(
        [halves.texts[row] for row in rows],
        [order.meaning for order in orders],
        seed=seed,
        sources=[order.source for order in orders],
    )
