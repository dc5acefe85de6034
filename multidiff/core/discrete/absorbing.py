"""The absorbing process on tokens: over time, more and more of them are masked.

States are ``(batch, length)`` tokens ``0 .. size - 1``; the mask is number ``size``. With
``alpha(t)`` the fraction kept (1 at time 0), ``s < t``, and sums over the masked positions ``i``:

    (1) q(z_t | x)       each token is masked with probability 1 - alpha_t, else kept
    (2) q(z_s | z_t, x)  a mask becomes x_i with probability (alpha_s - alpha_t) / (1 - alpha_t)
    (3) -log p(x) <= E_t  -alpha'_t / (1 - alpha_t)               E sum -log p(x_i | z_t)
    (4)           <= sum  (alpha_s - alpha_t) / (1 - alpha_t)     E sum -log p(x_i | z_t)
    (5) (3)        = E_l  L / l                                   E sum -log p(x_i | z_l)

(Sahoo et al. 2024, eq. 10 is (3); Shi et al. 2024). The negative ELBO (NELBO) (3) is the same for
every schedule; (4) is that of a reverse process with T steps, from T = 1 on. (5) masks exactly
``l`` of ``L`` positions, ``l`` uniform in 1 .. L (Uria et al. 2014; LLaDA's estimator, Nie et al.
2025). Sampling starts with every position masked, whatever fraction ``alpha_1`` a schedule keeps
at time 1; so do (3) and (4) here: they mask a fraction ``(1 - alpha_t) / (1 - alpha_1)``, which
changes neither (2) nor any weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multidiff.core.devices import in_float64, moved
from multidiff.core.discrete.process import TokenProcess
from multidiff.core.discrete.schedules import MaskLevel, MaskSchedule, reveal_chance
from multidiff.core.protocols import Condition, Denoiser
from multidiff.core.random import Rng, device_of, uniform

# Rounding may move a fraction of a count slightly off the intended whole number.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class MaskedTokens:
    """Tokens some of which are masked, together with the originals."""

    xt: Int[Tensor, "batch length"]
    x0: Int[Tensor, "batch length"]
    masked: Bool[Tensor, "batch length"]
    level: MaskLevel

    @property
    def counts(self) -> Float[Tensor, "batch length"]:
        """Return the weight of each position's (or sequence's) cross-entropy in the bound."""
        return self.level.weight[:, None]


def lowest(
    scores: Float[Tensor, "batch length"],
    positions: Bool[Tensor, "batch length"],
    counts: Int[Tensor, " batch"],
) -> Bool[Tensor, "batch length"]:
    """Return a mask of exactly ``counts`` positions of each row, those with the lowest scores.

    Of equal scores the first counts as lower. Rows with fewer positions have all of them.
    """
    by_score = scores.argsort(dim=1, stable=True)
    last = (~positions).gather(1, by_score).to(torch.int8).argsort(dim=1, stable=True)
    rank = by_score.gather(1, last).argsort(dim=1)
    return (rank < counts[:, None]) & positions


def all_real(tokens: Tensor, real: Tensor | None) -> Tensor:
    """Return a boolean mask of the real positions: all of them if ``real`` is None."""
    return torch.ones_like(tokens, dtype=torch.bool) if real is None else real.bool()


class MaskProcess(TokenProcess):
    """Absorbing diffusion of tokens ``(batch, length)``; images of tokens are flattened.

    The network reads numbers up to ``size`` (a table of ``size + 1`` rows) and returns ``size``
    logits for each position: the mask cannot be predicted.

    Args:
        size: number of tokens, without the mask.
        schedule: fraction of tokens kept over time.
        first: cleanest time drawn in training; the bound's weight diverges towards 0.
        masking: "independent" is eq. (1). "exact" masks exactly the level's fraction of the real
            positions, rounded up and at least one: with a linear schedule every count from 1 to
            all is equally likely (Mask-Predict, Ghazvininejad et al. 2019), with the cosine
            one the fraction is the cosine of a uniform draw (MaskGIT, Chang et al. 2022).
        objective: "bound" is the NELBO, eq. (3), for each real token. "mean" is the plain
            cross-entropy of the masked tokens (Mask-Predict, MaskGIT).
        label_smoothing: fraction of each target that is spread over all tokens; above 0, the
            loss is not a bound.

    Raises:
        ValueError: if exact masking is combined with the bound, whose weights assume independent
            masks.
    """

    def __init__(
        self,
        size: int,
        schedule: MaskSchedule,
        *,
        first: float = 1e-3,
        masking: Literal["independent", "exact"] = "independent",
        objective: Literal["bound", "mean"] = "bound",
        label_smoothing: float = 0.0,
    ):
        if size < 1 or not 0 <= first < 1 or not 0 <= label_smoothing < 1:
            raise ValueError(
                f"size {size} is under 1, or first {first:g} or label_smoothing "
                f"{label_smoothing:g} is not in [0, 1)"
            )
        if masking not in ("independent", "exact") or objective not in ("bound", "mean"):
            raise ValueError(
                f'masking {masking!r} must be "independent" or "exact", objective {objective!r} '
                '"bound" or "mean"'
            )
        if masking == "exact" and objective == "bound":
            raise ValueError('masking="exact" does not fit objective="bound": use objective="mean"')
        super().__init__(size, schedule, first)
        self.masking, self.objective = masking, objective
        self.label_smoothing = label_smoothing

    @property
    def bound_form(self) -> BoundForm:
        """Return the default estimator of the bound."""
        return exact_counts

    def corrupt(
        self,
        x0: Int[Tensor, "batch length"],
        level: MaskLevel,
        rng: Rng | None,
        mask: Tensor | None = None,
    ) -> MaskedTokens:
        """Draw from q(z_t | x), eq. (1), or with exact counts; only real positions are masked."""
        positions = all_real(x0, mask)
        ratio = 1 - level.alpha
        if self.masking == "independent":
            return self.mask_each(x0, level, ratio, positions, rng)
        counts = torch.ceil(ratio * positions.sum(dim=1) - TOLERANCE).long().clamp(min=1)
        return self.mask_exactly(x0, level, counts, positions, rng)

    def mask_each(
        self, x0: Tensor, level: MaskLevel, ratio: Tensor, positions: Tensor, rng: Rng | None
    ) -> MaskedTokens:
        """Mask each of the positions independently with the given probability."""
        level, ratio = level.to(x0.device), moved(ratio, x0.device)
        masked = (moved(uniform(x0.shape, rng), x0.device) < ratio[:, None]) & positions
        return MaskedTokens(x0.masked_fill(masked, self.size), x0, masked, level)

    def mask_exactly(
        self, x0: Tensor, level: MaskLevel, counts: Tensor, positions: Tensor, rng: Rng | None
    ) -> MaskedTokens:
        """Mask exactly ``counts`` of the positions, all choices equally likely."""
        masked = lowest(moved(uniform(x0.shape, rng), x0.device), positions, counts)
        level = level.to(x0.device)
        return MaskedTokens(x0.masked_fill(masked, self.size), x0, masked, level)

    def walk_state(
        self, x0: Tensor, level: MaskLevel, rng: Rng | None, mask: Tensor | None = None
    ) -> MaskedTokens:
        """Draw the state of a walk that starts with all masked."""
        return self.mask_each(x0, level, self.mask_ratio(level), all_real(x0, mask), rng)

    def prior_nats(
        self, x0: Tensor, level: MaskLevel, mask: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """Return 0: a walk starts with all masked."""
        return torch.zeros(len(x0), device=x0.device)

    def step_nats(
        self,
        output: Tensor,
        corrupted: MaskedTokens,
        earlier: MaskLevel,
        mask: Tensor | None = None,
        **options: Any,
    ) -> Float[Tensor, " batch"]:
        """Return a term of eq. (4) for each sample, in nats."""
        chance = reveal_chance(corrupted.level, earlier)
        return self.errors(output, corrupted).sum(dim=1) * chance.to(output)

    def errors(
        self,
        logits: Float[Tensor, "batch length size"],
        corrupted: MaskedTokens,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, "batch length"]:
        """Return the cross-entropy of each masked token in nats, 0 at the others."""
        self.check_width(logits)
        by_position = logits.to(_at_least_single(logits)).flatten(0, 1)
        # Positions that are not masked may be padding, whose number need not be a valid token.
        target = corrupted.x0.masked_fill(~corrupted.masked, 0).flatten()
        found = F.cross_entropy(
            by_position, target, reduction="none", label_smoothing=label_smoothing
        ).view_as(corrupted.x0)
        return torch.where(corrupted.masked, found, torch.zeros_like(found))

    def loss(
        self,
        output: Float[Tensor, "batch length size"],
        corrupted: MaskedTokens,
        mask: Tensor | None = None,
    ) -> Float[Tensor, " batch"]:
        """Return the objective of each sample in nats, a mean over its real or masked tokens."""
        positions = all_real(corrupted.x0, mask)
        errors = self.errors(output, corrupted, self.label_smoothing).masked_fill(~positions, 0.0)
        if self.objective == "mean":
            return errors.sum(dim=1) / (corrupted.masked & positions).sum(dim=1).clamp(min=1)
        return (errors * corrupted.counts.to(errors)).sum(dim=1) / positions.sum(dim=1).clamp(min=1)

    def estimate(
        self,
        output: Float[Tensor, "batch length size"],
        xt: Int[Tensor, "batch length"],
        level: MaskLevel,
    ) -> Float[Tensor, "batch length size"]:
        """Return log probabilities of the clean tokens; unmasked tokens predict themselves."""
        self.check_width(output)
        found = torch.log_softmax(output, dim=-1, dtype=_at_least_single(output))
        own = xt.clamp(max=self.size - 1)[..., None]
        copied = torch.full_like(found, -math.inf).scatter(-1, own, 0.0)
        return torch.where((xt == self.size)[..., None], found, copied)

    def prior(self, shape: Sequence[int], rng: Rng | None) -> Int[Tensor, "batch length"]:
        """Return states with every token masked, where sampling starts."""
        return torch.full(tuple(shape), self.size, device=device_of(rng))

    def mask_ratio(self, level: MaskLevel) -> Float[Tensor, " batch"]:
        """Return the fraction masked at a level of sampling, which starts with all masked."""
        return (1 - level.alpha) / (1 - moved(self._least_kept, level.alpha.device))

    def level_at_ratio(self, ratio: Float[Tensor, " batch"]) -> MaskLevel:
        """Return the level with that fraction masked: the inverse of :meth:`mask_ratio`."""
        kept = 1 - ratio * (1 - moved(self._least_kept, ratio.device))
        return self.schedule.at(self.schedule.time_at(kept).clamp(0, 1))

    @cached_property
    def _least_kept(self) -> Float[Tensor, " 1"]:
        """Return the fraction kept at time 1, which every step of sampling asks for."""
        return self.schedule.at(torch.ones(1, dtype=torch.float64)).alpha


def _at_least_single(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


# ----------------------------------------------------------------------------- bound

# Maps (process, x0, real, position, rng) to masked tokens and the weights of their cross-entropies
# for each sample or position. ``position`` in (0, 1], uniform, locates a sample on the trajectory.
BoundForm = Callable[[Any, Tensor, Tensor, Tensor, Rng | None], tuple[Any, Tensor]]


def continuous_time(
    process: MaskProcess, x0: Tensor, real: Tensor, position: Tensor, rng: Rng | None
) -> tuple[MaskedTokens, Float[Tensor, " batch"]]:
    """Estimate eq. (3), at times in [first, 1] of the process.

    Times before ``first`` are assigned the mean of the rest. That is more than their true value if
    tokens cost less the more of the others are visible, so the result stays an upper bound.
    """
    first = torch.full_like(position, process.first)
    level = process.schedule.at(first + (1 - first) * position)
    covered = 1 - process.mask_ratio(process.schedule.at(first))
    corrupted = process.mask_each(x0, level, process.mask_ratio(level), real, rng)
    return corrupted, moved(level.weight * (1 - first) / covered, x0.device)


def discrete_time(steps: int) -> BoundForm:
    """Return the estimator of eq. (4): the bound of ``steps`` even steps, not of their limit."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")

    def draw(
        process: MaskProcess, x0: Tensor, real: Tensor, position: Tensor, rng: Rng | None
    ) -> tuple[MaskedTokens, Tensor]:
        number = torch.ceil(position * steps)
        level = process.schedule.at(number / steps)
        earlier = process.schedule.at((number - 1) / steps)
        corrupted = process.mask_each(x0, level, process.mask_ratio(level), real, rng)
        return corrupted, moved(steps * reveal_chance(level, earlier), x0.device)

    return draw


