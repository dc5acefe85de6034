"""Accuracy of a classifier, and distances of two sets of images on its features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from multidiff.core.random import mixed_seed
from multidiff.image.data.image_files import to_unit
from multidiff.image.data.images import Images, ImageSource
from multidiff.image.metrics.classifier import ImageClassifier
from multidiff.image.metrics.sets import (
    FeatureStatistics,
    accuracy,
    describe_all,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report

AT_ONCE = 250


@dataclass(frozen=True)
class SetDistance:
    """Distances of generated images from real ones, as sets.

    Attributes:
        real_count: number of real images.
        made_count: number of generated images.
        frechet: Frechet distance of their Gaussians, squared as in published tables.
        kernel: mean of KID's subsets.
        kernel_spread: standard deviation of KID's subsets.
        precision: fraction of the generated images that lie among real ones.
        recall: fraction of the real images that lie among generated ones.
    """

    real_count: int
    made_count: int
    frechet: float
    kernel: float
    kernel_spread: float
    precision: float
    recall: float

    def lines(self) -> list[str]:
        """Return the distances as text."""
        return [
            f"{self.made_count} images against {self.real_count} real ones: "
            f"feature distance {self.frechet:.4f}, "
            f"kernel distance {self.kernel:.5f} (+- {self.kernel_spread:.5f}), "
            f"precision {self.precision:.3f}, recall {self.recall:.3f}"
        ]

    def facts(self) -> dict[str, float]:
        """Return the distances as numbers for programs."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def compare_sets(
    real: Float[Tensor, "count features"], made: Float[Tensor, "others features"], seed: int = 0
) -> SetDistance:
    """Compute all distances of two sets of features.

    Args:
        real: features of real images.
        made: features of generated images, from the same network.
        seed: random seed of the kernel distance's subsets.
    """
    kernel, spread = kernel_distance(real, made, rng=torch.Generator().manual_seed(seed))
    precision, recall = precision_recall(real, made)
    return SetDistance(
        len(real),
        len(made),
        frechet_distance(FeatureStatistics.of([real]), FeatureStatistics.of([made])),
        kernel,
        spread,
        precision,
        recall,
    )


def measure(
    model: ImageClassifier,
    data: str | None,
    folder: Path,
    *,
    seed: int = 0,
    against: str | None = None,
    most: int = 0,
    split: str = "train",
    label_column: str | None = None,
) -> Report:
    """Measure accuracy on labelled images; with a second set, its distance from the first.

    Args:
        model: the classifier.
        data: source of images, real ones where there are two.
        folder: folder of the model, unused.
        seed: random seed of the choice of images.
        against: source of images to compare with the first; these need no labels.
        most: number of images of a source, taken by chance; 0 takes all.
        split: split of both sources, where they have several.
        label_column: column of a data set's labels; ``label`` where there is one.

    Raises:
        InputError: if there are no images, or neither labels nor a second set.
    """
    if data is None:
        raise InputError("DATA: name a folder, file or data set of labelled images")
    first = labelled(data, model.size, model.channels, split, label_column)
    chosen = _chosen(len(first), most, seed)
    lines: list[str] = []
    facts: dict[str, Any] = {"count": len(chosen)}
    if first.labels is not None:
        ratio = _accuracy_on(model, first, chosen)
        lines.append(f"{len(chosen)} images: accuracy {100 * ratio:.2f} %")
        facts["accuracy"] = round(ratio, 6)
    elif against is None:
        raise InputError(f"{data}: has no labels; --label-column, or --against other images")
    if against is not None:
        other = labelled(against, model.size, model.channels, split, label_column)
        real = describe_all(batches_of(first, chosen), model.describe)
        some = _chosen(len(other), most, mixed_seed(seed, 1))  # differs even for the same source
        distance = compare_sets(real, describe_all(batches_of(other, some), model.describe), seed)
        lines += distance.lines()
        facts["against"] = distance.facts()
    return Report(lines, facts)


def batches_of(
    images: Images, chosen: list[int]
) -> Iterator[UInt8[Tensor, "batch channels height width"]]:
    """Yield some of the images as bytes, a few hundred at a time."""
    for first in range(0, len(chosen), AT_ONCE):
        yield torch.stack([images.image(i) for i in chosen[first : first + AT_ONCE]])


def _chosen(count: int, most: int, seed: int) -> list[int]:
    if not 0 < most < count:
        return list(range(count))
    rng = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=rng)[:most].tolist()


def labelled(
    path: str,
    size: tuple[int, int] | None,
    channels: Literal[1, 3],
    split: str,
    label_column: str | None = None,
    caption_column: str | None = None,
) -> Images:
    """Return the images of a source, with labels if it has them.

    Args:
        path: the source.
        size: width and height; None leaves the images as they are.
        channels: 1 for grey, 3 for colour.
        split: split of a data set.
        label_column: column of labels of a data set; ``label`` by default.
        caption_column: column of captions of a data set.
    """
    if label_column is None:
        with suppress(InputError):
            return labelled(path, size, channels, split, "label", caption_column)
    source = ImageSource(
        path, split=split, label_column=label_column, caption_column=caption_column
    )
    return Images(source, size, channels)


def _accuracy_on(model: ImageClassifier, images: Images, chosen: list[int]) -> float:
    labels = images.labels
    assert labels is not None
    right = 0.0
    for number, batch in enumerate(batches_of(images, chosen)):
        some = chosen[number * AT_ONCE : (number + 1) * AT_ONCE]
        with torch.no_grad():
            logits = model(to_unit(batch.to(model.last.weight.device))).cpu()
        right += accuracy(logits, labels[some]) * len(some)
    return right / len(chosen)
