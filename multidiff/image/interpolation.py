"""Interpolation between prompts and between seeds, as frames, a strip and a GIF.

The noise of two seeds is mixed so that its variance stays 1: ``slerp`` with coefficients cos and
sin. Of two prompts the predictions at each step are mixed (Liu et al. 2022), which works for every
condition, including classes and words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from multidiff.core.protocols import Condition, Denoiser, Level
from multidiff.core.random import generators
from multidiff.core.sample import Step, sample
from multidiff.image.data.image_files import from_unit
from multidiff.image.diffusion.model import ImageDiffusion
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.variations import slerp
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write

FRAME_MILLISECONDS, LAST_MILLISECONDS = 80, 800


class BlendedDenoiser:
    """Predictions for two conditions, mixed: ``(1 - weight) f(x | first) + weight f(x | second)``.

    Args:
        denoiser: network, perhaps guided; it is called with the first condition.
        second: the second condition.
        weight: weight of the second, in [0, 1], of each sample.
    """

    def __init__(self, denoiser: Denoiser, second: Condition, weight: Float[Tensor, " batch"]):
        self.denoiser, self.second, self.weight = denoiser, second, weight

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the mixed prediction."""
        one, other = (self.denoiser(xt, level, about) for about in (condition, self.second))
        return torch.lerp(one, other, self.weight.to(one).view(-1, *[1] * (one.ndim - 1)))


def labelled_frames(ends: Sequence[tuple[str, int]], frames: int) -> list[tuple[str, int]]:
    """Return a text and a seed for each frame of :func:`interpolate`, for file names.

    Raises:
        InputError: if there are fewer than two ends or frames.
    """
    if len(ends) < 2 or frames < 2:
        raise InputError(
            f"--interpolate {frames}: needs 2 or more frames, and two or more prompts or seeds "
            f"(--prompt A --prompt B, or -n 2); there are {len(ends)}"
        )
    found = [*ends[:1]]
    for (first, seed), (second, last) in pairwise(ends):
        text = f"{first} to {second}" if first != second else f"{first} to seed {last}"
        found += [(f"{text} {step / (frames - 1):.2f}", seed) for step in range(1, frames - 1)]
        found.append((second, last))
    return found


@torch.no_grad()
def interpolate(
    model: ImageDiffusion,
    ends: Sequence[tuple[str, int]],
    frames: int,
    *,
    negative_prompt: str | None = None,
    config: ImageSamplingConfig | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_batch: Callable[[int, Tensor], None] | None = None,
    **overrides: Any,
) -> UInt8[Tensor, "count channels height width"]:
    """Generate the frames from each prompt and seed to the next, both included.

    The frames at the ends are the images that ``generate`` returns for them, unless one prompt is
    too long for a text encoder and the other is not.

    Args:
        model: image model by Gaussian diffusion.
        ends: prompt and seed of each end, two or more.
        frames: number of frames from one end to the next, of which the last begins the next part.
        negative_prompt: caption that guidance leads away from.
        config: sampling options; the model's own by default.
        on_step: function called after each step.
        on_batch: function called after each part with the index of its first frame and its frames.
        **overrides: single options that replace the config's.

    Raises:
        InputError: if there are fewer than two ends or frames, or a prompt is wrong.
    """
    labelled_frames(ends, frames)  # checks them
    config = model.checked_config((config or model.sampling).replace(**overrides))
    model.domain.check_prompts([prompt for prompt, _ in ends])
    parts, first = [], 0
    for number, (one, other) in enumerate(pairwise(ends)):
        skipped = min(number, 1)  # the frame that ends the part before
        weight = torch.linspace(0, 1, frames, dtype=torch.float64)[skipped:]
        parts.append(_part(model, one, other, weight, config, negative_prompt, on_step))
        if on_batch is not None:
            on_batch(first, parts[-1])
        first += len(weight)
    return torch.cat(parts)


def _part(
    model: ImageDiffusion,
    one: tuple[str, int],
    other: tuple[str, int],
    weight: Float[Tensor, " frames"],
    config: ImageSamplingConfig,
    negative_prompt: str | None,
    on_step: Callable[[Step], None] | None,
) -> UInt8[Tensor, "frames channels height width"]:
    count, size = len(weight), model.domain.size
    shape = model.domain.state_shape(count, size)
    first, second = (
        model.process.prior((1, *shape[1:]), generators([seed])) for _, seed in (one, other)
    )
    noise = slerp(first, second, weight) if one[1] != other[1] else first.repeat(count, 1, 1, 1)
    times = config.times_from(1.0, model.process.schedule)
    pieces = model.pieces([one[0], other[0], negative_prompt], config)
    denoiser = model.guided(config, [negative_prompt] * count, pieces)
    condition = model.condition([one[0]] * count, pieces, config)
    if one[0] != other[0]:
        second = model.condition([other[0]] * count, pieces, config)
        denoiser = BlendedDenoiser(denoiser, second, weight)
    state = sample(
        model.process,
        denoiser,
        config.build_sampler(times.num_steps),
        shape,
        times,
        condition=condition,
        project=model.projection(config=config),
        rng=generators([one[1]] * count),
        start=model.start_from(noise, config, times),
        device=model.device,
        on_step=on_step,
    )
    return from_unit(model.domain.to_image(state, size)).cpu()


def write_gif(images: UInt8[Tensor, "count channels height width"], path: Path) -> None:
    """Write frames as a GIF that runs forth and back for ever, atomically.

    Raises:
        InputError: if the system refuses.
    """
    forth = [Image.fromarray(one.permute(1, 2, 0).squeeze(2).numpy()) for one in images]
    frames = [*forth, *forth[-2:0:-1]]
    shown = [FRAME_MILLISECONDS] * len(frames)
    shown[0] = shown[len(forth) - 1] = LAST_MILLISECONDS
    with atomic_write(path) as partial:
        frames[0].save(
            partial, format="GIF", save_all=True, append_images=frames[1:], duration=shown, loop=0
        )