def exact_counts(
    process: MaskProcess, x0: Tensor, real: Tensor, position: Tensor, rng: Rng | None
) -> tuple[MaskedTokens, Float[Tensor, " batch"]]:
    """Estimate eq. (5): the value of (3) with less variance, as the count is stratified."""
    total = in_float64(real.sum(dim=1))
    counts = torch.ceil(position.to(total.device) * total).clamp(min=1)
    ratio = counts / total.clamp(min=1)
    level = process.schedule.at(process.schedule.time_at(1 - ratio))
    corrupted = process.mask_exactly(x0, level, counts.long().to(x0.device), real, rng)
    return corrupted, moved(1 / ratio, x0.device)


@dataclass(frozen=True)
class MaskBound:
    """Upper bound (NELBO) on the negative log likelihood of sequences, in nats.

    Attributes:
        draws: estimate for each sequence from each draw of the masks.
        num_real: number of tokens of each sequence that count; padding costs nothing.
    """

    draws: Float[Tensor, "batch times"]
    num_real: Int[Tensor, " batch"]

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """Return the bound of each sequence, a mean over the draws."""
        return self.draws.mean(dim=1)

    @property
    def per_token(self) -> Float[Tensor, " batch"]:
        """Return the bound of each sequence divided by its number of real tokens."""
        return self.total / self.num_real.clamp(min=1)


