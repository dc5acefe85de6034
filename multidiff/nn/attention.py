"""Scaled dot-product attention, and the split of a width into its heads (Vaswani et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

# Number of keys from which torch's kernel is faster than plain products in bfloat16 on a CPU.
FUSED_KEYS = 256
_SLICED: ContextVar[bool] = ContextVar("sliced", default=False)


@contextmanager
def attention_slicing(on: bool = True) -> Iterator[None]:
    """Compute attention one head at a time inside the block, in less memory and more time.

    Torch's fused kernels need no memory for the scores; where a device has none, scores take
    ``batch * heads * length * keys`` numbers, and a slice ``batch * length * keys``.
    """
    before = _SLICED.set(on)
    try:
        yield
    finally:
        _SLICED.reset(before)


def attention(
    query: Float[Tensor, "batch heads length part"],
    key: Float[Tensor, "batch heads keys part"],
    value: Float[Tensor, "batch heads keys part"],
    mask: Bool[Tensor, "batch heads_or_1 length_or_1 keys"] | None = None,
) -> Float[Tensor, "batch heads length part"]:
    """Return scaled dot-product attention.

    On a CPU in bfloat16 torch's kernel takes three times as long as plain products for 128 keys,
    as long for 256, and less for more.

    Args:
        query: queries.
        key: keys.
        value: values.
        mask: keys that each query attends to; all if None.
    """
    if not _SLICED.get():
        return _attention(query, key, value, mask)
    masks = [mask] if mask is None else mask.split(1, dim=1)
    masks = [*masks] * (query.shape[1] // len(masks))
    parts = (one.split(1, dim=1) for one in (query, key, value))
    return torch.cat([_attention(*part) for part in zip(*parts, masks, strict=True)], dim=1)


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    half_on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if not half_on_cpu or key.shape[2] >= FUSED_KEYS:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=3).to(value.dtype) @ value


def split_heads(
    x: Float[Tensor, "batch tokens width"], heads: int
) -> Float[Tensor, "batch heads tokens part"]:
    """Split the width into heads."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(
    x: Float[Tensor, "batch heads tokens part"],
) -> Float[Tensor, "batch tokens width"]:
    """Concatenate heads."""
    return x.transpose(1, 2).flatten(2)
