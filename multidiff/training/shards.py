"""Weights that FSDP keeps in shards, where a whole is needed.

Nothing here does anything to a module that is not sharded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def keep_precision(plugin: Any) -> None:
    """Has FSDP leave weights and inputs as they are: autocast says what is computed in bfloat16.

    Args:
        plugin: accelerate's, None where nothing is sharded.
    """
    if plugin is None:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin.mixed_precision_policy = MixedPrecisionPolicy(cast_forward_inputs=False)


@contextmanager
def gathered_weights(module: nn.Module) -> Iterator[None]:
    """The module with whole weights on every process; every process must come here.

    A forward pass without a backward one leaves the outermost weights gathered, and passes
    outside training disturb the order in which shards are fetched ahead. Between here and the
    end of the block nothing is fetched, and at the end all are shards again.
    """
    parts = _sharded_parts(module)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(True, recurse=False)


def _sharded_parts(module: nn.Module) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    return [part for part in module.modules() if isinstance(part, FSDPModule)]


def whole(value: Tensor) -> Tensor:
    """A tensor gathered from its shards; every process must call it."""
    gather = getattr(value, "full_tensor", None)
    return value if gather is None else gather()


def put_whole(module: nn.Module, name: str, value: Tensor) -> None:
    """Give a module's parameter a value, and an end to its being a shard."""
    owner, _, key = name.rpartition(".")
    where = module.get_submodule(owner)
    found, full = getattr(where, key), whole(value)
    if full is value:
        found.data.copy_(value)
    else:
        where.register_parameter(key, nn.Parameter(full, requires_grad=found.requires_grad))
