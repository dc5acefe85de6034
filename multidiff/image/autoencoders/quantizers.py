"""Latents to tokens and back: what stands between a token autoencoder's encoder and decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from multidiff.core.devices import in_float64
from multidiff.core.random import Rng

# Of the largest codebook; a token has a place in an int64 and a codebook in memory.
MOST_BITS = 30


@dataclass(frozen=True)
class Quantized:
    """Latents after rounding.

    Attributes:
        latents: what the decoder reads; gradients pass through the rounding as if it were none.
        tokens: the number of the code at each place.
        losses: of each sample, by name.
    """

    latents: Float[Tensor, "batch width rows columns"]
    tokens: Int[Tensor, "batch rows columns"]
    losses: dict[str, Float[Tensor, " batch"]] = field(default_factory=dict)


class Quantizer(Protocol):
    """A finite set of codes, and a rule which of them stands for a latent.

    Attributes:
        size: number of codes; tokens are 0 .. size - 1.
        width: channels of the latents.
    """

    size: int
    width: int

    def __call__(
        self,
        latents: Float[Tensor, "batch width rows columns"],
        training: bool = False,
        rng: Rng | None = None,
    ) -> Quantized:
        """Latents rounded to codes.

        Args:
            latents: of the encoder.
            training: whether the codes may learn from them.
            rng: draws what that takes, one for the batch or one for each sample.
        """
        ...

    def lookup(
        self, tokens: Int[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch width rows columns"]:
        """The codes that tokens stand for."""
        ...


class FSQ(nn.Module):
    """Each channel rounded to a few levels; the codebook is their grid (Mentzer et al. 2024).

    There is nothing to learn, and so nothing to collapse. Tokens count in mixed radix, the first
    channel fastest.

    Args:
        levels: of each channel, 3 or more (the paper advises 5); their product is the number
            of codes.

    Raises:
        ValueError: if there are no levels, or fewer than 3: two of them leave no room for the
            bound, see :class:`LFQ`.
    """

    def __init__(self, levels: tuple[int, ...] = (8, 6, 5)):
        super().__init__()
        if not levels or min(levels) < 3 or math.prod(levels) > 2**MOST_BITS:
            raise ValueError(
                f"levels {list(levels)}: each channel has 3 or more, and all together at most "
                f"2^{MOST_BITS} codes; for 2 take LFQ"
            )
        self.levels, self.width, self.size = levels, len(levels), math.prod(levels)
        radix = [math.prod(levels[:position]) for position in range(len(levels))]
        self.bases: Tensor
        self.counts: Tensor
        self.register_buffer("bases", torch.tensor(radix), persistent=False)
        self.register_buffer("counts", torch.tensor(levels), persistent=False)

    def forward(self, latents: Tensor, training: bool = False, rng: Rng | None = None) -> Quantized:
        """See :class:`Quantizer`; there are no losses."""
        with torch.autocast(latents.device.type, enabled=False):
            bounded = self.bound(_channels_last(latents).float())
            nearest, half = bounded.round(), self.counts // 2
            tokens = ((nearest.long() + half) * self.bases).sum(dim=-1)
            return Quantized(_channels_first(straight_through(bounded, nearest) / half), tokens)

    def bound(self, latents: Float[Tensor, "*length width"]) -> Float[Tensor, "*length width"]:
        """Latents squeezed to where as many whole numbers are nearest as there are levels.

        The paper's listing, shifted by the inverse of its tanh: 0 stays 0, a level for even
        counts too, whose other levels reach one further down than up.
        """
        half = (self.counts - 1) * (1 - 1e-3) / 2
        offset = torch.where(self.counts % 2 == 0, 0.5, 0.0)
        return torch.tanh(latents + torch.atanh(offset / half)) * half - offset

    def lookup(self, tokens: Tensor) -> Tensor:
        """See :class:`Quantizer`; levels lie in [-1, 1]."""
        half = self.counts // 2
        digits = tokens[..., None] // self.bases % self.counts
        return _channels_first((digits - half) / half)


class LFQ(nn.Module):
    """The signs of the channels (Yu et al. 2024, section 3.1).

    Args:
        bits: channels; there are 2^bits codes, and no table of them.
        commitment_weight: of the squared distance of latents from their signs.
        entropy_weight: of the entropy of a place's codes, which is to fall, less that of all
            places' codes together, which is to rise.
        diversity: of the latter within that.
        temperature: of the distribution over codes, by squared distance.
        group: bits whose codes are counted together for the entropy of all places. Fewer than
            there are bound it from above, by the sum over groups, and cost ``positions * 2^group``
            numbers instead of ``positions * 2^bits``.

    Raises:
        ValueError: if the number of bits or of a group's is none.
    """

    def __init__(
        self,
        bits: int = 10,
        commitment_weight: float = 0.25,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 0.01,
        group: int = 9,
    ):
        super().__init__()
        if not 1 <= bits <= MOST_BITS or group < 1 or temperature <= 0:
            raise ValueError(
                f"bits {bits}, group {group}, temperature {temperature:g}: 1 to {MOST_BITS} bits, "
                "groups of 1 or more, and a temperature above 0"
            )
        self.width, self.size, self.group, self.temperature = bits, 2**bits, group, temperature
        self.commitment_weight, self.entropy_weight = commitment_weight, entropy_weight
        self.diversity = diversity
        self.positions: Tensor
        self.register_buffer("positions", torch.arange(bits), persistent=False)

    def forward(self, latents: Tensor, training: bool = False, rng: Rng | None = None) -> Quantized:
        """See :class:`Quantizer`; the losses are the commitment and the entropies."""
        with torch.autocast(latents.device.type, enabled=False):
            last = _channels_last(latents).float()
            signs = torch.where(last > 0, 1.0, -1.0)
            tokens = ((last > 0).long() << self.positions).sum(dim=-1)
            apart = (last - signs).square().flatten(1).mean(dim=1)
            entropy = self.own_entropy(last) - self.diversity * self.shared_entropy(last)
            losses = {
                "commitment": self.commitment_weight * apart,
                "entropy": self.entropy_weight * entropy,
            }
            return Quantized(_channels_first(straight_through(last, signs)), tokens, losses)

    def _logits(self, latents: Tensor) -> Tensor:
        """Of bits being set: squared distances from -1 and 1 differ by four times the latent."""
        return 4 * latents / self.temperature

    def own_entropy(
        self, latents: Float[Tensor, "batch rows columns width"]
    ) -> Float[Tensor, " batch"]:
        """The entropy of a place's codes in nats, the mean over places.

        Bits are independent given the latent, so theirs add up.
        """
        logits = self._logits(latents)
        each = F.softplus(logits) - logits * logits.sigmoid()
        return each.sum(dim=-1).flatten(1).mean(dim=1)

    def shared_entropy(
        self, latents: Float[Tensor, "batch rows columns width"]
    ) -> Float[Tensor, ""]:
        """The entropy of all places' codes together in nats, or its bound by groups."""
        set_ = self._logits(latents).sigmoid().flatten(0, -2)
        total = latents.new_zeros(())
        for part in set_.split(self.group, dim=1):
            ratios = _mean_everywhere(_joint(part).mean(dim=0))
            # Where a share rounds to 0 its logarithm's slope is infinite.
            total = total + torch.special.entr(ratios.clamp(min=1e-20)).sum()
        return total

    def lookup(self, tokens: Tensor) -> Tensor:
        """See :class:`Quantizer`; codes are of -1 and 1."""
        return _channels_first((tokens[..., None] >> self.positions & 1) * 2.0 - 1.0)


