"""DiT: a transformer over patches of an image or a latent (Peebles & Xie 2023).

Every block is modulated by the noise level and the class through adaptive layer norms whose gates
begin at zero (adaLN-zero). Captions are further tokens that all patches attend to (the paper's
"in-context" condition). Parameters have the names of the published weights as diffusers writes
them, but for the embeddings of level and class, which all blocks share here as in the paper.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.draws import checkpointed
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.image.diffusion.embeddings import TimeEmbedding
from multidiff.nn.attention import attention, merge_heads, split_heads
from multidiff.nn.embeddings import sinusoid
from multidiff.nn.transformer import apply_rotary, rotary_embedding

TIME_WAVES = 256
NORM_EPS = 1e-6


class DiT(nn.Module):
    """A transformer that denoises patches.

    Args:
        in_channels: number of channels of the noisy state.
        out_channels: number of channels of the prediction; twice ``in_channels`` with learned
            variances.
        size: height and width, in positions of the state, that the model is trained at; sine-cosine
            positions of other sizes are scaled to the same range.
        patch: edge of a patch in positions; height and width must be multiples of it.
        width: number of channels of a token.
        layers: number of blocks.
        heads: number of attention heads.
        classes: number of class labels; 0 for none.
        condition_width: width of a caption's tokens; None without captions.
        positions: "sincos", added to the tokens, or "rope" (rotary, half of each head's channels
            for rows and half for columns).
        mlp_norm_eps: epsilon of the norm before each feed-forward network.
        freq_shift: 0 for the paper's frequencies of the time embedding, 1 for diffusers'.
        time_steps: number of timesteps of the time index.
        dropout: dropout probability in the feed-forward networks.

    Raises:
        ValueError: if the width does not split into the heads' rows and columns.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        size: tuple[int, int] = (32, 32),
        patch: int = 2,
        width: int = 1152,
        layers: int = 28,
        heads: int = 16,
        classes: int = 0,
        condition_width: int | None = None,
        positions: Literal["sincos", "rope"] = "sincos",
        mlp_norm_eps: float = NORM_EPS,
        freq_shift: int = 0,
        time_steps: int = 1000,
        dropout: float = 0.0,
    ):
        if width % (4 * heads):
            raise ValueError(f"width {width}: must be a multiple of 4 * heads, {4 * heads}")
        super().__init__()
        self.in_channels, self.out_channels, self.patch = in_channels, out_channels, patch
        self.width, self.heads, self.positions = width, heads, positions
        self.native = tuple(length // patch for length in size)
        self.classes, self.condition_width = classes, condition_width
        self.gradient_checkpointing = False
        self.pos_embed: Any = nn.Module()
        self.pos_embed.proj = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.time_embedding = TimeEmbedding(TIME_WAVES, width, time_steps, True, freq_shift)
        if classes:
            self.class_embedding = nn.Embedding(classes + 1, width)  # the last: no class
        if condition_width is not None:
            self.caption_projection = nn.Linear(condition_width, width)
        self.transformer_blocks = nn.ModuleList(
            DiTBlock(width, heads, mlp_norm_eps, dropout) for _ in range(layers)
        )
        self.proj_out_1 = nn.Linear(width, 2 * width)
        self.proj_out_2 = nn.Linear(width, patch**2 * out_channels)
        self.reset()

    def reset(self) -> None:
        """Set what begins at zero: the gates of the blocks, and the output."""
        for block in self.transformer_blocks:
            _zero(cast(DiTBlock, block).norm1.linear)
        _zero(self.proj_out_1)
        _zero(self.proj_out_2)

    def forward(
        self,
        xt: Float[Tensor, "batch channels height width"],
        level: NoiseLevel,
        condition: Tensor | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Return the prediction, with weights in half precision in the dtype of ``xt`` too.

        Args:
            xt: states at ``level``.
            level: noise level.
            condition: class labels ``(batch,)``, -1 where dropped, or a caption's tokens
                ``(batch, words, condition_width)``.

        Raises:
            ValueError: if height or width is no multiple of the patch.
        """
        rows, columns = (length // self.patch for length in xt.shape[2:])
        if (rows * self.patch, columns * self.patch) != xt.shape[2:]:
            raise ValueError(f"a state of {tuple(xt.shape[2:])}: no multiple of {self.patch}")
        own: Tensor = self.pos_embed.proj.weight
        tokens = self.pos_embed.proj(xt.to(own.dtype)).flatten(2).transpose(1, 2)
        if self.positions == "sincos":
            tokens = tokens + sine_positions(self.width, (rows, columns), self.native).to(tokens)
        captions = 0
        if self.condition_width is not None and condition is not None:
            words = self.caption_projection(condition.to(own.dtype))
            captions, tokens = words.shape[1], torch.cat([words, tokens], dim=1)
        turns = self._turns(rows, columns, captions, tokens.device)
        modulation = F.silu(self._embedding(level, condition))
        for block in self.transformer_blocks:
            if self.gradient_checkpointing:
                tokens = checkpointed(lambda x, block=block: block(x, modulation, turns), tokens)
            else:
                tokens = block(tokens, modulation, turns)
        shift, scale = self.proj_out_1(modulation)[:, None].chunk(2, dim=2)
        tokens = F.layer_norm(tokens[:, captions:], (self.width,), eps=NORM_EPS)
        found = self.proj_out_2(tokens * (1 + scale) + shift)
        return unpatched(found, rows, columns, self.patch).to(
            found.dtype if own.dtype == torch.float32 else xt.dtype
        )

    def _embedding(self, level: NoiseLevel, condition: Tensor | None) -> Tensor:
        """Return the sum of the embeddings of the level and, if there are any, the class."""
        time = self.time_embedding(level)
        if not self.classes:
            return time
        if condition is None:
            condition = torch.full((len(time),), -1, device=time.device)
        numbers = torch.where(condition < 0, self.classes, condition)
        return time + self.class_embedding(numbers)

    def _turns(self, rows: int, columns: int, captions: int, device: torch.device) -> Tensor | None:
        """Return the rotary embedding of rows and of columns; captions are at 0."""
        if self.positions != "rope":
            return None
        row = torch.arange(rows, device=device).repeat_interleave(columns) + 1
        column = torch.arange(columns, device=device).repeat(rows) + 1
        none = row.new_zeros(captions)
        both = [torch.cat([none, one]) for one in (row, column)]
        width = self.width // self.heads // 2
        return torch.stack([rotary_embedding(one, width, 10000.0) for one in both])


class DiTBlock(nn.Module):
    """Attention and a feed-forward network, both modulated and gated by an embedding.

    Args:
        width: number of channels.
        heads: number of attention heads.
        mlp_norm_eps: epsilon of the norm before the feed-forward network.
        dropout: dropout probability in it.
    """

    def __init__(self, width: int, heads: int, mlp_norm_eps: float, dropout: float):
        super().__init__()
        self.width, self.mlp_norm_eps = width, mlp_norm_eps
        self.norm1: Any = nn.Module()
        self.norm1.linear = nn.Linear(width, 6 * width)
        self.attn1 = PatchAttention(width, heads)
        self.ff = GeluFeedForward(width, dropout)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        modulation: Float[Tensor, "batch width"],
        turns: Tensor | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the tokens of the next block."""
        parts: Any = self.norm1.linear(modulation)[:, None].chunk(6, dim=2)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = parts
        h = F.layer_norm(x, (self.width,), eps=NORM_EPS) * (1 + scale) + shift
        x = x + gate * self.attn1(h, turns)
        h = F.layer_norm(x, (self.width,), eps=self.mlp_norm_eps) * (1 + mlp_scale) + mlp_shift
        return x + mlp_gate * self.ff(h)


class PatchAttention(nn.Module):
    """Attention among tokens.

    Args:
        width: number of channels.
        heads: number of attention heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        turns: Float[Tensor, "2 2 tokens part"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the attention output; ``turns`` rotates rows and columns."""
        q, k, v = (split_heads(f(x), self.heads) for f in (self.to_q, self.to_k, self.to_v))
        if turns is not None:
            q, k = _turned(q, turns), _turned(k, turns)
        return self.to_out[0](merge_heads(attention(q, k, v)))


def sine_positions(
    width: int, size: tuple[int, int], native: tuple[int, ...]
) -> Float[Tensor, "tokens width"]:
    """Return sine-cosine positions, a half of the channels for columns, then one for rows.

    Args:
        width: number of channels.
        size: number of rows and columns.
        native: number of rows and columns whose range of positions is kept.
    """
    rows, columns = (
        torch.arange(count, dtype=torch.float64) * (base / count)
        for count, base in zip(size, native, strict=True)
    )
    down, across = (sinusoid(one, width // 2) for one in (rows, columns))
    down = down[:, None].expand(-1, len(columns), -1)
    return torch.cat([across.expand(len(rows), -1, -1), down], dim=2).flatten(0, 1)


def unpatched(
    x: Float[Tensor, "batch patches values"], rows: int, columns: int, patch: int
) -> Float[Tensor, "batch channels height width"]:
    """Return tokens of patches as a map; channels vary fastest within a patch."""
    x = x.view(len(x), rows, columns, patch, patch, -1).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(len(x), -1, rows * patch, columns * patch)


class GeluFeedForward(nn.Module):
    """A layer four times as wide with the tanh form of the gelu, and a projection back."""

    def __init__(self, width: int, dropout: float = 0.0):
        super().__init__()
        self.net = nn.ModuleList(
            [_Gelu(width, 4 * width), nn.Dropout(dropout), nn.Linear(4 * width, width)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        for layer in self.net:
            x = layer(x)
        return x


class _Gelu(nn.Module):
    """A linear layer and the tanh form of the gelu."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    parts = zip(x.chunk(2, dim=3), turns, strict=True)
    return torch.cat([apply_rotary(part, one) for part, one in parts], dim=3)


def _zero(layer: Any) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
