"""Reverse process from masks to tokens, and its sliding window for sequences of any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from multidiff.core.discrete.absorbing import MaskProcess, all_real
from multidiff.core.discrete.samplers import UnmaskingSampler, UnmaskingState
from multidiff.core.discrete.schedules import MaskLevel
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.core.protocols import Condition, Denoiser, check_sampler
from multidiff.core.random import Rng, device_of
from multidiff.core.sample import traverse


def canvas(
    process: MaskProcess,
    shape: Sequence[int],
    known: Tensor | None = None,
    real: Tensor | None = None,
    pad: int = 0,
) -> Int[Tensor, "batch length"]:
    """Return the state where sampling starts: masks at the real positions that are not known.

    Args:
        process: process whose mask is used.
        shape: ``(batch, length)``.
        known: tokens, with the mask's number at the positions to generate; default: all of them.
        real: true at the positions of the sequences; default: all.
        pad: token at the other positions, unless one is known there.

    Raises:
        ValueError: if a shape or a token number does not fit.
    """
    tokens = process.prior(shape, None) if known is None else known
    positions = all_real(tokens, real).to(tokens.device)
    if tokens.shape != tuple(shape) or positions.shape != tuple(shape):
        raise ValueError(
            f"known {tuple(tokens.shape)} or real {tuple(positions.shape)} differs from the shape "
            f"{tuple(shape)}"
        )
    if bool(((tokens < 0) | (tokens > process.size)).any()) or not 0 <= pad < process.size:
        raise ValueError(
            f"known tokens must be in 0 .. {process.size} (the mask), pad {pad} in "
            f"0 .. {process.size - 1}"
        )
    return torch.where(positions | (tokens != process.size), tokens, pad)


@torch.no_grad()
def unmask(
    process: MaskProcess,
    denoiser: Denoiser,
    sampler: UnmaskingSampler,
    shape: Sequence[int],
    steps: int,
    *,
    condition: Condition = None,
    known: Tensor | None = None,
    real: Tensor | None = None,
    pad: int = 0,
    forbidden: Sequence[int] = (),
    rng: Rng | None = None,
    device: torch.device | str | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Int[Tensor, "batch length"]:
    """Generate tokens from masks.

    Args:
        process: process that the denoiser was trained on.
        denoiser: the network, perhaps guided.
        sampler: sampler that makes each step.
        shape: shape of the tokens, ``(batch, length)``.
        steps: number of sampling steps.
        condition: condition passed to the denoiser.
        known: tokens that stay as they are, with the mask's number at the others.
        real: true at the positions of the sequences, the only ones that are filled.
        pad: token at the other positions.
        forbidden: tokens that are never drawn, such as the padding and the unknown word.
        rng: one generator, or one for each sample; a sample then does not depend on the
            others in its batch.
        device: device to sample on; that of ``rng`` by default.
        on_step: called with the number of steps done and the state after each step.

    Raises:
        TypeError: if the sampler is a class.
        ValueError: if a shape or a number does not fit, or every token is forbidden.
    """
    check_sampler(sampler, 5, "unmask takes one of masks, such as md.AncestralSampler()")
    if not set(forbidden) < set(range(process.size)):
        raise ValueError(
            f"forbidden {sorted(set(forbidden))}: expected tokens in 0 .. {process.size - 1}, "
            "and not all of them"
        )
    if isinstance(rng, Sequence) and len(rng) != shape[0]:
        raise ValueError(f"{len(rng)} generators for a batch of {shape[0]}: give one each")
    device = device_of(rng) if device is None else torch.device(device)
    state = canvas(process, shape, known, real, pad).to(device)
    context = UnmaskingState(
        process, denoiser, condition, tuple(forbidden), state == process.size, rng
    )
    levels = [
        level.to(device).expand(shape[0]) for level in process.levels(uniform_timesteps(steps))
    ]
    report = None if on_step is None else lambda step: on_step(step.number, step.state)
    return traverse(context, _Stepped(sampler), levels, state, on_step=report)


@dataclass(frozen=True)
class _Stepped:
    """An unmasking sampler in the one loop: its context holds the source of its draws."""

    sampler: UnmaskingSampler

    def step(
        self,
        context: UnmaskingState,
        xt: Tensor,
        level: MaskLevel,
        next_level: MaskLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        return self.sampler.step(context, xt, level, next_level, memory)


def unmask_blocks(
    fill: Callable[[Tensor], Tensor],
    tokens: Int[Tensor, "batch length"],
    *,
    context_length: int,
    block: int,
) -> Int[Tensor, "batch length"]:
    """Generate sequences longer than the network's context, one window after the other.

    The first ``context_length`` positions are filled, then ``block`` more at a time; each window
    starts with as many of the tokens just generated as fit beside them (semi-autoregressive,
    Sahoo et al. 2024).

    Args:
        fill: function that fills a window with masks, such as a call of :func:`unmask` with the
            window as ``known``.
        tokens: the whole sequences, such as a :func:`canvas`.
        context_length: largest number of positions the network reads.
        block: number of positions by which the window moves on.

    Raises:
        ValueError: if a block is empty or longer than the context.
    """
    if not 1 <= block <= context_length:
        raise ValueError(
            f"block must be in 1 .. {context_length} (the context length), got {block}"
        )
    found, total = tokens.clone(), tokens.shape[1]
    for end in [*range(min(context_length, total), total, block), total]:
        stretch = slice(max(0, end - context_length), end)
        found[:, stretch] = fill(found[:, stretch])
    return found
