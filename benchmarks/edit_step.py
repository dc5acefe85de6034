"""A training step of an editor, and the fractions of corruption and alignment in it.

The step: texts are corrupted by up to six steps of edits, aligned with the originals, tagged and
written, the backward pass and AdamW. The alignment alone is compared with rapidfuzz's editops of
the same pairs, which is compiled and breaks ties differently. Reported in CPU seconds, ratios to
the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.text_step import WORDS, Numbers, _stepped
from benchmarks.timing import Row, counted, in_alternation, on_threads, rows_of
from multidiff.core.edit.alignment import align_many
from multidiff.core.edit.process import EditProcess
from multidiff.text.diffuser.network import Editor
from multidiff.text.diffuser.task import EditTask
from multidiff.text.domain import TextDomain

PART = "edit-step"
STEP = "a training step"
CLOCK = time.process_time


def measure(
    threads: int,
    rounds: int,
    *,
    batch: int = 48,
    length: int = 26,
    width: int = 192,
    layers: int = 4,
) -> list[Row]:
    """Measure the step and its parts.

    Args:
        threads: number of CPU threads.
        rounds: number of steps of each.
        batch: number of sentences in a step.
        length: length of the sentences.
        width: width of the transformers.
        layers: number of the tagger's blocks; the generator has half of them.
    """
    reported = f"{layers} layers of {width}, {batch} sentences of {length}, {counted(threads)}"
    with on_threads(threads):
        seconds = in_alternation(_parts(batch, length, width, layers), rounds, CLOCK)
    return rows_of(PART, reported, seconds, STEP, "CPU s")


def _parts(batch: int, length: int, width: int, layers: int) -> dict[str, Callable[[], object]]:
    from rapidfuzz.distance import Levenshtein

    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    texts = torch.randint(3, WORDS, (batch, length)).tolist()
    reported = {"text": [" ".join(map(str, row)) for row in texts]}
    process = EditProcess(WORDS, [0.0] * 3 + [1.0] * (WORDS - 3), steps=6, span=2)
    editor = Editor(WORDS, width, layers, 4, 2 * length, layers // 2)
    task = EditTask(TextDomain(Numbers(), length + 1), process, editor)  # pyright: ignore
    chains = process.corrupt_many(texts, process.draw_level(batch, rng), rng)
    drafts = [chain[-1].tokens for chain in chains]
    return {
        STEP: _stepped(task, lambda: sum(task.losses(reported, rng).values()).mean()),  # pyright: ignore
        "multidiff corruption and alignment": lambda: task.edit_batch(reported, rng),
        "multidiff alignment": lambda: align_many(drafts, texts),
        "rapidfuzz editops": lambda: [
            Levenshtein.editops(draft, text) for draft, text in zip(drafts, texts, strict=True)
        ],
    }
