"""Conversion of Stable Diffusion tensors that differ between files by more than their names.

CompVis writes the autoencoder's attention as 1x1 convolutions, older diffusers files use
other names for it, and OpenCLIP keeps queries, keys and values in one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

MATRIX = re.compile(r"mid_block\.attentions\.0\.to_(q|k|v|out\.0)\.weight$")
# Names of attention over positions in diffusers before version 0.18.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def modern_attention(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return tensors with today's names of the attention of autoencoders and pixel UNets."""
    old = re.compile(rf"(attentions\.\d+)\.({'|'.join(OLD_ATTENTION)})\.")
    return {
        old.sub(lambda found: f"{found[1]}.{OLD_ATTENTION[found[2]]}.", name): value
        for name, value in tensors.items()
    }


def as_matrices(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with the 1x1 convolutions of the autoencoder's attention as matrices."""
    return {
        name: tensor.flatten(1) if MATRIX.search(name) and tensor.ndim > 2 else tensor
        for name, tensor in tensors.items()
    }


def as_convolutions(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert :func:`as_matrices`."""
    return {
        name: tensor[:, :, None, None] if MATRIX.search(name) and tensor.ndim == 2 else tensor
        for name, tensor in tensors.items()
    }


def without_clip_prefix(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return a CLIP text model's tensors by our names: newer files omit ``text_model.``."""
    return {
        name.removeprefix("text_model."): value
        for name, value in tensors.items()
        if not name.endswith("position_ids")
    }


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return OpenCLIP's tensors with queries, keys and values split, as ``in_proj.0``, 1 and 2."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        path, packed, kind = name.partition("in_proj_")
        parts = tensor.chunk(3) if packed else [tensor]
        for number, part in enumerate(parts):
            found[f"{path}in_proj.{number}.{kind}" if packed else name] = part
    return found


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert :func:`unpacked`."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        path, apart, rest = name.partition("in_proj.")
        if not apart:
            found[name] = tensor
        elif rest.startswith("0."):
            kind = rest.removeprefix("0.")
            parts = [tensors[f"{path}in_proj.{number}.{kind}"] for number in range(3)]
            found[f"{path}in_proj_{kind}"] = torch.cat(parts)
    return found


def transposed(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return tensors of which one, if it is there, is transposed."""
    return {key: tensor.T if key == name else tensor for key, tensor in tensors.items()}
