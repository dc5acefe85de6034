"""Adaptive unmasking: by the network's confidence, with remasking, and by first-hitting times.

From level ``t`` to ``s < t``, with ``m`` the masked fraction, ``m_t > m_s``:

    (1) by surety      counts as in :mod:`multidiff.core.discrete.samplers`; the positions with the
                       highest surety: max log p, p_1 - p_2, or -entropy of p
    (2) ReMDM          a token is masked again with probability r, and more masks are lifted, so
                       that m follows the schedule: see :class:`ReMDMSampler`
    (3) first hitting  of n masks at fraction m the next is lifted at m u^(1 / n)

(1): entropy and margin as in Ye et al. 2025 (Dream) and Kim et al. 2025; (2) Wang et al. 2025;
(3) Zheng et al. 2024. Networks give exact conditionals of single tokens, so (3), which lifts one
mask at a time, is exact for every timestep schedule, whereas (1) prefers some orders to others.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.core.devices import in_float64
from multidiff.core.discrete.absorbing import lowest
from multidiff.core.discrete.samplers import Pace, TokenDraw, UnmaskingState, gumbel
from multidiff.core.discrete.schedules import MaskLevel

Surety = Literal["confidence", "margin", "entropy"]
RemaskingStrategy = Literal["cap", "rescale", "confidence"]


def surety(
    log_probs: Float[Tensor, "*positions size"], kind: Surety
) -> Float[Tensor, "*positions"]:
    """Return the network's confidence at each position; higher is surer.

    Args:
        log_probs: log probabilities of the tokens.
        kind: "confidence" is log p of the likeliest token, "margin" its probability minus that
            of the second, "entropy" the negative entropy in nats.
    """
    if kind == "confidence":
        return log_probs.amax(dim=-1)
    probs = log_probs.exp()
    if kind == "margin":
        two = probs.topk(min(2, probs.shape[-1]), dim=-1).values
        return two[..., 0] - two[..., 1:].sum(dim=-1)
    return torch.xlogy(probs, probs).sum(dim=-1)


class SuretySampler:
    """Exact counts, most certain positions first, eq. (1).

    MaskGIT (:class:`~multidiff.core.discrete.samplers.MaskGITSampler`) ranks positions by the
    probability of the token that was drawn; here the whole distribution counts, not the draw.

    Args:
        kind: "confidence", "margin" or "entropy": see :func:`surety`.
        noise: scale of Gumbel noise on the surety, annealed to 0.
        pace: number of masks left after each step: the schedule's ratio, or evenly decreasing.
        draw: rule for drawing tokens.

    Raises:
        ValueError: if the kind is unknown, or the noise is negative.
    """

    def __init__(
        self,
        kind: Surety = "entropy",
        noise: float = 0.0,
        pace: Pace = "schedule",
        draw: TokenDraw | None = None,
    ):
        if kind not in get_args(Surety) or noise < 0:
            raise ValueError(
                f"kind {kind!r} is not one of {', '.join(get_args(Surety))}, or noise {noise:g} < 0"
            )
        self.kind: Surety = kind
        self.pace: Pace = pace
        self.noise, self.draw = noise, draw or TokenDraw()

    def step(
        self,
        context: UnmaskingState,
        xt: Tensor,
        level: MaskLevel,
        next_level: MaskLevel,
        memory: Any,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.discrete.samplers.UnmaskingSampler`."""
        noise = gumbel(context.uniform(xt)) * self.noise * next_level.time[:, None]
        count = context.due(xt, next_level, self.pace)
        if not bool((context.masked(xt) & (count > 0)[:, None]).any()):
            return xt, None
        log_probs = context.estimate(xt, level)
        scores = surety(log_probs, self.kind) + noise
        positions = lowest(-scores, context.masked(xt), count)
        return torch.where(positions, self.draw(log_probs, positions, context.rng), xt), None


