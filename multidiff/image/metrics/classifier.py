"""A small image classifier whose last hidden layer gives features for comparing images.

It plays for small images of one kind the role that Inception plays for photographs (Heusel et al.
2017): the Frechet distance on its features is called feature distance here.
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
from multidiff.models.hub_model import HubModel
from multidiff.utils.errors import InputError

GROUP = 8


class ImageClassifier(HubModel, nn.Module):
    """Residual convolutions at decreasing sizes, global average pooling, a linear layer.

    Normalised by groups of channels, so an image's features do not depend on other images.

    Args:
        channels: 1 for grey, 3 for colour.
        size: width and height of the images.
        classes: number of classes.
        widths: channels at each size, multiples of 8; the last is the number of features.
        dropout: dropout probability of the features.
        shift_pixels: largest random shift in training, along both axes.
        turn_degrees: largest random rotation in training, to either side.

    Raises:
        ValueError: if a number is out of range.
    """

    pipeline_tag = "image-classification"

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
                f"{classes} classes and widths {list(widths)}: need at least 2 classes, and "
                f"widths that are multiples of {GROUP}"
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
        """Return the input of the last layer.

        Args:
            image: images from -1 to 1.

        Raises:
            InputError: if the images have another size or number of channels.
        """
        width, height = self.size
        if image.shape[1:] != (self.channels, height, width):
            found, ours = _shape(*image.shape[1:]), _shape(self.channels, height, width)
            raise InputError(f"images of {found}: the classifier reads {ours}; resize them")
        return self.stages(image).mean(dim=(2, 3))

    def forward(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the class logits of images from -1 to 1."""
        return self.last(self.dropout(self.features(image)))

    @torch.no_grad()
    def describe(
        self, image: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features"]:
        """Return the features of images in bytes, on the CPU; see ``sets``."""
        return self.features(to_unit(image.to(self.last.weight.device))).float().cpu()

    # ------------------------------------------------------------- what a model offers

    def task(self) -> ImageClassifier:
        """Return the training task."""
        return self

    def losses(self, batch: dict[str, Any], rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return the cross-entropy in nats; in training of randomly shifted and rotated images.

        Args:
            batch: ``image`` in bytes and ``label``.
            rng: generator of shifts and rotations, one for each image or one for all.

        Raises:
            InputError: if there are no labels, or a label is out of range.
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
                f"{self.classes} classes, from 0; increase classes, or fix the label"
            )
        return label

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        width, height = self.size
        size = _shape(self.channels, height, width)
        return {"kind": "classifier", "classes": str(self.classes), "images": size}

    def assets(self) -> dict[str, str]:
        """Return the required assets: none."""
        return {}

    def load_assets(self, folder: Path) -> None:
        """Do nothing: there are no assets."""


class Residual(nn.Module):
    """Two normalised convolutions with an identity shortcut (He et al. 2016, pre-activation).

    Args:
        width: number of channels.
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
        """Return the input plus the layers' output."""
        return hidden + self.layers(hidden)


def moved(
    image: Float[Tensor, "batch channels height width"],
    shift: Float[Tensor, "batch 2"],
    turn: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channels height width"]:
    """Rotate images about their centre, then shift them; edge pixels are replicated.

    Args:
        image: images of any levels; interpolation is bilinear.
        shift: pixels to the right and down.
        turn: angle in radians, clockwise as seen.
    """
    height, width = image.shape[-2:]
    cos, sin = turn.cos(), turn.sin()
    right, down = 2 * shift[:, 0] / width, 2 * shift[:, 1] / height
    # The grid gives each pixel's source: the inverse map, in halves of the sides.
    across, along = sin * height / width, sin * width / height
    rows = [
        torch.stack([cos, across, -(cos * right + across * down)], dim=1),
        torch.stack([-along, cos, along * right - cos * down], dim=1),
    ]
    positions = F.affine_grid(torch.stack(rows, dim=1), list(image.shape), align_corners=False)
    return F.grid_sample(image, positions, padding_mode="border", align_corners=False)


def _shape(channels: int, height: int, width: int) -> str:
    return f"{width}x{height} in {channels} channel{'s' if channels > 1 else ''}"
