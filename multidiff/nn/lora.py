"""LoRA in training: low-rank matrices beside frozen linear layers (Hu et al. 2021).

    W x  becomes  W x + (alpha / rank) B A x

``A`` is drawn from a normal distribution and ``B`` begins at zero, so that nothing changes at
first. The matrices are kept beside the network, which has the same parameters as before, and are
added to its weights at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Paths of layers in names of modules, where a dot is not allowed.
DOT = "/"


class LowRank(nn.Module):
    """The low-rank matrices of a linear layer; as long as they are attached, its output has theirs.

    Args:
        layer: the layer, which is frozen.
        rank: number of rows of ``A``.
        alpha: scale of the change times the rank.

    Raises:
        ValueError: if the rank is less than 1.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float):
        if rank < 1:
            raise ValueError(f"rank {rank}: must be at least 1")
        super().__init__()
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(alpha / rank))
        self._handle: Any = layer.register_forward_hook(self._added)

    def _added(self, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = self.up(self.down(given[0].to(self.down.weight.dtype)))
        return output + (self.scale * change).to(output.dtype)

    def delta(self) -> Tensor:
        """Return the change of the layer's weight."""
        return self.scale * (self.up.weight @ self.down.weight)

    def detach(self) -> None:
        """Leave the layer's output as it was."""
        self._handle.remove()


class Adapters(nn.Module):
    """Low-rank matrices of all layers of a module whose paths end in given names.

    The module is frozen.

    Args:
        module: module with linear layers.
        layers: ends of the paths of the layers that change.
        rank: rank of each.
        alpha: scale of the change times the rank.

    Raises:
        ValueError: if no linear layer has such a path.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str], rank: int, alpha: float):
        super().__init__()
        module.requires_grad_(False)
        ends = tuple(f".{one}" for one in layers)
        found = {
            path: layer
            for path, layer in module.named_modules()
            if isinstance(layer, nn.Linear) and f".{path}".endswith(ends)
        }
        if not found:
            raise ValueError(f"layers {', '.join(layers)}: the model has no such linear layer")
        self.matrices = nn.ModuleDict(
            {path.replace(".", DOT): LowRank(layer, rank, alpha) for path, layer in found.items()}
        )

    def items(self) -> list[tuple[str, LowRank]]:
        """Return the paths of the layers and their matrices."""
        return [(path.replace(DOT, "."), one) for path, one in self.matrices.items()]  # pyright: ignore[reportReturnType]

    @torch.no_grad()
    def merge(self, module: nn.Module) -> None:
        """Add the changes to the weights of the module, and let go of it."""
        for path, one in self.items():
            weight: Any = module.get_submodule(path).weight
            weight.add_(one.delta().to(weight))
            one.detach()


def with_adapters(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights of a checkpoint with the changes of its adapters.

    Args:
        tensors: weights by name, of the model and of its adapters.
        prefix: beginning of the names of the adapters.
    """
    start, end = f"{prefix}matrices.", ".down.weight"
    found = {name: one for name, one in tensors.items() if not name.startswith(prefix)}
    for name in tensors:
        if name.startswith(start) and name.endswith(end):
            stem = name.removesuffix(end)
            target = stem.removeprefix(start).replace(DOT, ".") + ".weight"
            change = tensors[f"{stem}.up.weight"].float() @ tensors[name].float()
            found[target] = found[target] + tensors[f"{stem}.scale"] * change
    return found
