"""Caches of tensors that do not depend on weights or data, such as windows and filters."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor
from torch._guards import detect_fake_mode


def cached_tensors(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Cache a function's tensors, within torch.inference_mode and outside it; no fake ones."""
    made = torch.inference_mode(False)(make)
    cached = lru_cache(maxsize=16)(made)

    @wraps(make)
    def remembered(*key: Any) -> Tensor:
        # A dry run's tensors have no values, and a later call in the process needs them.
        return cached(*key) if detect_fake_mode() is None else made(*key)

    return remembered
