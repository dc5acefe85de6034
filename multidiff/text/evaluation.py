"""How good a text model is: probable, varied, obedient, and no copyist."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidiff.errors import InputError
from multidiff.report import Report, table
from multidiff.text.classifier import TextClassifier
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
from multidiff.text.orders import Control, TextOrder
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
    control: tuple[str, ...] = (),
    each: int = 50,
    updates: int = 3,
    rate: float = 1.0,
    fluency: float = 0.01,
    classifier: TextClassifier | None = None,
    bound: int = 0,
    language_model: Path | None = None,
    column: str = "text",
    meaning_column: str | None = None,
    held_out_every: int = 0,
) -> Report:
    """Samples beside real texts, under an n-gram that was trained on others.

    Texts that say the same are kept together: one part of them trains the n-gram and the judge
    of meanings, the other is what samples are compared with, which are told its meanings.

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
        control: attributes; samples are pulled towards each of their values in turn, and are
            told nothing. ``food+area`` pulls towards two at once.
        each: samples for each value.
        updates: of the texts towards the controls after each step.
        rate: of each update.
        fluency: how strongly the texts are held where the model puts them.
        classifier: the model that pulls.
        bound: texts whose likelihood is bounded.
        language_model: folder of a causal language model that judges too.
        column: of the texts.
        meaning_column: of their meanings.
        held_out_every: of the recipe's split; the rest are the texts it was trained on.

    Raises:
        InputError: if there is nothing to measure by, or the model cannot do it.
    """
    if min(num, bound) < 0 or each < 1:
        raise InputError(f"--num {num} --bound {bound} --each {each}: there is nothing to measure")
    if control and classifier is None:
        raise InputError("--control: needs a classifier; name one by --classifier")
    if data is None:
        data, column, meaning_column = DATA, "text", "meaning"
    source = TextSource(data, column, meaning_column=meaning_column, held_out_every=held_out_every)
    halves = halved(source, model.domain.vocabulary, max(num, bound, 1))
    how: dict[str, Any] = {"steps": steps, "solver": solver, "guidance": guidance}
    how |= {"temperature": temperature}
    report = Report([], {"data": data})
    if num:
        orders = [TextOrder({} if untold else halves.meanings[i % len(halves.real)])
                  for i in range(num)]  # fmt: skip
        began = time.perf_counter()
        texts = model.generate(orders, **how, seed=seed, candidates=candidates)
        report.facts["wall_seconds"] = round(time.perf_counter() - began, 2)
        _compare(model, texts, halves, untold, language_model, report)
    if control:
        assert classifier is not None
        pull = Control(classifier, {}, updates, rate, fluency)
        _control(model, control, each, pull, halves, {**how, "seed": seed}, report)
    if bound:
        told = [{} if untold else one for one in halves.meanings[:bound]]
        terms = nats_per_token(model, halves.texts[:bound], told, seed=seed)
        report.facts["bound"] = {name: round(value, 4) for name, value in terms.items()}
        listed = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
        report.lines.append(f"nats for each token, at most: {listed}")
    return report


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
    texts: Sequence[str],
    halves: Halves,
    untold: bool,
    language_model: Path | None,
    report: Report,
) -> None:
    """Samples and real texts side by side."""
    made = [model.domain.vocabulary.numbers(text) for text in texts]
    ngram = NGramModel(halves.other, ORDER)
    sets = {"samples": made, "real": halves.real}
    facts = {name: described(tokens, ngram, halves.trained) for name, tokens in sets.items()}
    if language_model is not None:
        for name, lines in (("samples", texts), ("real", halves.texts)):
            facts[name]["language_model_nats"] = causal_nats_per_token(lines, language_model)
    if not untold and model.domain.meanings is not None:
        alike: dict[str, list[list[int]]] = {}
        for group, tokens in zip(halves.groups, halves.real, strict=True):
            alike.setdefault(group, []).append(tokens)
        wanted = [halves.groups[i % len(halves.groups)] for i in range(len(made))]
        facts["samples"]["bleu"] = bleu(made, [alike[group] for group in wanted])
        facts |= _obedience(made, halves)
    report.facts.update(facts)
    report.lines.extend(_table(facts))


def described(
    tokens: Sequence[Sequence[int]], ngram: NGramModel, trained: Sequence[Sequence[int]]
) -> dict[str, float]:
    """What a set of texts is like."""
    facts = {
        "texts": len(tokens),
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
    lines = []
    for names in (("samples", "real"), ("obeyed", "obeyed_by_real")):
        columns = [name for name in names if name in facts]
        if columns:
            keys = list(dict.fromkeys(key for name in columns for key in facts[name]))
            cells = [[f"{facts[n][k]:.3f}" if k in facts[n] else "-" for n in columns]
                     for k in keys]  # fmt: skip
            rows = [[key, *row] for key, row in zip(keys, cells, strict=True)]
            lines += table([["", *columns], *rows])
    return lines


# ---------------------------------------------------------------------------- control


def _control(
    model: TextDiffusion,
    attributes: Sequence[str],
    each: int,
    pull: Control,
    halves: Halves,
    how: dict[str, Any],
    report: Report,
) -> None:
    """How often samples that are pulled towards a value have it, and how often they have anyway."""
    judge = Judge(halves.other, halves.other_meanings)
    ngram = NGramModel(halves.other, ORDER)
    words = model.domain.vocabulary.numbers
    free = [words(text) for text in model.generate([TextOrder()] * each, **how)]
    base = judge.meanings(free)
    rows = [["control", "success", "without", "nats", "nats without"]]
    facts: dict[str, dict[str, float]] = {}
    for wanted in _targets(model, attributes):
        controlled = Control(pull.classifier, wanted, pull.updates, pull.rate, pull.fluency)
        made = model.generate([TextOrder()] * each, control=controlled, **how)
        tokens = [words(text) for text in made]
        name = ", ".join(f"{attribute}={value}" for attribute, value in wanted.items())
        facts[name] = {
            "success": _share(judge.meanings(tokens), wanted),
            "without": _share(base, wanted),
            "nats_per_token": ngram.nats_per_token(tokens),
            "nats_without": ngram.nats_per_token(free),
        }
        rows.append([name, *(f"{value:.3f}" for value in facts[name].values())])
    mean = {key: sum(one[key] for one in facts.values()) / len(facts)
            for key in ("success", "without", "nats_per_token")}  # fmt: skip
    report.facts["control"] = {"targets": facts, "mean": mean}
    report.lines.extend(table(rows))
    report.lines.append(f"mean success {mean['success']:.3f}, without {mean['without']:.3f}")


def _targets(model: TextDiffusion, attributes: Sequence[str]) -> list[dict[str, str]]:
    """The values to be tried: all of an attribute, or of two the pairs in step."""
    meanings = model.domain.meanings
    if meanings is None:
        raise InputError("--control: this model was trained without meanings")
    targets: list[dict[str, str]] = []
    for text in attributes:
        names = text.split("+")
        for name in names:
            if name not in meanings.attributes:
                raise InputError(f"--control {text}: there are {', '.join(meanings.attributes)}")
        most = max(len(meanings.attributes[name]) for name in names)
        for place in range(most):
            values = {n: meanings.attributes[n][place % len(meanings.attributes[n])] for n in names}
            targets.append(values)
    return targets


def _share(found: Sequence[Meaning], wanted: Meaning) -> float:
    right = [all(one.get(name) == value for name, value in wanted.items()) for one in found]
    return sum(right) / len(right)
