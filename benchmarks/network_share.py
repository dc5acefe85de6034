"""How much of sampling is the network: every shipped model whose sampling is a walk.

A round draws samples as the command line does, all defaults, and counts the CPU seconds within the
denoiser apart. What is left is the solver, the draws, the projections and the decoder. Ratios are
to the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

import multidiff as md
from benchmarks.timing import Row, counted, on_threads, rows_of
from multidiff.text.orders import TextOrder

PART = "network-share"
OURS = "multidiff in all"
CLOCK = time.process_time


def measure(threads: int, rounds: int, *, samples: int = 4, steps: int = 8) -> list[Row]:
    """Seconds of each model's sampling, and of its network therein.

    Args:
        threads: of the CPU.
        rounds: of each.
        samples: drawn at a time; of speech one, of a second.
        steps: of each walk.
    """
    rows = []
    with on_threads(threads):
        for name, draw in _draws(samples, steps).items():
            case = f"{name}, {samples} samples, {steps} steps, {counted(threads)}"
            rows += rows_of(PART, case, _seconds(draw, rounds), OURS, "CPU s")
    return rows


def _draws(samples: int, steps: int) -> dict[str, tuple[Any, Callable[[], object]]]:
    """Of each model, what it is and how it draws."""
    found = {
        name: md.load(name) for name in ("speech", "digits", "digit-tokens", "restaurant", "masked")
    }
    speech: Any = found["speech"]
    noise = torch.rand(1, speech.preset.sample_rate_hz, generator=torch.Generator().manual_seed(0))
    mel = speech.preset.mel(noise - 0.5)
    asked = {
        "digits": ["7"] * samples,
        "digit-tokens": ["7"] * samples,
        "restaurant": [TextOrder(length=20)] * samples,
        "masked": [TextOrder(length=20)] * samples,
    }
    draws: dict[str, tuple[Any, Callable[[], object]]] = {
        "speech": (speech, lambda: speech.synthesize(mel, plan=speech.plan(steps), seed=0))
    }
    for name, orders in asked.items():
        draws[name] = (found[name], _drawing(found[name], orders, steps))
    return draws


def _drawing(model: Any, orders: list[Any], steps: int) -> Callable[[], object]:
    return lambda: model.generate(orders, steps=steps, seed=0)


def _seconds(drawn: tuple[Any, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Of each round after a first one, in all and in the network."""
    model, draw = drawn
    began: list[float] = []
    spent: list[float] = []
    hooks = [
        model.denoiser.register_forward_pre_hook(lambda *_: began.append(CLOCK())),
        model.denoiser.register_forward_hook(lambda *_: spent.append(CLOCK() - began.pop())),
    ]
    seconds: dict[str, list[float]] = {OURS: [], "its network": []}
    draw()
    for _ in range(rounds):
        spent.clear()
        start = CLOCK()
        draw()
        seconds[OURS].append(CLOCK() - start)
        seconds["its network"].append(sum(spent))
    for hook in hooks:
        hook.remove()
    return seconds
