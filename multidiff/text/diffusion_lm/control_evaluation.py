"""Evaluation of classifiers of noisy texts, and of the models that they guide."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from multidiff.core.random import generators
from multidiff.text.data.inspection import note_unknown
from multidiff.text.data.listing import TextSource
from multidiff.text.data.split import held_out_of
from multidiff.text.diffusion_lm.classifier import TextClassifier
from multidiff.text.diffusion_lm.cli import PULL
from multidiff.text.diffusion_lm.model import TextDiffusion
from multidiff.text.metrics.attribute_classifier import AttributeClassifier
from multidiff.text.metrics.comparison import ORDER
from multidiff.text.metrics.eval_split import EvalSplit, eval_split, source_of
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.request import Control, TextRequest
from multidiff.text.sampling_config import TextSamplingConfig
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, table

TIMES = (0.001, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
AT_ONCE = 100
REAL = 500
EACH = 50


def measure(
    model: TextClassifier, data: str | None, folder: Path, *, seed: int,
    sampling: TextSamplingConfig, num: int = 500, steered: TextDiffusion | None = None,
    control: tuple[str, ...] = (), each: int | None = None,
    control_strength: tuple[float, float, float] | None = None, column: str = "text",
    meaning_column: str | None = None, held_out_every: int | None = None,
) -> Report:  # fmt: skip
    """Measure accuracy on noisy texts, and how often guided samples have the wanted values.

    Args:
        model: the classifier.
        data: held-out texts, or all of which every n-th group is held out.
        folder: folder of the model, whose recipe has its training data.
        seed: random seed of the first text; text ``i`` uses ``seed + i``.
        sampling: options of the guided model's samples, replacing its own. With a guidance
            scale the model is conditioned on the value instead of classifier guidance.
        num: number of held-out texts; 0 for none.
        steered: model that the classifier guides.
        control: attributes; samples are guided towards each of their values in turn;
            ``food+area`` guides towards two at once.
        each: number of samples of each value, 50 by default.
        control_strength: number of updates after each step, their rate, and the weight of fluency,
            which keeps texts likely; by default 6,50,0.003.
        column: column of the texts.
        meaning_column: column of their meaning representations.
        held_out_every: n of the held-out split; by default the recipe's for its data, 0 for all.

    Raises:
        InputError: if the data have no meaning representations, or the model lacks an attribute.
    """
    given = {"control": control or None, "each": each, "control_strength": control_strength}
    given = {name: one for name, one in given.items() if one is not None} | {**sampling.overrides}
    _check_steering(steered, given)
    source, report = source_of(data, column, meaning_column), Report()
    source = held_out_of(source, folder, held_out_every, report)
    if num:
        _right(model, source, num, seed, report)
    if steered is not None:
        targets = targets_of(model, control)
        split = eval_split(source, steered.domain.vocabulary, REAL)
        updates, rate, fluency = PULL if control_strength is None else control_strength
        guided = "guidance_scale" in sampling.overrides
        by = None if guided else Control(model, {}, int(updates), rate, fluency)
        config = steered.sampling.replace(**sampling.overrides)
        _steer(steered, by, targets, EACH if each is None else each, split, config, seed, report)
    return report


def _check_steering(steered: TextDiffusion | None, given: Mapping[str, Any]) -> None:
    """Check that the options of guided samples have a model to guide, in one way.

    Raises:
        InputError: if one would be ignored.
    """
    if steered is None and given:
        name = next(iter(given))
        raise InputError(
            f"--{name.replace('_', '-')}: applies to guided samples; name --steered MODEL"
        )
    if "control_strength" in given and "guidance_scale" in given:
        raise InputError("--control-strength and --guidance-scale: are two ways to steer; keep one")


@torch.no_grad()
def _right(model: TextClassifier, source: TextSource, num: int, seed: int, report: Report) -> None:
    """Report the classifier's accuracy on held-out texts, by attribute and time."""
    found = source.listing()
    if found.meanings is None:
        raise InputError(f"{source.path}: has no meaning representations; name --meaning-column")
    rows = source.rows(found, source.held_out_every > 0)
    rows = rows[:: max(1, len(rows) // num)][:num]
    texts = [found.texts[row] for row in rows]
    note_unknown(source.path, model.domain.vocabulary, texts, report)
    right = {time: torch.zeros(len(model.attributes)) for time in TIMES}
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        meanings = [found.meanings[row] for row in some]
        rng = generators([seed + row for row in some])
        described = {"text": [found.texts[row] for row in some], "meaning": meanings}
        encoded, classes = model.domain.encode(described, rng), model.classes(meanings)
        for time in TIMES:
            level = model.process.schedule.at(torch.full((len(some),), time))
            xt = model.process.corrupt(encoded.x0, level.to(encoded.x0.device), rng).xt
            logits = model(xt, level.to(xt.device), encoded.real)
            best = torch.stack([one.argmax(dim=1).cpu() for one in logits], dim=1)
            right[time] += (best == classes).float().sum(dim=0)
    ratios = {
        name: {str(time): round(float(right[time][position]) / len(rows), 4) for time in TIMES}
        for position, name in enumerate(model.attributes)
    }
    cells = [
        [name, *(f"{one:.3f}" for one in described.values())] for name, described in ratios.items()
    ]
    report.lines.extend(table([["right at time", *map(str, TIMES)], *cells]))
    report.facts.update({"texts": len(rows), "right": ratios})


def targets_of(model: TextClassifier, attributes: Sequence[str]) -> list[dict[str, str]]:
    """Return the values to try: all of an attribute, or of several the values in parallel.

    Raises:
        InputError: if an attribute is unknown, or none is named.
    """
    targets: list[dict[str, str]] = []
    for text in attributes:
        names = text.split("+")
        if not set(names) <= set(model.attributes):
            raise InputError(f"--control {text}: expected one of {', '.join(model.attributes)}")
        values = [model.attributes[name] for name in names]
        targets += [
            {name: own[position % len(own)] for name, own in zip(names, values, strict=True)}
            for position in range(max(map(len, values)))
        ]
    if not targets:
        raise InputError("--steered: name the attributes too, by --control food,area")
    return targets


def _steer(
    steered: TextDiffusion,
    control: Control | None,
    targets: Sequence[Mapping[str, str]],
    each: int,
    split: EvalSplit,
    sampling: TextSamplingConfig,
    seed: int,
    report: Report,
) -> None:
    """Report how often guided samples have the wanted values, compared with unguided ones."""
    classifier = AttributeClassifier(split.other, split.other_meanings)
    ngram = NGramModel(split.other, ORDER)
    words = steered.domain.vocabulary.numbers
    free = [
        words(text) for text in steered.generate([TextRequest()] * each, config=sampling, seed=seed)
    ]
    base = classifier.meanings(free)
    facts: dict[str, dict[str, float]] = {}
    for wanted in targets:
        texts = _steered(steered, control, wanted, each, sampling, seed)
        made = [words(text) for text in texts]
        name = ", ".join(f"{attribute}={value}" for attribute, value in wanted.items())
        facts[name] = {
            "success": _ratio(classifier.meanings(made), wanted),
            "without": _ratio(base, wanted),
            "nats_per_token": ngram.nats_per_token(made),
        }
    mean = {key: sum(one[key] for one in facts.values()) / len(facts)
            for key in ("success", "without", "nats_per_token")}  # fmt: skip
    rows = [[name, *(f"{value:.3f}" for value in described.values())]
            for name, described in {**facts, "mean": mean}.items()]  # fmt: skip
    report.lines.extend(table([["control", *mean], *rows]))
    free_nats = ngram.nats_per_token(free)
    report.lines.append(f"without control {free_nats:.3f} nats for each token")
    report.facts["control"] = {"targets": facts, "mean": mean, "nats_without": free_nats}
    report.facts["classifier"] = classifier.accuracy(split.real, split.meanings)


def _steered(
    model: TextDiffusion,
    control: Control | None,
    wanted: Mapping[str, str],
    each: int,
    sampling: TextSamplingConfig,
    seed: int,
) -> list[str]:
    """Return texts that the classifier guides towards values, or that are conditioned on them."""
    if control is None:
        return model.generate([TextRequest(wanted)] * each, config=sampling, seed=seed)
    control = dataclasses.replace(control, wanted=wanted)
    return model.generate([TextRequest()] * each, control=control, config=sampling, seed=seed)


def _ratio(found: Sequence[Mapping[str, str]], wanted: Mapping[str, str]) -> float:
    right = [all(one.get(name) == value for name, value in wanted.items()) for one in found]
    return sum(right) / len(right)
