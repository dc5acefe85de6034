"""A training step of WaveGrad: the package's network compared with lmnt's.

The same weights, noisy samples, mels and noise levels; L1 on the noise, the backward pass and
Adam's step. Reported in training seconds of sound per second, ratios to lmnt's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import Row, counted, in_alternation, installed, on_threads, rows_of
from multidiff.audio.vocoder.lmnt import renamed
from multidiff.audio.vocoder.wavegrad import WaveGrad
from multidiff.core.gaussian.schedules import BetaSchedule, NoiseLevel

PART = "wavegrad-step"
MEL = "lmnt-wavegrad-22k"
FRAMES = 24
BATCHES = (4, 16)
LEARNING_RATE = 2e-4
OURS, THEIRS = "multidiff", "wavegrad (lmnt)"
SAME = 1e-2  # difference of losses after the same steps


def measure(threads: int, rounds: int) -> list[Row]:
    """Measure both networks at each batch size."""
    with on_threads(threads):
        return [row for batch in BATCHES for row in _measure_batch(batch, threads, rounds)]


def _measure_batch(batch: int, threads: int, rounds: int) -> list[Row]:
    ours = WaveGrad(MEL, embedding_scale=1.0)
    samples = FRAMES * ours.preset.hop_length
    rng = torch.Generator().manual_seed(batch)
    xt, noise = torch.randn(2, batch, samples, generator=rng)
    mel = torch.rand(batch, ours.preset.n_mels, FRAMES, generator=rng)
    level = BetaSchedule.linear(1000, 1e-6, 0.01).at(torch.rand(batch, generator=rng))
    steps: dict[str, Callable[[], float]] = {}
    if installed("wavegrad"):
        steps[THEIRS] = _their_step(ours, xt, level, mel, noise)
    steps[OURS] = step_of(ours, lambda: ours(xt, level, mel), noise)
    if len(steps) == 2:
        _check_equal(*(step() for step in steps.values()))
    seconds = {OURS: [], THEIRS: [], **in_alternation(steps, rounds)}
    sound = batch * samples / ours.preset.sample_rate_hz
    case = f"batch {batch} x {samples} samples, {counted(threads)}"
    return rows_of(PART, case, seconds, THEIRS, "s of sound/s", lambda second: sound / second)


def _their_step(
    ours: WaveGrad, xt: Tensor, level: NoiseLevel, mel: Tensor, noise: Tensor
) -> Callable[[], float]:
    """Return the step of lmnt's network, whose initial weights are copied to ours."""
    from wavegrad.model import WaveGrad as Theirs
    from wavegrad.params import params

    theirs = Theirs(params)
    tensors = renamed(theirs.state_dict())
    ours.load_state_dict({name.removeprefix("denoiser."): t for name, t in tensors.items()})
    scale = level.alpha.float()
    return step_of(theirs, lambda: theirs(xt, mel, scale).squeeze(1), noise)


def step_of(network: nn.Module, output: Callable[[], Tensor], noise: Tensor) -> Callable[[], float]:
    """Return one training step as a function that returns the loss before it."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.l1_loss(output(), noise)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def _check_equal(one: float, other: float) -> None:
    if abs(one - other) > SAME * abs(other):
        raise RuntimeError(f"the networks differ: losses {one:g} and {other:g}")
