"""How well a model of running text predicts it: bits for each character, beside an n-gram."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from multidiff.errors import InputError
from multidiff.report import Report
from multidiff.text.comparing import rows_of, timed
from multidiff.text.listing import TextSource
from multidiff.text.masked import MaskedText
from multidiff.text.ngram import NGramModel
from multidiff.text.stretches import Stretches

STRETCHES = 200
ORDER = 5  # of the n-gram of characters
TOLD = "told what stands before"
WORD = re.compile(r"[^\W\d_]+")


def measure_running(
    model: MaskedText,
    source: TextSource,
    held_out_share: float,
    count: int,
    seed: int,
    make: Mapping[str, Callable[[], list[str]]] | None = None,
) -> Report:
    """Bits for each character of held-out stretches, and of samples under the n-gram.

    Model and n-gram read a stretch by itself, and once more told what stands before it: the model
    as much as half of what it reads. The n-gram learns from the part that is not held out.

    Args:
        model: the model.
        source: of the whole text.
        held_out_share: of the recipe's split.
        count: of the stretches, evenly spread; 0 for 200, or all if there are fewer.
        seed: of the first stretch's masks; the others follow.
        make: what draws samples, by a name each.

    Raises:
        InputError: if the text cannot be read or is too short.
    """
    if count < 0:
        raise InputError(f"--bound {count}: stretches, 0 or more")
    length = model.domain.length
    held_out = Stretches(source, length, held_out=True, held_out_share=held_out_share)
    wanted = count or STRETCHES
    starts = [length * row for row in range(len(held_out))]
    starts = starts[:: max(1, len(starts) // wanted)][:wanted]
    texts = [held_out.stretch(start) for start in starts]
    ngram = NGramModel([held_out.before], ORDER)
    whole, first = held_out.before + held_out.text, len(held_out.before)
    starts = [first + start for start in starts]
    nats = {
        "model, at most": _model_nats(model, whole, starts, 0, seed),
        f"model, {TOLD}, at most": _model_nats(model, whole, starts, length // 2, seed),
        f"{ORDER}-gram": [sum(ngram.running_nats(text)) for text in texts],
        f"{ORDER}-gram, {TOLD}": [
            sum(ngram.running_nats(text, whole[max(0, start - ORDER + 1) : start]))
            for start, text in zip(starts, texts, strict=True)
        ],
    }
    facts = {name: _bits(values, length) for name, values in nats.items()}
    told = {"data": source.path, "stretches": len(texts), "length": length}
    report = Report([], {**told, "bits_per_character": facts})
    heading = [f"bits for each character, {len(texts)} stretches of {length}", "mean", "error"]
    report.lines.extend(rows_of(facts, heading))
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


def _model_nats(
    model: MaskedText, whole: str, starts: Sequence[int], before: int, seed: int
) -> list[float]:
    """What the stretches that begin there cost, told so many characters before each part.

    A stretch comes in as many parts as are read together with what stands before them.
    """
    length, before = model.domain.length, min(before, *starts)
    total = torch.zeros(len(starts), dtype=torch.float64)
    for cut in range(0, length, length - before):
        ends = [start + min(cut + length - before, length) for start in starts]
        read = [whole[start + cut - before : end] for start, end in zip(starts, ends, strict=True)]
        total += model.nats(read, [{} for _ in read], seed=seed, known=before)["tokens"].cpu()
    return total.tolist()


def _bits(nats: Sequence[float], characters: int) -> dict[str, float]:
    """The mean over stretches of so many characters, and its standard error."""
    bits = np.array(nats) / (math.log(2) * characters)
    found = {"mean": round(float(bits.mean()), 5)}
    if len(bits) > 1:
        found["error"] = round(float(bits.std(ddof=1)) / math.sqrt(len(bits)), 5)
    return found
