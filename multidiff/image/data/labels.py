"""Labels of a batch of images, as a model with classes reads them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multidiff.utils.errors import InputError


def class_labels(batch: dict[str, Any], classes: int) -> Tensor:
    """Return the labels of a batch.

    Args:
        batch: images with their labels.
        classes: number of classes of the model.

    Raises:
        InputError: if the images have no labels, or one is not a class of the model.
    """
    if "label" not in batch:
        raise InputError(
            f"the model has {classes} classes, but the images have no labels: set label_column of "
            "the source (in a folder, a column of metadata.csv), or use a folder for each class"
        )
    label = batch["label"]
    beyond = ((label < 0) | (label >= classes)).nonzero().flatten().tolist()
    if beyond:
        name = batch["name"][beyond[0]] if "name" in batch else "an image"
        raise InputError(
            f"{name}: has label {int(label[beyond[0]])}, but the model has {classes} classes, "
            "from 0; list all classes in the recipe, or fix the label"
        )
    return label
