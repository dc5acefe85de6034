"""How often a classifier of noisy texts is right, at several levels of noise."""

from __future__ import annotations

from pathlib import Path

import torch

from multidiff.core.randomness import generators
from multidiff.errors import InputError
from multidiff.report import Report, table
from multidiff.text.classifier import TextClassifier
from multidiff.text.evaluation import DATA
from multidiff.text.listing import TextSource

TIMES = (0.001, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
AT_ONCE = 100


@torch.no_grad()
def measure(
    model: TextClassifier,
    data: str | None,
    folder: Path,
    *,
    steps: int | None = None,
    solver: str | None = None,
    seed: int = 0,
    num: int = 500,
    column: str = "text",
    meaning_column: str | None = None,
    held_out_every: int = 0,
) -> Report:
    """The share of held-out texts whose values are told right, by attribute and time.

    Args:
        model: the classifier.
        data: held-out texts, or all of which every so many-th group is held out.
        folder: of the model, unused.
        steps: unused.
        solver: unused.
        seed: of the noise of the first; the others follow.
        num: texts.
        column: of the texts.
        meaning_column: of their meanings.
        held_out_every: of the recipe's split.

    Raises:
        InputError: if the data tell no meanings.
    """
    if data is None:
        data, meaning_column = DATA, "meaning"
    source = TextSource(data, column, meaning_column=meaning_column, held_out_every=held_out_every)
    found = source.listing()
    if found.meanings is None:
        raise InputError(f"{data}: tells no meanings; name --meaning-column")
    rows = source.rows(found, held_out_every > 0)
    rows = rows[:: max(1, len(rows) // num)][:num]
    right = {time: torch.zeros(len(model.attributes)) for time in TIMES}
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        meanings = [found.meanings[row] for row in some]
        rng = generators([seed + row for row in some])
        encoded = model.domain.encode(
            {"text": [found.texts[row] for row in some], "meaning": meanings}, rng
        )
        classes = model.classes(meanings)
        for time in TIMES:
            level = model.process.schedule.at(torch.full((len(some),), time))
            noisy = model.process.corrupt(encoded.clean, level.to(encoded.clean.device), rng).noisy
            told = model(noisy, level.to(noisy.device), encoded.real)
            best = torch.stack([one.argmax(dim=1).cpu() for one in told], dim=1)
            right[time] += (best == classes).float().sum(dim=0)
    shares = {
        name: {str(time): round(float(right[time][place]) / len(rows), 4) for time in TIMES}
        for place, name in enumerate(model.attributes)
    }
    heading = ["right at time", *map(str, TIMES)]
    cells = [[name, *(f"{one:.3f}" for one in told.values())] for name, told in shares.items()]
    return Report(table([heading, *cells]), {"data": data, "texts": len(rows), "right": shares})
