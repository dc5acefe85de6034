"""Digits by masked tokens compared with latent diffusion: quality for time.

Both shipped models draw equal numbers of samples at several numbers of steps. Each setting has two
rows: seconds for some images, and the feature distance to held-out digits on the shipped
classifier, which does not depend on the machine. Ratios are to the diffusion at its most steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

import multidiff as md
from benchmarks.timing import Row, counted, in_alternation, on_threads, rows_of
from multidiff.image.diffusion.evaluation import AT_ONCE, DATA, prompts_of
from multidiff.image.metrics.feature_distance import batches_of, compare_sets, labelled
from multidiff.image.metrics.sets import describe_all

PART = "token-digits"
MOST = 5000  # largest number of real digits


def measure(
    threads: int,
    rounds: int,
    *,
    samples: int = 1000,
    timed: int = 100,
    held_out: str = DATA,
    tokens: str = "digit-tokens",
    token_steps: str = "1,2,4,8,16,49",
    diffusion: str = "digits",
    diffusion_steps: str = "20,50",
) -> list[Row]:
    """Measure time and distance of each model at each of its numbers of steps.

    Args:
        threads: number of CPU threads.
        rounds: number of timed rounds.
        samples: number of samples for the distance.
        timed: number of images generated in a round.
        held_out: real digits that neither was trained on.
        tokens: the token model.
        token_steps: its numbers of steps, separated by commas.
        diffusion: the diffusion model.
        diffusion_steps: its numbers of steps, separated by commas, the last the reference.
    """
    classifier: Any = md.load("digit-features")
    draws: dict[str, Callable[[int], Tensor]] = {}
    with on_threads(threads):
        for name, counts in ((diffusion, diffusion_steps), (tokens, token_steps)):
            model: Any = md.load(name)
            real = labelled(held_out, model.domain.size, model.domain.channels, "train")
            for count in counts.split(","):
                label = name if name == diffusion else f"multidiff {name}"
                draws[f"{label}, {count} steps"] = partial(_drawn, model, real, int(count))
        calls = {name: partial(draw, timed) for name, draw in draws.items()}
        seconds = in_alternation(calls, rounds, time.process_time)
        features = describe_all(
            batches_of(real, list(range(min(MOST, len(real))))), classifier.describe
        )
        distances = {}
        for name, draw in draws.items():
            found = describe_all(draw(samples).split(AT_ONCE), classifier.describe)
            distances[name] = [compare_sets(features, found).frechet]
    reference = f"{diffusion}, {diffusion_steps.split(',')[-1]} steps"
    timed = rows_of(PART, f"{timed} digits, {counted(threads)}", seconds, reference, "CPU s")
    far = rows_of(PART, f"{samples} digits against held-out ones", distances, reference, "distance")
    return [*timed, *far]


def _drawn(model: Any, real: Any, steps: int, count: int) -> Tensor:
    prompts = prompts_of(model, real, count)
    return model.generate(prompts, steps=steps, seed=0, batch_size=AT_ONCE)