class ReMDMSampler:
    """Ancestral steps that mask some tokens again (ReMDM, Wang et al. 2025).

    With ``r`` the probability that a token is masked again, a mask is lifted with probability
    ``(alpha_s - (1 - r) alpha_t) / (1 - alpha_t)``, so that the fraction kept is the schedule's;
    of several ``r`` the mean is used. With ``r_max = min(1, (1 - alpha_s) / alpha_t)``,

        cap         r = min(eta, r_max)
        rescale     r = eta r_max
        confidence  r = eta r_max softmax(-p) over the tokens that are set, p the probability
                    that each had when it was drawn

    Args:
        strategy: "cap", "rescale" or "confidence".
        eta: strength, in [0, 1]; 0 is plain ancestral sampling.
        start: time below which tokens are masked again (ReMDM-switch); 1 is always.
        draw: rule for drawing tokens.

    Raises:
        ValueError: if the strategy is unknown, or a number is not in [0, 1].
    """

    def __init__(
        self,
        strategy: RemaskingStrategy = "cap",
        eta: float = 0.04,
        start: float = 1.0,
        draw: TokenDraw | None = None,
    ):
        if strategy not in get_args(RemaskingStrategy):
            known = ", ".join(get_args(RemaskingStrategy))
            raise ValueError(f"unknown strategy {strategy!r}: expected one of {known}")
        if not 0 <= eta <= 1 or not 0 <= start <= 1:
            raise ValueError(f"eta {eta:g} or start {start:g} is not in [0, 1]")
        self.strategy, self.eta, self.start = strategy, eta, start
        self.draw = draw or TokenDraw()

    def step(
        self,
        context: UnmaskingState,
        xt: Tensor,
        level: MaskLevel,
        next_level: MaskLevel,
        memory: Any,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.discrete.samplers.UnmaskingSampler`."""
        masked = context.masked(xt)
        back = self._again(level, next_level, context.open & ~masked, memory)
        kept, then = level.alpha[:, None], next_level.alpha[:, None]
        share = back if self.strategy != "confidence" else _mean_over(back, context.open & ~masked)
        lift = (then - (1 - share) * kept) / (1 - kept)
        draws = context.uniform(xt)
        chosen, again = masked & (draws < lift), context.open & ~masked & (draws < back)
        probability = torch.ones_like(draws) if memory is None else memory
        if bool(chosen.any()):
            log_probs = context.estimate(xt, level)
            tokens = self.draw(log_probs, chosen, context.rng)
            own = log_probs.gather(-1, tokens[..., None])[..., 0].exp()
            probability = torch.where(chosen, own.to(probability), probability)
            xt = torch.where(chosen, tokens, xt)
        return xt.masked_fill(again, context.process.size), probability

    def _again(
        self, level: MaskLevel, next_level: MaskLevel, positions: Tensor, memory: Any
    ) -> Tensor:
        """Return the probability of each token to be masked again."""
        kept = level.alpha.clamp(min=torch.finfo(level.alpha.dtype).tiny)
        most = ((1 - next_level.alpha) / kept).clamp(max=1)
        most = torch.where(level.time <= self.start, most, 0.0)[:, None]
        if self.strategy == "cap":
            return most.clamp(max=self.eta)
        if self.strategy == "rescale" or memory is None:
            return self.eta * most
        weight = torch.softmax((-memory).masked_fill(~positions, -math.inf), dim=1).nan_to_num()
        return self.eta * most * weight.to(most)


def _mean_over(values: Tensor, positions: Tensor) -> Tensor:
    total = (values * positions).sum(dim=1, keepdim=True)
    return total / positions.sum(dim=1, keepdim=True).clamp(min=1)


class FirstHittingSampler:
    """One mask at a time, at the random times of the continuous process, eq. (3).

    The network is evaluated once for each token whatever the timesteps, at levels between them:
    even one step gives an exact sample of the network's continuous-time process.

    Args:
        draw: rule for drawing tokens.
    """

    def __init__(self, draw: TokenDraw | None = None):
        self.draw = draw or TokenDraw()

    def step(
        self,
        context: UnmaskingState,
        xt: Tensor,
        level: MaskLevel,
        next_level: MaskLevel,
        memory: Any,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.discrete.samplers.UnmaskingSampler`."""
        ratio, end = (in_float64(context.process.mask_ratio(one)) for one in (level, next_level))
        # All draws of a step at once: a row's do not depend on the number of masks in others.
        draws, order = in_float64(context.uniform(xt)).to(ratio.device), context.uniform(xt)
        for number in range(xt.shape[1]):
            masked = context.masked(xt)
            count = masked.sum(dim=1).to(ratio)
            ratio = ratio * draws[:, number] ** (1 / count.clamp(min=1))
            hit = (count > 0) & (ratio > end)
            if not bool(hit.any()):
                break
            there = context.process.level_at_ratio(torch.where(hit, ratio, end)).to(xt.device)
            positions = lowest(order, masked, hit.long().to(xt.device))
            xt = context.fill(xt, there, positions, self.draw)
        return xt, None
