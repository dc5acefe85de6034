"""Unmasking samplers: ancestral, by confidence, in an order, Mask-Predict.

From level ``t`` to ``s < t``, in a row of which ``N`` positions were masked at the start:

    (1) ancestral    a mask is lifted with probability (alpha_s - alpha_t) / (1 - alpha_t)
        remasking    with (alpha_s - (1 - r) alpha_t) / (1 - alpha_t), while a token is masked
                     again with probability r = eta min(1, (1 - alpha_s) / alpha_t)
    (2) counts       masks are lifted until floor(N ratio) are left; the ratio is the
                     schedule's (1 - alpha_s) / (1 - alpha_1), or ("even") the time s
    (3) MaskGIT      (2), those of the highest log p(token) + noise s Gumbel
    (4) Mask-Predict all masks are lifted, then the floor(N ratio) of the lowest p are masked

(1) is Sahoo et al. 2024 and, with remasking, Wang et al. 2025 (ReMDM, rescaled); (3) is MaskGIT
(Chang et al. 2022), (4) Mask-Predict (Ghazvininejad et al. 2019). At time 0 no mask is left.
A row draws from its own generator alone, and the network is not evaluated for rows that would
use none of its outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multidiff.core.devices import finest_dtype, in_float64, moved
from multidiff.core.discrete.absorbing import TOLERANCE, MaskProcess, lowest
from multidiff.core.discrete.schedules import MaskLevel
from multidiff.core.protocols import Condition, Denoiser
from multidiff.core.random import Rng, uniform

Pace = Literal["schedule", "even"]
# Float64 values drawn at a time: 32 MiB, however large the vocabulary.
AT_ONCE = 2**22


def gumbel(draws: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map uniform draws to standard Gumbel values.

    In float64 they reach 36.7, in float32 16.6, where rarer tokens would never be drawn.
    """
    return -torch.log(-torch.log(draws.clamp(min=torch.finfo(draws.dtype).tiny)))


