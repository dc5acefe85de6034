"""The KL autoencoder of Stable Diffusion: images to latents, an eighth as high and wide.

Rombach et al. 2022, section 3.1. Parameters have the names of the published weights. The study
notes that this follows give the group norms an epsilon of 1e-5; the published weights were
trained with 1e-6, which is the default here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.core.random import Rng, normal
from multidiff.image.autoencoders.tiling import Tiles
from multidiff.image.blocks import Downsample, ResnetBlock, SpatialAttention, Upsample

LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class LatentGaussian:
    """Encoder output for an image: a Gaussian over latents, not yet scaled."""

    mean: Float[Tensor, "batch channels height width"]
    log_variance: Float[Tensor, "batch channels height width"]

    def sample(self, rng: Rng | None) -> Tensor:
        """Draw a latent."""
        noise = normal(self.mean.shape, rng).to(self.mean)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl(self) -> Float[Tensor, " batch"]:
        """Return the KL from a standard normal in nats, summed (Kingma & Welling 2013)."""
        terms = self.mean**2 + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.flatten(1).sum(dim=1)


class AutoencoderKL(nn.Module):
    """Autoencoder from images to Gaussian latents and back.

    Args:
        image_channels: 3 for colour.
        channels: channels of the levels, finest first; each but the last halves the size.
        layers: number of residual blocks of each encoder level; the decoder has one more.
        latent_channels: number of channels of the latents.
        scaling: factor that brings latents to about unit variance.
        groups: number of groups of the group norms.
        norm_eps: epsilon of the group norms.
        shift: mean of the latents, which scaling subtracts first.
        quant_conv: whether there are 1x1 convolutions after the encoder and before the decoder.
        tile: height and width in pixels of overlapping tiles in which larger images are encoded
            and decoded; 0 for no tiling.
    """

    def __init__(
        self,
        image_channels: Literal[1, 3] = 3,
        channels: tuple[int, ...] = (128, 256, 512, 512),
        layers: int = 2,
        latent_channels: int = 4,
        scaling: float = 0.18215,
        groups: int = 32,
        norm_eps: float = 1e-6,
        tile: int = 0,
        shift: float = 0.0,
        quant_conv: bool = True,
    ):
        super().__init__()
        self.image_channels: Literal[1, 3] = image_channels
        self.latent_channels = latent_channels
        self.scaling, self.shift = scaling, shift
        self.factor = 2 ** (len(channels) - 1)
        self.tiles = Tiles(tile, self.factor)
        self.encoder = Encoder(
            image_channels, channels, layers, 2 * latent_channels, groups, norm_eps
        )
        self.decoder = Decoder(latent_channels, channels, layers, image_channels, groups, norm_eps)
        self.quant_conv = _pointwise(2 * latent_channels, quant_conv)
        self.post_quant_conv = _pointwise(latent_channels, quant_conv)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def encode(self, image: Float[Tensor, "batch channels height width"]) -> LatentGaussian:
        """Return the Gaussian over latents of images in [-1, 1].

        Raises:
            ValueError: if the height or width is not a multiple of the reduction.
        """
        height, width = image.shape[2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"an image of {width}x{height}: width and height must be multiples of "
                f"{self.factor}; pad or crop it"
            )
        mean, log_variance = self.tiles.encoded(self._moments, image).chunk(2, dim=1)
        return LatentGaussian(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))

    def decode(self, latent: Float[Tensor, "batch channels h w"]) -> Tensor:
        """Decode unscaled latents to images near [-1, 1], one at a time to save memory.

        Half precision overflows in some published weights; images with values
        that are not finite are computed again in float32.

        Raises:
            FloatingPointError: if float32 overflows as well.
        """
        if torch.is_grad_enabled():  # training: all together, without checking values
            return self._images(latent)
        return torch.cat([self._finite(one) for one in latent.split(1)])

    def decode_unchecked(self, latent: Float[Tensor, "batch channels h w"]) -> Tensor:
        """Decode unscaled latents in their own precision, whatever values result."""
        return self.tiles.decoded(self._images, latent)

    def _finite(self, latent: Tensor) -> Tensor:
        image = self.decode_unchecked(latent)
        if bool(image.isfinite().all()):
            return image
        if image.dtype != torch.float32 or torch.is_autocast_enabled(latent.device.type):
            own = next(self.parameters()).dtype
            with torch.autocast(latent.device.type, enabled=False):
                image = self.float().decode_unchecked(latent.float())
            self.to(own)
        if not bool(image.isfinite().all()):
            raise FloatingPointError("the autoencoder's image has values that are not finite")
        return image

    def _moments(self, image: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(image.contiguous(memory_format=torch.channels_last)))

    def _images(self, latent: Tensor) -> Tensor:
        latent = latent.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.post_quant_conv(latent))

    def to_state(self, latent: Tensor) -> Tensor:
        """Scale latents to about unit variance."""
        return (latent - self.shift) * self.scaling if self.shift else latent * self.scaling

    def to_latent(self, state: Tensor) -> Tensor:
        """Invert :meth:`to_state`."""
        return state / self.scaling + self.shift


def _pointwise(channels: int, there: bool) -> nn.Module:
    """Return a 1x1 convolution, or what takes its place."""
    return nn.Conv2d(channels, channels, 1) if there else nn.Identity()


class Encoder(nn.Module):
    """Levels of residual blocks, each but the last halving the size, and attention at the end."""

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, ...],
        layers: int,
        out_channels: int,
        groups: int,
        norm_eps: float,
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.down_blocks, wide = nn.ModuleList(), channels[0]
        for number, width in enumerate(channels):
            is_last = number == len(channels) - 1
            down = [] if is_last else [Downsample(width, one_sided=True)]
            self.down_blocks.append(Stage(wide, width, layers, groups, norm_eps, down=down))
            wide = width
        self.mid_block = Middle(wide, groups, norm_eps)
        self.conv_norm_out = nn.GroupNorm(groups, wide, norm_eps)
        self.conv_out = nn.Conv2d(wide, out_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return mean and log variance of the latents, as channels."""
        h = self.conv_in(image)
        for stage in self.down_blocks:
            h = stage(h)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(h))))


