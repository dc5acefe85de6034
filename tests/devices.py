"""A device that computes as the CPU does but has no float64, as Apple's GPUs have none.

Its values lie on the CPU inside. What a real device refuses is refused: float64 values, and
operations between its tensors and those of the CPU. To import this registers the device with
torch, which then takes it for the accelerator of the process: use a process of its own.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("single")
torch.single.get_amp_supported_dtype = lambda: [torch.float16]
NAME = torch.device("single:0")
ATEN = torch.ops.aten
# These take tensors of both devices.
CROSSING = {
    *(ATEN.copy_.default, ATEN._to_copy.default, ATEN.set_.source_Tensor),
    *(
        ATEN.index.Tensor,
        ATEN.index_put_.default,
        ATEN.index_put.default,
        ATEN._index_put_impl_.default,
    ),
}


class There(torch.Tensor):
    """A tensor on the device."""

    @staticmethod
    def __new__(cls, values):
        if values.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"the device has no {values.dtype}")
        return torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            values.stride(),
            values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=NAME,
        )

    def __init__(self, values):
        self.values_there = values

    def tolist(self):
        return self.values_there.tolist()

    def __repr__(self):
        return f"There({self.values_there!r})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), options=None):
        return computed(operation, arguments, options or {})


def computed(operation, arguments, options):
    """Run an operation on the values inside."""
    if operation is ATEN._fused_sdp_choice.default:
        return 0  # attention step by step: the fused kernels are those of real devices
    tensors = [one for one in tree_iter((arguments, options)) if isinstance(one, torch.Tensor)]
    there = any(isinstance(one, There) for one in tensors)
    strays = [one for one in tensors if not isinstance(one, There) and one.dim()]
    if there and strays and operation not in CROSSING:
        raise RuntimeError(f"{operation}: tensors on {NAME} and on the cpu")
    if options.get("device") is not None:
        there = torch.device(options["device"]).type == NAME.type
        options = {**options, "device": torch.device("cpu")}
    elif operation in (ATEN.copy_.default, ATEN._to_copy.default):
        there = isinstance(arguments[0], There)
    inside, named = tree_map(
        lambda one: one.values_there if isinstance(one, There) else one, (arguments, options)
    )
    outcome = operation(*inside, **named)
    if operation._schema.is_mutable and operation._schema.name.endswith("_"):
        return arguments[0]
    if isinstance(options.get("out"), There):
        return options["out"]
    if not there:
        return outcome
    return tree_map(lambda one: There(one) if isinstance(one, torch.Tensor) else one, outcome)


class Device(TorchDispatchMode):
    """While it runs, tensors can be made on the device and moved to it."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        return computed(operation, arguments, options or {})


# torch's own parsers of Python lists pass modes and subclasses by.
LIBRARY = torch.library.Library("aten", "IMPL")


def _empty_strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    return There(torch.empty_strided(size, stride, dtype=dtype))


def _copied(tensor, source, non_blocking=False):
    tensor.values_there.copy_(source.values_there if isinstance(source, There) else source)
    return tensor


LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")
LIBRARY.impl("copy_", _copied, "PrivateUse1")
