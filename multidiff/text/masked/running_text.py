"""How well a model of running text predicts it: bits for each character, beside an n-gram."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from multidiff.text.data.chunks import TextChunks
from multidiff.text.data.inspection import note_unknown
from multidiff.text.data.listing import TextSource
from multidiff.text.data.vocabulary import Vocabulary
from multidiff.text.masked.model import MaskedText
from multidiff.text.metrics.comparison import rows_of, timed
from multidiff.text.metrics.ngram import NGramModel
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report

STRETCHES = 200
EDGE = 16  # Tokens at the edge of what is read may be others than in the whole text.
ORDER = 5  # of the n-gram of characters
TOLD = "told what stands before"
WORD = re.compile(r"[^\W\d_]+")


def measure_running(
    model: MaskedText,
    source: TextSource,
    held_out_ratio: float,
    count: int,
    seed: int,
    make: Mapping[str, Callable[[], list[str]]] | None = None,
    report: Report | None = None,
) -> Report:
    """Bits for each character of held-out stretches, and of samples under the n-gram.

    Model and n-gram read a stretch by itself, and once more told what stands before it: the model
    as much as half of what it reads. The n-gram learns from the part that is not held out. A
    stretch has as many tokens as the model reads; its nats are divided by the characters that
    these tokens are, so that figures of all vocabularies can be compared.

    Args:
        model: the model.
        source: of the whole text.
        held_out_ratio: of the recipe's split.
        count: of the stretches, evenly spread; 0 for 200, or all if there are fewer.
        seed: of the first stretch's masks; the others follow.
        make: what draws samples, by a name each.
        report: is given what is measured; a new one where None.

    Raises:
        InputError: if the text cannot be read or is too short.
    """
    if count < 0:
        raise InputError(f"--bound {count}: stretches, 0 or more")
    length = model.domain.length
    held_out = TextChunks(source, 1, held_out=True, held_out_ratio=held_out_ratio)
    windows = windows_of(model, held_out, count or STRETCHES)
    characters = [len(window.text) for window in windows]
    ngram = NGramModel([held_out.before], ORDER)
    nats = _nats(model, ngram, windows, seed)
    facts = {name: _bits(values, characters) for name, values in nats.items()}
    tokens = length * len(windows)
    for name in list(facts)[:2]:  # the n-gram reads characters
        facts[name]["nats_per_token"] = round(sum(nats[name]) / tokens, 5)
    described = {"data": source.path, "stretches": len(windows), "length": length}
    described |= {"tokens": tokens, "characters": sum(characters)}
    report = Report() if report is None else report
    report.facts.update({**described, "bits_per_character": facts})
    texts = [window.text for window in windows]
    note_unknown(source.path, model.domain.vocabulary, texts, report)
    heading = f"bits for each character, {len(windows)} stretches of {length}"
    if tokens != sum(characters):
        heading += f" tokens, {sum(characters) / tokens:.2f} characters each"
    report.lines.extend(rows_of(facts, [heading, "mean", "error"]))
    if make:
        report.facts["samples"] = _samples(make, texts, held_out.before, ngram)
        keys = ["samples", "bits", "words_known", "seconds"]
        report.lines.extend(rows_of(report.facts["samples"], keys))
    return report


def _samples(
    make: Mapping[str, Callable[[], list[str]]],
    real: Sequence[str],
    trained: str,
    ngram: NGramModel,
) -> dict[str, dict[str, float]]:
    """Bits for each character under the n-gram, and the share of words that it has read."""
    known, facts = {*WORD.findall(trained)}, {}

    def like(texts: Sequence[str]) -> dict[str, float]:
        bits = sum(sum(ngram.running_nats(text)) for text in texts) / math.log(2)
        # The first and the last of a stretch may be parts of words.
        words = [word for text in texts for word in WORD.findall(text)[1:-1]]
        return {
            "bits": bits / max(1, sum(map(len, texts))),
            "words_known": sum(word in known for word in words) / max(1, len(words)),
        }

    for name, texts_of in make.items():
        texts, seconds = timed(texts_of)
        facts[name] = {**like(texts), "seconds": seconds}
    return {**facts, "real": like(real)}


def _nats(
    model: MaskedText, ngram: NGramModel, windows: Sequence[Window], seed: int
) -> dict[str, list[float]]:
    """What each stretch costs the model and the n-gram, alone and told what stands before it."""
    return {
        "model, at most": _model_nats(model, windows, 0, seed),
        f"model, {TOLD}, at most": _model_nats(model, windows, model.domain.length // 2, seed),
        f"{ORDER}-gram": [sum(ngram.running_nats(window.text)) for window in windows],
        f"{ORDER}-gram, {TOLD}": [
            sum(ngram.running_nats(window.text, window.before[-(ORDER - 1) :]))
            for window in windows
        ],
    }


@dataclass(frozen=True)
class Window:
    """A stretch of tokens, and what stands before it.

    Attributes:
        tokens: those of the stretch, behind as many of what stands before it as are there, half
            as many at most.
        first: how many of them stand before it.
        text: the characters that the stretch's tokens are.
        before: the characters before it that were read with it.
    """

    tokens: list[int]
    first: int
    text: str
    before: str


def windows_of(model: MaskedText, held_out: TextChunks, most: int) -> list[Window]:
    """Stretches of exactly as many tokens as the model reads, evenly spread over a text.

    Each is tokenised together with what stands around it, so that no token is cut.

    Args:
        model: which reads them.
        held_out: the text, and what stands before it.
        most: of the stretches.

    Raises:
        InputError: if the text is shorter than one stretch.
    """
    length = model.domain.length
    whole, first = held_out.before + held_out.text, len(held_out.before)
    starts = [first + length * row for row in range(len(held_out.text) // length)]
    windows: list[Window] = []
    end = first
    for start in starts[:: max(1, len(starts) // most)][:most]:
        found = _window(model.domain.vocabulary, whole, max(start, end), length)
        if found is None:
            break
        window, end = found
        windows.append(window)
    if not windows:
        raise InputError(
            f"{held_out.source.path}: {len(held_out.text)} characters are held out, fewer than "
            f"the {length} tokens of one stretch; change held_out_ratio"
        )
    return windows


def _window(
    vocabulary: Vocabulary, whole: str, start: int, length: int
) -> tuple[Window, int] | None:
    """The stretch of the first tokens that begin there or later, and where it ends.

    None where the text has no such stretch any more.
    """
    reach, before = 4 * length, length // 2
    while True:
        low, high = max(0, start - reach), min(len(whole), start + 2 * reach)
        numbers, ends = vocabulary.numbers(whole[low:high]), vocabulary.token_ends(whole[low:high])
        begins = [0, *ends[:-1]]
        position = bisect_left(begins, start - low)
        enough = (position > before or low == 0) and (
            len(numbers) >= position + length + EDGE or high == len(whole)
        )
        if enough:
            break
        reach *= 2
    stop = position + length
    if stop > len(numbers):
        return None
    head = max(0, position - before)
    text = whole[low + begins[position] : low + ends[stop - 1]]
    known = whole[low : low + begins[position]]
    return Window(numbers[head:stop], position - head, text, known), low + ends[stop - 1]


def _model_nats(
    model: MaskedText, windows: Sequence[Window], before: int, seed: int
) -> list[float]:
    """What the stretches cost, told so many tokens before each part.

    A stretch comes in as many parts as are read together with what stands before them.
    """
    length, before = model.domain.length, min(before, *(window.first for window in windows))
    total = torch.zeros(len(windows), dtype=torch.float64)
    requests = [TextRequest() for _ in windows]
    for cut in range(0, length, length - before):
        stop = min(cut + length - before, length)
        read = [
            window.tokens[window.first + cut - before : window.first + stop] for window in windows
        ]
        tokens = torch.tensor(read, device=model.device)
        total += model.token_nats(tokens, requests, seed=seed, known=before).cpu()
    return total.tolist()


def _bits(nats: Sequence[float], characters: Sequence[int]) -> dict[str, float]:
    """Bits for each character of stretches of so many, and the standard error of that ratio."""
    bits, counts = np.array(nats) / math.log(2), np.array(characters)
    mean = bits.sum() / counts.sum()
    found = {"mean": round(float(mean), 5)}
    if len(bits) > 1:
        spread = (bits - mean * counts).std(ddof=1) / counts.mean()
        found["error"] = round(float(spread) / math.sqrt(len(bits)), 5)
    return found
