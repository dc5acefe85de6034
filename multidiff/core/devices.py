"""Devices without float64, such as Apple's GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)


def has_float64(device: torch.device | str) -> bool:
    """Return whether a device computes in float64."""
    return torch.device(device).type not in WITHOUT_FLOAT64


def finest_dtype(device: torch.device | str) -> torch.dtype:
    """Return float64, or float32 for a device that does not have it."""
    return torch.float64 if has_float64(device) else torch.float32


def in_float64(values: Tensor) -> Tensor:
    """Return values in float64, on the CPU where their device does not have it."""
    return values.double() if has_float64(values.device) else values.cpu().double()


def moved(values: Tensor, device: torch.device | str) -> Tensor:
    """Return values on a device, where float64 becomes float32 if the device does not have it.

    They are rounded towards zero then: a draw from [0, 1) stays below 1.
    """
    if values.dtype != torch.float64 or has_float64(device):
        return values.to(device)
    single = values.float()
    inner = torch.nextafter(single, torch.zeros_like(single))
    return torch.where(single.double().abs() > values.abs(), inner, single).to(device)
