"""A small classifier of images, whose last hidden layer is a space to compare them in.

What Inception is to photographs (Heusel et al. 2017), a network like this is to small
images of one kind: the Frechet distance on its features is what we call feature distance.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from multidiff.core.random import Rng, uniform
from multidiff.image.data.image_files import to_unit
from multidiff.utils.errors import InputError

GROUP = 8


class ImageClassifier(nn.Module):
    """Residual convolutions at a half, a quarter ... of the size, their mean, a linear layer.

    Normalised by groups of channels, so an image's features depend on no other image.

    Args:
        channels: 1 for grey, 3 for colour.
        size: width and height of the images.
        classes: how many there are.
        widths: channels at each size, multiples of 8; the last is the number of features.
        dropout: share of the features left out in training.
        shift_pixels: training moves images at most so far along both axes,
        turn_degrees: and turns them at most so far to either side.

    Raises:
        ValueError: if a number cannot be.
    """

    def __init__(
        self,
        channels: Literal[1, 3] = 1,
        size: tuple[int, int] = (28, 28),
        classes: int = 10,
        widths: tuple[int, ...] = (32, 64, 96),
        dropout: float = 0.1,
        shift_pixels: float = 2.0,
        turn_degrees: float = 10.0,
    ):
        super().__init__()
        if classes < 2 or not widths or any(width < 1 or width % GROUP for width in widths):
            raise ValueError(
                f"{classes} classes and widths {list(widths)}: there are at least 2 classes, and "
                f"widths are multiples of {GROUP}"
            )
        self.channels: Literal[1, 3] = channels
        self.size, self.classes = size, classes
        self.shift_pixels, self.turn_degrees = shift_pixels, turn_degrees
        stages: list[nn.Module] = [nn.Conv2d(channels, widths[0], 5, stride=2, padding=2)]
        for before, width in itertools.pairwise(widths):
            stages += [Residual(before), nn.Conv2d(before, width, 3, stride=2, padding=1)]
        stages += [Residual(widths[-1]), nn.GroupNorm(widths[-1] // GROUP, widths[-1]), nn.GELU()]
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(widths[-1], classes)

    def features(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features"]:
        """What the last layer reads.

        Args:
            image: from -1 to 1.

        Raises:
            InputError: if the images have another size or other channels than ours.
        """
        width, height = self.size
        if image.shape[1:] != (self.channels, height, width):
            found, ours = _shape(*image.shape[1:]), _shape(self.channels, height, width)
            raise InputError(f"images of {found}: the classifier reads {ours}; resize them")
        return self.stages(image).mean(dim=(2, 3))

    def forward(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """The logits of the classes of images from -1 to 1."""
        return self.last(self.dropout(self.features(image)))

    @torch.no_grad()
    def describe(
        self, image: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features"]:
        """The features of images in bytes, on the CPU; see ``sets``."""
        return self.features(to_unit(image.to(self.last.weight.device))).float().cpu()

    # ------------------------------------------------------------- what a model offers

    def task(self) -> ImageClassifier:
        """What a trainer trains."""
        return self

    def losses(self, batch: dict[str, Any], rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Cross-entropy in nats; in training of images moved and turned at random.

        Args:
            batch: ``image`` in bytes and ``label``.
            rng: of shifts and turns, one for each image or one for all.

        Raises:
            InputError: if there are no labels, or some are of no class of ours.
        """
        label = self._labels(batch)
        image = to_unit(batch["image"])
        if self.training:
            draw = (2 * uniform((len(image), 3), rng) - 1).to(image)
            turn = draw[:, 2] * math.radians(self.turn_degrees)
            image = moved(image, draw[:, :2] * self.shift_pixels, turn)
        return {"cross_entropy": F.cross_entropy(self(image).float(), label, reduction="none")}

    def _labels(self, batch: dict[str, Any]) -> Tensor:
        if "label" not in batch:
            raise InputError("the images have no labels to learn: name their column or file")
        label = batch["label"]
        beyond = ((label < 0) | (label >= self.classes)).nonzero().flatten().tolist()
        if beyond:
            name = batch["name"][beyond[0]] if "name" in batch else "an image"
            raise InputError(
                f"{name}: has label {int(label[beyond[0]])}, but the classifier has "
                f"{self.classes} classes, from 0; give it more, or mend the label"
            )
        return label

    def metadata(self) -> dict[str, str]:
        """What the weights were made for."""
        width, height = self.size
        size = _shape(self.channels, height, width)
        return {"kind": "classifier", "classes": str(self.classes), "images": size}

    def assets(self) -> dict[str, str]:
        """None that must lie beside the weights."""
        return {}

    def load_assets(self, folder: Path) -> None:
        """Nothing to take up."""


class Residual(nn.Module):
    """Two normalised convolutions beside the identity (He et al. 2016, pre-activation).

    Args:
        width: channels.
    """

    def __init__(self, width: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            norm = nn.GroupNorm(width // GROUP, width)
            layers += [norm, nn.GELU(), nn.Conv2d(width, width, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(
        self, hidden: Float[Tensor, "batch width height columns"]
    ) -> Float[Tensor, "batch width height columns"]:
        """The same plus what the layers make of it."""
        return hidden + self.layers(hidden)


def moved(
    image: Float[Tensor, "batch channels height width"],
    shift: Float[Tensor, "batch 2"],
    turn: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """Images turned about their middle, then shifted; their edge goes on beyond it.

    Args:
        image: any levels; those between pixels are bilinear.
        shift: pixels to the right and down.
        turn: radians, clockwise as seen.
    """
    height, width = image.shape[-2:]
    cos, sin = turn.cos(), turn.sin()
    right, down = 2 * shift[:, 0] / width, 2 * shift[:, 1] / height
    # The grid says where each pixel comes from: the way back, in halves of the sides.
    across, along = sin * height / width, sin * width / height
    rows = [
        torch.stack([cos, across, -(cos * right + across * down)], dim=1),
        torch.stack([-along, cos, along * right - cos * down], dim=1),
    ]
    positions = F.affine_grid(torch.stack(rows, dim=1), list(image.shape), align_corners=False)
    return F.grid_sample(image, positions, padding_mode="border", align_corners=False)


def _shape(channels: int, height: int, width: int) -> str:
    return f"{width}x{height} in {channels} channel{'s' if channels > 1 else ''}"
