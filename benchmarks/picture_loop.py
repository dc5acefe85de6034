"""Overhead of guided sampling over its network: ``generate()`` against its forward passes.

A small Stable Diffusion with random weights, DDIM with a negative prompt. The bare passes see
the same doubled batch; encoding the prompts and decoding the latents is in all three. For
comparison, diffusers' loop, its ``DDIMScheduler`` and ``UNet2DConditionModel`` run with the same
weights and end at the same latents. Ratios are to the bare passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.pairs import apart, copy_weights, latent_unet, their_latent_unet
from benchmarks.timing import Row, counted, in_alternation, installed, on_threads, rows_of
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule, NoiseLevel
from multidiff.core.random import generators, normal
from multidiff.image.autoencoders.kl import AutoencoderKL
from multidiff.image.diffusion.domains import LatentDomain
from multidiff.image.diffusion.model import ImageDiffusion
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.diffusion.text_encoder import TextEncoder
from multidiff.image.tokenizers import WordTokenizer

PART = "image-loop"
UNET = ((64, 128, 256), 8, 128)
TABLE, FIRST_BETA, LAST_BETA = 1000, 0.00085, 0.012
GUIDANCE, SEED = 7.5, 7
PROMPT, NEGATIVE = "a red house", "fog"
OURS, THEIRS = "multidiff generate()", "diffusers DDIMScheduler"
SAME = 1e-2  # difference of latents, relative to the largest: sampling amplifies rounding


def measure(
    threads: int, rounds: int, *, side: int = 256, steps: int = 20, batch: int = 2
) -> list[Row]:
    """Measure the bare passes, the package's loop and that of diffusers.

    Args:
        threads: number of CPU threads.
        rounds: number of sampling runs of each.
        side: height and width of the images.
        steps: number of sampling steps.
        batch: number of images at a time; a forward pass has twice as many states.
    """
    plain = f"{steps} forward passes"
    with on_threads(threads):
        loops = _Loops(side, steps, batch)
        named = {plain: loops.plain, OURS: loops.ours}
        if installed("diffusers"):
            named[THEIRS] = loops.theirs()
            difference = apart(loops.ours(), named[THEIRS]())
            if not difference < SAME:
                raise RuntimeError(f"the loops end at different states: {difference:g} apart")
        taken = in_alternation(named, rounds, time.process_time)
    case = f"guided DDIM, {steps} steps, {batch} of {side}x{side}, {counted(threads)}"
    return rows_of(PART, case, {plain: [], OURS: [], THEIRS: [], **taken}, plain, "CPU s")


class _Loops:
    """The model, its noise, and the three loops; each returns the last latents."""

    def __init__(self, side: int, steps: int, batch: int):
        torch.manual_seed(0)
        words = tuple(f"{PROMPT} {NEGATIVE}".split())
        self.model = ImageDiffusion(
            LatentDomain(
                AutoencoderKL(3, (16, 32, 32, 32), 1, groups=8),
                TextEncoder(len(words) + 3, UNET[2], 2 * UNET[2], 2, 4, "quick_gelu", 16),
                WordTokenizer(words, 16),
            ),
            GaussianProcess(BetaSchedule.scaled_linear(TABLE, FIRST_BETA, LAST_BETA)),
            latent_unet(*UNET),
            ImageSamplingConfig(steps, "ddim", GUIDANCE, "leading"),
        ).eval()
        self.model.requires_grad_(False)
        self.size, self.prompts, self.steps = (side, side), [PROMPT] * batch, steps
        shape = self.model.domain.state_shape(batch, self.size)
        self.noise = normal(shape, generators([SEED + row for row in range(batch)]))
        times = self.model.sampling.times(self.model.process.schedule)
        self.levels = self.model.process.levels(times)[:-1]

    def ours(self) -> Tensor:
        """Sample with the package."""
        states: list[Tensor] = []
        self.model.generate(
            self.prompts,
            negative_prompt=NEGATIVE,
            size=self.size,
            seed=SEED,
            on_step=lambda step: states.append(step.state),
        )
        return states[-1]

    @torch.no_grad()
    def plain(self) -> Tensor:
        """Run the network alone, always on the same states."""
        words, twice = self._words(), torch.cat([self.noise, self.noise])
        for level in self.levels:
            both = NoiseLevel(*(part.expand(len(twice)) for part in level.parts()))
            self.model.denoiser(twice, both, words)
        self.model.domain.to_image(self.noise, self.size)
        return self.noise

    def theirs(self) -> Callable[[], Tensor]:
        """Return diffusers' loop, with our weights."""
        from diffusers import DDIMScheduler

        network = their_latent_unet(*UNET, side=self.noise.shape[-1]).eval()
        copy_weights(self.model.denoiser, network)
        scheduler: Any = DDIMScheduler(
            num_train_timesteps=TABLE,
            beta_start=FIRST_BETA,
            beta_end=LAST_BETA,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        )

        @torch.no_grad()
        def loop() -> Tensor:
            scheduler.set_timesteps(self.steps)
            words, state = self._words(), self.noise
            for step in scheduler.timesteps:
                cond, uncond = network(torch.cat([state, state]), step, words).sample.chunk(2)
                guided = uncond + GUIDANCE * (cond - uncond)
                state = scheduler.step(guided, step, state).prev_sample
            self.model.domain.to_image(state, self.size)
            return state

        return loop

    def _words(self) -> Tensor:
        domain: Any = self.model.domain
        negative = domain.condition([NEGATIVE])
        return torch.cat([
            domain.condition(self.prompts), negative.expand(len(self.prompts), -1, -1)
        ])  # fmt: skip
