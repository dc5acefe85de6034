"""Weights stored as their difference from another model's, in a few bits a number.

A fine-tuned or distilled model differs little from the one it started from, and the difference
bears coarse rounding (BitDelta, Liu et al. 2024, keeps one bit). Its file then holds, for each
changed matrix, codes of a few bits with a scale for each row, and what else changed as it is;
weights equal to the base's are left out. A row of a convolution is an output channel. With ``b``
bits and codes ``c`` from 0 to ``2^b - 1``:

    W = base + scale (c - (2^b - 1) / 2)

The file's metadata name the base, the digest of its weights, and the number of bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multidiff.utils.errors import InputError

BASE, DIGEST, BITS = "base", "base_sha256", "delta_bits"
CODES, SCALE = ".delta_codes", ".delta_scale"
MOST_BITS = 8
# Candidates for the largest level of a row, as fractions of its largest difference.
CLIPS = torch.linspace(0.15, 1.0, 18).tolist()


def difference(
    tuned: Mapping[str, Tensor], base: Mapping[str, Tensor], bits: int
) -> dict[str, Tensor]:
    """Return what makes a model of its base.

    Args:
        tuned: weights of the model.
        base: weights of the base, with the same names and shapes.
        bits: number of bits for each number of a changed matrix.

    Returns:
        Codes and scales of the matrices, and vectors as they are.

    Raises:
        InputError: if the number of bits is not 1 to 8, or the models do not have the same weights.
    """
    if not 1 <= bits <= MOST_BITS:
        raise InputError(f"--bits {bits}: must be 1 to {MOST_BITS}")
    fits = tuned.keys() == base.keys() and all(tuned[n].shape == base[n].shape for n in tuned)
    if not fits:
        raise InputError("--base: has other weights than the model: name the one it started from")
    stored: dict[str, Tensor] = {}
    for name, weight in tuned.items():
        change = weight.float() - base[name].float()
        if not bool(change.any()):
            continue
        if change.ndim < 2:
            stored[name] = weight
        else:
            codes, scale = _quantized(change.flatten(1), bits)
            stored |= {name + CODES: _packed(codes, bits), name + SCALE: scale}
    return stored


def rebuilt(
    stored: Mapping[str, Tensor], base: Mapping[str, Tensor], bits: int, path: Path
) -> dict[str, Tensor]:
    """Return a model's weights from its base and its difference, in float32.

    Args:
        stored: result of :func:`difference`.
        base: weights of the base.
        bits: number of bits of the codes.
        path: file of the difference, for the message.

    Raises:
        InputError: if the difference does not fit the base.
    """
    whole = {name: tensor.float() for name, tensor in base.items()}
    for name, tensor in stored.items():
        if name.endswith(SCALE):
            continue
        if not name.endswith(CODES):
            whole[name] = tensor
            continue
        target = name.removesuffix(CODES)
        try:
            rows = whole[target].flatten(1)
            levels = _unpacked(tensor, bits, rows.numel()).view_as(rows) - _middle(bits)
            change = stored[target + SCALE].float()[:, None] * levels
            whole[target] = (rows + change).view_as(whole[target])
        except (KeyError, RuntimeError, IndexError) as error:
            raise InputError(f"{path}: {name} does not fit its base: get both again") from error
    return whole


def _quantized(change: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return the codes of a matrix, and for each row the scale of least squared error."""
    largest = change.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    best = torch.full_like(largest, math.inf)
    codes, scale = torch.zeros_like(change), torch.zeros_like(largest)
    for clip in CLIPS:
        tried = clip * largest / max(_middle(bits), 0.5)
        found = (change / tried[:, None] + _middle(bits)).round().clamp(0, 2**bits - 1)
        error = (tried[:, None] * (found - _middle(bits)) - change).square().sum(dim=1)
        better = error < best
        codes = torch.where(better[:, None], found, codes)
        scale, best = torch.where(better, tried, scale), torch.where(better, error, best)
    return codes.to(torch.uint8), scale


def _middle(bits: int) -> float:
    return (2**bits - 1) / 2


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Return the lowest bits of each code, one after the other in bytes."""
    each = np.unpackbits(codes.numpy().reshape(-1, 1), axis=1, bitorder="little", count=bits)
    return torch.from_numpy(np.packbits(each))


def _unpacked(packed: Tensor, bits: int, count: int) -> Tensor:
    if len(packed) != math.ceil(count * bits / 8):
        raise IndexError("of another number of bits")
    each = torch.from_numpy(np.unpackbits(packed.numpy(), count=count * bits)).view(count, bits)
    return (each * 2 ** torch.arange(bits)).sum(dim=1).float()
