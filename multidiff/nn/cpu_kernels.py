"""Kernels of oneDNN that run layers over time faster on CPUs, where no gradient is needed.

Elsewhere, and where the library has no such kernel, the same functions are computed by torch's.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

HALVES = (torch.float16, torch.bfloat16)


def infers_on_cpu(x: Tensor, weight: Tensor) -> bool:
    """Return whether a layer computes values alone, on a CPU, in one precision."""
    return (
        type(x) is Tensor  # not a tensor that stands for others, as in a dry run
        and x.device.type == "cpu"
        and x.numel() > 0
        and x.dtype == weight.dtype
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        and not torch.compiler.is_compiling()  # nor exported
    )


def linear_gelu(
    layer: nn.Linear, x: Float[Tensor, "batch frames _"]
) -> Float[Tensor, "batch frames _"]:
    """Return GELU, by its tanh approximation, of a linear layer.

    A layer of half precision takes ``x`` of any precision.

    Args:
        layer: the linear layer.
        x: its input.
    """
    if layer.weight.dtype in HALVES:
        x = x.to(layer.weight.dtype)
    if _fuses(layer, x):  # one pass over memory instead of two: a fifth of a block's time
        return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "gelu", [], "tanh")
    return F.gelu(layer(x), approximate="tanh")


def _fuses(layer: nn.Linear, x: Tensor) -> bool:
    plain = type(layer) is nn.Linear and not _has_hooks(layer)
    return plain and x.dtype in _fused_dtypes() and infers_on_cpu(x, layer.weight)


def _has_hooks(layer: nn.Module) -> bool:
    """Return whether calling a layer does more than its own computation."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


@functools.cache
def _fused_dtypes() -> tuple[torch.dtype, ...]:
    library: Any = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(library, "_linear_pointwise")):
        return ()
    return torch.float32, *([torch.bfloat16] if library._is_mkldnn_bf16_supported() else [])


def depthwise(
    conv: nn.Conv1d, x: Float[Tensor, "batch frames channels"]
) -> Float[Tensor, "batch frames channels"]:
    """Return a depthwise convolution over time of frames with channels last.

    Args:
        conv: convolution that keeps the number of frames, a group for each channel.
        x: its input.
    """
    if _has_hooks(conv) or not infers_on_cpu(x, conv.weight):
        return conv(x.transpose(1, 2)).transpose(1, 2)
    # Two-dimensional of height 1, so that channels may be last in memory: no copy.
    states = x.contiguous().transpose(1, 2)[:, :, None]
    padding = (0, conv.kernel_size[0] // 2)
    weight = conv.weight[:, :, None]
    mixed = F.conv2d(states, weight, conv.bias, padding=padding, groups=conv.groups)
    return mixed[:, :, 0].transpose(1, 2)