class Decoder(nn.Module):
    """Attention at the start, then levels of residual blocks, each but the last doubling."""

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, ...],
        layers: int,
        out_channels: int,
        groups: int,
        norm_eps: float,
    ):
        super().__init__()
        wide = channels[-1]
        self.conv_in = nn.Conv2d(in_channels, wide, 3, padding=1)
        self.mid_block = Middle(wide, groups, norm_eps)
        self.up_blocks = nn.ModuleList()
        for number, width in enumerate(reversed(channels)):
            is_last = number == len(channels) - 1
            up = [] if is_last else [Upsample(width)]
            self.up_blocks.append(Stage(wide, width, layers + 1, groups, norm_eps, up=up))
            wide = width
        self.conv_norm_out = nn.GroupNorm(groups, wide, norm_eps)
        self.conv_out = nn.Conv2d(wide, out_channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Return images."""
        h = self.mid_block(self.conv_in(latent))
        for stage in self.up_blocks:
            h = stage(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Stage(nn.Module):
    """Residual blocks at one resolution, and a change of it."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: int,
        groups: int,
        norm_eps: float,
        down: list[Downsample] = [],  # noqa: B006
        up: list[Upsample] = [],  # noqa: B006
    ):
        super().__init__()
        widths = [in_channels] + [channels] * layers
        self.resnets = nn.ModuleList(
            ResnetBlock(before, after, groups, norm_eps)
            for before, after in itertools.pairwise(widths)
        )
        self.downsamplers, self.upsamplers = nn.ModuleList(down), nn.ModuleList(up)

    def forward(self, h: Tensor) -> Tensor:
        """Return the feature map at the next resolution."""
        for layer in (*self.resnets, *self.downsamplers, *self.upsamplers):
            h = layer(h)
        return h


class Middle(nn.Module):
    """Attention between two residual blocks."""

    def __init__(self, channels: int, groups: int, norm_eps: float):
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(channels, channels, groups, norm_eps) for _ in range(2)
        )
        self.attentions = nn.ModuleList([SpatialAttention(channels, groups, norm_eps)])

    def forward(self, h: Tensor) -> Tensor:
        """Return a feature map of the same shape."""
        return self.resnets[1](self.attentions[0](self.resnets[0](h)))