@dataclass(frozen=True)
class TokenDraw:
    """Rule for drawing tokens from log probabilities.

    Attributes:
        temperature: divisor of the log probabilities; 0 takes the likeliest token.
        top_p: nucleus sampling: draw from the smallest set of likeliest tokens whose probability
            reaches top-p (Holtzman et al. 2020); 1 is all.
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature must be at least 0, got {self.temperature:g}, and top_p in (0, 1], "
                f"got {self.top_p:g}"
            )

    def __call__(
        self,
        log_probs: Float[Tensor, "batch length size"],
        positions: Bool[Tensor, "batch length"],
        rng: Rng | None,
    ) -> Int[Tensor, "batch length"]:
        """Draw a token for each of the positions, 0 elsewhere."""
        if self.temperature == 0:
            return log_probs.argmax(dim=-1).masked_fill(~positions, 0)
        tokens = torch.zeros_like(positions, dtype=torch.long)
        batch, length, size = log_probs.shape
        if rng is None or isinstance(rng, torch.Generator):
            groups: list[tuple[slice, Sequence[torch.Generator | None]]] = [(slice(None), [rng])]
        else:
            count = max(1, AT_ONCE // max(1, length * size))
            groups = [(slice(n, n + count), rng[n : n + count]) for n in range(0, batch, count)]
        for rows, each in groups:
            wanted = log_probs[rows][positions[rows]]
            if len(wanted):
                counts = positions[rows].sum(dim=1).tolist()
                tokens[rows][positions[rows]] = self._drawn(wanted, counts, each)
        return tokens

    def _drawn(
        self,
        log_probs: Float[Tensor, "length size"],
        counts: Sequence[int],
        each: Sequence[torch.Generator | None],
    ) -> Int[Tensor, " length"]:
        """Draw ``counts`` tokens for each row, from its own generator unless all share one."""
        size = log_probs.shape[-1]
        if len(each) > 1:
            pairs = zip(counts, each, strict=True)
            draws = torch.cat([uniform((count, size), one) for count, one in pairs])
            return self._draw(log_probs, draws)
        parts = log_probs.split(max(1, AT_ONCE // size))
        return torch.cat([self._draw(part, uniform(part.shape, each[0])) for part in parts])

    def adjusted(self, log_probs: Float[Tensor, "*state size"]) -> Float[Tensor, "*state size"]:
        """Return the log probabilities that are drawn from, after temperature and top-p."""
        if self.temperature == 0:
            likeliest = log_probs.argmax(dim=-1, keepdim=True)
            return torch.full_like(log_probs, -math.inf).scatter(-1, likeliest, 0.0)
        scaled = torch.log_softmax(in_float64(log_probs) / self.temperature, dim=-1)
        if self.top_p < 1:
            scaled = scaled.masked_fill(~self._in_nucleus(scaled), -math.inf)
            scaled = torch.log_softmax(scaled, dim=-1)
        return scaled.to(log_probs)

    def _draw(
        self, log_probs: Float[Tensor, "length size"], draws: Float[Tensor, "length size"]
    ) -> Int[Tensor, " length"]:
        scaled = torch.log_softmax(in_float64(log_probs) / self.temperature, dim=-1)
        if self.top_p < 1:
            scaled = scaled.masked_fill(~self._in_nucleus(scaled), -math.inf)
        return (scaled + gumbel(draws).to(scaled.device)).argmax(dim=-1).to(log_probs.device)

    def _in_nucleus(self, log_probs: Tensor) -> Tensor:
        ordered, number = log_probs.exp().sort(dim=-1, descending=True)
        likelier = ordered.cumsum(dim=-1) - ordered
        return torch.zeros_like(log_probs, dtype=torch.bool).scatter(
            -1, number, likelier < self.top_p - TOLERANCE
        )


@dataclass(frozen=True)
class UnmaskingState:
    """Context of a sampling run, passed to the sampler at each step.

    Attributes:
        process: process being reversed.
        denoiser: the network, perhaps guided.
        condition: condition passed to the network.
        forbidden: tokens that are never drawn.
        open: positions that were masked at the start; the others never change.
        rng: source of the draws.
    """

    process: MaskProcess
    denoiser: Denoiser
    condition: Condition
    forbidden: tuple[int, ...]
    open: Bool[Tensor, "batch length"]
    rng: Rng | None

    def masked(self, xt: Tensor) -> Bool[Tensor, "batch length"]:
        """Return the positions that are masked now."""
        return xt == self.process.size

    def estimate(self, xt: Tensor, level: MaskLevel) -> Float[Tensor, "batch length size"]:
        """Return log probabilities of the clean tokens."""
        logits = self.denoiser(xt, level, self.condition)
        if self.forbidden:
            never = torch.tensor(self.forbidden, device=logits.device)
            logits = logits.index_fill(-1, never, -math.inf)
        return self.process.estimate(logits, xt, level)

    def fill(
        self, xt: Tensor, level: MaskLevel, positions: Tensor, draw: TokenDraw
    ) -> Int[Tensor, "batch length"]:
        """Return the state with tokens drawn for the positions."""
        if not bool(positions.any()):
            return xt
        return torch.where(positions, draw(self.estimate(xt, level), positions, self.rng), xt)

    def left(self, level: MaskLevel, pace: Pace) -> Int[Tensor, " batch"]:
        """Return the number of masks left in each row at a level, eq. (2)."""
        ratio = self.process.mask_ratio(level) if pace == "schedule" else level.time
        return torch.floor(ratio * self.open.sum(dim=1) + TOLERANCE).long()

    def due(self, xt: Tensor, next_level: MaskLevel, pace: Pace) -> Int[Tensor, " batch"]:
        """Return the number of masks to lift in each row to reach the next level."""
        return self.masked(xt).sum(dim=1) - self.left(next_level, pace)

    def uniform(self, xt: Tensor) -> Float[Tensor, "batch length"]:
        """Draw from [0, 1) for each position, in float64 where the device has it."""
        return moved(uniform(xt.shape, self.rng), xt.device)


# --------------------------------------------------------------------------- samplers


@runtime_checkable
class UnmaskingSampler(Protocol):
    """One reverse step. State kept between steps travels through ``memory``."""

    def step(
        self,
        context: UnmaskingState,
        xt: Tensor,
        level: MaskLevel,
        next_level: MaskLevel,
        memory: Any,
    ) -> tuple[Tensor, Any]:
        """Return the state at ``next_level`` and the memory for the next step (None at first)."""
        ...


class AncestralSampler:
    """Draws from q(z_s | z_t, x) with the estimated x, eq. (1).

    The network is evaluated only at steps that lift a mask: as rarely as by a sampler that caches
    the last output while nothing changes, and correct for networks that read the time too.

    Args:
        draw: rule for drawing tokens.
        remasking: rate eta in [0, 1] at which tokens are masked again (ReMDM); the fraction kept
            at each level stays the same.
    """

    def __init__(self, draw: TokenDraw | None = None, remasking: float = 0.0):
        if not 0 <= remasking <= 1:
            raise ValueError(f"remasking {remasking:g} is not in [0, 1]")
        self.draw, self.remasking = draw or TokenDraw(), remasking

    def step(
        self,
        context: UnmaskingState,
        xt: Tensor,
        level: MaskLevel,
        next_level: MaskLevel,
        memory: Any,
    ) -> tuple[Tensor, Any]:
        """See :class:`UnmaskingSampler`."""
        kept, then = level.alpha, next_level.alpha
        most = ((1 - then) / kept.clamp(min=torch.finfo(kept.dtype).tiny)).clamp(max=1)
        back = self.remasking * most
        lift = (then - (1 - back) * kept) / (1 - kept)
        draws, masked = context.uniform(xt), context.masked(xt)
        filled = context.fill(xt, level, masked & (draws < lift[:, None]), self.draw)
        again = context.open & ~masked & (draws < back[:, None])
        return filled.masked_fill(again, context.process.size), None


class MaskGITSampler:
    """Exact counts, most confident tokens first, eq. (3); tokens are never masked again.

    Networks are most confident of padding: mask real positions only and forbid the padding token,
    or it fills the canvas first.

    Args:
        noise: scale of the Gumbel noise on the confidence, annealed to 0: MaskGIT's choice
            temperature (4.5 there).
        pace: number of masks left after each step: the schedule's ratio, or evenly decreasing.
        draw: rule for drawing tokens.
    """

    def __init__(self, noise: float = 0.0, pace: Pace = "schedule", draw: TokenDraw | None = None):
        if noise < 0:
            raise ValueError(f"noise must be at least 0, got {noise:g}")
        self.noise, self.draw = noise, draw or TokenDraw()
        self.pace: Pace = pace

    def step(
        self,
        context: UnmaskingState,
        xt: Tensor,
        level: MaskLevel,
        next_level: MaskLevel,
        memory: Any,
    ) -> tuple[Tensor, Any]:
        """See :class:`UnmaskingSampler`."""
        # Drawn at every step, so that a row's draws do not depend on the state of other rows.
        noise = gumbel(context.uniform(xt)) * self.noise * next_level.time[:, None]
        count = context.due(xt, next_level, self.pace)
        positions = context.masked(xt) & (count > 0)[:, None]
        if not bool(positions.any()):
            return xt, None
        log_probs = context.estimate(xt, level)
        tokens = self.draw(log_probs, positions, context.rng)
        surest = lowest(-(_at(log_probs, tokens) + noise), positions, count)
        return torch.where(surest, tokens, xt), None


class RandomOrderSampler:
    """Exact counts, eq. (2), at positions drawn uniformly.

    Args:
        pace: number of masks left after each step: the schedule's ratio, or evenly decreasing.
        draw: rule for drawing tokens.
    """

    def __init__(self, pace: Pace = "schedule", draw: TokenDraw | None = None):
        self.draw = draw or TokenDraw()
        self.pace: Pace = pace

    def ranks(self, context: UnmaskingState, xt: Tensor) -> Tensor:
        """Return a rank for each position: the lowest are filled first."""
        return context.uniform(xt)

    def step(
        self,
        context: UnmaskingState,
        xt: Tensor,
        level: MaskLevel,
        next_level: MaskLevel,
        memory: Any,
    ) -> tuple[Tensor, Any]:
        """See :class:`UnmaskingSampler`."""
        # Ranks are drawn in any case, so that a row's draws do not depend on other rows.
        ranks, count = self.ranks(context, xt), context.due(xt, next_level, self.pace)
        if not bool((count > 0).any()):
            return xt, None
        positions = lowest(ranks, context.masked(xt), count)
        return context.fill(xt, level, positions, self.draw), None


class FixedOrderSampler(RandomOrderSampler):
    """Exact counts, eq. (2), with positions in a given order.

    Args:
        order: indices of the positions in the order they are filled, such as a Halton sequence
            over an image.
        pace: number of masks left after each step: the schedule's ratio, or evenly decreasing.
        draw: rule for drawing tokens.

    Raises:
        ValueError: if the order is not a permutation of its positions.
    """

    def __init__(
        self, order: Sequence[int] | Tensor, pace: Pace = "schedule", draw: TokenDraw | None = None
    ):
        super().__init__(pace, draw)
        positions = torch.as_tensor(order)
        if sorted(positions.tolist()) != list(range(len(positions))):
            raise ValueError(f"order of {len(positions)} positions is not a permutation from 0")
        self.order = positions

    def ranks(self, context: UnmaskingState, xt: Tensor) -> Tensor:
        """See :class:`RandomOrderSampler`.

        Raises:
            ValueError: if the sequences differ in length from the order.
        """
        if xt.shape[1] != len(self.order):
            raise ValueError(f"order of {len(self.order)} positions for {xt.shape[1]} tokens")
        ranks = self.order.argsort().to(xt.device, finest_dtype(xt.device))
        return ranks.expand(xt.shape)


class MaskPredictSampler:
    """Mask-Predict, eq. (4): all tokens are predicted, the least confident are masked again.

    A token keeps the probability it had when it was drawn. At least one token is predicted
    again at each step.

    Args:
        pace: number of masks left after each step: evenly decreasing, or the schedule's ratio.
        draw: rule for drawing tokens; the likeliest by default.
    """

    def __init__(self, pace: Pace = "even", draw: TokenDraw | None = None):
        self.draw = draw or TokenDraw(temperature=0)
        self.pace: Pace = pace

    def step(
        self,
        context: UnmaskingState,
        xt: Tensor,
        level: MaskLevel,
        next_level: MaskLevel,
        memory: Any,
    ) -> tuple[Tensor, Any]:
        """See :class:`UnmaskingSampler`; memory is the log probability of each token."""
        masked = context.masked(xt)
        if not bool(masked.any()):
            return xt, memory
        log_probs = context.estimate(xt, level)
        tokens = torch.where(masked, self.draw(log_probs, masked, context.rng), xt)
        surety = _at(log_probs, tokens)
        if memory is not None:
            surety = torch.where(masked, surety, memory)
        count = context.left(next_level, self.pace)
        if bool(next_level.time[0] > 0):
            count = count.clamp(min=1)
        again = lowest(surety, context.open, count)
        return tokens.masked_fill(again, context.process.size), surety


def _at(log_probs: Tensor, tokens: Tensor) -> Float[Tensor, "batch length"]:
    return log_probs.gather(-1, tokens[..., None])[..., 0]
