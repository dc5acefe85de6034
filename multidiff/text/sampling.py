"""What the sampling commands of all text models share: options to orders, texts to a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multidiff.errors import InputError
from multidiff.files import written_whole
from multidiff.report import Report
from multidiff.text.listing import parse_meaning
from multidiff.text.model import TextModel
from multidiff.text.orders import TextOrder
from multidiff.text.vocabulary import BLANK, Vocabulary, with_blanks

SAMPLES = "samples.txt"
# What may be pinned without a classifier: what stands where.
LENGTH, FIRST = "length", "first"

# From orders and their seeds to texts.
Draw = Callable[[list[TextOrder], list[int]], list[str]]


def orders_of(
    model: TextModel,
    prompts: Sequence[str],
    infill: str | None,
    length: int | None,
    source: str | None,
    pinned: Mapping[str, str] = {},
) -> list[TextOrder]:
    """What is asked of the texts of each prompt, or of those without one.

    Args:
        model: which is asked.
        prompts: meaning representations.
        infill: a text with ``[MASK]`` for each token to be found; of running text perhaps the
            beginning.
        length: of the texts, in tokens.
        source: what the texts are made from.
        pinned: ``length`` and ``first`` once more, as controls give them.

    Raises:
        InputError: if words or meanings are unknown, lengths wrong, or the model is not told
            such things.
    """
    meanings, made_from = _meanings(model, prompts), _source(model, source)
    words = model.domain.vocabulary
    known: dict[int, int] = {}
    lengths: dict[str, int] = {}
    if infill is not None:
        found = with_blanks(words, readable(words, "--infill", infill))
        known = {place: number for place, number in enumerate(found) if number is not None}
        # Running text goes on behind it where it is to be longer.
        if model.domain.ends or length is None or length < len(found):
            lengths["--infill"] = len(found)
    if length is not None:
        lengths["--length"] = length
    if LENGTH in pinned:
        if not pinned[LENGTH].isdecimal():
            raise InputError(f"--control {LENGTH}={pinned[LENGTH]}: a number of words")
        lengths[f"--control {LENGTH}"] = int(pinned[LENGTH])
    asked = _one_length(model, lengths)
    known |= _first(words, pinned, known)
    return [TextOrder(meaning, known, asked, made_from) for meaning in meanings]


def _meanings(model: TextModel, prompts: Sequence[str]) -> list[dict[str, str]]:
    meanings = [parse_meaning(prompt) for prompt in prompts]
    table = model.domain.meanings
    for prompt, meaning in zip(prompts, meanings, strict=True):
        if table is None:
            raise InputError(
                f"--prompt {prompt}: this model was trained without meanings; leave it out"
            )
        table.partial(meaning)
    return meanings or [{}]


def _source(model: TextModel, source: str | None) -> str:
    words, reads = model.domain.vocabulary, model.domain.source_length
    if not reads:
        if source is not None:
            raise InputError(f"--source {source}: this model makes texts from none; leave it out")
        return ""
    if source is None or not source.strip():
        raise InputError(f"--source {source or ''}: this model makes texts from others; give one")
    count = len(words.numbers(readable(words, "--source", source)))
    if count >= reads:
        raise InputError(
            f"--source {source}: has {count} tokens and this model reads {reads - 1}; shorten it"
        )
    return source


def _one_length(model: TextModel, lengths: Mapping[str, int]) -> int | None:
    """The one length that all options name, if any does."""
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {number}" for name, number in lengths.items())
        raise InputError(f"{told}: the lengths contradict each other; keep one")
    for name, number in lengths.items():
        if not 1 <= number <= model.most_words:
            raise InputError(f"{name} {number}: this model writes 1 to {model.most_words} tokens")
    return next(iter(lengths.values()), None)


def _first(
    words: Vocabulary, pinned: Mapping[str, str], known: Mapping[int, int]
) -> dict[int, int]:
    if FIRST not in pinned:
        return {}
    numbers = words.numbers(readable(words, f"--control {FIRST}", pinned[FIRST]))
    if len(numbers) != 1 or known.get(0, numbers[0]) != numbers[0]:
        raise InputError(f"--control {FIRST}={pinned[FIRST]}: give one word, as in --infill")
    return {0: numbers[0]}


def readable(vocabulary: Vocabulary, option: str, text: str) -> str:
    """A text that the model can read, blanks left out.

    Raises:
        InputError: if it never read some of it.
    """
    unknown = vocabulary.unknown(text.replace(BLANK, " "))
    if unknown:
        raise InputError(
            f"{option} {text}: the model never read {', '.join(unknown)}; say it otherwise"
        )
    return text


def drawn(
    model: TextModel,
    orders: Sequence[TextOrder],
    prompts: Sequence[str],
    seeds: range,
    draw: Draw,
) -> Report:
    """A text of each order and seed, and what is told of it.

    Args:
        model: which draws.
        orders: one for each prompt.
        prompts: as they were given; ``[""]`` without one.
        seeds: of the texts of each.
        draw: makes them.
    """
    every = [order for order in orders for _ in seeds]
    numbers = [*seeds] * len(orders)
    began = time.perf_counter()
    texts = draw(every, numbers)
    seconds = time.perf_counter() - began
    asked = [prompt for prompt in prompts for _ in seeds]
    words = model.domain.vocabulary.numbers
    outputs: list[dict[str, Any]] = [
        {"text": text, "seed": seed, "prompt": prompt, "words": len(words(text))}
        for text, seed, prompt in zip(texts, numbers, asked, strict=True)
    ]
    facts = {"model": model.name, "outputs": outputs, "wall_seconds": round(seconds, 3)}
    return Report(texts, facts)


def write(texts: Sequence[str], out: Path | None) -> None:
    """The texts, a line each, into a file or a folder, if one is named."""
    if out is None:
        return
    path = out if out.suffix else out / SAMPLES
    with written_whole(path) as partial:
        partial.write_text("".join(f"{text}\n" for text in texts), "utf-8")
