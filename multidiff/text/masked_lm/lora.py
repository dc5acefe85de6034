"""Low-rank adapters in published networks (LoRA, Hu et al. 2022).

    y = W x + (alpha / rank) B A x

``W`` is frozen; ``A`` (rank, in) and ``B`` (out, rank) are trained, and ``B`` is 0 at first. The
adapters are layers inside the layer that they adapt, so that no weight changes its name, as it
would by the peft library: a tuned model starts from the weights of the plain one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

DOWN, UP = "lora_A", "lora_B"


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters of linear layers.

    Attributes:
        rank: rank of each adapter.
        alpha: scale of the adapters, divided by the rank; the rank if None.
        targets: ends of the names of the adapted layers, such as ``query``; all but the head if
            empty.
    """

    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """Return the factor of the adapters' output."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def add_to(self, network: nn.Module) -> None:
        """Freeze a network and add adapters, in float32, to it.

        Raises:
            ValueError: if the rank is less than 1, or no layer has such a name.
        """
        head = head_of(network)
        found = [
            one
            for name, one in network.named_modules()
            if isinstance(one, nn.Linear)
            and (name.endswith(self.targets) if self.targets else one is not head)
        ]
        if self.rank < 1 or not found:
            raise ValueError(f"lora: rank {self.rank} is less than 1, or the network has no linear "
                             f"layer {', '.join(self.targets)}")  # fmt: skip
        network.requires_grad_(False)
        for layer in found:
            layer.add_module(DOWN, nn.Linear(layer.in_features, self.rank, bias=False))
            layer.add_module(UP, nn.Linear(self.rank, layer.out_features, bias=False))
            nn.init.zeros_(_part(layer, UP).weight)
            layer.register_forward_hook(partial(_adapted, self.scale))

    def merged(self, network: nn.Module) -> dict[str, Tensor]:
        """Return a network's tensors with the adapters added to the weights."""
        state = network.state_dict()
        for name, layer in network.named_modules():
            if hasattr(layer, DOWN):
                change = _part(layer, UP).weight @ _part(layer, DOWN).weight * self.scale
                weight = state[f"{name}.weight"]
                state[f"{name}.weight"] = (weight.float() + change.detach()).to(weight)
        return {name: one for name, one in state.items() if not is_adapter(name)}


def head_of(network: nn.Module) -> nn.Module | None:
    """Return the layer of a network that makes the logits."""
    model: Any = getattr(network, "model", None)
    if model is not None:
        return model.get_output_embeddings()
    output: Any = getattr(network, "output_layer", None)
    return getattr(output, "linear", None)


def is_adapter(name: str) -> bool:
    """Return whether a tensor of that name is an adapter's."""
    return f".{DOWN}." in name or f".{UP}." in name


def _part(layer: nn.Module, name: str) -> Any:
    return getattr(layer, name)


def _adapted(scale: float, layer: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    (x,) = inputs
    with torch.autocast(x.device.type, enabled=False):
        change = layer.lora_B(layer.lora_A(x.to(layer.lora_A.weight.dtype)))
    return output + (scale * change).to(output.dtype)
