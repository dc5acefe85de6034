"""Shared parts of text models' commands: options to requests, texts to reports."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidiff.models.sampling_config import SamplingConfig
from multidiff.text.data.listing import parse_meaning
from multidiff.text.data.vocabulary import BLANK, Vocabulary, with_blanks
from multidiff.text.model import OnText, TextModel
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write
from multidiff.utils.report import OnLine, Report

logger = logging.getLogger(__name__)

SAMPLES = "samples.txt"
# Controls that need no classifier: the length and the first word.
LENGTH, FIRST = "length", "first"

# Maps requests and their seeds to texts, each of which is passed on as soon as it is done.
Draw = Callable[[list[TextRequest], list[int], OnText], list[str]]


@dataclass(frozen=True)
class Asked:
    """A request, and the options that it comes from.

    Attributes:
        request: request for each of its texts.
        options: ``prompt``, and ``source`` and ``infill`` if they are given.
    """

    request: TextRequest
    options: Mapping[str, str]


def requests_of(
    model: TextModel,
    prompts: Sequence[str],
    infills: Sequence[str],
    length: int | None,
    sources: Sequence[str],
    pinned: Mapping[str, str] = {},
) -> list[Asked]:
    """Return the requests for each prompt or source, with each of the texts to fill in.

    Args:
        model: the model.
        prompts: meaning representations.
        infills: texts with ``[MASK]`` for each token to fill in, or
            beginnings to continue.
        length: length of the texts, in tokens.
        sources: source texts.
        pinned: ``length`` and ``first``, as set by controls.

    Raises:
        InputError: if words or meanings are unknown, lengths are wrong, there is nothing to fill
            in, or the model does not read such inputs.
    """
    meanings = _meanings(model, prompts)
    asked = []
    for prompt, meaning in zip(prompts or [""], meanings, strict=True):
        for source in _sources(model, sources):
            for infill in infills or [None]:
                known, wanted, least = _laid(model, infill, length, pinned)
                options = {"prompt": prompt, "source": source, "infill": infill}
                given = {name: one for name, one in options.items() if one or name == "prompt"}
                asked.append(Asked(TextRequest(meaning, known, wanted, source, least), given))
    return asked


def _laid(
    model: TextModel, infill: str | None, length: int | None, pinned: Mapping[str, str]
) -> tuple[dict[int, int], int | None, int]:
    """Return the known tokens of a text by position, its length if that is known, and the least."""
    words = model.domain.vocabulary
    known: dict[int, int] = {}
    lengths, least = _pinned_length(pinned), 0
    if infill is not None:
        found = with_blanks(words, readable(words, "--infill", infill))
        known = {position: number for position, number in enumerate(found) if number is not None}
        length = _check_blanks(model, infill, found, length)
        continues = bool(found) and None not in found
        least = len(found) + 1 if continues else 0
        # A beginning is continued, and running text behind its blanks too if it is to be longer.
        has_more = continues or (not model.domain.ends and length is not None)
        given = [*lengths.values(), *([] if length is None else [length])]
        if not has_more or min(given, default=least) < len(found):
            lengths = {"--infill": len(found), **lengths}
    if length is not None:
        lengths["--length"] = length
    asked = _one_length(model, lengths)
    return known | _first(words, pinned, known), asked, least


def _pinned_length(pinned: Mapping[str, str]) -> dict[str, int]:
    """Return the length that a control sets, by its option."""
    if LENGTH not in pinned:
        return {}
    if not pinned[LENGTH].isdecimal():
        raise InputError(f"--control {LENGTH}={pinned[LENGTH]}: a number of words")
    return {f"--control {LENGTH}": int(pinned[LENGTH])}


def _check_blanks(
    model: TextModel, infill: str, found: Sequence[int | None], length: int | None
) -> int | None:
    """Return the length of a text to be filled in or continued, if it is given or follows.

    Raises:
        InputError: if there is nothing to fill in, and no room to continue.
    """
    if not found or None in found or (length is not None and length != len(found)):
        return length
    if length is None and len(found) < model.domain.length - model.domain.ends:
        return None if model.domain.ends else model.domain.length
    if model.domain.ends and len(found) >= model.most_words:
        raise InputError(
            f"--infill {infill}: has {len(found)} tokens and no {BLANK}, but this model writes 1 "
            f"to {model.most_words} tokens; shorten it"
        )
    raise InputError(
        f"--infill {infill}: has {len(found)} tokens and no {BLANK}; set --length above "
        f"{len(found)}, and the text is continued up to that length"
    )


def _meanings(model: TextModel, prompts: Sequence[str]) -> list[dict[str, str]]:
    meanings = [parse_meaning(prompt) for prompt in prompts]
    table = model.domain.meanings
    for prompt, meaning in zip(prompts, meanings, strict=True):
        if table is None:
            raise InputError(
                f"--prompt {prompt}: this model was trained without meanings; remove it"
            )
        table.partial(meaning)
    return meanings or [{}]


def _sources(model: TextModel, sources: Sequence[str]) -> Sequence[str]:
    """Return the sources of texts; one empty text for a model without sources."""
    words, reads = model.domain.vocabulary, model.domain.source_length
    if not reads:
        if sources:
            raise InputError(f"--source {sources[0]}: this model has no sources; remove it")
        return [""]
    for source in sources or [""]:
        if not source.strip():
            raise InputError(
                f"--source {source}: this model makes texts from source texts; give one"
            )
        count = len(words.numbers(readable(words, "--source", source)))
        if count >= reads:
            raise InputError(
                f"--source {source}: has {count} tokens, but this model reads at most {reads - 1}; "
                "shorten it"
            )
    return sources


def _one_length(model: TextModel, lengths: Mapping[str, int]) -> int | None:
    """Return the one length that all options give, if any does."""
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{name} {number}" for name, number in lengths.items())
        raise InputError(f"{described}: the lengths contradict each other; keep one")
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
    """Return a text that the model can read, without blanks.

    Raises:
        InputError: if it has tokens that are not in the vocabulary.
    """
    unknown = vocabulary.unknown(text.replace(BLANK, " "))
    if unknown:
        raise InputError(
            f"{option} {text}: the model does not know {', '.join(unknown)}; rephrase it"
        )
    return text


def check_guidance(model: TextModel, sampling: SamplingConfig, prompts: Sequence[str]) -> None:
    """Check that guidance has a condition to strengthen, if it is requested.

    Args:
        model: the model.
        sampling: sampling options; guidance is requested if they override the model's.
        prompts: meaning representations of the texts.

    Raises:
        InputError: if there is no condition, so that guidance would be ignored.
    """
    scale = sampling.guidance_scale
    if "guidance_scale" not in sampling.overrides or scale == 1:
        return
    if not model.domain.sources:
        raise InputError(
            f"--guidance-scale {scale:g}: this model has no condition to strengthen; remove it"
        )
    if model.domain.meanings is not None and not any(prompts):
        raise InputError(
            f"--guidance-scale {scale:g}: strengthens a --prompt; give one, or remove it"
        )
    if model.drop_condition == 0:
        logger.warning(
            "--guidance-scale %g: the model was trained without drop_condition, so it never "
            "learned texts without a condition; the texts may be wrong", scale,
        )  # fmt: skip


def drawn(
    model: TextModel,
    asked: Sequence[Asked],
    seeds: Sequence[range],
    draw: Draw,
    on_line: OnLine | None = None,
    lines_of: Callable[[int, str], list[str]] = lambda number, text: [text],
) -> Report:
    """Return a report with a text for each request and seed.

    Args:
        model: the model.
        asked: one for each prompt, source and text to be filled in.
        seeds: random seeds of the texts of each.
        draw: function that generates the texts.
        on_line: function that receives each line as soon as it is made.
        lines_of: function from a text's index and the text to its lines.
    """
    every = [one for one, own in zip(asked, seeds, strict=True) for _ in own]
    numbers = [number for own in seeds for number in own]
    words = model.domain.vocabulary.numbers
    outputs: list[dict[str, Any]] = []
    lines: list[str] = []

    def note(text: str) -> None:
        number = len(outputs)
        options = {"prompt": "", **every[number].options}
        described = {"text": text, "seed": numbers[number], **options, "words": len(words(text))}
        outputs.append(described)
        for line in lines_of(number, text):
            lines.append(line)
            if on_line is not None:
                on_line(line)

    began = time.perf_counter()
    draw([one.request for one in every], numbers, note)
    seconds = time.perf_counter() - began
    facts = {"model": model.name, "outputs": outputs, "wall_seconds": round(seconds, 3)}
    return Report(lines, facts)


def write(texts: Sequence[str], out: Path | None) -> None:
    """Write texts, one per line, into a file or a folder, if one is named."""
    if out is None:
        return
    path = out if out.suffix else out / SAMPLES
    with atomic_write(path) as partial:
        partial.write_text("".join(f"{text}\n" for text in texts), "utf-8")
