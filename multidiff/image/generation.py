"""Batched generation of images, each from its own seed, for all image models."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from multidiff.models.requests import Seed as Seed
from multidiff.models.requests import checked_seeds, one_each
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

Made = UInt8[Tensor, "count channels height width"]
# Receives the index of the first image of a batch, and the batch, as soon as it is generated.
OnBatch = Callable[[int, Tensor], None]
# Beyond this multiple of the trained size, or below its inverse, images are usually broken.
FAR = 1.5


@dataclass(frozen=True)
class Part:
    """Images that are generated in one batch.

    Attributes:
        prompts: prompt of each image.
        seeds: random seed of each image.
        rows: their range among all images.
    """

    prompts: list[str]
    seeds: list[int]
    rows: slice


def in_batches(
    make: Callable[[Part], Made],
    prompts: str | Sequence[str],
    seed: Seed,
    batch_size: int,
    on_batch: OnBatch | None = None,
    alike: Callable[[int], object] | None = None,
) -> Made:
    """Return images, one for each prompt.

    Args:
        make: function that generates the images of one batch.
        prompts: prompt of each image; a single text is one prompt.
        seed: random seed of the first image; image ``i`` uses ``seed + i``, or the i-th of
            several; drawn if None.
        batch_size: number of images in a batch.
        on_batch: function called after each batch.
        alike: function from an image's index to a key; images of one batch have equal keys.

    Raises:
        InputError: if there are no prompts, the seeds do not match, or the batch is empty.
    """
    prompts = one_each(prompts, str, "prompt")
    if not prompts:
        raise InputError("no prompts: give one for each image, empty ones for a model without")
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: must be at least 1")
    seeds = checked_seeds(seed, len(prompts))
    made = []
    for rows in _batches(len(prompts), batch_size, alike):
        first = rows.start
        made.append(make(Part(prompts[rows], seeds[rows], rows)))
        if on_batch is not None:
            on_batch(first, made[-1])
    return torch.cat(made)


def _batches(count: int, batch_size: int, alike: Callable[[int], object] | None) -> Iterator[slice]:
    """Yield consecutive ranges of at most a number of rows, each of equal keys."""
    for _, group in itertools.groupby(range(count), alike or (lambda _: None)):
        rows = list(group)
        for first in range(rows[0], rows[-1] + 1, batch_size):
            yield slice(first, min(first + batch_size, rows[-1] + 1))


def checked_negatives(negative: str | Sequence[str | None] | None, count: int) -> list[str | None]:
    """Return the negative prompt of each image, None without any.

    Raises:
        InputError: if there are neither one nor as many as images.
    """
    found = [negative] if negative is None or isinstance(negative, str) else [*negative]
    if len(found) not in (1, count):
        raise InputError(
            f"{len(found)} negative prompts for {count} prompts: one for all, or one for each"
        )
    return found * (count if len(found) == 1 else 1)


def check_negatives(negatives: Sequence[str | None], guided: bool, reads: str) -> None:
    """Reject negative prompts that a model cannot read, and warn of those without guidance.

    Args:
        negatives: negative prompts, None or empty without one.
        guided: whether classifier-free guidance is on.
        reads: condition of the model's domain: prompt, class or nothing.

    Raises:
        InputError: if there are any and the model reads no text.
    """
    if not any(negatives):
        return
    if reads != "prompt":
        raise InputError("--negative-prompt: this model reads no text; leave it out")
    if not guided:
        logger.warning("--negative-prompt: changes nothing at --guidance-scale 1, which is off")


def check_guidance(guidance_scale: float, reads: str) -> None:
    """Reject guidance of a model without a condition.

    Args:
        guidance_scale: scale of classifier-free guidance; 1 is off.
        reads: condition of the model's domain: prompt, class or nothing.

    Raises:
        InputError: if guidance is on without a condition to guide by.
    """
    if guidance_scale != 1 and reads == "nothing":
        raise InputError(
            f"--guidance-scale {guidance_scale:g}: this model reads no prompt to be guided by"
        )


def check_precision(module: nn.Module, *, half: bool = False) -> None:
    """Check that a network has one precision, which it can compute in.

    Args:
        module: the network.
        half: whether float16 and bfloat16 are possible: it then takes and returns float32 itself,
            as the states and the samplers are.

    Raises:
        InputError: if some of its weights have another dtype; says what to do.
    """
    kinds = {one.dtype for one in module.parameters() if one.is_floating_point()}
    allowed = {torch.float32, *([torch.float16, torch.bfloat16] if half else [])}
    if len(kinds) > 1 or not kinds <= allowed:
        names = sorted(str(kind).removeprefix("torch.") for kind in kinds)
        raise InputError(
            f"the model's weights are {', '.join(names)}: images are generated in float32"
            + ("; call model.float() first" if not half else
               ", or in one of float16 and bfloat16: call model.float() first")
        )  # fmt: skip


def warn_of_size(size: tuple[int, int], trained: tuple[int, int]) -> None:
    """Warn of a size, width and height, far from the one that a model was trained at."""
    ratios = [size[0] / trained[0], size[1] / trained[1]]
    ratios.append(ratios[0] * ratios[1])
    if any(ratio > FAR or ratio < 1 / FAR for ratio in ratios):
        logger.warning(
            "--size %dx%d: the model was trained at %dx%d; so far from it images may be broken",
            *size, *trained,
        )  # fmt: skip
