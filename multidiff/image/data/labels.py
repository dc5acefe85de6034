"""Labels of a batch of images, as a model with classes reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from multidiff.image.tokenizers import words_of
from multidiff.utils.errors import InputError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHOWN = 20  # number of classes that a message lists


def class_number(prompt: str, classes: Sequence[str]) -> int:
    """Return the class that a prompt names, -1 where it is empty.

    Args:
        prompt: a class, its number from 0 (for a class that is a digit its word), or a text with
            one of either, such as ``a handwritten seven``.
        classes: names of the classes.

    Raises:
        InputError: if it names no class, or several.
    """
    if not prompt:
        return -1
    if prompt in classes:
        return classes.index(prompt)
    found = sorted({*_named(prompt, classes).values()})
    if len(found) == 1:
        return found[0]
    if found:
        several = " and ".join(classes[number] for number in found)
        raise InputError(f"{prompt!r}: names {several}; an image has one class")
    known = [*classes] if len(classes) <= SHOWN else [*classes[:SHOWN], "..."]
    described = f"one of {', '.join(known)}" if known else "this model has none"
    raise InputError(f"no class {prompt!r}: {described}")


def class_numbers(prompts: Sequence[str], classes: Sequence[str]) -> Tensor | None:
    """Return the class of each prompt, see :func:`class_number`; None without classes."""
    numbers = [class_number(prompt, classes) for prompt in prompts]
    return torch.tensor(numbers) if classes else None


def class_complaint(prompt: str, classes: Sequence[str]) -> str | None:
    """Return a line on the words of a prompt that are part of no class; None if all are."""
    if not prompt or prompt in classes:
        return None
    named = {word for text in _named(prompt, classes) for word in text.split()}
    others = [word for word in words_of(prompt) if word not in named]
    if not others:
        return None
    return f"{prompt!r}: the model does not know {', '.join(others)}, which is ignored"


def _named(prompt: str, classes: Sequence[str]) -> dict[str, int]:
    """Return the classes that a prompt has, by their words or number in it."""
    text, found = f" {' '.join(words_of(prompt))} ", {}
    for number, name in enumerate(classes):
        digit = DIGITS[int(name)] if name.isdecimal() and int(name) < len(DIGITS) else str(number)
        for form in (" ".join(words_of(name)), digit):
            if form and f" {form} " in text:
                found[form] = number
    inner = {one for one in found for other in found if one != other and f" {one} " in f" {other} "}
    return {form: number for form, number in found.items() if form not in inner}


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
