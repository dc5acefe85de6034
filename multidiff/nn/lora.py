"""LoRA: low-rank matrices beside frozen linear layers (Hu et al. 2021).

    W x  becomes  W x + (alpha / rank) B A x

``A`` (rank, in) is drawn from a normal distribution and ``B`` (out, rank) begins at zero, so that
nothing changes at first. The matrices have the names of the peft library, but no weight of the
network changes its name, as it would there. They are inside their layers (:class:`LoRA`) or beside
the network (:class:`Adapters`), and are added to its weights at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Paths of layers in names of modules, where a dot is not allowed.
DOT = "/"
ADAPTER = "lora"


class LowRank(nn.Module):
    """The low-rank matrices of a linear layer; as long as they are attached, its output has theirs.

    Args:
        layer: the layer.
        rank: number of rows of ``A``.
        alpha: scale of the change times the rank.

    Raises:
        ValueError: if the rank is less than 1.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float):
        if rank < 1:
            raise ValueError(f"rank {rank}: must be at least 1")
        super().__init__()
        self.lora_A = nn.Linear(layer.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.normal_(self.lora_A.weight, std=1 / rank)
        nn.init.zeros_(self.lora_B.weight)
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(alpha / rank))
        self._handle: Any = layer.register_forward_hook(self._added)

    def _added(self, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = self.lora_B(self.lora_A(given[0].to(self.lora_A.weight.dtype)))
        return output + (self.scale * change).to(output.dtype)

    def detach(self) -> None:
        """Leave the layer's output as it was."""
        self._handle.remove()


def merged(weight: Tensor, down: Tensor, up: Tensor, scale: Tensor | float) -> Tensor:
    """Return a weight with the change of its matrices, of its own type.

    Args:
        weight: weight of the layer.
        down: ``A``.
        up: ``B``.
        scale: ``alpha / rank``.
    """
    return (weight.float() + scale * (up.float() @ down.float())).to(weight.dtype)


def linear_layers(network: nn.Module, ends: Sequence[str]) -> dict[str, nn.Linear]:
    """Return the linear layers whose paths end in given names, by path; all without names.

    Raises:
        ValueError: if there are none.
    """
    wanted = tuple(f".{one}" for one in ends) or ("",)
    found = {
        path: layer
        for path, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and f".{path}".endswith(wanted)
    }
    if not found:
        raise ValueError(f"layers {', '.join(ends)}: the model has no such linear layer")
    return found


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
        self.matrices = nn.ModuleDict(
            {
                path.replace(".", DOT): LowRank(layer, rank, alpha)
                for path, layer in linear_layers(module, layers).items()
            }
        )

    def items(self) -> list[tuple[str, LowRank]]:
        """Return the paths of the layers and their matrices."""
        return [(path.replace(DOT, "."), one) for path, one in self.matrices.items()]  # pyright: ignore[reportReturnType]

    @torch.no_grad()
    def merge(self, module: nn.Module) -> None:
        """Add the changes to the weights of the module, and let go of it."""
        for path, one in self.items():
            weight: Any = module.get_submodule(path).weight
            weight.copy_(merged(weight, one.lora_A.weight, one.lora_B.weight, one.scale))
            one.detach()


@dataclass(frozen=True)
class LoRA:
    """Low-rank matrices inside the layers that they change.

    Attributes:
        rank: rank of each.
        alpha: scale of the change times the rank; the rank if None.
        targets: ends of the paths of the layers, such as ``query``; all but the head if empty.
    """

    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ()

    def add_to(self, network: nn.Module, head: nn.Module | None = None) -> None:
        """Freeze a network and add matrices, in float32, to it.

        Args:
            network: the network.
            head: layer that makes its logits, which is left out unless it is a target.

        Raises:
            ValueError: if the rank is less than 1, or no layer has such a name.
        """
        network.requires_grad_(False)
        alpha = float(self.rank if self.alpha is None else self.alpha)
        for layer in linear_layers(network, self.targets).values():
            if self.targets or layer is not head:
                layer.add_module(ADAPTER, LowRank(layer, self.rank, alpha))


def is_adapter(name: str) -> bool:
    """Return whether a tensor of that name belongs to the matrices inside a layer."""
    return f".{ADAPTER}." in name


def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's tensors, with the matrices inside its layers added to the weights."""
    state = network.state_dict()
    for path, one in network.named_modules():
        if isinstance(one, LowRank):
            name = f"{path.removesuffix(f'.{ADAPTER}')}.weight"
            state[name] = merged(state[name], *_matrices(state, path))
    return {name: one for name, one in state.items() if not is_adapter(name)}


def with_adapters(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights of a checkpoint with the changes of its :class:`Adapters`.

    Args:
        tensors: weights by name, of the model and of its adapters.
        prefix: beginning of the names of the adapters.
    """
    start, end = f"{prefix}matrices.", ".lora_A.weight"
    found = {name: one for name, one in tensors.items() if not name.startswith(prefix)}
    for name in tensors:
        if name.startswith(start) and name.endswith(end):
            path = name.removesuffix(end)
            target = path.removeprefix(start).replace(DOT, ".") + ".weight"
            found[target] = merged(found[target], *_matrices(tensors, path))
    return found


def _matrices(tensors: Mapping[str, Tensor], path: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``A``, ``B`` and the scale of the matrices at a path."""
    names = ("lora_A.weight", "lora_B.weight", "scale")
    return tuple(tensors[f"{path}.{name}"] for name in names)  # pyright: ignore[reportReturnType]
