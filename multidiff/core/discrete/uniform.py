"""The uniform process on tokens: over time, more and more of them are replaced by random ones.

States are tokens ``0 .. K - 1``. With ``a`` the fraction kept at a level, ``s < t``,
``r = a_t / a_s`` and ``i`` the token at a position of ``z_t`` (D3PM-uniform, Austin et al. 2021;
UDLM, Schiff et al. 2024; Duo, Sahoo et al. 2025):

    (1) q(z_t | x)       = a x + (1 - a) / K
    (2) q(z_s | z_t, x)  = [K a_t 1[x=i] 1_i + (r - a_t) 1_i + (a_s - a_t) x + (1 - r)(1 - a_s) / K]
                           / (K a_t 1[x=i] + 1 - a_t)
    (3) -log p(x) <= KL(q(z_1 | x) || 1 / K) + E_t -a'/(K a) sum_j [u_j log(u_j / v_j) - u_j + v_j]
        u_j = X_j / X_i,  X = K a x + 1 - a,   v_j = Y_j / Y_i,  Y = K a w + 1 - a

A network may predict one of two distributions, and each formula is exact with its own only:

    posterior      m = p(x_i | z), what cross-entropy trains; (2) averaged over x ~ m is exact
    leave_one_out  w = p(x_i | the other tokens of z), what (3) trains; m ~ w (a 1[x=i] + (1 - a)/K)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multidiff.core.devices import in_float64, moved
from multidiff.core.discrete.absorbing import BoundForm, all_real
from multidiff.core.discrete.process import TokenProcess
from multidiff.core.discrete.samplers import TokenDraw
from multidiff.core.discrete.schedules import MaskLevel, MaskSchedule
from multidiff.core.random import Rng, uniform

TokenPrediction = Literal["leave_one_out", "posterior"]


@dataclass(frozen=True)
class RandomisedTokens:
    """Tokens some of which were replaced by random ones, together with the originals.

    Attributes:
        earlier: level of the step before, for the bound with finitely many steps; None in
            continuous time.
        steps: number of those steps.
    """

    xt: Int[Tensor, "batch length"]
    x0: Int[Tensor, "batch length"]
    level: MaskLevel
    earlier: MaskLevel | None = None
    steps: int = 1


class UniformProcess(TokenProcess):
    """Uniform diffusion of tokens ``(batch, length)``: see the module's docstring.

    Args:
        size: number of tokens K.
        schedule: fraction of tokens kept over time, the same schedules as for masks.
        prediction: distribution that the network's logits represent, "leave_one_out" (w) or
            "posterior" (m).
        objective: "bound" is eq. (3) without its prior term, "cross_entropy" is -log m(x).
        first: cleanest time drawn in training.

    Raises:
        ValueError: if a setting has an unknown value.
    """

    def __init__(
        self,
        size: int,
        schedule: MaskSchedule,
        *,
        prediction: TokenPrediction = "leave_one_out",
        objective: Literal["bound", "cross_entropy"] = "bound",
        first: float = 1e-3,
    ):
        super().__init__(size, schedule, first)
        if prediction not in get_args(TokenPrediction):
            raise ValueError(f"prediction {prediction!r}: must be leave_one_out or posterior")
        if objective not in ("bound", "cross_entropy"):
            raise ValueError(f"objective {objective!r}: must be bound or cross_entropy")
        self.prediction, self.objective = prediction, objective

    @property
    def bound_form(self) -> BoundForm:
        """Default form of :func:`~multidiff.core.discrete.absorbing.nelbo`."""
        return continuous_bound

    def corrupt(
        self, x0: Tensor, level: MaskLevel, rng: Rng | None, mask: Tensor | None = None
    ) -> RandomisedTokens:
        """Draw from q(z_t | x), eq. (1); only real positions change."""
        level = level.to(x0.device)
        draws = moved(uniform((*x0.shape, 2), rng), x0.device)
        replaced = (draws[..., 0] >= level.alpha[:, None]) & all_real(x0, mask)
        others = (draws[..., 1] * self.size).long()
        return RandomisedTokens(torch.where(replaced, others, x0), x0, level)

    def prior(self, shape: Sequence[int], rng: Rng | None) -> Int[Tensor, "batch length"]:
        """Draw uniform tokens, where sampling starts."""
        return (uniform(shape, rng) * self.size).long()

    def estimate(self, output: Tensor, xt: Tensor, level: MaskLevel) -> Tensor:
        """Return log m, the log probabilities of the clean tokens given all of ``xt``."""
        return self._read(output, xt, level, "posterior")

    def leave_one_out(self, output: Tensor, xt: Tensor, level: MaskLevel) -> Tensor:
        """Return log w, the log probabilities given the other tokens of ``xt``."""
        return self._read(output, xt, level, "leave_one_out")

    def _read(self, output: Tensor, xt: Tensor, level: MaskLevel, wanted: str) -> Tensor:
        self.check_width(output)
        logits = output.to(torch.promote_types(output.dtype, torch.float32))
        if wanted != self.prediction:
            own = self._log_own(logits, xt, level)
            logits = logits + own if wanted == "posterior" else logits - own
        return torch.log_softmax(logits, dim=-1)

    def _log_own(self, output: Tensor, xt: Tensor, level: MaskLevel) -> Tensor:
        """Return log q(z_t = i | x) for each x, eq. (1)."""
        alpha = moved(level.alpha, output.device)[:, None]
        rest = ((1 - alpha) / self.size)[..., None].expand(*xt.shape, self.size)
        return rest.scatter(-1, xt[..., None], (rest[..., :1] + alpha[..., None])).log().to(output)

    def step_probs(
        self,
        m: Float[Tensor, "batch length size"],
        xt: Tensor,
        level: MaskLevel,
        earlier: MaskLevel,
    ) -> Float[Tensor, "batch length size"]:
        """Return p(z_s | z_t), the mean of eq. (2) over ``x ~ m``."""
        now, then = (moved(one.alpha, m.device)[:, None, None] for one in (level, earlier))
        ratio, size = now / then, self.size
        own = torch.zeros_like(m).scatter(-1, xt[..., None], 1.0)
        weight = m / (size * now * own + 1 - now).to(m)
        stay = own * (size * now).to(m) * weight + weight.sum(-1, keepdim=True) * (
            own * (ratio - now).to(m) + ((1 - ratio) * (1 - then) / size).to(m)
        )
        return stay + (then - now).to(m) * weight

    def errors(self, logits: Tensor, corrupted: RandomisedTokens) -> Float[Tensor, "batch length"]:
        """Return the bound's terms at each position in nats, the prior's included."""
        if corrupted.earlier is None:
            terms = self._rate(self.leave_one_out(logits, corrupted.xt, corrupted.level), corrupted)
        else:
            log_m = self.estimate(logits, corrupted.xt, corrupted.level)
            terms = corrupted.steps * self.step_kl(log_m, corrupted, corrupted.earlier)
        last = self.schedule.at(torch.ones(1, dtype=torch.float64))
        return terms + self.prior_kl(last).to(terms)

    def prior_kl(self, level: MaskLevel) -> Float[Tensor, " batch"]:
        """Return KL(q(z_t | x) || 1 / K) of one token in nats; 0 where nothing is kept."""
        kept = 1 + (self.size - 1) * level.alpha  # K times the probability of the token itself
        rest = (self.size - 1) * torch.xlogy(1 - level.alpha, 1 - level.alpha)
        return (torch.xlogy(kept, kept) + rest) / self.size

    def step_kl(self, log_m: Tensor, corrupted: RandomisedTokens, earlier: MaskLevel) -> Tensor:
        """Return KL(q(z_s | z_t, x) || p(z_s | z_t)) at each position in nats."""
        m = in_float64(log_m).exp()
        xt, level = corrupted.xt.to(m.device), corrupted.level
        truth = torch.zeros_like(m).scatter(-1, corrupted.x0.to(m.device)[..., None], 1.0)
        q, p = (self.step_probs(one, xt, level, earlier) for one in (truth, m))
        return (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(-1).to(log_m)

    def _rate(self, log_w: Tensor, corrupted: RandomisedTokens) -> Tensor:
        """Return the integrand of eq. (3); every term of the sum is at least 0."""
        level, i = corrupted.level, corrupted.xt[..., None]
        # At alpha 0 the sum is 0 as well, of second order.
        alpha = level.alpha.clamp(min=1e-9)[:, None, None]
        scale, rest = (self.size * alpha).to(log_w), (1 - alpha).to(log_w)
        y = scale * log_w.exp() + rest
        x = rest.expand_as(y).scatter_add(-1, corrupted.x0[..., None], scale.expand(*i.shape))
        u, v = x / x.gather(-1, i), y / y.gather(-1, i)
        terms = (torch.xlogy(u, u) - torch.xlogy(u, v) - u + v).sum(-1)
        return (-level.slope[:, None] / (self.size * alpha[..., 0])).to(terms) * terms

    walk_state = corrupt

    def prior_nats(
        self, x0: Tensor, level: MaskLevel, mask: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """Return KL(q(z_t | x) || 1 / K) of each sample in nats."""
        return self.prior_kl(level).to(x0.device) * all_real(x0, mask).sum(dim=1)

    def step_nats(
        self,
        output: Tensor,
        corrupted: RandomisedTokens,
        earlier: MaskLevel,
        mask: Tensor | None = None,
        **options: Any,
    ) -> Float[Tensor, " batch"]:
        """Return KL(q(z_s | z_t, x) || p(z_s | z_t)) of each sample in nats."""
        log_m = self.estimate(output, corrupted.xt, corrupted.level)
        terms = self.step_kl(log_m, corrupted, earlier)
        return terms.masked_fill(~all_real(corrupted.x0, mask), 0.0).sum(dim=1)

    def loss(
        self, output: Tensor, corrupted: RandomisedTokens, mask: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """Return the objective of each sample in nats, a mean over its real tokens."""
        real = all_real(corrupted.x0, mask)
        if self.objective == "bound":
            terms = self._rate(self.leave_one_out(output, corrupted.xt, corrupted.level), corrupted)
        else:
            found = self.estimate(output, corrupted.xt, corrupted.level)
            terms = -found.gather(-1, corrupted.x0[..., None])[..., 0]
        return terms.masked_fill(~real, 0.0).sum(dim=1) / real.sum(dim=1).clamp(min=1)


# ----------------------------------------------------------------------------- bound


def continuous_bound(
    process: UniformProcess, x0: Tensor, real: Tensor, position: Tensor, rng: Rng | None
) -> tuple[RandomisedTokens, Tensor]:
    """Estimate eq. (3) of the module, for :func:`~multidiff.core.discrete.absorbing.nelbo`."""
    return process.corrupt(x0, process.schedule.at(position), rng, real), real.double()


def discrete_bound(steps: int) -> BoundForm:
    """Return the bound with that many even steps, not in their limit.

    Raises:
        ValueError: if ``steps`` is less than 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")

    def draw(
        process: UniformProcess, x0: Tensor, real: Tensor, position: Tensor, rng: Rng | None
    ) -> tuple[RandomisedTokens, Tensor]:
        number = torch.ceil(position * steps)
        corrupted = process.corrupt(x0, process.schedule.at(number / steps), rng, real)
        earlier = process.schedule.at((number - 1) / steps)
        return replace(corrupted, earlier=earlier, steps=steps), real.double()

    return draw


class UniformAncestralSampler:
    """Draws from p(z_s | z_t), eq. (2) of the module averaged over the predicted tokens.

    Args:
        draw: temperature and top-p that are applied to the predicted distribution first.
        free: true where tokens are drawn, ``(batch, length)``; the others stay as they are. None
            for all.
    """

    def __init__(self, draw: TokenDraw | None = None, free: Tensor | None = None):
        self.draw, self.free = draw or TokenDraw(), free

    def step(
        self,
        estimate_at: Any,
        xt: Tensor,
        level: MaskLevel,
        next_level: MaskLevel,
        memory: Any,
        rng: Rng | None,
    ) -> tuple[Tensor, Any]:
        """See :class:`~multidiff.core.protocols.Sampler`."""
        m = self.draw.adjusted(estimate_at(xt, level)).exp()
        probs = estimate_at.process.step_probs(m, xt, level, next_level)
        free = torch.ones_like(xt, dtype=torch.bool) if self.free is None else self.free
        return torch.where(free, TokenDraw()(probs.log(), free, rng), xt), None
