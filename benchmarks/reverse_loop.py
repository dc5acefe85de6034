"""Overhead of the reverse loop over its network: 20 steps of DDIM against 20 forward passes.

The network is the shipped vocoder's, with random weights, on two seconds of sound. For comparison
with the package's ``sample()``, a loop around diffusers' ``DDIMScheduler`` with the same network
ends at the same states. Ratios are to the forward passes alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.timing import Row, counted, in_alternation, installed, on_threads, rows_of
from multidiff.audio.vocoder.domains import SpectralDomain
from multidiff.audio.vocoder.mdct_denoiser import MDCTDenoiser
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import DDIM
from multidiff.core.gaussian.schedules import BetaSchedule, NoiseLevel
from multidiff.core.gaussian.timesteps import trailing_timesteps
from multidiff.core.sample import sample

PART = "reverse-loop"
STEPS, TABLE = 20, 1000
SECONDS = 2.0
PLAIN, OURS, THEIRS = f"{STEPS} forward passes", "multidiff sample()", "diffusers DDIMScheduler"
SAME = 1e-2  # difference of states, relative to the largest: sampling amplifies rounding


def measure(threads: int, rounds: int) -> list[Row]:
    """Measure the bare passes, the package's loop and that of diffusers."""
    with on_threads(threads):
        loops = _loops()
        seconds = {PLAIN: [], OURS: [], THEIRS: [], **in_alternation(loops, rounds)}
    return rows_of(PART, f"DDIM, {STEPS} steps, {counted(threads)}", seconds, PLAIN)


def _loops() -> dict[str, Callable[[], Tensor]]:
    torch.manual_seed(0)
    network = MDCTDenoiser().eval()
    torch.nn.init.normal_(network.write.weight, std=0.02)
    frames = int(SECONDS * network.preset.sample_rate_hz / network.preset.hop_length)
    shape = SpectralDomain(network.preset.name, network.hop).state_shape(1, frames)
    xt, mel = torch.randn(shape), torch.randn(1, network.preset.n_mels, frames)
    process = GaussianProcess(BetaSchedule.linear(TABLE), "epsilon")
    levels = process.levels(trailing_timesteps(STEPS))[:-1]

    @torch.no_grad()
    def plain() -> Tensor:
        for level in levels:
            output = network(xt, level, mel)
        return output

    def ours() -> Tensor:
        times = trailing_timesteps(STEPS)
        return sample(process, network, DDIM(), shape, times, condition=mel, start=xt)

    loops: dict[str, Callable[[], Tensor]] = {PLAIN: plain, OURS: ours}
    if installed("diffusers"):
        loops[THEIRS] = _their_loop(network, levels, xt, mel)
        _check_equal(loops[OURS](), loops[THEIRS]())
    return loops


def _their_loop(
    network: MDCTDenoiser, levels: list[NoiseLevel], xt: Tensor, mel: Tensor
) -> Callable[[], Tensor]:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=TABLE,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        timestep_spacing="trailing",
    )

    @torch.no_grad()
    def loop() -> Tensor:
        scheduler.set_timesteps(STEPS)
        state = xt
        for level, step in zip(levels, scheduler.timesteps, strict=True):
            state = scheduler.step(network(state, level, mel), step, state).prev_sample
        return state

    return loop


def _check_equal(one: Tensor, other: Tensor) -> None:
    difference = float((one - other).abs().max() / other.abs().max())
    if not difference < SAME:
        raise RuntimeError(f"the loops end at different states: {difference:g} apart")
