"""Perceptual distance (LPIPS): differences of a classifier's features instead of pixels."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.models.weights import read_pickle, read_tensors, without_values
from multidiff.utils.errors import InputError

# VGG-16 (Simonyan & Zisserman 2015): number of convolutions of each stage and their channels.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
# Mean and standard deviation of ImageNet's channels, for images in [0, 1].
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PerceptualDistance:
    """LPIPS (Zhang et al. 2018) on VGG-16, read from its file when first needed.

    It is not a submodule of what it helps to train, and is not saved with it.

    Args:
        weights: a file of VGG-16 with torchvision's names (``features.0.weight`` ...), as
            safetensors or a torch state dict. If it also has LPIPS's own
            ``lin0.model.1.weight`` ..., these weight the channels, else all count equally.
    """

    def __init__(self, weights: str):
        self.weights = Path(weights)
        self.assumed = ""
        self._network: FeatureStages | None = None

    @classmethod
    def synthetic(cls, weights: str) -> PerceptualDistance:
        """Return a distance with weights that are not read and have no values, for dry runs."""
        made, tensors, position, wide = cls(weights), {}, 0, 3
        for number, (count, width) in enumerate(STAGES):
            position += number > 0
            for _ in range(count):
                tensors[f"features.{position}.weight"] = torch.empty(
                    width, wide, 3, 3, device="meta"
                )
                tensors[f"features.{position}.bias"] = torch.empty(width, device="meta")
                position, wide = position + 2, width
        with without_values():
            made._network = FeatureStages(tensors, made.weights)
        made.assumed = f"{weights}: any weights of VGG-16"
        return made

    def __call__(
        self, one: Float[Tensor, "batch channels h w"], other: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, " batch"]:
        """Return the distance of images in [-1, 1]; grey ones get three equal channels.

        Raises:
            InputError: if the weights file is missing or holds another network.
        """
        if self._network is None:
            self._network = FeatureStages(_tensors(self.weights), self.weights)
        network = self._network.to(one.device)
        total = one.new_zeros(len(one))
        for x, y, scale in zip(network(one), network(other), network.scales, strict=True):
            gap = (F.normalize(x, dim=1) - F.normalize(y, dim=1)) ** 2
            total = total + (gap * scale).sum(dim=1).flatten(1).mean(dim=1)
        return total


class FeatureStages(nn.Module):
    """VGG-16's feature maps, one for each resolution."""

    def __init__(self, tensors: dict[str, Tensor], path: Path):
        super().__init__()
        self.stages = nn.ModuleList()
        position, wide = 0, 3
        for number, (count, width) in enumerate(STAGES):
            stage = nn.Sequential()
            if number:
                stage.append(nn.MaxPool2d(2))
                position += 1
            for _ in range(count):
                layer = nn.Conv2d(wide, width, 3, padding=1)
                _copy(tensors, f"features.{position}", layer, path)
                stage.extend([layer, nn.ReLU()])
                position, wide = position + 2, width
            self.stages.append(stage)
        scales = [
            tensors.get(f"lin{n}.model.1.weight", torch.ones(1, width, 1, 1) / width)
            for n, (_, width) in enumerate(STAGES)
        ]
        self.scales = nn.ParameterList(scales)
        self.requires_grad_(False)

    def forward(self, image: Float[Tensor, "batch channels h w"]) -> list[Tensor]:
        """Return the feature maps of images in [-1, 1]."""
        color = image.expand(-1, 3, -1, -1)
        mean, std = (color.new_tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
        maps = [((color + 1) / 2 - mean) / std]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; the perceptual distance needs weights of VGG-16")
    content = read_pickle(path)
    if content is None:
        return read_tensors(path)[0]
    if not isinstance(content, dict):
        raise InputError(f"{path}: has no named weights; give a file of those of VGG-16")
    return content


def _copy(tensors: dict[str, Tensor], name: str, layer: nn.Conv2d, path: Path) -> None:
    for part, own in layer.named_parameters():
        found = tensors.get(f"{name}.{part}")
        if found is None or found.shape != own.shape:
            raise InputError(f"{path}: has no {name}.{part} of VGG-16; is it another network's?")
        own.data.copy_(found)
