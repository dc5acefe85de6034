"""CLIP's text transformer (Radford et al. 2021), under the names of published weights.

``transformers`` has it too, but takes five seconds and 200 MB to be imported.
"""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from multidiff.core.draws import checkpointed

EMBEDDING_STD = 0.02


class CLIPTextTransformer(nn.Module):
    """Causal transformer over the tokens of a caption, with learned positions.

    Args:
        vocabulary: number of tokens.
        width: width of the states.
        feed_forward: inner width.
        layers: number of blocks.
        heads: number of attention heads.
        activation: "quick_gelu" or "gelu".
        length: greatest number of tokens.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        feed_forward: int,
        layers: int,
        heads: int,
        activation: Literal["quick_gelu", "gelu"],
        length: int,
    ):
        super().__init__()
        self.embeddings: Any = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(vocabulary, width),
                "position_embedding": nn.Embedding(length, width),
            }
        )
        blocks = [CLIPTextBlock(width, feed_forward, heads, activation) for _ in range(layers)]
        self.encoder: Any = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
        self.final_layer_norm = nn.LayerNorm(width)
        for table in self.embeddings.values():
            nn.init.normal_(table.weight, std=EMBEDDING_STD)
        for block in blocks:
            block.initialise(layers)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> list[Float[Tensor, "batch length w"]]:
        """Return the embeddings and the states after each block, before the final norm."""
        positions = self.embeddings.position_embedding.weight[: tokens.shape[1]]
        states = [self.embeddings.token_embedding(tokens) + positions]
        for block in self.encoder.layers:
            states.append(block(states[-1]))
        return states


class CLIPTextBlock(nn.Module):
    """Pre-norm block: causal attention, then a feed-forward network.

    Args:
        width: width of the states.
        feed_forward: inner width.
        heads: number of attention heads.
        activation: "quick_gelu" or "gelu".
    """

    def __init__(
        self,
        width: int,
        feed_forward: int,
        heads: int,
        activation: Literal["quick_gelu", "gelu"],
    ):
        super().__init__()
        self.heads, self.activation = heads, activation
        names = ("k_proj", "v_proj", "q_proj", "out_proj")
        self.self_attn: Any = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.layer_norm1 = nn.LayerNorm(width)
        self.mlp: Any = nn.ModuleDict(
            {"fc1": nn.Linear(width, feed_forward), "fc2": nn.Linear(feed_forward, width)}
        )
        self.layer_norm2 = nn.LayerNorm(width)
        self.gradient_checkpointing = False

    def initialise(self, layers: int) -> None:
        """Initialise the weights as CLIP does (its reference code, ``initialize_parameters``)."""
        attention, mlp = self.self_attn, self.mlp
        width = attention.q_proj.in_features
        inner = width**-0.5 * (2 * layers) ** -0.5
        for name, layer in attention.items():
            nn.init.normal_(layer.weight, std=width**-0.5 if name == "out_proj" else inner)
        nn.init.normal_(mlp.fc1.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(mlp.fc2.weight, std=inner)
        for layer in (*attention.values(), *mlp.values()):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "batch length w"]) -> Float[Tensor, "batch length w"]:
        """Return the states after this block."""
        if self.gradient_checkpointing:
            return checkpointed(self._computed, x)
        return self._computed(x)

    def _computed(self, x: Tensor) -> Tensor:
        x = x + self._attended(self.layer_norm1(x))
        inner = self.mlp.fc1(self.layer_norm2(x))
        if self.activation == "gelu":
            return x + self.mlp.fc2(F.gelu(inner))
        return x + self.mlp.fc2(inner * (1.702 * inner).sigmoid())

    def _attended(self, x: Tensor) -> Tensor:
        attention = self.self_attn
        query, key, value = (
            attention[f"{name}_proj"](x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for name in "qkv"
        )
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return attention.out_proj(found.transpose(1, 2).flatten(2))
