"""A training step of a UNet, compared with diffusers.

First the networks alone, a DDPM of small colour images and a small Stable Diffusion: the same
weights, noisy states, times and captions; squared error on the noise, the backward pass and
the step of the same AdamW (fused). Then a step of the package's trainer compared with one of
diffusers' documented example, both through accelerate, with their defaults. Reported in
training images per CPU second, ratios to diffusers'.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pairs import (
    Shape,
    copy_weights,
    latent_unet,
    pixel_unet,
    their_latent_unet,
    their_pixel_unet,
)
from benchmarks.timing import (
    Row,
    counted,
    in_alternation,
    installed,
    on_threads,
    rows_of,
    training_on_cpu,
)
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.task import DiffusionTask
from multidiff.data.batches import ListedBatches
from multidiff.image.diffusion.domains import PixelDomain
from multidiff.training.record import Record
from multidiff.training.run import Run
from multidiff.training.trainer import Trainer

PART = "unet-step"
PIXELS: Shape = (3, (64, 128, 128), 2, ("none", "self", "none"))
LATENTS, WORDS = ((64, 128, 256), 8, 128), 16
TABLE, LEARNING_RATE = 1000, 1e-4
OURS = "multidiff"
SAME = 1e-3  # difference of losses after the same steps
FAR = 1_000_000
CLOCK = time.process_time  # a step of seconds on a busy machine

Steps = dict[bool, Callable[[], float]]  # ours where true


def measure(
    threads: int, rounds: int, *, batch: int = 16, side: int = 32, latent_side: int = 16
) -> list[Row]:
    """Measure all three cases.

    Args:
        threads: number of CPU threads.
        rounds: number of steps of each.
        batch: number of images in a step.
        side: height and width of images.
        latent_side: height and width of latents.
    """
    torch.manual_seed(0)
    alone, captions = f"UNet, {side}x{side}", f"UNet with captions, {latent_side}x{latent_side}"
    with on_threads(threads), training_on_cpu():
        cases = [
            (alone, "diffusers UNet2DModel", _pixel_steps(batch, side)),
            (captions, "diffusers UNet2DConditionModel", _latent_steps(batch, latent_side)),
            (f"{alone}, the trainer's", "diffusers' example", _trainers(batch, side)),
        ]
        for _, _, steps in cases[:2]:
            _check_equal(steps)
        rows = []
        for case, their_name, steps in cases:
            named = {OURS if is_ours else their_name: step for is_ours, step in steps.items()}
            seconds = {OURS: [], their_name: [], **in_alternation(named, rounds, CLOCK)}
            reported, unit = f"{case}, batch {batch}, {counted(threads)}", "images/CPU s"
            rows += rows_of(
                PART, reported, seconds, their_name, unit, lambda second: batch / second
            )
    return rows


def _pixel_steps(batch: int, side: int) -> Steps:
    ours = pixel_unet(*PIXELS)
    xt, noise = torch.randn(2, batch, PIXELS[0], side, side)
    index = torch.randint(0, TABLE, (batch,))
    level = BetaSchedule.linear(TABLE).at((index.double() + 1) / TABLE)
    steps: Steps = {True: step_of(ours, lambda: ours(xt, level), noise)}
    if installed("diffusers"):
        theirs = their_pixel_unet(*PIXELS, side)
        copy_weights(ours, theirs)
        steps[False] = step_of(theirs, lambda: theirs(xt, index).sample, noise)
    return steps


def _latent_steps(batch: int, side: int) -> Steps:
    ours = latent_unet(*LATENTS)
    xt, noise = torch.randn(2, batch, 4, side, side)
    words = torch.randn(batch, WORDS, LATENTS[2])
    index = torch.randint(0, TABLE, (batch,))
    level = BetaSchedule.linear(TABLE).at((index.double() + 1) / TABLE)
    steps: Steps = {True: step_of(ours, lambda: ours(xt, level, words), noise)}
    if installed("diffusers"):
        theirs = their_latent_unet(*LATENTS, side)
        copy_weights(ours, theirs)
        steps[False] = step_of(theirs, lambda: theirs(xt, index, words).sample, noise)
    return steps


def step_of(network: nn.Module, output: Callable[[], Tensor], noise: Tensor) -> Callable[[], float]:
    """Return one training step as a function that returns the loss before it."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.mse_loss(output(), noise)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _trainers(batch: int, side: int) -> Steps:
    """Return our trainer's step, and that of diffusers' example."""
    image = torch.randint(0, 256, (4 * batch, PIXELS[0], side, side), dtype=torch.uint8)
    domain, process = PixelDomain((side, side)), GaussianProcess(BetaSchedule.linear(TABLE))
    task = DiffusionTask(domain, process, pixel_unet(*PIXELS))
    plan = Trainer(steps=FAR, learning_rate=LEARNING_RATE, precision="fp32", log_every=FAR)
    batches = ListedBatches([{"image": part} for part in image.split(batch)])
    run = Run(plan, task, batches, None, {}, Record({}, {}))
    run.begin(resume=False)
    numbers = run.steps_to_go()
    steps: Steps = {True: lambda: run.advance(next(numbers)) or 0.0}
    if installed("diffusers"):
        from benchmarks.diffusers_training import DiffusersTraining

        theirs = DiffusersTraining(their_pixel_unet(*PIXELS, side), image, batch)
        steps[False] = lambda: theirs.step(progress=0.5)
    return steps


def _check_equal(steps: Steps) -> None:
    one, *others = (step() for step in steps.values())
    if not all(abs(one - other) <= SAME * abs(other) for other in others):
        raise RuntimeError(f"the networks differ: losses {one:g} and {others[0]:g}")
