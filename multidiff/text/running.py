"""How well a model of running text predicts it: bits for each character, beside an n-gram."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from multidiff.errors import InputError
from multidiff.report import Report, table
from multidiff.text.listing import TextSource
from multidiff.text.masked import MaskedText
from multidiff.text.ngram import NGramModel
from multidiff.text.stretches import Stretches

STRETCHES = 200
ORDER = 5  # of the n-gram of characters
TOLD = "told what stands before"


def measure_running(
    model: MaskedText, source: TextSource, held_out_share: float, count: int, seed: int
) -> Report:
    """Bits for each character of held-out stretches.

    Model and n-gram read a stretch by itself, and once more told what stands before it: the model
    as much as half of what it reads. The n-gram learns from the part that is not held out.

    Args:
        model: the model.
        source: of the whole text.
        held_out_share: of the recipe's split.
        count: of the stretches, evenly spread; 0 for 200, or all if there are fewer.
        seed: of the first stretch's masks; the others follow.

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
    width = ORDER - 1
    whole, first = held_out.before + held_out.text, len(held_out.before)
    alone = [sum(ngram.running_nats(text)) for text in texts]
    starts = [first + start for start in starts]
    after = [
        sum(ngram.running_nats(text, whole[max(0, start - width) : start]))
        for start, text in zip(starts, texts, strict=True)
    ]
    nats = {
        "model, at most": _model_nats(model, whole, starts, 0, seed),
        f"model, {TOLD}, at most": _model_nats(model, whole, starts, length // 2, seed),
        f"{ORDER}-gram": alone,
        f"{ORDER}-gram, {TOLD}": after,
    }
    facts = {name: _bits(values, length) for name, values in nats.items()}
    heading = [f"bits for each character, {len(texts)} stretches of {length}", "mean", "error"]
    rows = [
        [name, *(f"{told[key]:.4f}" if key in told else "-" for key in heading[1:])]
        for name, told in facts.items()
    ]
    told = {"data": source.path, "stretches": len(texts), "length": length}
    return Report(table([heading, *rows]), {**told, "bits_per_character": facts})


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
