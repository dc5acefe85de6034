"""Gathering of weights that FSDP shards, where whole ones are needed.

Nothing here changes a module that is not sharded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def keep_precision(plugin: Any) -> None:
    """Make FSDP leave weights and inputs in their dtype: autocast selects what runs in bfloat16.

    Args:
        plugin: accelerate's FSDP plugin, None where nothing is sharded.
    """
    if plugin is None:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin.mixed_precision_policy = MixedPrecisionPolicy(cast_forward_inputs=False)


@contextmanager
def gathered_weights(module: nn.Module) -> Iterator[None]:
    """Gather the whole weights on every process; every process must enter this block.

    A forward pass without a backward one leaves the outermost weights gathered, and passes
    outside training disturb the order in which shards are prefetched. Inside this block nothing
    is fetched, and at its end all weights are sharded again.
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
    """Return a tensor gathered from its shards; every process must call it."""
    gather = getattr(value, "full_tensor", None)
    return value if gather is None else gather()


def put_whole(module: nn.Module, name: str, value: Tensor) -> None:
    """Set a module's parameter to a whole tensor, which is then no longer a shard."""
    owner, _, key = name.rpartition(".")
    where = module.get_submodule(owner)
    found, full = getattr(where, key), whole(value)
    if full is value:
        found.data.copy_(value)
    else:
        where.register_parameter(key, nn.Parameter(full, requires_grad=found.requires_grad))
