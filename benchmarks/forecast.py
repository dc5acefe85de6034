"""A training step of a small forecasting network: the Trainer beside a bare loop.

The network reads 24 past steps of three series and noisy future ones (an MLP of 128, 90,000
weights), so that what is not network counts. The bare loop is what one writes by hand around
diffusers' scheduler: one random draw each for rows, noise and times, the same loss, clipping,
fused AdamW, cosine rate and moving average. Both read the same tensors. The Trainer's draws are
functions of the step besides, and its losses are checked and logged.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

import multidiff as md
from benchmarks.timing import Row, counted, in_alternation, on_threads, rows_of
from multidiff.nn.embeddings import LogSNREmbedding

PART = "forecast"
OURS, THEIRS = "multidiff", "bare loop, diffusers"
PAST = FUTURE = 24
SERIES, TABLE = 3, 1000
RATE, DECAY = 2e-3, 0.995


def measure(
    threads: int, rounds: int, *, batch: tuple[int, ...] = (128, 1024), steps: int = 400
) -> list[Row]:
    """Measure CPU time of a step.

    Args:
        threads: number of CPU threads.
        rounds: number of runs of each.
        batch: batch sizes.
        steps: number of steps of a run at batch 128; in proportion fewer of larger batches.
    """
    data, rows = series(20_000), []
    with on_threads(threads):
        for size in batch:
            count = max(1, steps * 128 // max(128, size))
            runs = {
                OURS: partial(ours, data, size, count),
                THEIRS: partial(bare, data, size, count),
            }
            seconds = in_alternation(runs, rounds, time.process_time)
            each = {name: [one / count for one in found] for name, found in seconds.items()}
            rows += rows_of(PART, f"batch {size}, {counted(threads)}", each, THEIRS, "CPU s")
    return rows


def series(count: int) -> Tensor:
    """Return noisy sinusoids with a random trend, ``(count, 3, 48)``."""
    rng = torch.Generator().manual_seed(0)
    time_steps = torch.arange(PAST + FUTURE) / PAST
    shape = (count, SERIES, 1)
    phase, frequency, size = (torch.rand(shape, generator=rng) for _ in range(3))
    waves = torch.sin(2 * math.pi * ((0.5 + 1.5 * frequency) * time_steps + phase))
    trend = 0.3 * torch.randn(count, 1, 1, generator=rng) * time_steps
    return (0.5 + size) * waves + trend + 0.05 * torch.randn(count, SERIES, 48, generator=rng)


class Network(nn.Module):
    """An MLP over past and noisy future."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.embedding = LogSNREmbedding(width)
        self.first = nn.Linear(SERIES * (PAST + FUTURE), width)
        layers = [nn.Sequential(nn.SiLU(), nn.Linear(width, width)) for _ in range(3)]
        self.body, self.last = nn.Sequential(*layers), nn.Linear(width, SERIES * FUTURE)

    def forward(self, xt: Tensor, level: Any, condition: dict[str, Tensor]) -> Tensor:
        """Return the prediction for the future."""
        read = self.first(torch.cat([xt, condition["past"]], 2).flatten(1))
        return self.last(self.body(read + self.embedding(level))).view_as(xt)


class Forecast(md.Domain):
    """The future as state, the past as condition."""

    def encode(self, batch: dict[str, Tensor], rng: Any) -> md.Encoded:
        """See :class:`multidiff.Domain`."""
        return md.Encoded(batch["future"], {"past": batch["past"]})

    def decode(self, state: Tensor, condition: Any = None) -> Tensor:
        """See :class:`multidiff.Domain`."""
        return state


def ours(data: Tensor, batch: int, steps: int) -> None:
    """Train by the Trainer."""
    process = md.GaussianProcess(md.BetaSchedule.cosine(TABLE), "v")
    task = md.DiffusionTask(Forecast(), process, Network())
    examples = md.TensorExamples(past=data[:, :, :PAST], future=data[:, :, PAST:])
    trainer = md.Trainer(
        steps=steps, learning_rate=RATE, decay="cosine", ema_decay=DECAY, precision="fp32",
        log_every=steps, save_every=steps, validate_every=steps,
    )  # fmt: skip
    trainer.fit(task, md.Batches(examples, batch))


class _Level:
    """A noise level, as far as the embedding reads it."""

    def __init__(self, log_snr: Tensor):
        self.log_snr = log_snr


def bare(data: Tensor, batch: int, steps: int) -> None:
    """Train by a loop around diffusers' scheduler."""
    scheduler = DDPMScheduler(TABLE, beta_schedule="squaredcos_cap_v2")
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, fused=True, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    average = [one.detach().clone() for one in network.parameters()]
    update = get_ema_multi_avg_fn(DECAY)
    log_snrs = torch.log(scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod))
    for step in range(steps):
        rows = data[torch.randint(len(data), (batch,))]
        past, future = rows[:, :, :PAST], rows[:, :, PAST:]
        noise = torch.randn_like(future)
        times: Any = torch.randint(TABLE, (batch,))
        xt = scheduler.add_noise(future, noise, times)
        output = network(xt, _Level(log_snrs[times]), {"past": past})
        target = scheduler.get_velocity(future, noise, times)
        loss = nn.functional.mse_loss(output, target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        update(average, list(network.parameters()), step)
        loss.item()
