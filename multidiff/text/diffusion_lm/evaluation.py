"""Evaluation of text models: probability, diversity, control accuracy and copies of samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multidiff.text.data.inspection import note_unknown
from multidiff.text.data.listing import TextSource
from multidiff.text.data.split import held_out_of
from multidiff.text.diffusion_lm.model import TextDiffusion
from multidiff.text.metrics.comparison import compare, language_model_facts
from multidiff.text.metrics.eval_split import EvalSplit, eval_split, source_of
from multidiff.text.metrics.infilling import fill_blanks
from multidiff.text.model import TextModel
from multidiff.text.request import TextRequest
from multidiff.text.sampling_config import TextSamplingConfig
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, checked_counts


def measure(
    model: TextDiffusion,
    data: str | None,
    folder: Path,
    *,
    seed: int,
    sampling: TextSamplingConfig,
    num: int = 500,
    unconditional: bool = False,
    bound: int = 0,
    blanks: int = 0,
    language_model: Path | None = None,
    column: str = "text",
    meaning_column: str | None = None,
    source_column: str | None = None,
    held_out_every: int | None = None,
) -> Report:
    """Compare samples with real texts under an n-gram model trained on others.

    Args:
        model: the model.
        data: held-out texts, or all of which every n-th group is held out.
        folder: folder of the model, whose recipe has its training data.
        seed: random seed of the first sample; sample ``i`` uses ``seed + i``.
        sampling: sampling options.
        num: number of samples; 0 for none.
        unconditional: sample without meaning representations and sources.
        bound: number of texts whose likelihood is bounded (NELBO).
        blanks: number of texts of which a third of the tokens is filled in again.
        language_model: folder of a causal language model that scores texts too.
        column: column of the texts.
        meaning_column: column of their meaning representations.
        source_column: column of their sources, for models that read one.
        held_out_every: n of the held-out split; by default the recipe's for its data, 0 for all.

    Raises:
        InputError: if there is nothing to compare with, or the model cannot do it.
    """
    most = checked_counts({"num": num, "bound": bound, "blanks": blanks})
    source, report = source_of(data, column, meaning_column, source_column), Report()
    source, split = measured(model, source, folder, held_out_every, most, report)
    requests = requests_like(model, source, split, unconditional)
    if num:
        compare(model, first_of(requests, num), split, sampling, seed, report)
        language_model_facts(language_model, split, report)
    if blanks:
        fill_blanks(model, requests, blanks, split, sampling, seed, report)
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
    """Return the source with the split of the model's recipe, and its held-out texts in two parts.

    Raises:
        InputError: if the model was trained on all of them, or does not know their words.
    """
    source = held_out_of(source, folder, held_out_every, report)
    split = eval_split(source, model.domain.vocabulary, most)
    note_unknown(source.path, model.domain.vocabulary, split.texts, report)
    return source, split


def _bound(
    model: TextModel,
    requests: Sequence[TextRequest],
    split: EvalSplit,
    count: int,
    seed: int,
    report: Report,
) -> None:
    """Report a bound on the likelihood of real texts."""
    rows = split.fitting(model.domain.length, count, "bound")
    terms = bound_of(model, [requests[row] for row in rows], split, rows, seed)
    report.facts["bound"] = {name: round(value, 4) for name, value in terms.items()}
    listed = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
    report.lines.append(f"nats for each token, at most: {listed}")


def requests_like(
    model: TextModel, source: TextSource, split: EvalSplit, unconditional: bool
) -> list[TextRequest]:
    """Return a request for each real text: its meaning or source, if the model reads one.

    Raises:
        InputError: if a model reads sources and there are none.
    """
    domain = model.domain
    if unconditional or (domain.meanings is None and not domain.source_length):
        return [TextRequest() for _ in split.texts]
    if domain.meanings is not None:
        return [TextRequest(meaning) for meaning in split.meanings]
    if source.source_column is None:
        raise InputError(
            f"{source.path}: this model makes texts from source texts; name their "
            "--source-column, or measure it --unconditional"
        )
    return [TextRequest(source=one) for one in split.sources]


def first_of(requests: Sequence[TextRequest], num: int) -> list[TextRequest]:
    """Return a number of requests, repeating them from the first on."""
    return [requests[position % len(requests)] for position in range(num)]


def bound_of(
    model: TextModel,
    requests: Sequence[TextRequest],
    split: EvalSplit,
    rows: Sequence[int],
    seed: int,
) -> dict[str, float]:
    """Return a bound on the cost of some real texts, conditioned on their requests."""
    return model.nats_per_token(
        [split.texts[row] for row in rows],
        [request.meaning for request in requests],
        seed=seed,
        sources=[request.source for request in requests],
    )
