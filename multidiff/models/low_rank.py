"""Weights stored as their difference from another model's, of low rank: a LoRA (Hu et al. 2022).

A fine-tuned or distilled model differs little from the one it started from. Its file then holds,
for each changed matrix, two factors of the difference, ``W = base + B A``, under PEFT's names, and
what else changed as it is; weights equal to the base's are left out. The file's metadata name the
base and the digest of its weights. A convolution is a matrix with a row for each output channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from multidiff.utils.errors import InputError

BASE, DIGEST = "base", "base_sha256"
WEIGHT, DOWN, UP = ".weight", ".lora_A.weight", ".lora_B.weight"


def difference(
    tuned: Mapping[str, Tensor], base: Mapping[str, Tensor], rank: int
) -> dict[str, Tensor]:
    """Return what makes a model of its base.

    Args:
        tuned: weights of the model.
        base: weights of the base, with the same names and shapes.
        rank: largest rank of the difference of a matrix; smaller ones are stored whole.

    Returns:
        The nearest factors of each difference (Eckart & Young 1936), and whole tensors.

    Raises:
        InputError: if the rank is less than 1, or the models do not have the same weights.
    """
    if rank < 1:
        raise InputError(f"--rank {rank}: must be at least 1")
    fits = tuned.keys() == base.keys() and all(tuned[n].shape == base[n].shape for n in tuned)
    if not fits:
        raise InputError("--base: has other weights than the model: name the one it started from")
    stored: dict[str, Tensor] = {}
    for name, weight in tuned.items():
        change = (weight.double() - base[name].double()).flatten(1 if weight.ndim > 1 else 0)
        if not bool(change.any()):
            continue
        is_matrix = change.ndim == 2 and name.endswith(WEIGHT)
        if not is_matrix or rank * sum(change.shape) >= change.numel():
            stored[name] = weight
            continue
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        root, layer = values[:rank].sqrt(), name.removesuffix(WEIGHT)
        up, down = (left[:, :rank] * root), root[:, None] * right[:rank]
        ones = [1] * (weight.ndim - 2)
        stored[layer + UP] = up.view(*up.shape, *ones).to(weight.dtype)
        stored[layer + DOWN] = down.view(rank, *weight.shape[1:]).to(weight.dtype)
    return stored


def rebuilt(
    stored: Mapping[str, Tensor], base: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Return a model's weights from its base and its difference, in float32.

    Args:
        stored: result of :func:`difference`.
        base: weights of the base.
        path: file of the difference, for the message.

    Raises:
        InputError: if a factor does not fit.
    """
    whole = {name: tensor.float() for name, tensor in base.items()}
    for name, tensor in stored.items():
        if name.endswith(UP):
            layer = name.removesuffix(UP)
            try:
                old, down = whole[layer + WEIGHT], stored[layer + DOWN]
                change = tensor.float().flatten(1) @ down.float().flatten(1)
                whole[layer + WEIGHT] = old + change.view(old.shape)
            except (KeyError, RuntimeError) as error:
                raise InputError(f"{path}: {name} does not fit its base: use both files") from error
        elif not name.endswith(DOWN):
            whole[name] = tensor
    return whole
