"""GPUs by name, with data-sheet figures for estimates of time and memory."""

from __future__ import annotations

from dataclasses import dataclass

from multidiff.utils.errors import InputError


@dataclass(frozen=True)
class Gpu:
    """A GPU as its maker's data sheet states it, without sparsity or overclocking.

    Attributes:
        name: full name.
        bf16_tflops: peak of dense matrix products in bfloat16, accumulated in float32, in TFLOP/s.
        tf32_tflops: the same in TF32, by which float32 products are computed.
        memory_gb: memory, in units of 1e9 bytes.
    """

    name: str
    bf16_tflops: float
    tf32_tflops: float
    memory_gb: float


GPUS = {
    "b200": Gpu("NVIDIA B200 SXM", 2250, 1125, 180),
    "h200": Gpu("NVIDIA H200 SXM", 989, 494, 141),
    "h100": Gpu("NVIDIA H100 SXM", 989, 494, 80),
    "a100": Gpu("NVIDIA A100 80GB SXM", 312, 156, 80),
    "a100-40gb": Gpu("NVIDIA A100 40GB SXM", 312, 156, 40),
    "l40s": Gpu("NVIDIA L40S", 362, 183, 48),
    "l4": Gpu("NVIDIA L4", 121, 60, 24),
    "a10": Gpu("NVIDIA A10", 125, 62.5, 24),
    "rtx5090": Gpu("GeForce RTX 5090", 209.5, 104.8, 32),
    "rtx4090": Gpu("GeForce RTX 4090", 165.2, 82.6, 24),
    "rtx3090": Gpu("GeForce RTX 3090", 71, 35.6, 24),
}


def gpu_named(name: str) -> Gpu:
    """Return a GPU of the table.

    Raises:
        InputError: if the name is unknown.
    """
    found = GPUS.get(name.lower().replace(" ", "").replace("_", "-"))
    if found is None:
        raise InputError(f"--gpu {name}: is not in the table; expected one of {', '.join(GPUS)}")
    return found
