"""Pictures in batches, each from a seed of its own: what models of pictures share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from multidiff.core.randomness import seeds_from
from multidiff.errors import InputError
from multidiff.walks import Walk

Made = UInt8[Tensor, "count colours height width"]


def in_batches(
    make: Callable[[list[str], list[int]], Made],
    prompts: Sequence[str],
    seed: int | Sequence[int],
    batch_size: int,
) -> Made:
    """Pictures, one for each prompt.

    Args:
        make: the pictures of some prompts, from a seed for each.
        prompts: of all.
        seed: picture ``i`` has ``seed + i``, or the i-th of several.
        batch_size: pictures at a time.

    Raises:
        InputError: if there is no prompt.
    """
    if not prompts:
        raise InputError("no prompts: give one for each picture, empty ones for a model without")
    seeds = seeds_from(seed, len(prompts))
    parts = [slice(first, first + batch_size) for first in range(0, len(prompts), batch_size)]
    return torch.cat([make(list(prompts[part]), seeds[part]) for part in parts])


def guidance_for(walk: Walk, reads: str, guidance: float | None) -> float:
    """The scale by which a model is guided; the walk's where None, 1 where it reads nothing.

    Raises:
        InputError: if it is none, or there is no prompt to be guided by.
    """
    if guidance is None and reads == "nothing":
        return 1.0
    guidance = walk.checked_guidance(guidance)
    if guidance != 1 and reads == "nothing":
        raise InputError(f"--guidance {guidance:g}: this model reads no prompt to be guided by")
    return guidance


def check_mask(mask: Tensor, picture: Tensor) -> None:
    """A mask ``(height, width)`` has the size of its picture ``(batch, colours, height, width)``.

    Raises:
        InputError: if it has another.
    """
    if mask.shape != picture.shape[2:]:
        theirs, own = (f"{size[1]}x{size[0]}" for size in (mask.shape, picture.shape[2:]))
        raise InputError(f"the mask has {theirs} pixels, the picture {own}: make them the same")