@torch.no_grad()
def nelbo(
    process: Any,
    denoiser: Denoiser,
    tokens: Int[Tensor, "batch length"],
    condition: Condition = None,
    *,
    real: Tensor | None = None,
    num_times: int = 128,
    form: BoundForm | None = None,
    rng: Rng | None = None,
) -> MaskBound:
    """Estimate the negative ELBO from ``num_times`` draws of time and masks for each sequence.

    The draws of each sequence are stratified over the trajectory.

    Args:
        process: MaskProcess or UniformProcess that the denoiser was trained on.
        denoiser: the network.
        tokens: the sequences.
        condition: condition passed to the denoiser.
        real: true where a token counts; None for all.
        num_times: number of network evaluations for each sequence.
        form: exact_counts, continuous_time or discrete_time(steps); the process's own if None.
        rng: source of the draws; with one generator for each sequence, its value does not depend
            on the rest of the batch.

    Raises:
        ValueError: if ``num_times`` is less than 1.
    """
    if num_times < 1:
        raise ValueError(f"num_times must be at least 1, got {num_times}")
    positions, draws = all_real(tokens, real), []
    for number in range(num_times):
        position = 1 - (number + uniform((len(tokens),), rng)) / num_times
        corrupted, weight = (form or process.bound_form)(process, tokens, positions, position, rng)
        logits = denoiser(corrupted.xt, corrupted.level, condition)
        errors = process.errors(logits, corrupted)
        draws.append((errors * weight.view(len(tokens), -1)).sum(dim=1))
    return MaskBound(torch.stack(draws, dim=1), positions.sum(dim=1))
