"""The diffusion transformer of MDLM, BD3-LM and SEDD, in plain torch.

Published as code that needs flash attention (Sahoo et al. 2024; Arriola et al. 2025; Lou et al.
2024). Names are those
of the published weights. With the noise level's embedding ``c``, in each block:

    h = h + gate_1 attention(shift_1 + (1 + scale_1) norm(h))
    h = h + gate_2 MLP(shift_2 + (1 + scale_2) norm(h))

where shifts, scales and gates are linear in ``c``. MDLM ignores the level: ``c`` is that of 0.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.protocols import Level
from multidiff.nn.attention import attention, merge_heads, split_heads
from multidiff.nn.token_denoiser import keys_after, keys_beside
from multidiff.nn.transformer import KVCache, apply_rotary, rotary_embedding

FREQUENCIES, ROTARY_BASE = 256, 10_000.0
# SEDD was trained at noise levels up to this (its log-linear noise has eps = 1e-3).
LARGEST_SIGMA = -math.log(1e-3)


class DDiT(nn.Module):
    """Diffusion transformer of MDLM, BD3-LM and SEDD on ids of a tokenizer.

    Args:
        rows: number of ids, the mask included.
        width: number of channels.
        layers: number of blocks.
        heads: number of attention heads.
        level_width: number of channels of the noise level's embedding.
        dropout: dropout probability of each residual branch.
        reads_level: whether the network is conditional on the noise level, as SEDD's is.
        block: number of positions in a block, for BD3-LM; 0 without blocks.
        length: length of the longest sequence, for networks with blocks.

    Raises:
        ValueError: if a network with blocks reads the noise level.
    """

    def __init__(
        self,
        rows: int,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        level_width: int = 128,
        dropout: float = 0.1,
        reads_level: bool = False,
        block: int = 0,
        length: int = 0,
    ):
        if block and reads_level:
            raise ValueError(f"block {block}: a network with blocks does not read the noise level")
        super().__init__()
        self.heads, self.reads_level = heads, reads_level
        self.block, self.length = block, length
        self.vocab_embed = _Embedding(rows, width)
        self.sigma_map = _LevelEmbedding(level_width)
        self.blocks = nn.ModuleList(
            _Block(width, heads, level_width, dropout) for _ in range(layers)
        )
        self.output_layer = _Head(rows, width, level_width)

    def forward(
        self,
        ids: Int[Tensor, "batch length"],
        attended: Bool[Tensor, "batch length"],
        level: Level,
    ) -> Float[Tensor, "batch length rows"]:
        """See :class:`~multidiff.text.masked_lm.networks.TokenNetwork`."""
        mask = None if bool(attended.all()) else attended[:, None, :]
        positions = torch.arange(ids.shape[1], device=ids.device)
        return self._logits(ids, positions, mask, level)

    def after(
        self,
        memory: KVCache,
        ids: Int[Tensor, "batch length"],
        real: Bool[Tensor, "batch length"],
    ) -> Float[Tensor, "batch length rows"]:
        """Return the logits of ids that follow cached ones; they are cached, too.

        Args:
            memory: KV cache of the ids before these, whole blocks.
            ids: the next ids.
            real: false at padding.
        """
        first = memory.positions
        positions = torch.arange(first, first + ids.shape[1], device=ids.device)
        return self._logits(ids, positions, keys_after(first, self.block, real), None, memory)

    def beside(
        self,
        x0: Int[Tensor, "batch length"],
        xt: Int[Tensor, "batch length"],
        real: Bool[Tensor, "batch length"],
    ) -> Float[Tensor, "batch length rows"]:
        """Return the logits of all blocks at once, each conditioned on the clean ones before it.

        Args:
            x0: clean ids.
            xt: ids of which some are masked.
            real: false at padding.
        """
        positions = torch.arange(xt.shape[1], device=xt.device).repeat(2)
        mask = keys_beside(self.block, real)
        return self._logits(torch.cat([x0, xt], 1), positions, mask, None)[:, xt.shape[1] :]

    def _logits(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        level: Level,
        memory: KVCache | None = None,
    ) -> Tensor:
        x = self.vocab_embed(ids)
        c = F.silu(self.sigma_map(self._sigma(len(ids), level, x)))
        turns = rotary_embedding(positions, x.shape[2] // self.heads, ROTARY_BASE)
        for block in self.blocks:
            x = block(x, c, turns, None if mask is None else mask[:, None], memory)
        return self.output_layer(x, c)

    def _sigma(self, batch: int, level: Level, like: Tensor) -> Float[Tensor, " batch"]:
        """Return the total noise, minus the logarithm of the fraction kept; 0 if it is not read."""
        if not self.reads_level:
            return torch.zeros(batch, device=like.device)
        alpha = level.alpha.to(device=like.device, dtype=torch.float32).expand(batch)
        return -torch.log(alpha.clamp(min=math.exp(-LARGEST_SIGMA)))


class _Embedding(nn.Module):
    def __init__(self, rows: int, width: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(rows, width))
        nn.init.kaiming_uniform_(self.embedding, a=math.sqrt(5))

    def forward(self, ids: Tensor) -> Tensor:
        return self.embedding[ids]


class _LevelEmbedding(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forward(self, sigma: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        rates = torch.exp(-math.log(10_000) * torch.arange(half, device=sigma.device) / half)
        angles = sigma[:, None] * rates
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(self.dtype))


class _Norm(nn.Module):
    """Layer norm with a weight and no bias."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, level_width: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = _Norm(width), _Norm(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.adaLN_modulation = _modulation(level_width, 6 * width)

    def forward(
        self, x: Tensor, c: Tensor, turns: Tensor, mask: Tensor | None, memory: KVCache | None
    ) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.adaLN_modulation(c)[:, None].chunk(6, 2)
        parts = self.attn_qkv(shift + (1 + scale) * self.norm1(x)).chunk(3, dim=2)
        query, key, value = (split_heads(part, self.heads) for part in parts)
        query, key = apply_rotary(query, turns), apply_rotary(key, turns)
        if memory is not None:
            key, value = memory.append(self, key, value)
        found = attention(query, key, value, mask)
        x = x + gate * self._dropped(self.attn_out(merge_heads(found)))
        return x + gate2 * self._dropped(self.mlp(shift2 + (1 + scale2) * self.norm2(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class _Head(nn.Module):
    def __init__(self, rows: int, width: int, level_width: int):
        super().__init__()
        self.norm_final, self.linear = _Norm(width), nn.Linear(width, rows)
        self.adaLN_modulation = _modulation(level_width, 2 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=2)
        return self.linear(shift + (1 + scale) * self.norm_final(x))


def _modulation(level_width: int, width: int) -> nn.Linear:
    """Return a layer that is 0 at first, so that every block starts as the identity."""
    layer = nn.Linear(level_width, width)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
