"""Codebook updated by exponential moving averages of the latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn

from multidiff.core.devices import moved
from multidiff.core.random import Rng, uniform
from multidiff.image.autoencoders.quantizers import Quantized, counted, straight_through


class VectorQuantizerEMA(nn.Module):
    """Vector quantizer whose codes are moving means of the latents nearest to them.

    Van den Oord et al. 2017, equations 1 to 3 and appendix A.1. Codes that hardly any latent
    is assigned to are replaced by latents of a batch (Dhariwal et al. 2020, section 3.1), all of
    them from the first batch. Several training processes sum their counts, and have the codes
    that one process would have with all of their latents.

    Args:
        size: number of codes.
        width: number of channels of a code.
        decay: decay of the moving counts and sums.
        commitment_weight: weight of the squared distance of latents from their codes.
        revive_below: usage below which a code is replaced, as a fraction of its usage if all
            codes were used equally; 0 never replaces codes.
        unit: whether latents and codes are normalised to length 1, so that only angles count (Yu
            et al. 2022, section 3.2).
        smoothing: constant added to each count (Laplace smoothing).

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        size: int = 1024,
        width: int = 16,
        decay: float = 0.99,
        commitment_weight: float = 0.25,
        revive_below: float = 0.1,
        unit: bool = False,
        smoothing: float = 1e-5,
    ):
        super().__init__()
        if size < 1 or width < 1 or not 0 <= decay < 1 or not 0 <= revive_below < 1:
            raise ValueError(
                f"size {size}, width {width}, decay {decay:g}, revive_below {revive_below:g}: "
                "at least 1 code of 1 channel, and fractions in [0, 1)"
            )
        self.size, self.width, self.decay, self.unit = size, width, decay, unit
        self.commitment_weight, self.revive_below = commitment_weight, revive_below
        self.smoothing = smoothing
        self.codes: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.register_buffer("codes", torch.zeros(size, width))
        self.register_buffer("counts", torch.zeros(size))
        self.register_buffer("sums", torch.zeros(size, width))

    def forward(
        self,
        latents: Float[Tensor, "batch width rows columns"],
        training: bool = False,
        rng: Rng | None = None,
    ) -> Quantized:
        """See ``Quantizer``; the loss is the commitment."""
        with torch.autocast(latents.device.type, enabled=False):
            last = latents.permute(0, 2, 3, 1).float()
            last = F.normalize(last, dim=-1) if self.unit else last
            seen = last.detach().flatten(0, 2)
            if training:
                self._revive(seen, len(latents), rng)
            tokens = self.nearest(seen)
            codes = F.embedding(tokens, self.codes).reshape(last.shape)
            apart = (last - codes).square().flatten(1).mean(dim=1)
            if training:
                self._follow(seen, tokens)
            return Quantized(
                straight_through(last, codes).permute(0, 3, 1, 2),
                tokens.reshape(last.shape[:-1]),
                {"commitment": self.commitment_weight * apart},
            )

    @torch.no_grad()
    def nearest(self, latents: Float[Tensor, "length width"]) -> Int[Tensor, " length"]:
        """Return the nearest code of each latent.

        Distances are computed as differences: products would be rounded, on a GPU to ten bits.
        """
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(latents, self.codes, compute_mode=exact).argmin(dim=1)

    def lookup(
        self, tokens: Int[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch width rows columns"]:
        """See :class:`~multidiff.image.autoencoders.quantizers.Quantizer`."""
        return F.embedding(tokens, self.codes).permute(0, 3, 1, 2)

    @torch.no_grad()
    def _follow(self, latents: Tensor, tokens: Tensor) -> None:
        """Move counts, sums and codes towards a batch's."""
        new = torch.zeros_like(self.sums).index_add_(0, tokens, latents)
        new = _total(torch.cat([new, counted(tokens, self.size)[:, None]], dim=1))
        self.sums.lerp_(new[:, :-1], 1 - self.decay)
        self.counts.lerp_(new[:, -1], 1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + self.smoothing) / (total + self.size * self.smoothing) * total
        codes = self.sums / smooth[:, None]
        self.codes.copy_(F.normalize(codes, dim=1) if self.unit else codes)

    @torch.no_grad()
    def _revive(self, latents: Tensor, batch: int, rng: Rng | None) -> None:
        """Replace dead codes; each then counts as if used as often as the others."""
        fair = len(latents) * _processes() / self.size
        dead = (self.counts < self.revive_below * fair) | (self.counts.sum() == 0)
        drawn = self._drawn(latents, batch, rng)
        self.codes.copy_(torch.where(dead[:, None], drawn, self.codes))
        self.sums.copy_(torch.where(dead[:, None], drawn * fair, self.sums))
        self.counts.masked_fill_(dead, fair)

    def _drawn(self, latents: Tensor, batch: int, rng: Rng | None) -> Float[Tensor, "size width"]:
        """Draw a latent for each code, without repetition unless there are fewer.

        Every latent draws a number, and the largest of all processes' are taken: a choice that
        does not depend on how many processes split the batch.
        """
        lots = moved(uniform((batch, len(latents) // batch), rng).flatten(), latents.device)
        lots, latents = _largest(lots, latents, self.size)
        if _processes() > 1:
            lots, latents = _largest(_gathered(lots), _gathered(latents), self.size)
        return latents[torch.arange(self.size, device=latents.device) % len(latents)]


def _largest(lots: Tensor, latents: Tensor, count: int) -> tuple[Tensor, Tensor]:
    lots, positions = lots.topk(min(count, len(lots)))
    return lots, latents[positions]


def _processes() -> int:
    known = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if known else 1


def _total(value: Tensor) -> Tensor:
    """Return the sum over the training processes."""
    if _processes() > 1:
        distributed.all_reduce(value)
    return value


def _gathered(value: Tensor) -> Tensor:
    """Return the training processes' rows one after the other; each has the same number."""
    parts = [torch.empty_like(value) for _ in range(_processes())]
    distributed.all_gather(parts, value.contiguous())
    return torch.cat(parts)
