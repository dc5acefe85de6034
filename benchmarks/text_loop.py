"""Overhead of sampling texts over its network: ``generate()`` against its forward passes.

Sentences of one length under a model of the size of ``restaurant`` with random weights, all
sampling steps, with the defaults: soft clamping, self-conditioning, the pinned END. The
bare passes are the same network on the same canvases, once with the head that reads its output as
words (clamping to the mean word is a part of that model's prediction) and once without. Ratios
are to the passes with the head.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.text_step import Numbers
from benchmarks.timing import Row, counted, in_alternation, on_threads, rows_of
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.text.diffusion_lm.denoiser import TextDenoiser
from multidiff.text.diffusion_lm.domain import EmbeddedDomain
from multidiff.text.diffusion_lm.model import TextDiffusion
from multidiff.text.request import TextRequest

PART = "text-loop"
OURS = "multidiff generate()"
STATE = 64
CLOCK = time.process_time


class Written(Numbers):
    """Texts that stay numbers."""

    def text(self, numbers: list[int]) -> str:
        """Return the numbers as text."""
        return " ".join(map(str, numbers))


def measure(
    threads: int,
    rounds: int,
    *,
    steps: int = 200,
    texts: int = 50,
    length: int = 24,
    width: int = 192,
    layers: int = 5,
) -> list[Row]:
    """Measure the bare passes, with and without the head, and the package's loop.

    Args:
        threads: number of CPU threads.
        rounds: number of sampling runs of each.
        steps: number of sampling steps.
        texts: number of texts at a time.
        length: length of each, including END.
        width: width of the transformer.
        layers: number of its blocks.
    """
    case = f"{texts} sentences of {length}, {steps} steps, {counted(threads)}"
    with on_threads(threads):
        loops = _loops(steps, texts, length, width, layers)
        seconds = in_alternation(loops, rounds, CLOCK)
    reference = next(iter(loops))
    return rows_of(PART, case, seconds, reference, "CPU s")


def _loops(
    steps: int, texts: int, length: int, width: int, layers: int
) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    vocabulary: Any = Written()
    domain = EmbeddedDomain(vocabulary, STATE, length, norm=4.0, clamp="soft")
    process = GaussianProcess(BetaSchedule.sqrt(2000), "x0")
    denoiser = TextDenoiser(STATE, width, layers, 4, length)
    model = TextDiffusion(domain, process, denoiser).eval().requires_grad_(False)
    xt = torch.randn(texts, length, 2 * STATE)
    real = torch.ones(texts, length, dtype=torch.bool)
    levels = [level.expand(texts) for level in process.levels(uniform_timesteps(steps))[:-1]]

    @torch.no_grad()
    def bare() -> object:
        for level in levels:
            output = denoiser(xt, level, {"real": real})
        return output

    @torch.no_grad()
    def headed() -> object:
        words = domain.embeddings()
        for level in levels:
            output = denoiser(xt, level, {"real": real})
            x0 = torch.softmax(domain.logits(output), dim=-1) @ words
        return x0

    def ours() -> object:
        return model.generate([TextRequest(length=length - 1)] * texts, steps=steps)

    return {
        f"{steps} passes, read as words": headed,
        OURS: ours,
        f"{steps} passes alone": bare,
    }
