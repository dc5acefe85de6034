"""How well a model of running text predicts it: bits for each character, beside an n-gram."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from multidiff.errors import InputError
from multidiff.report import Report, table
from multidiff.text.listing import TextSource
from multidiff.text.masked import MaskedText
from multidiff.text.ngram import NGramModel
from multidiff.text.stretches import Stretches

STRETCHES = 200
ORDER = 5  # of the n-gram of characters


def measure_running(
    model: MaskedText, source: TextSource, held_out_share: float, count: int, seed: int
) -> Report:
    """Bits for each character of held-out stretches.

    The model reads a stretch by itself, as it was trained, and so does the n-gram; once more the
    n-gram is told what stands before. It learns from the part that is not held out.

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
    found = model.nats(texts, [{} for _ in texts], seed=seed)
    ngram = NGramModel([held_out.before], ORDER)
    width = ORDER - 1
    whole, first = held_out.before + held_out.text, len(held_out.before)
    alone = [sum(ngram.running_nats(text)) for text in texts]
    after = [
        sum(ngram.running_nats(text, whole[max(0, first + start - width) : first + start]))
        for start, text in zip(starts, texts, strict=True)
    ]
    facts = {
        "model, at most": _bits(found["tokens"].tolist(), length),
        f"{ORDER}-gram": _bits(alone, length),
        f"{ORDER}-gram, told what stands before": _bits(after, length),
    }
    heading = [f"bits for each character, {len(texts)} stretches of {length}", "mean", "error"]
    rows = [
        [name, *(f"{told[key]:.4f}" if key in told else "-" for key in heading[1:])]
        for name, told in facts.items()
    ]
    told = {"data": source.path, "stretches": len(texts), "length": length}
    return Report(table([heading, *rows]), {**told, "bits_per_character": facts})


def _bits(nats: Sequence[float], characters: int) -> dict[str, float]:
    """The mean over stretches of so many characters, and its standard error."""
    bits = np.array(nats) / (math.log(2) * characters)
    found = {"mean": round(float(bits.mean()), 5)}
    if len(bits) > 1:
        found["error"] = round(float(bits.std(ddof=1)) / math.sqrt(len(bits)), 5)
    return found
