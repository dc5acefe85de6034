"""MMDiT: the transformer of Stable Diffusion 3, with one stream of patches and one of words.

Esser et al. 2024, section 4: the streams have weights of their own and attend to each other in
every block. Version 3.5 normalises queries and keys, and its first blocks have a second attention
of the patches alone. Parameters have the names of the published weights as diffusers writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.draws import checkpointed
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.image.diffusion.dit import NORM_EPS, TIME_WAVES, GeluFeedForward, unpatched
from multidiff.nn.attention import attention, merge_heads, split_heads
from multidiff.nn.embeddings import sinusoid

TIME_SCALE = 1000  # of the path's time from 0 to 1, for its embedding


class MMDiT(nn.Module):
    """A transformer that denoises latents by captions.

    Args:
        in_channels: number of channels of the noisy state and of the prediction.
        patch: edge of a patch in positions; height and width must be multiples of it.
        layers: number of blocks.
        heads: number of attention heads.
        head_width: number of channels of each.
        condition_width: width of the captions' tokens.
        pooled_width: width of the captions' embeddings.
        most_patches: number of rows and columns of patches that have stored positions; smaller
            images have those in the middle.
        dual_layers: number of first blocks that have a second attention of the patches alone.
        normalizes: whether queries and keys are normalised.
    """

    classes = 0

    def __init__(
        self,
        in_channels: int = 16,
        patch: int = 2,
        layers: int = 24,
        heads: int = 24,
        head_width: int = 64,
        condition_width: int = 4096,
        pooled_width: int = 2048,
        most_patches: int = 192,
        dual_layers: int = 0,
        normalizes: bool = False,
    ):
        super().__init__()
        self.in_channels = self.out_channels = in_channels
        self.patch, self.most_patches, width = patch, most_patches, heads * head_width
        self.width, self.condition_width, self.pooled_width = width, condition_width, pooled_width
        self.gradient_checkpointing = False
        self.pos_embed: Any = nn.Module()
        self.pos_embed.proj = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.pos_embed.register_buffer("pos_embed", torch.zeros(1, most_patches**2, width))
        self.time_text_embed: Any = nn.Module()
        self.time_text_embed.timestep_embedder = _Mlp(TIME_WAVES, width)
        self.time_text_embed.text_embedder = _Mlp(pooled_width, width)
        self.context_embedder = nn.Linear(condition_width, width)
        self.transformer_blocks = nn.ModuleList(
            JointBlock(width, heads, number < dual_layers, number == layers - 1, normalizes)
            for number in range(layers)
        )
        self.norm_out = _Modulation(width, 2)
        self.proj_out = nn.Linear(width, patch**2 * in_channels)

    def forward(
        self,
        xt: Float[Tensor, "batch channels height width"],
        level: NoiseLevel,
        condition: Mapping[str, Tensor],
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the prediction, with weights in half precision in the dtype of ``xt`` too.

        Args:
            xt: states at ``level``.
            level: noise level.
            condition: the captions' tokens ``words`` and their embeddings ``pooled``.

        Raises:
            ValueError: if height or width is no multiple of the patch, or too large.
        """
        rows, columns = (length // self.patch for length in xt.shape[2:])
        if (rows * self.patch, columns * self.patch) != xt.shape[2:]:
            raise ValueError(f"a state of {tuple(xt.shape[2:])}: no multiple of {self.patch}")
        own = self.proj_out.weight.dtype
        tokens = self.pos_embed.proj(xt.to(own)).flatten(2).transpose(1, 2)
        tokens = tokens + self._positions(rows, columns).to(own)
        # In float32, as diffusers: a unit in the last place of 1000 shows in the image.
        waves = sinusoid(TIME_SCALE * level.time.float(), TIME_WAVES, order="cos-sin")
        embed = self.time_text_embed
        embedding = embed.timestep_embedder(waves.to(own))
        embedding = F.silu(embedding + embed.text_embedder(condition["pooled"].to(own)))
        words = self.context_embedder(condition["words"].to(own))
        for block in self.transformer_blocks:
            if self.gradient_checkpointing:

                def step(x: Tensor, words: Tensor = words, block: Any = block) -> Any:
                    return block(x, words, embedding)

                tokens, words = checkpointed(step, tokens)
            else:
                tokens, words = block(tokens, words, embedding)
        scale, shift = self.norm_out(embedding)
        found = self.proj_out(_normed(tokens, shift, scale))
        found = unpatched(found, rows, columns, self.patch)
        return found if own == torch.float32 else found.to(xt.dtype)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return the positions in the middle of those that are stored."""
        most = self.most_patches
        if max(rows, columns) > most:
            raise ValueError(f"{rows} x {columns} patches: there are positions for {most} x {most}")
        table = self.pos_embed.pos_embed.view(most, most, -1)
        top, left = (most - rows) // 2, (most - columns) // 2
        return table[top : top + rows, left : left + columns].flatten(0, 1)


class JointBlock(nn.Module):
    """Attention of patches and words to each other, and a feed-forward network of each.

    Args:
        width: number of channels.
        heads: number of attention heads.
        dual: whether there is a second attention of the patches alone.
        last: whether the words end here.
        normalizes: whether queries and keys are normalised.
    """

    def __init__(self, width: int, heads: int, dual: bool, last: bool, normalizes: bool):
        super().__init__()
        self.norm1 = _Modulation(width, 9 if dual else 6)
        self.norm1_context = _Modulation(width, 2 if last else 6)
        self.attn = JointAttention(width, heads, normalizes, words=True, last=last)
        self.attn2 = JointAttention(width, heads, normalizes) if dual else None
        self.ff = GeluFeedForward(width)
        self.ff_context = None if last else GeluFeedForward(width)

    def forward(
        self,
        x: Float[Tensor, "batch patches width"],
        words: Float[Tensor, "batch words width"],
        embedding: Float[Tensor, "batch width"],
    ) -> tuple[Tensor, Tensor]:
        """Return patches and words of the next block."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate, *second = self.norm1(embedding)
        about = self.norm1_context(embedding)
        if self.ff_context is None:
            seen = _normed(words, about[1], about[0])
        else:
            seen = _normed(words, about[0], about[1])
        found, found_words = self.attn(_normed(x, shift, scale), seen)
        beside = None if self.attn2 is None else self.attn2(_normed(x, second[0], second[1]))[0]
        x = x + gate * found
        if beside is not None:
            x = x + second[2] * beside
        x = x + mlp_gate * self.ff(_normed(x, mlp_shift, mlp_scale))
        if self.ff_context is not None:
            words = words + about[2] * found_words
            words = words + about[5] * self.ff_context(_normed(words, about[3], about[4]))
        return x, words


class JointAttention(nn.Module):
    """Attention among patches and, with weights of their own, words.

    Args:
        width: number of channels.
        heads: number of attention heads.
        normalizes: whether queries and keys are normalised.
        words: whether there are words.
        last: whether the words' output is unused.
    """

    def __init__(
        self, width: int, heads: int, normalizes: bool, words: bool = False, last: bool = False
    ):
        super().__init__()
        self.heads, self.reads_words, part = heads, words, width // heads
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, nn.Linear(width, width))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        norms = ["norm_q", "norm_k"] if normalizes else []
        if words:
            for name in ("add_q_proj", "add_k_proj", "add_v_proj"):
                setattr(self, name, nn.Linear(width, width))
            if not last:
                self.to_add_out = nn.Linear(width, width)
            norms += ["norm_added_q", "norm_added_k"] if normalizes else []
        for name in norms:
            setattr(self, name, nn.RMSNorm(part, eps=NORM_EPS))

    def forward(self, x: Tensor, words: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the attention output of patches, and that of words if they go on."""
        parts = self._parts(x, ("to_q", "to_k", "to_v"), "norm_")
        if words is not None:
            more = self._parts(words, ("add_q_proj", "add_k_proj", "add_v_proj"), "norm_added_")
            parts = [torch.cat(pair, dim=2) for pair in zip(parts, more, strict=True)]
        found = merge_heads(attention(*parts))
        about = found[:, x.shape[1] :]
        about = self.to_add_out(about) if hasattr(self, "to_add_out") else None
        return self.to_out[0](found[:, : x.shape[1]]), about

    def _parts(self, x: Tensor, names: tuple[str, ...], norm: str) -> list[Tensor]:
        q, k, v = (split_heads(getattr(self, name)(x), self.heads) for name in names)
        if hasattr(self, f"{norm}q"):
            q, k = getattr(self, f"{norm}q")(q), getattr(self, f"{norm}k")(k)
        return [q, k, v]


class _Modulation(nn.Module):
    """Shifts, scales and gates from an embedding whose SiLU is already applied."""

    def __init__(self, width: int, parts: int):
        super().__init__()
        self.parts, self.linear = parts, nn.Linear(width, parts * width)

    def forward(self, embedding: Tensor) -> list[Tensor]:
        return list(self.linear(embedding)[:, None].chunk(self.parts, dim=2))


class _Mlp(nn.Module):
    """Two linear layers with a SiLU between them."""

    def __init__(self, reads: int, width: int):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(reads, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


def _normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[2:], eps=NORM_EPS) * (1 + scale) + shift
