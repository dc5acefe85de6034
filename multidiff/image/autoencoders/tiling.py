"""Encoding and decoding of large images in overlapping tiles.

Memory then grows with the tile, not with the image. Attention and group norms see a tile
instead of the whole image, so the result is close to the untiled one but not equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multidiff.utils.errors import InputError

# Fraction of height and width by which neighbouring tiles overlap, where they are blended.
OVERLAP = 0.25


@dataclass(frozen=True)
class Tiles:
    """Tiling of an image.

    Attributes:
        size: height and width of a tile in pixels; 0 for no tiling.
        factor: number of pixels for each position of a latent.
    """

    size: int
    factor: int

    def __post_init__(self):
        if self.size < 0 or self.size % self.factor or 0 < self.size < 4 * self.factor:
            raise ValueError(
                f"tile {self.size}: must be a multiple of {self.factor}, at least "
                f"{4 * self.factor}, or 0"
            )

    def encoded(self, encode: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """Return the latents of an image, in tiles if it is larger than one."""
        return self._through(encode, image, self.size, 1 / self.factor)

    def decoded(self, decode: Callable[[Tensor], Tensor], latent: Tensor) -> Tensor:
        """Return the image of latents, in tiles if it is larger than one."""
        return self._through(decode, latent, self.size // self.factor, self.factor)

    def _through(
        self, function: Callable[[Tensor], Tensor], x: Tensor, size: int, ratio: float
    ) -> Tensor:
        if size == 0 or max(x.shape[2:]) <= size:
            return function(x)
        stride = max(round(size * (1 - OVERLAP) / self.factor) * self.factor, 1)
        if ratio > 1:
            stride = max(round(size * (1 - OVERLAP)), 1)
        total, weights = None, None
        for top in _starts(x.shape[2], size, stride):
            for left in _starts(x.shape[3], size, stride):
                made = function(x[:, :, top : top + size, left : left + size])
                if total is None or weights is None:
                    height, width = (round(n * ratio) for n in x.shape[2:])
                    total = made.new_zeros(len(x), made.shape[1], height, width)
                    weights = made.new_zeros(height, width)
                position = _position(made, top, left, ratio)
                fade = _fade(made)
                total[position] += made * fade
                weights[position[2:]] += fade
        assert total is not None and weights is not None
        return total / weights


def set_tiling(autoencoder: Any, size: int) -> None:
    """Let an autoencoder encode and decode large images in tiles.

    Args:
        autoencoder: the autoencoder.
        size: edge of a tile in pixels; 0 for no tiling.

    Raises:
        InputError: if the size is wrong.
    """
    try:
        autoencoder.tiles = Tiles(size, autoencoder.factor)
    except ValueError as error:
        raise InputError(f"--vae-tiling {size}: {error}") from error


def _starts(length: int, size: int, stride: int) -> list[int]:
    """Return where tiles begin; the last ends with the image."""
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def _position(made: Tensor, top: int, left: int, ratio: float) -> tuple[slice, ...]:
    first, second = round(top * ratio), round(left * ratio)
    height, width = made.shape[2:]
    whole = slice(None)
    return whole, whole, slice(first, first + height), slice(second, second + width)


def _fade(made: Tensor) -> Tensor:
    """Return blending weights that fall towards the tile's edges, but never to 0."""

    def ramp(length: int) -> Tensor:
        edge = max(int(length * OVERLAP), 1)
        position = torch.arange(length, device=made.device, dtype=made.dtype)
        nearest = torch.minimum(position, length - 1 - position)
        return ((nearest + 1) / (edge + 1)).clamp(max=1)

    return ramp(made.shape[2])[:, None] * ramp(made.shape[3])
