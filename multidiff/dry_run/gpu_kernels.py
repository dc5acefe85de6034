"""Computation on a fake CPU with a GPU's behaviour: attention, precision, FLOP counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def _attention_flops(query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(
    gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **options: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


aten = torch.ops.aten
# CPU attention stands for a GPU's kernels here; torch counts only the latter.
CPU_ATTENTION: dict[Any, Any] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


class _Everything:
    """Replaces the counter's module tracker, whose hooks keep tensors alive."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def flop_counter() -> FlopCounterMode:
    """Return torch's counter, for the whole and not for each module."""
    counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
    counter.mod_tracker = cast(Any, _Everything())
    return counter


# Functions used by networks that autocast computes in float32 on a GPU, but not on a CPU.
IN_SINGLE = {
    F.layer_norm, F.group_norm, F.softmax, F.log_softmax, F.cross_entropy, F.nll_loss, F.softplus,
    F.l1_loss, F.mse_loss, F.cosine_similarity, F.normalize, F.binary_cross_entropy_with_logits,
    torch.layer_norm, torch.group_norm, torch.softmax, torch.log_softmax, torch.pow, torch.exp,
    torch.log, torch.sum, torch.rsqrt, torch.logsumexp, torch.cdist, torch.cumsum, torch.prod,
    Tensor.softmax, Tensor.log_softmax, Tensor.pow, Tensor.__pow__, Tensor.exp, Tensor.log,
    Tensor.sum, Tensor.rsqrt, Tensor.logsumexp, Tensor.cumsum, Tensor.prod, Tensor.norm,
}  # fmt: skip


class GpuKernels(TorchFunctionMode):
    """Functions as a GPU computes them.

    Attention applies dropout inside its kernel, which a CPU's cannot; autocast computes norms and
    the like in float32; and no backward pass can run on a device that does not exist.

    Args:
        device: device to imitate.
    """

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call one function."""
        options = kwargs or {}
        if func in IN_SINGLE and torch.is_autocast_enabled("cpu"):
            args, options = pytree.tree_map_only(Tensor, _in_single, (args, options))
        if func is F.scaled_dot_product_attention:
            options = {**options, "dropout_p": 0.0}
        if func is torch.autograd.grad and self.device.type != "cpu":
            inputs = args[1] if len(args) > 1 else options["inputs"]
            inputs = (inputs,) if isinstance(inputs, Tensor) else inputs
            return tuple(torch.zeros_like(one) for one in inputs)
        return func(*args, **options)


def _in_single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def run_backward(loss: Tensor) -> None:
    """Run the backward pass with the modes on.

    The tensor's own method leaves a function mode, so that recomputation in checkpoints
    would differ from the first computation.
    """
    engine: Any = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (),
        allow_unreachable=True, accumulate_grad=True,
    )  # fmt: skip


@contextmanager
def autocast_on(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Compute in a dtype as ``torch.autocast`` does, on a device that need not exist."""
    kind = device.type
    before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    torch.set_autocast_enabled(kind, dtype is not None)
    torch.set_autocast_dtype(kind, dtype or torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(kind, before[0])
        torch.set_autocast_dtype(kind, before[1])
