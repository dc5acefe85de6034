"""The UNet of DDPM and of Stable Diffusion 1.x, 2.x and XL.

One network serves both: each level of resolution has no attention, self-attention
(Ho et al. 2020, appendix B) or transformers that also read a condition (Rombach et al.
2022). Parameters have the names of the published weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.draws import checkpointed
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.image.blocks import (
    Downsample,
    ResnetBlock,
    SpatialAttention,
    Upsample,
    WordAttention,
)
from multidiff.image.diffusion.embeddings import CaptionEmbedding, TimeEmbedding
from multidiff.image.diffusion.transformer import SpatialTransformer

Attention = Literal["none", "self", "cross", "joint", "words"]


class UNet(nn.Module):
    """A denoiser of images or of latents.

    Args:
        in_channels: number of channels of the noisy state.
        out_channels: number of channels of the prediction; twice ``in_channels`` with learned
            variances.
        channels: channels of the levels, finest first; each level but the last halves the size.
        layers: number of residual blocks of each level on the way down; one more on the way up.
        attention: attention of each level: "none", "self" (among its positions), "cross" (a
            transformer that reads the condition too), "joint" (self-attention that has the
            condition's tokens among its keys and values) or "words" (attention to these tokens
            alone, for levels of many positions).
        heads: number of attention heads of each level. (The published configurations call this
            ``attention_head_dim``.) The middle has the coarsest level's.
        condition_width: width of the condition's tokens; required by attention that reads it.
        classes: number of class labels, if the condition is a label.
        linear_projection: see :class:`~multidiff.image.diffusion.transformer.SpatialTransformer`.
        upcast: see :class:`~multidiff.image.diffusion.transformer.CrossAttention`.
        groups: number of groups of the group norms.
        norm_eps: epsilon of the group norms, except those at a transformer's entry.
        dropout: dropout probability in the residual blocks.
        flip_sin_to_cos: whether the time embedding has its cosines first, as Stable Diffusion's.
        freq_shift: 0 for Stable Diffusion's frequencies, 1 for DDPM's.
        time_steps: number of timesteps of the time index.
        save_memory: whether to recompute activations in the backward pass (gradient checkpointing),
            as ``trainer.gradient_checkpointing`` does for every network.
        channels_last: whether to keep the channels of a position contiguous in memory, which
            half-precision convolutions on GPUs prefer. On the CPU training is faster without.
        patch: edge of the squares of pixels that become channels (space-to-depth); height and
            width must be multiples of it.
        convolve_first: see :class:`~multidiff.image.blocks.Upsample`.
        one_sided_downsampling: whether images are padded below and on the right alone before
            they are halved, as in the published DDPM models.
        blocks: number of transformer blocks of each level with attention "cross"; the middle has
            the coarsest level's. One each by default.
        pooled_width: width of a caption's embedding that is added to the time's, together with
            sizes in pixels, as Stable Diffusion XL does; None without.
        size_waves: number of sines and cosines that embed each of these sizes.
        scale_shift: see :class:`~multidiff.image.blocks.ResnetBlock`.
        resnet_resampling: whether residual blocks halve and double images, in place of
            convolutions (Dhariwal & Nichol 2021); their sides must be multiples then.

    Raises:
        ValueError: if the lists' lengths differ, or a condition's width is missing.
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers: int = 2,
        attention: tuple[Attention, ...] = ("cross", "cross", "cross", "none"),
        heads: tuple[int, ...] = (8, 8, 8, 8),
        condition_width: int | None = None,
        classes: int | None = None,
        linear_projection: bool = False,
        upcast: bool = False,
        groups: int = 32,
        norm_eps: float = 1e-5,
        dropout: float = 0.0,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        time_steps: int = 1000,
        save_memory: bool = False,
        channels_last: bool = False,
        patch: int = 1,
        convolve_first: bool = False,
        one_sided_downsampling: bool = False,
        blocks: tuple[int, ...] | None = None,
        pooled_width: int | None = None,
        size_waves: int = 256,
        scale_shift: bool = False,
        resnet_resampling: bool = False,
    ):
        blocks = (1,) * len(channels) if blocks is None else blocks
        if not len(channels) == len(attention) == len(heads) == len(blocks):
            raise ValueError(
                f"channels, attention, heads and blocks have {len(channels)}, {len(attention)}, "
                f"{len(heads)} and {len(blocks)} entries: give one for each level"
            )
        reading = [kind for kind in attention if kind not in ("none", "self")]
        if reading and condition_width is None:
            raise ValueError(f'attention "{reading[0]}" needs condition_width')
        super().__init__()
        self.in_channels, self.out_channels, self.patch = in_channels, out_channels, patch
        self.condition_width, self.gradient_checkpointing = condition_width, save_memory
        self.classes = classes or 0
        make = _Maker(
            4 * channels[0],
            condition_width,
            groups,
            norm_eps,
            dropout,
            linear_projection,
            upcast,
            convolve_first,
            one_sided_downsampling,
            scale_shift,
            resnet_resampling,
        )
        plan = [_Plan(*one) for one in zip(channels, attention, heads, blocks, strict=True)]
        self.conv_in = nn.Conv2d(in_channels * patch**2, channels[0], 3, padding=1)
        self.time_width = make.time_width
        self.time_embedding = TimeEmbedding(
            channels[0], make.time_width, time_steps, flip_sin_to_cos, freq_shift
        )
        if classes is not None:
            self.class_embedding = nn.Embedding(classes, make.time_width)
        self.pooled_width = pooled_width
        if pooled_width is not None:
            self.add_embedding = CaptionEmbedding(pooled_width, size_waves, make.time_width)
        self.down_blocks: Any
        self.down_blocks, skips = _way_down(make, plan, layers)
        self.mid_block = _middle(make, plan[-1])
        self.up_blocks: Any = _way_up(make, plan, layers, skips)
        self.conv_norm_out = nn.GroupNorm(groups, channels[0], norm_eps)
        self.conv_out = nn.Conv2d(channels[0], out_channels * patch**2, 3, padding=1)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.layout)  # pyright: ignore[reportCallIssue]

    def forward(
        self,
        xt: Float[Tensor, "batch channels height width"],
        level: NoiseLevel,
        condition: Tensor | Mapping[str, Tensor] | None = None,
        embedding: Float[Tensor, "batch time_width"] | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Return the prediction, with weights in half precision in the dtype of ``xt`` too.

        Args:
            xt: states at ``level``.
            level: noise level; its time is embedded as a timestep index, interpolated between two
                integers if needed.
            condition: tokens ``(batch, words, condition_width)``, or class labels ``(batch,)``
                with -1 where dropped; with ``pooled_width`` these ``words``, the captions'
                ``pooled`` embeddings and six ``sizes`` in pixels, ``(batch, 6)``.
            embedding: embedding of a further condition, added to that of the time.
        """
        own = self.conv_in.weight.dtype
        if isinstance(condition, Mapping):
            embedding = self.add_embedding(condition["pooled"], condition["sizes"])
            condition = condition["words"]
        words = None if self.condition_width is None else condition
        words = words if words is None else words.to(own)
        time = self._time(level, condition, embedding)
        xt = xt if self.patch == 1 else F.pixel_unshuffle(xt, self.patch)
        h = self.conv_in(xt.to(own).contiguous(memory_format=self.layout))
        skips = [h]
        for block in self.down_blocks:
            for resnet, attend in block.pairs():
                h = self._step(resnet, attend, h, time, words)
                skips.append(h)
            for down in block.downsamplers:
                h = down(h, time) if isinstance(down, ResnetBlock) else down(h)
                skips.append(h)
        for resnet, attend in self.mid_block.pairs():
            h = self._step(resnet, attend, h, time, words)
        for block in self.up_blocks:
            for resnet, attend in block.pairs():
                h = self._step(resnet, attend, torch.cat([h, skips.pop()], dim=1), time, words)
            for up in block.upsamplers:
                size = skips[-1].shape[2:]
                h = up(h, time) if isinstance(up, ResnetBlock) else up(h, size)
        found = self.conv_out(F.silu(self.conv_norm_out(h)))
        found = found if own == torch.float32 else found.to(xt.dtype)
        return found if self.patch == 1 else F.pixel_shuffle(found, self.patch)

    def _step(
        self,
        resnet: nn.Module,
        attend: nn.Module | None,
        h: Tensor,
        time: Tensor,
        words: Tensor | None,
    ) -> Tensor:
        """Apply a residual block and the attention after it."""

        def step(h: Tensor) -> Tensor:
            h = resnet(h, time)
            if attend is None:
                return h
            return attend(h, words)

        return checkpointed(step, h) if self.gradient_checkpointing else step(h)

    def _time(
        self, level: NoiseLevel, condition: Tensor | None, embedding: Tensor | None
    ) -> Tensor:
        time = self.time_embedding(level)
        time = time if embedding is None else time + embedding.to(time.dtype)
        if hasattr(self, "class_embedding") and condition is not None:
            known = (condition >= 0).to(time.dtype)[:, None]
            time = time + known * self.class_embedding(condition.clamp(min=0))
        return F.silu(time)


@dataclass(frozen=True)
class _Plan:
    """A level of a UNet: its channels, attention, heads and transformer blocks."""

    channels: int
    attention: Attention
    heads: int
    blocks: int


@dataclass(frozen=True)
class _Maker:
    """Makes the blocks of a UNet with their shared settings."""

    time_width: int
    condition_width: int | None
    groups: int
    norm_eps: float
    dropout: float
    linear: bool
    upcast: bool
    convolve_first: bool
    one_sided: bool
    scale_shift: bool
    resnet_resampling: bool

    def resnet(
        self, before: int, width: int, resample: Literal["down", "up"] | None = None
    ) -> ResnetBlock:
        options = (self.groups, self.norm_eps, self.time_width, self.dropout)
        return ResnetBlock(before, width, *options, self.scale_shift, resample)

    def down(self, width: int) -> nn.Module:
        if self.resnet_resampling:
            return self.resnet(width, width, "down")
        return Downsample(width, self.one_sided)

    def up(self, width: int) -> nn.Module:
        if self.resnet_resampling:
            return self.resnet(width, width, "up")
        return Upsample(width, self.convolve_first)

    def attention(self, plan: _Plan, kind: Attention) -> list[nn.Module]:
        """Return one module, or an empty list."""
        width, heads = plan.channels, plan.heads
        if kind == "none":
            return []
        if kind == "self" or self.condition_width is None:
            return [SpatialAttention(width, self.groups, self.norm_eps, heads)]
        if kind == "joint":
            reads = self.condition_width
            return [SpatialAttention(width, self.groups, self.norm_eps, heads, reads)]
        if kind == "words":
            reads = self.condition_width
            return [WordAttention(width, self.groups, self.norm_eps, heads, reads)]
        return [
            SpatialTransformer(
                width,
                self.condition_width,
                heads,
                self.groups,
                self.linear,
                self.upcast,
                plan.blocks,
            )
        ]


def _way_down(make: _Maker, plan: Sequence[_Plan], layers: int) -> tuple[nn.ModuleList, list[int]]:
    """Return the levels, finest first, and the channels of their skip connections."""
    wide = plan[0].channels
    blocks, skips = nn.ModuleList(), [wide]
    for number, level in enumerate(plan):
        block, width = Level(), level.channels
        for _ in range(layers):
            block.add(make.resnet(wide, width), make.attention(level, level.attention))
            skips.append(wide := width)
        if number < len(plan) - 1:
            block.downsamplers.append(make.down(width))
            skips.append(width)
        blocks.append(block)
    return blocks, skips


def _middle(make: _Maker, coarsest: _Plan) -> Level:
    block, width = Level(), coarsest.channels
    kind: Attention = "self" if make.condition_width is None else "cross"
    kind = coarsest.attention if coarsest.attention in ("joint", "words") else kind
    block.add(make.resnet(width, width), make.attention(coarsest, kind))
    block.add(make.resnet(width, width), [])
    return block


def _way_up(make: _Maker, plan: Sequence[_Plan], layers: int, skips: list[int]) -> nn.ModuleList:
    """Return the levels, coarsest first."""
    blocks, wide = nn.ModuleList(), plan[-1].channels
    for number, level in reversed(list(enumerate(plan))):
        block, width = Level(), level.channels
        for _ in range(layers + 1):
            resnet = make.resnet(wide + skips.pop(), width)
            block.add(resnet, make.attention(level, level.attention))
            wide = width
        if number > 0:
            block.upsamplers.append(make.up(width))
        blocks.append(block)
    return blocks


class Level(nn.Module):
    """Blocks at one resolution, on the way down, in the middle or on the way up."""

    def __init__(self):
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(), nn.ModuleList()
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()

    def add(self, resnet: ResnetBlock, attentions: list[nn.Module]) -> None:
        """Append a residual block, and the attention after it if there is one."""
        self.resnets.append(resnet)
        self.attentions.extend(attentions)

    def pairs(self) -> Iterator[tuple[nn.Module, nn.Module | None]]:
        """Yield residual blocks with the attention after each; in the middle the last has none."""
        return itertools.zip_longest(self.resnets, self.attentions)
