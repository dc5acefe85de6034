"""Quantizers between a token autoencoder's encoder and decoder: latents to tokens and back."""

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

# Limit on the codebook: a token must fit an int64 and the codes fit in memory.
MOST_BITS = 30


@dataclass(frozen=True)
class Quantized:
    """Latents after quantization.

    Attributes:
        latents: input of the decoder; gradients pass straight through the rounding.
        tokens: index of the code at each position.
        losses: losses of each sample, by name.
    """

    latents: Float[Tensor, "batch width rows columns"]
    tokens: Int[Tensor, "batch rows columns"]
    losses: dict[str, Float[Tensor, " batch"]] = field(default_factory=dict)


class Quantizer(Protocol):
    """A finite set of codes, and a rule that assigns one to a latent.

    Attributes:
        size: number of codes; tokens are 0 .. size - 1.
        width: number of channels of the latents.
    """

    size: int
    width: int

    def __call__(
        self,
        latents: Float[Tensor, "batch width rows columns"],
        training: bool = False,
        rng: Rng | None = None,
    ) -> Quantized:
        """Quantize latents.

        Args:
            latents: output of the encoder.
            training: whether the codes may learn from them.
            rng: generator for the draws, one for the batch or one for each sample.
        """
        ...

    def lookup(
        self, tokens: Int[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch width rows columns"]:
        """Return the codes of tokens."""
        ...


class FSQ(nn.Module):
    """Finite scalar quantization: channels rounded to a few levels (Mentzer et al. 2024).

    The codebook is the grid of levels. There is nothing to learn, so it cannot collapse. Tokens
    count in mixed radix, the first channel fastest.

    Args:
        levels: number of levels of each channel, 3 or more (the paper advises 5); their product
            is the number of codes.

    Raises:
        ValueError: if there are no levels, or fewer than 3: the bound does not work with two,
            see :class:`LFQ`.
    """

    def __init__(self, levels: tuple[int, ...] = (8, 6, 5)):
        super().__init__()
        if not levels or min(levels) < 3 or math.prod(levels) > 2**MOST_BITS:
            raise ValueError(
                f"levels {list(levels)}: each channel needs 3 or more, and all together at most "
                f"2^{MOST_BITS} codes; for 2 use LFQ"
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
        """Squash latents to the range in which each level is the nearest integer.

        The paper's listing, shifted by the inverse of its tanh: 0 stays 0, which is a level for
        even counts too, whose other levels reach one further down than up.
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
    """Lookup-free quantization: the signs of the channels (Yu et al. 2024, section 3.1).

    Args:
        bits: number of channels; there are 2^bits codes, and no table of them.
        commitment_weight: weight of the squared distance of latents from their signs.
        entropy_weight: weight of the entropy loss: the mean entropy of each position's code
            distribution, minimised, less that of their average over positions, maximised.
        diversity: weight of the latter within the entropy loss.
        temperature: temperature of the distribution over codes, by squared distance.
        group: number of bits whose codes are counted together for the average's entropy. Fewer
            than ``bits`` bound it from above, by the sum over groups, and cost
            ``positions * 2^group`` numbers instead of ``positions * 2^bits``.

    Raises:
        ValueError: if the number of bits, the group or the temperature is out of range.
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
        """Return logits of bits being set: squared distances to -1 and 1 differ by 4 x latent."""
        return 4 * latents / self.temperature

    def own_entropy(
        self, latents: Float[Tensor, "batch rows columns width"]
    ) -> Float[Tensor, " batch"]:
        """Return the entropy of a position's codes in nats, averaged over positions.

        Bits are independent given the latent, so their entropies add up.
        """
        logits = self._logits(latents)
        each = F.softplus(logits) - logits * logits.sigmoid()
        return each.sum(dim=-1).flatten(1).mean(dim=1)

    def shared_entropy(
        self, latents: Float[Tensor, "batch rows columns width"]
    ) -> Float[Tensor, ""]:
        """Return the entropy of all positions' codes together in nats, or its bound by groups."""
        set_ = self._logits(latents).sigmoid().flatten(0, -2)
        total = latents.new_zeros(())
        for part in set_.split(self.group, dim=1):
            ratios = _mean_everywhere(_joint(part).mean(dim=0))
            # Where a probability rounds to 0 the slope of its logarithm is infinite.
            total = total + torch.special.entr(ratios.clamp(min=1e-20)).sum()
        return total

    def lookup(self, tokens: Tensor) -> Tensor:
        """See :class:`Quantizer`; codes consist of -1 and 1."""
        return _channels_first((tokens[..., None] >> self.positions & 1) * 2.0 - 1.0)


# ------------------------------------------------------------------------------- measures


def counted(tokens: Int[Tensor, "*length"], size: int) -> Float[Tensor, " size"]:
    """Return the number of occurrences of each code among tokens."""
    flat = tokens.flatten()
    return torch.zeros(size, device=flat.device).index_add_(0, flat, torch.ones_like(flat).float())


def usage(tokens: Int[Tensor, "*length"], size: int) -> Float[Tensor, ""]:
    """Return the fraction of the codes that occur among tokens."""
    return (counted(tokens, size) > 0).float().mean()


def perplexity(tokens: Int[Tensor, "*length"], size: int) -> Float[Tensor, ""]:
    """Return the exponential of the tokens' entropy: the number of codes if used evenly."""
    ratios = in_float64(counted(tokens, size)) / tokens.numel()
    return torch.special.entr(ratios).sum().exp().float()


# ---------------------------------------------------------------------------- small parts


def straight_through(
    latents: Float[Tensor, "*shape"], rounded: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return the rounded values with the gradient of the originals (Bengio et al. 2013)."""
    return latents + (rounded - latents).detach()


def _joint(set_: Float[Tensor, "length bits"]) -> Float[Tensor, "length codes"]:
    """Return the probability of each code from those of independent bits."""
    codes = torch.ones_like(set_[:, :1])
    for one in set_.split(1, dim=1):
        codes = torch.cat([codes * (1 - one), codes * one], dim=1)
    return codes


def _mean_everywhere(value: Tensor) -> Tensor:
    """Return the mean over the training processes, through which gradients pass."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(value) / torch.distributed.get_world_size()


def _channels_last(latents: Tensor) -> Tensor:
    return latents.permute(0, 2, 3, 1)


def _channels_first(latents: Tensor) -> Tensor:
    return latents.permute(0, 3, 1, 2)
