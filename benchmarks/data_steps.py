"""Training steps of shipped recipes from disk beside those from memory, for :mod:`benchmarks.data`.

A round is some steps of the trainer with two workers of batches, once with each source. Two clocks
are read: wall time, which a busy machine makes vague, and the CPU seconds of the training process
alone, without its workers.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data_sets import SETS
from benchmarks.timing import Row, in_alternation, on_threads, rows_of, training_on_cpu
from multidiff.data.cache import ENVIRONMENT
from multidiff.models.loading import check_recipe
from multidiff.models.train import prepared_for
from multidiff.training.record import Record
from multidiff.training.run import Run
from multidiff.training.trainer import Trainer

PART = "data"
STEPS, WORKERS, MINUTES = 3, 2, 10
FAR = 10**9
RECIPES = Path(__file__).parents[1] / "recipes"
TEXTS = {"path": "starter:restaurant/sentences.csv", "column": "text", "meaning_column": "meaning"}
CHARACTERS = {"path": "starter:restaurant/sentences.csv", "column": "text"}
SPEECH = "starter:speech"
WORDS, LETTERS = 200, 67
CLOCKS = ("wall", "CPU, training process")


def _from_texts(source: dict[str, Any], *sizes: str) -> dict[str, Any]:
    """Return the changes that make a recipe read the package's own sentences.

    Args:
        source: settings of the source.
        sizes: places of the size of the vocabulary in the recipe.
    """
    places = ("data.examples", "model.domain.vocabulary")
    found = {f"{place}.source.{key}": value for place in places for key, value in source.items()}
    return found | dict.fromkeys(sizes, WORDS)


VOCABULARY = "model.domain.vocabulary.size"
# Recipe, changes, and where its set is switched between memory and disk.
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "sound": ("audio/speech.yaml", {}, "sound"),
    "tts": (
        "audio/tts.yaml",
        {
            "data.examples.sources.0": f"{{path: {SPEECH}, speaker: kathleen, repeat: 20}}",
            "data.examples.cache": "null",
            "data.batch_size": 8,
        },
        "sound",
    ),
    "image": (
        "image/digits_pixels.yaml",
        {"data.examples.source.path": "starter:digits", "data.batch_size": 16},
        "images",
    ),
    "masked": (
        "text/masked.yaml",
        _from_texts(TEXTS, VOCABULARY, "model.process.size", "model.denoiser.size"),
        "text",
    ),
    "restaurant": ("text/restaurant.yaml", _from_texts(TEXTS, VOCABULARY), "text"),
    "edits": (
        "text/edits.yaml",
        _from_texts(TEXTS, VOCABULARY, "model.process.size", "model.editor.size"),
        "text",
    ),
    "characters": (
        "text/block_characters.yaml",
        _from_texts(CHARACTERS)
        | dict.fromkeys((VOCABULARY, "model.process.size", "model.denoiser.size"), LETTERS),
        "text",
    ),
}


def step_rows(home: Path, rounds: int) -> list[Row]:
    """Return the time of a step of each recipe, from memory and from disk."""
    os.environ[ENVIRONMENT] = str(home / "cache-steps")
    rows: list[Row] = []
    with on_threads(1), training_on_cpu():
        for name, (recipe, changes, kind) in CASES.items():
            if name == "sound":
                place = home / "step-recordings"
                place.mkdir(exist_ok=True)
                recordings = place / "recordings"
                path = recordings if recordings.is_dir() else SETS[kind].make(place, MINUTES)
                changes = {"data.examples.sources.0.path": path}
            steps = {
                source: _steps(recipe, changes, kind, source == "from memory")
                for source in ("from memory", "from disk")
            }
            taken: Any = in_alternation(steps, rounds, _clocks)
            for number, clock in enumerate(CLOCKS):
                seconds = {source: [one[number] for one in own] for source, own in taken.items()}
                case = f"a step of {recipe}, {clock}"
                found = rows_of(
                    PART, case, seconds, "from memory", "ms", lambda s: 1000 * s / STEPS
                )
                rows += found
                print(*found[1].cells(), file=sys.stderr, flush=True)
    return rows


def _clocks() -> Any:
    return np.array([time.perf_counter(), time.process_time()])


def _steps(
    recipe: str, changes: dict[str, Any], kind: str, from_memory: bool
) -> Callable[[], None]:
    """Return a function that makes some steps of a new run."""
    SETS[kind].keep_in_memory(from_memory)
    changes = dict(changes)
    if kind == "sound":
        changes["data.examples.store"] = "memory" if from_memory else "disk"
    parts = check_recipe(RECIPES / recipe, [f"{key}={value}" for key, value in changes.items()])
    model: Any = parts["model"].build()
    data = prepared_for(model, parts["data"].build())
    if "precompute" in parts:
        data = parts["precompute"].build()(model, data)
    plan = Trainer(steps=FAR, precision="fp32", log_every=FAR, workers=WORKERS)
    run = Run(plan, model.task(), data, None, {}, Record({}, {}))
    run.begin(resume=False)
    numbers = run.steps_to_go()

    def advance() -> None:
        for step in itertools.islice(numbers, STEPS):
            run.advance(step)

    return advance
