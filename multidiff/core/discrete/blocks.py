"""Block diffusion: masked diffusion within each block, blocks one after the other.

For a sequence of blocks ``x^1 .. x^K`` each block has an absorbing process of its own, conditioned
on the clean blocks before it (block diffusion, Arriola et al. 2025, eq. 8). With ``l`` of the
``L`` real positions of a block masked, ``l`` uniform in 1 .. L:

    -log p(x) = sum_k -log p(x^k | x^<k)
             <= sum_k E_l  L / l  E sum -log p(x_i | z^k_l, x^<k)

Each term is eq. (5) of :mod:`multidiff.core.discrete.absorbing`. One block is plain masked
diffusion; blocks of one position are an autoregressive model, and the bound is then exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from multidiff.core.devices import moved
from multidiff.core.discrete.absorbing import BoundForm, MaskedTokens, MaskProcess, all_real, lowest
from multidiff.core.discrete.schedules import MaskLevel, MaskSchedule
from multidiff.core.random import Rng, uniform


@dataclass(frozen=True)
class MaskedBlocks(MaskedTokens):
    """Masked tokens of which each block is masked by itself.

    Attributes:
        weight: weight of each position's cross-entropy in the bound.
    """

    weight: Float[Tensor, "batch length"]

    @property
    def counts(self) -> Float[Tensor, "batch length"]:
        """See :class:`~multidiff.core.discrete.absorbing.MaskedTokens`."""
        return self.weight


class BlockMaskProcess(MaskProcess):
    """Absorbing diffusion of tokens, block by block; see the module's docstring.

    The network must read, at each position, the clean tokens of earlier blocks and the unmasked
    ones of its own block: :class:`~multidiff.nn.token_denoiser.TokenDenoiser` with ``block`` does.
    Sampling with this process generates one block, by a network that caches those before it
    (:class:`~multidiff.nn.token_denoiser.BlockReader`).

    Args:
        size: number of tokens, without the mask.
        schedule: fraction of tokens kept over time, for sampling; training draws counts of masks.
        block: number of positions in a block. The last block of a sequence may be shorter.

    Raises:
        ValueError: if a block is empty.
    """

    def __init__(self, size: int, schedule: MaskSchedule, block: int):
        if block < 1:
            raise ValueError(f"block must be at least 1 position, got {block}")
        super().__init__(size, schedule, first=0.0)
        self.block = block

    @property
    def bound_form(self) -> BoundForm:
        """See :class:`~multidiff.core.discrete.absorbing.MaskProcess`."""
        return _block_counts

    def corrupt(
        self, x0: Tensor, level: MaskLevel, rng: Rng | None, mask: Tensor | None = None
    ) -> MaskedBlocks:
        """Mask each block; the level's time is the first block's position on its trajectory."""
        return self.mask_blocks(x0, all_real(x0, mask), level.time, rng)

    def mask_blocks(
        self, x0: Tensor, real: Tensor, position: Float[Tensor, " batch"], rng: Rng | None
    ) -> MaskedBlocks:
        """Mask each block at a position of its own on the trajectory.

        The blocks of a sequence are spaced evenly over the trajectory, starting from ``position``
        in (0, 1]: each is as uniform as the first, and a sequence covers all counts of masks.
        """
        blocks = -(-x0.shape[1] // self.block)
        ahead = torch.arange(blocks, device=x0.device) / blocks
        positions = 1 - (1 - moved(position, x0.device)[:, None] + ahead) % 1
        there = self._in_blocks(real, blocks)
        counts = torch.ceil(positions.flatten() * there.sum(dim=1)).long().clamp(min=1)
        # Draws beyond the sequence's end would make the result depend on the block size.
        order = self._in_blocks(moved(uniform(x0.shape, rng), x0.device), blocks)
        masked = self._in_rows(lowest(order, there, counts), x0)
        weight = self._in_rows((there.sum(dim=1) / counts)[:, None].expand_as(there), x0)
        level = self.schedule.at(position).to(x0.device)
        xt = x0.masked_fill(masked, self.size)
        return MaskedBlocks(xt, x0, masked, level, weight)

    def _in_blocks(self, rows: Tensor, blocks: int) -> Tensor:
        """Reshape ``(batch, length)`` to ``(batch * blocks, block)``, zero-padded at the end."""
        return F.pad(rows, (0, blocks * self.block - rows.shape[1])).view(-1, self.block)

    def _in_rows(self, blocks: Tensor, x0: Tensor) -> Tensor:
        return blocks.reshape(len(x0), -1)[:, : x0.shape[1]]


def _block_counts(
    process: MaskProcess, x0: Tensor, real: Tensor, position: Tensor, rng: Rng | None
) -> tuple[MaskedTokens, Float[Tensor, "batch length"]]:
    """Estimate the module's bound, with one weight for each block."""
    assert isinstance(process, BlockMaskProcess)
    corrupted = process.mask_blocks(x0, real, position, rng)
    return corrupted, corrupted.weight
