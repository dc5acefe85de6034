"""A training step in float32 beside ``precision: auto``, of a transformer and of a UNet.

Both are trained by the Trainer on random data of a fixed batch. ``auto`` takes bfloat16 autocast on
CPUs with avx512_bf16 or AMX, where the two lines of a case differ, and float32 elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import multidiff as md
from benchmarks.timing import Row, counted, in_alternation, on_threads, rows_of
from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.image.diffusion.unet import UNet
from multidiff.nn.token_denoiser import TokenDenoiser

PART = "precision"
WORDS = 4096
OURS, SINGLE = "multidiff", "multidiff, precision: fp32"
PRECISIONS = {SINGLE: "fp32", OURS: "auto"}


def measure(
    threads: int,
    rounds: int,
    *,
    batch: int = 16,
    length: int = 128,
    width: int = 512,
    layers: int = 6,
    side: int = 32,
    channels: int = 64,
    steps: int = 3,
) -> list[Row]:
    """Measure CPU time of a step, setup left out.

    Args:
        threads: number of CPU threads.
        rounds: number of runs of each.
        batch: texts, and images, of a step.
        length: tokens of a text.
        width: width of the transformer.
        layers: number of its blocks.
        side: height and width of an image.
        channels: channels of the UNet's first level.
        steps: steps of a run.
    """
    rows = []
    cases = {
        f"transformer, {layers} blocks of {width}": partial(texts, batch, length, width, layers),
        f"UNet, {channels} channels, {side}x{side}": partial(images, batch, side, channels),
    }
    with on_threads(threads):
        for case, make in cases.items():
            runs = {name: partial(_trained, make, how, steps) for name, how in PRECISIONS.items()}
            seconds = in_alternation(runs, rounds, time.perf_counter)
            each = {name: [one / steps for one in found] for name, found in seconds.items()}
            rows += rows_of(PART, f"{case}, {counted(threads)}", each, SINGLE, "s")
    return rows


Made = tuple[nn.Module, dict[str, Any]]


class AsTheyAre(md.Domain):
    """States that are the batch's own."""

    def encode(self, batch: dict[str, Any], rng: Any) -> md.Encoded:
        """See :class:`multidiff.Domain`."""
        return md.Encoded(batch["x"])

    def decode(self, state: Any, condition: Any = None) -> Any:
        """See :class:`multidiff.Domain`."""
        return state


def texts(batch: int, length: int, width: int, layers: int) -> Made:
    """Return a masked text diffusion task, and a batch."""
    network = TokenDenoiser(WORDS, width, layers, width // 64, length)
    tokens = torch.randint(WORDS, (batch, length), generator=torch.Generator().manual_seed(0))
    return md.DiffusionTask(AsTheyAre(), MaskProcess(WORDS, LogLinearMasks()), network), {
        "x": tokens
    }


def images(batch: int, side: int, channels: int) -> Made:
    """Return an image diffusion task in pixels, and a batch."""
    network = UNet(
        in_channels=3, out_channels=3, channels=(channels, 2 * channels, 2 * channels), layers=2,
        attention=("none", "self", "self"), heads=(1, 4, 4),
    )  # fmt: skip
    x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    process = md.GaussianProcess(md.BetaSchedule.cosine(), "v")
    return md.DiffusionTask(AsTheyAre(), process, network), {"x": x}


def _trained(make: Callable[[], Made], precision: Any, steps: int) -> None:
    task, batch = make()
    md.Trainer(
        steps=steps, precision=precision, log_every=steps, save_every=steps, validate_every=steps
    ).fit(task, [batch])
