"""Likelihood of running text: bits per character, compared with an n-gram."""

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
EDGE = 16  # Tokens near the edge of a window may differ from those of the whole text.
ORDER = 5  # order of the character n-gram
TOLD = "given the text before"
BIGRAM = "2-gram of tokens"
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
    """Measure bits per character of held-out chunks, and of samples under the n-gram.

    Model and n-gram score a chunk by itself, and once more given the text before it: the model
    up to half of its context. The n-gram is trained on the part that is not held out. A
    chunk has as many tokens as the model's context; its nats are divided by the characters of
    these tokens, so that figures of all vocabularies can be compared.

    Args:
        model: the model.
        source: source of the whole text.
        held_out_ratio: held-out fraction in the recipe's split.
        count: number of chunks, evenly spread; 0 for 200, or all if there are fewer.
        seed: random seed of the first chunk's masks; chunk ``i`` uses ``seed + i``.
        make: functions that draw samples, by name.
        report: report to add the results to; a new one if None.

    Raises:
        InputError: if the text cannot be read or is too short.
    """
    if count < 0:
        raise InputError(f"--bound {count}: must be a number of chunks, 0 or more")
    length = model.domain.length
    held_out = TextChunks(source, 1, held_out=True, held_out_ratio=held_out_ratio)
    windows = windows_of(model, held_out, count or STRETCHES)
    trained = str(held_out.before)
    characters = [len(window.text) for window in windows]
    ngram = NGramModel([trained], ORDER)
    nats = _nats(model, ngram, windows, seed)
    bigram = NGramModel([model.domain.vocabulary.numbers(trained)], 2)
    nats[BIGRAM] = [sum(bigram.running_nats(one.tokens[one.first :])) for one in windows]
    facts = {name: _bits(values, characters) for name, values in nats.items()}
    tokens = length * len(windows)
    for name in [*list(facts)[:2], BIGRAM]:  # the other n-gram reads characters
        facts[name]["nats_per_token"] = round(sum(nats[name]) / tokens, 5)
    described = {"data": source.path, "stretches": len(windows), "length": length}
    described |= {"tokens": tokens, "characters": sum(characters)}
    report = Report() if report is None else report
    report.facts.update({**described, "bits_per_character": facts})
    texts = [window.text for window in windows]
    note_unknown(source.path, model.domain.vocabulary, texts, report)
    heading = f"bits for each character, {len(windows)} chunks of {length}"
    if tokens != sum(characters):
        heading += f" tokens, {sum(characters) / tokens:.2f} characters each"
    report.lines.extend(rows_of(facts, [heading, "mean", "error"]))
    if make:
        report.facts["samples"] = _samples(make, texts, trained, ngram)
        keys = ["samples", "bits", "words_known", "seconds"]
        report.lines.extend(rows_of(report.facts["samples"], keys))
    return report


def _samples(
    make: Mapping[str, Callable[[], list[str]]],
    real: Sequence[str],
    trained: str,
    ngram: NGramModel,
) -> dict[str, dict[str, float]]:
    """Return bits per character under the n-gram, and the fraction of words seen in training."""
    known, facts = {*WORD.findall(trained)}, {}

    def like(texts: Sequence[str]) -> dict[str, float]:
        bits = sum(sum(ngram.running_nats(text)) for text in texts) / math.log(2)
        # The first and the last of a chunk may be parts of words.
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
    """Return the nats of each chunk by model and n-gram, alone and given the text before it."""
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
    """A chunk of tokens, and the text before it.

    Attributes:
        tokens: tokens of the chunk, after those before it, as far as they exist, at most half
            as many.
        first: number of tokens before the chunk.
        text: characters of the chunk's tokens.
        before: characters before it that were read with it.
    """

    tokens: list[int]
    first: int
    text: str
    before: str


def windows_of(model: MaskedText, held_out: TextChunks, most: int) -> list[Window]:
    """Return chunks of exactly the model's context length, evenly spread over a text.

    Each is tokenised together with the surrounding text, so that no token is cut.

    Args:
        model: model that reads them.
        held_out: the text, and the text before it.
        most: largest number of chunks.

    Raises:
        InputError: if the text is shorter than one chunk.
    """
    length = model.domain.length
    whole, first = str(held_out.before) + str(held_out.text), len(held_out.before)
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
            f"the {length} tokens of one chunk; change held_out_ratio"
        )
    return windows


def _window(
    vocabulary: Vocabulary, whole: str, start: int, length: int
) -> tuple[Window, int] | None:
    """Return the chunk of the first tokens that begin there or later, and where it ends.

    None if the text has no further chunk.
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
    """Return the nats of the chunks, given ``before`` tokens before each part.

    A chunk is split in parts that can be read together with the tokens before them.
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
    """Return bits per character of chunks of those lengths, and the ratio's standard error."""
    bits, counts = np.array(nats) / math.log(2), np.array(characters)
    mean = bits.sum() / counts.sum()
    found = {"mean": round(float(mean), 5)}
    if len(bits) > 1:
        spread = (bits - mean * counts).std(ddof=1) / counts.mean()
        found["error"] = round(float(spread) / math.sqrt(len(bits)), 5)
    return found
