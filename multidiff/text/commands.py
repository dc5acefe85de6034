"""What the command line does with a text model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from multidiff.errors import InputError
from multidiff.files import written_whole
from multidiff.report import Report, progress
from multidiff.text.classifier import TextClassifier
from multidiff.text.diffusion import TextDiffusion
from multidiff.text.listing import parse_meaning
from multidiff.text.orders import Control, TextOrder
from multidiff.text.vocabulary import BLANK, PAD, Vocabulary, with_blanks

SAMPLES = "samples.txt"
# Controls that need no classifier: they say what stands where.
LENGTH, FIRST = "length", "first"


def sample(
    model: TextDiffusion,
    *,
    num: int,
    prompts: Sequence[str],
    out: Path | None,
    steps: int | None = None,
    solver: str | None = None,
    guidance: float | None = None,
    seed: int = 0,
    control: list[str] = [],  # noqa: B006
    classifier: TextClassifier | None = None,
    infill: str | None = None,
    length: int | None = None,
    candidates: int = 1,
    temperature: float | None = None,
    pull: tuple[float, float, float] = (3, 20.0, 0.01),
) -> Report:
    """Texts, a line each.

    Args:
        model: the model.
        num: texts of each prompt; text ``i`` of each has seed ``seed + i``.
        prompts: meaning representations, such as ``name[The Eagle], food[Italian]``; what they
            do not say is left open.
        out: a file that receives the lines, or a folder for one.
        steps: of the solver.
        solver: its name.
        guidance: scale of the prompts; 1 is off.
        seed: of the noise.
        control: ``attribute=value``, towards which a classifier pulls the texts; ``length=N``;
            ``first=WORD``. May be repeated.
        classifier: the model that does so.
        infill: a text with ``[MASK]`` for each token to be found.
        length: of the texts, in tokens.
        candidates: drawn for each text, of which the one most like the others is told.
        temperature: of the words that clamping chooses among.
        pull: updates towards the controls after each step, their rate, and the fluency that
            holds the texts where the model puts them.

    Raises:
        InputError: if an option is wrong.
    """
    wanted = read_controls(control)
    pinned = {name: wanted.pop(name) for name in (LENGTH, FIRST) if name in wanted}
    how: dict[str, Any] = {"steps": steps, "solver": solver, "guidance": guidance}
    how |= {"temperature": temperature, "candidates": candidates}
    how["control"] = _pulled(classifier, wanted, pull)
    words = model.domain.vocabulary
    orders = [order_of(words, one, infill, length, pinned) for one in _meanings(model, prompts)]
    report = _drawn(model, orders, list(prompts) or [""], range(seed, seed + num), how)
    if out is not None:
        _write(report.lines, out)
    return report


def _drawn(
    model: TextDiffusion,
    orders: Sequence[TextOrder],
    prompts: Sequence[str],
    seeds: range,
    how: dict[str, Any],
) -> Report:
    """A text of each order and seed."""
    every = [order for order in orders for _ in seeds]
    numbers = [*seeds] * len(orders)
    began = time.perf_counter()
    with progress() as on_step:
        texts = model.generate(every, **how, seed=numbers, on_step=on_step)
    seconds = time.perf_counter() - began
    asked = [prompt for prompt in prompts for _ in seeds]
    outputs: list[dict[str, Any]] = [
        {"text": text, "seed": seed, "prompt": prompt, "words": _count(model, text)}
        for text, seed, prompt in zip(texts, numbers, asked, strict=True)
    ]
    if how["control"] is not None:
        for output, score in zip(outputs, scores(how["control"], texts), strict=True):
            output["control"] = score
    facts = {"model": model.name, "outputs": outputs, "wall_seconds": round(seconds, 3)}
    return Report(texts, facts)


def read_controls(controls: Sequence[str]) -> dict[str, str]:
    """``attribute=value`` pairs.

    Raises:
        InputError: if one is written otherwise, or two contradict each other.
    """
    wanted: dict[str, str] = {}
    for text in controls:
        attribute, equals, value = text.partition("=")
        if not equals or not attribute or not value:
            raise InputError(f"--control {text}: write attribute=value, such as food=Italian")
        if wanted.setdefault(attribute, value) != value:
            raise InputError(
                f"--control {text}: contradicts --control {attribute}={wanted[attribute]}; keep one"
            )
    return wanted


def order_of(
    vocabulary: Vocabulary,
    meaning: dict[str, str],
    infill: str | None,
    length: int | None,
    pinned: dict[str, str],
) -> TextOrder:
    """What is asked of a text.

    Raises:
        InputError: if words are unknown, or lengths contradict each other.
    """
    known: dict[int, int] = {}
    lengths: dict[str, int] = {}
    if infill is not None:
        found = with_blanks(vocabulary, _readable(vocabulary, "--infill", infill))
        known = {place: number for place, number in enumerate(found) if number is not None}
        lengths["--infill"] = len(found)
    if length is not None:
        lengths["--length"] = length
    if LENGTH in pinned:
        if not pinned[LENGTH].isdecimal():
            raise InputError(f"--control {LENGTH}={pinned[LENGTH]}: a number of words")
        lengths[f"--control {LENGTH}"] = int(pinned[LENGTH])
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {number}" for name, number in lengths.items())
        raise InputError(f"{told}: the lengths contradict each other; keep one")
    if FIRST in pinned:
        numbers = vocabulary.numbers(_readable(vocabulary, f"--control {FIRST}", pinned[FIRST]))
        if len(numbers) != 1 or known.get(0, numbers[0]) != numbers[0]:
            raise InputError(f"--control {FIRST}={pinned[FIRST]}: give one word, as in --infill")
        known[0] = numbers[0]
    return TextOrder(meaning, known, next(iter(lengths.values()), None))


def _readable(vocabulary: Vocabulary, option: str, text: str) -> str:
    unknown = vocabulary.unknown(text.replace(BLANK, " "))
    if unknown:
        raise InputError(f"{option} {text}: the model never read {', '.join(unknown)}")
    return text


def _pulled(
    classifier: TextClassifier | None, wanted: dict[str, str], pull: tuple[float, float, float]
) -> Control | None:
    updates, rate, fluency = pull
    if min(pull) < 0 or updates != int(updates):
        told = ",".join(f"{number:g}" for number in pull)
        raise InputError(f"--pull {told}: updates, rate and fluency, each 0 or more")
    if not wanted:
        return None
    if classifier is None:
        told = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise InputError(f"--control {told}: needs a classifier; name one by --classifier")
    return Control(classifier, wanted, int(updates), rate, fluency)


def _meanings(model: TextDiffusion, prompts: Sequence[str]) -> list[dict[str, str]]:
    meanings = [parse_meaning(prompt) for prompt in prompts]
    table = model.domain.meanings
    for prompt, meaning in zip(prompts, meanings, strict=True):
        if table is None:
            raise InputError(f"--prompt {prompt}: this model was trained without meanings")
        table.partial(meaning)
    return meanings or [{}]


def _write(texts: Sequence[str], out: Path) -> None:
    path = out if out.suffix else out / SAMPLES
    with written_whole(path) as partial:
        partial.write_text("".join(f"{text}\n" for text in texts), "utf-8")


def _count(model: TextDiffusion, text: str) -> int:
    return len(model.domain.vocabulary.numbers(text))


@torch.no_grad()
def scores(control: Control, texts: Sequence[str]) -> list[dict[str, float]]:
    """How probable the classifier finds each wanted value in finished texts."""
    domain, process = control.classifier.domain, control.classifier.process
    tokens = domain.tokens(texts)
    real = tokens != PAD
    times = torch.full((len(texts),), 1e-3, dtype=torch.float64)
    level = process.schedule.at(times).to(tokens.device)
    found: list[dict[str, float]] = [{} for _ in texts]
    for attribute, value in control.wanted.items():
        wanted = control.classifier.wanted({attribute: value}, real)
        for row, likely in enumerate(wanted(domain.embed(tokens), level).exp().tolist()):
            found[row][f"{attribute}={value}"] = round(likely, 4)
    return found