# ------------------------------------------------------------------------------- measures


def counted(tokens: Int[Tensor, "*length"], size: int) -> Float[Tensor, " size"]:
    """How often each code stands among tokens."""
    flat = tokens.flatten()
    return torch.zeros(size, device=flat.device).index_add_(0, flat, torch.ones_like(flat).float())


def usage(tokens: Int[Tensor, "*length"], size: int) -> Float[Tensor, ""]:
    """The share of the codes that stand among tokens at all."""
    return (counted(tokens, size) > 0).float().mean()


def perplexity(tokens: Int[Tensor, "*length"], size: int) -> Float[Tensor, ""]:
    """The exponential of the entropy of tokens: as many codes used evenly have it."""
    ratios = in_float64(counted(tokens, size)) / tokens.numel()
    return torch.special.entr(ratios).sum().exp().float()


# ---------------------------------------------------------------------------- small parts


def straight_through(
    latents: Float[Tensor, "*shape"], rounded: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The rounded values, with the gradient of what they were (Bengio et al. 2013)."""
    return latents + (rounded - latents).detach()


def _joint(set_: Float[Tensor, "length bits"]) -> Float[Tensor, "length codes"]:
    """The chance of each code, of those that independent bits are set."""
    codes = torch.ones_like(set_[:, :1])
    for one in set_.split(1, dim=1):
        codes = torch.cat([codes * (1 - one), codes * one], dim=1)
    return codes


def _mean_everywhere(value: Tensor) -> Tensor:
    """The mean over the training processes, through which gradients pass."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(value) / torch.distributed.get_world_size()


def _channels_last(latents: Tensor) -> Tensor:
    return latents.permute(0, 2, 3, 1)


def _channels_first(latents: Tensor) -> Tensor:
    return latents.permute(0, 3, 1, 2)
