"""How good a text model is: probable, varied, obedient, and no copyist."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multidiff.errors import InputError
from multidiff.report import Report, table
from multidiff.text.diffusion import TextDiffusion
from multidiff.text.judge import Judge
from multidiff.text.likelihood import nats_per_token
from multidiff.text.listing import TextSource
from multidiff.text.metrics import (
    bleu,
    causal_nats_per_token,
    copy_rate,
    distinct,
    entropy,
    self_bleu,
)
from multidiff.text.ngram import NGramModel
from multidiff.text.orders import TextOrder
from multidiff.text.vocabulary import Vocabulary

DATA = "starter:restaurant/sentences.csv"
ORDER = 4  # of the n-gram that judges
Meaning = Mapping[str, str]


@dataclass(frozen=True)
class Halves:
    """Texts that the model was not trained on, in two parts, and those it was.

    Attributes:
        other: tokens of the texts that the judges are trained on.
        other_meanings: what these say.
        real: tokens of the texts that samples are compared with.
        texts: these as they stand.
        meanings: what these say.
        groups: which of these say the same.
        trained: tokens of the texts that the model was trained on; none where not told.
    """

    other: list[list[int]]
    other_meanings: list[Meaning]
    real: list[list[int]]
    texts: list[str]
    meanings: list[Meaning]
    groups: list[str]
    trained: list[list[int]]


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
    held_out_every: int = 0,
) -> Report:
    """Samples beside real texts, under an n-gram that was trained on others.

    Args:
        model: the model.
        data: held-out texts, or all of which every so many-th group is held out.
        folder: of the model, unused.
        steps: of the solver.
        solver: its name.
        seed: of the first sample's noise; the others follow.
        guidance: scale of the meanings.
        temperature: of the words that clamping chooses among.
        num: samples; 0 draws none.
        untold: samples are told no meaning.
        candidates: drawn for each sample.
        bound: texts whose likelihood is bounded.
        blanks: texts of which a third of the tokens is filled in again.
        language_model: folder of a causal language model that judges too.
        column: of the texts.
        meaning_column: of their meanings.
        held_out_every: of the recipe's split; the rest are the texts it was trained on.

    Raises:
        InputError: if there is nothing to measure by, or the model cannot do it.
    """
    counts = {"num": num, "bound": bound, "blanks": blanks}
    source = source_of(data, column, meaning_column, held_out_every)
    halves = halved(source, model.domain.vocabulary, checked_counts(counts))
    how: dict[str, Any] = {"steps": steps, "solver": solver, "guidance": guidance, "seed": seed}
    how |= {"temperature": temperature, "candidates": candidates}
    orders = [TextOrder({} if untold else one) for one in halves.meanings]
    report = Report([], {"data": source.path})
    if num:
        _compare(model, [orders[i % len(orders)] for i in range(num)], halves, how, report)
        _judge_by(language_model, halves, report)
    if blanks:
        _fill(model, orders, blanks, halves, how, report)
    if bound:
        _bound(model, orders[:bound], halves, seed, report)
    return report


def source_of(
    data: str | None, column: str, meaning_column: str | None, held_out_every: int
) -> TextSource:
    """The texts that a command names, or those that come with the package."""
    if data is None:
        return TextSource(DATA, "text", meaning_column="meaning")
    return TextSource(data, column, meaning_column=meaning_column, held_out_every=held_out_every)


def checked_counts(counts: Mapping[str, int]) -> int:
    """The largest of what is to be measured.

    Raises:
        InputError: if that is nothing.
    """
    if min(counts.values()) < 0 or not any(counts.values()):
        told = " ".join(f"--{name} {count}" for name, count in counts.items())
        raise InputError(f"{told}: there is nothing to measure")
    return max(counts.values())


def halved(source: TextSource, vocabulary: Vocabulary, num: int) -> Halves:
    """Texts of a source in two parts, the second of about so many."""
    found = source.listing()
    held_out = source.held_out_every > 0
    rows = source.rows(found, held_out)
    groups = found.groups or found.names
    kinds = list(dict.fromkeys(groups[row] for row in rows))
    every = min(max(2, round(len(rows) / num)), len(kinds))
    second = set(kinds[every // 2 :: every])
    parts: tuple[list[int], list[int]] = ([], [])
    for row in rows:
        parts[groups[row] in second].append(row)
    if not all(parts):
        raise InputError(f"{source.path}: {len(rows)} texts are too few to be parted in two")
    words = vocabulary.numbers
    meanings: list[Meaning] = [*(found.meanings or [{} for _ in found.texts])]
    trained = source.rows(found, False) if held_out else []
    return Halves(
        [words(found.texts[row]) for row in parts[0]],
        [meanings[row] for row in parts[0]],
        [words(found.texts[row]) for row in parts[1]],
        [found.texts[row] for row in parts[1]],
        [meanings[row] for row in parts[1]],
        [groups[row] for row in parts[1]],
        [words(found.texts[row]) for row in trained],
    )


def _compare(
    model: TextDiffusion,
    orders: Sequence[TextOrder],
    halves: Halves,
    how: dict[str, Any],
    report: Report,
) -> None:
    """Samples and real texts side by side."""
    began = time.perf_counter()
    texts = model.generate(orders, **how)
    seconds = round(time.perf_counter() - began, 2)
    made = [model.domain.vocabulary.numbers(text) for text in texts]
    ngram = NGramModel(halves.other, ORDER)
    sets = {"samples": made, "real": halves.real}
    facts = {name: described(tokens, ngram, halves.trained) for name, tokens in sets.items()}
    if any(order.meaning for order in orders):
        alike: dict[str, list[list[int]]] = {}
        for group, tokens in zip(halves.groups, halves.real, strict=True):
            alike.setdefault(group, []).append(tokens)
        wanted = [halves.groups[i % len(halves.groups)] for i in range(len(made))]
        facts["samples"]["bleu"] = bleu(made, [alike[group] for group in wanted])
        facts |= _obedience(made, halves)
    report.facts.update({**facts, "wall_seconds": seconds, "texts": texts})
    report.lines.extend(_table(facts))


def _judge_by(folder: Path | None, halves: Halves, report: Report) -> None:
    """Samples and real texts under a causal language model, where one is given."""
    if folder is None:
        return
    found = {
        name: causal_nats_per_token(texts, folder)
        for name, texts in (("samples", report.facts["texts"]), ("real", halves.texts))
    }
    report.facts["language_model"] = found
    told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    report.lines.append(f"nats for each of its tokens under {folder}: {told}")


def _fill(
    model: TextDiffusion,
    orders: Sequence[TextOrder],
    count: int,
    halves: Halves,
    how: dict[str, Any],
    report: Report,
) -> None:
    """A third of the tokens of real texts filled in, by the model and by an n-gram."""
    rng = np.random.default_rng(how["seed"])
    fits = [row for row, one in enumerate(halves.real) if 0 < len(one) < model.domain.length]
    if not fits:
        most = model.domain.length - 1
        raise InputError(f"--blanks {count}: no text is as short as {most} words")
    real = [halves.real[row] for row in fits[:count]]
    holes = [set(rng.permutation(len(one))[: max(1, len(one) // 3)].tolist()) for one in real]
    known = [
        {place: token for place, token in enumerate(one) if place not in hole}
        for one, hole in zip(real, holes, strict=True)
    ]
    asked = [
        TextOrder(orders[row].meaning, there, len(one))
        for row, there, one in zip(fits, known, real, strict=False)
    ]
    filler = NGramModel(halves.trained or halves.other, ORDER)
    sets = {
        "filled by the model": [model.domain.vocabulary.numbers(one)
                                for one in model.generate(asked, **how)],
        "by the n-gram": [filler.fill([there.get(place) for place in range(len(one))], rng)
                          for there, one in zip(known, real, strict=True)],
        "real": real,
    }  # fmt: skip
    judge = NGramModel(halves.other, ORDER)
    facts = {}
    for name, made in sets.items():
        kept = [made[row][place] == token for row, there in enumerate(known)
                for place, token in there.items()]  # fmt: skip
        found = [made[row][place] == real[row][place] for row, hole in enumerate(holes)
                 for place in hole]  # fmt: skip
        facts[name] = {
            "nats_per_token": judge.nats_per_token(made),
            "known_kept": sum(kept) / len(kept),
            "blanks_as_real": sum(found) / len(found),
        }
    report.facts["blanks"] = facts
    report.lines.extend(columns_of(facts, tuple(facts)))


def _bound(
    model: TextDiffusion, orders: Sequence[TextOrder], halves: Halves, seed: int, report: Report
) -> None:
    """The likelihood of real texts, at least."""
    told = [order.meaning for order in orders]
    terms = nats_per_token(model, halves.texts[: len(orders)], told, seed=seed)
    report.facts["bound"] = {name: round(value, 4) for name, value in terms.items()}
    listed = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
    report.lines.append(f"nats for each token, at most: {listed}")


def described(
    tokens: Sequence[Sequence[int]], ngram: NGramModel, trained: Sequence[Sequence[int]]
) -> dict[str, float]:
    """What a set of texts is like."""
    facts = {
        "nats_per_token": ngram.nats_per_token(tokens),
        "distinct_1": distinct(tokens, 1),
        "distinct_2": distinct(tokens, 2),
        "entropy": entropy(tokens),
        "length": sum(map(len, tokens)) / len(tokens),
    }
    if len(tokens) > 1:
        facts["self_bleu"] = self_bleu(tokens, most=100)
    return facts | ({"copies": copy_rate(tokens, trained)} if trained else {})


def _obedience(made: Sequence[Sequence[int]], halves: Halves) -> dict[str, dict[str, float]]:
    """How often the judge finds said what was to be said, in samples and in real texts."""
    judge = Judge(halves.other, halves.other_meanings)
    wanted = [halves.meanings[i % len(halves.meanings)] for i in range(len(made))]
    return {
        "obeyed": judge.accuracy(made, wanted),
        "obeyed_by_real": judge.accuracy(halves.real, halves.meanings),
    }


def _table(facts: Mapping[str, Mapping[str, float]]) -> list[str]:
    pairs = (("samples", "real"), ("obeyed", "obeyed_by_real"))
    return [line for names in pairs if names[0] in facts for line in columns_of(facts, names)]


def columns_of(facts: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> list[str]:
    """Some of the facts as a table, a column for each."""
    keys = list(dict.fromkeys(key for name in names for key in facts[name]))
    rows = [
        [key, *(f"{facts[name][key]:.3f}" if key in facts[name] else "-" for name in names)]
        for key in keys
    ]
    return table([["", *names], *rows])
