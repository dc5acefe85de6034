"""Fraction of sampling time spent in the network, for every shipped diffusion model.

A round draws samples as the command line does, all defaults, and counts the CPU seconds within the
denoiser separately. The rest is the sampler, the draws, the projections and the decoder. Ratios
are to the whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch

import multidiff as md
from benchmarks.timing import Row, counted, on_threads, rows_of
from benchmarks.watching import CLOCK, NETWORK, NETWORKS, watch_network
from multidiff.text.request import TextRequest

PART = "network-share"
OURS = "multidiff in all"


def measure(threads: int, rounds: int, *, samples: int = 4, steps: int = 8) -> list[Row]:
    """Measure the seconds of each model's sampling, and of its network therein.

    Args:
        threads: number of CPU threads.
        rounds: number of rounds of each.
        samples: number of samples drawn at a time; for speech one, of a second.
        steps: number of sampling steps.
    """
    rows = []
    with on_threads(threads):
        for name, drawing in _draws(samples, steps).items():
            case = f"{name}, {samples} samples, {steps} steps, {counted(threads)}"
            rows += rows_of(PART, case, _seconds(name, drawing, rounds), OURS, "CPU s")
    return rows


def _draws(samples: int, steps: int) -> dict[str, tuple[Any, Callable[[], object]]]:
    """Return each model and its sampling function."""
    found: dict[str, Any] = {name: deepcopy(md.load(name)) for name in NETWORKS}
    asked = {
        "digits": ["7"] * samples,
        "digit-tokens": ["7"] * samples,
        "restaurant": [TextRequest(length=20)] * samples,
        "masked": [TextRequest(length=20)] * samples,
    }
    draws = {name: _drawing(found[name], requests, steps) for name, requests in asked.items()}
    draws["speech"] = _speaking(found["speech"], steps)
    draws["edits"] = _editing(found["edits"], [TextRequest(length=20)] * samples, steps)
    return {name: (found[name], draws[name]) for name in NETWORKS}


def _drawing(model: Any, requests: list[Any], steps: int) -> Callable[[], object]:
    return lambda: model.generate(requests, steps=steps, seed=0)


def _speaking(model: Any, steps: int) -> Callable[[], object]:
    """Return a function that synthesises a second of sound from the mel of noise."""
    noise = torch.rand(1, model.preset.sample_rate_hz, generator=torch.Generator().manual_seed(0))
    mel = model.preset.mel(noise - 0.5)
    return lambda: model.synthesize(mel, steps=steps, seed=0)


def _editing(model: Any, requests: list[TextRequest], steps: int) -> Callable[[], object]:
    """Return a function that revises random words, with drawn words."""
    sampling = model.sampling.replace(steps=steps).for_new_texts(model.sampling)
    drafts = model.noise_drafts(requests, seed=0)
    return lambda: model.revise(drafts, requests, config=sampling, seed=0)


def _seconds(
    name: str, drawing: tuple[Any, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of each round after a first one, in total and in the network."""
    model, draw = drawing
    spent: dict[str, float] = defaultdict(float)
    watch_network(name, model, spent)
    seconds: dict[str, list[float]] = {OURS: [], NETWORK: []}
    draw()
    for _ in range(rounds):
        spent.clear()
        start = CLOCK()
        draw()
        seconds[OURS].append(CLOCK() - start)
        seconds[NETWORK].append(spent[NETWORK])
    return seconds
