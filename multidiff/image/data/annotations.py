"""Captions and labels as sources give them, made texts and numbers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multidiff.utils.errors import InputError

if TYPE_CHECKING:
    from multidiff.image.data.listing import ImageSource

logger = logging.getLogger(__name__)


def captions_of(source: ImageSource, values: Sequence[Any]) -> list[tuple[str, ...]]:
    """Return the captions of all images, and warn if some have none.

    Raises:
        InputError: if one is not a text.
    """
    captions = [caption_texts(source, value) for value in values]
    missing = sum(not texts for texts in captions)
    if missing:
        logger.warning(
            "%s: %d of %d images have no caption; it is empty for them",
            source.path, missing, len(captions),
        )  # fmt: skip
    return captions


def caption_texts(source: ImageSource, value: Any) -> tuple[str, ...]:
    """Return the captions of an image: of a text, a list of texts, or None.

    Raises:
        InputError: if it is anything else.
    """
    texts = list(value) if isinstance(value, list | tuple) else [value]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise InputError(f"{source.path}: {value!r} is not a caption; name a column of texts")
    return tuple(text.strip() for text in texts if text and text.strip())


def numbered(
    source: ImageSource, values: Sequence[Any], words: tuple[str, ...]
) -> tuple[list[int] | None, tuple[str, ...]]:
    """Return labels as numbers, and their names.

    Args:
        source: the images.
        values: numbers or words.
        words: names of the labels that the source declares.

    Raises:
        InputError: if a value is no label.
    """
    words = source.names or words
    values = [None if value == "" else value for value in values]
    missing = sum(value is None for value in values)
    if missing:
        logger.warning(
            "%s: %d of %d images have no label; labels are ignored",
            source.path, missing, len(values),
        )  # fmt: skip
        return None, ()
    if values and all(isinstance(value, str) for value in values):
        if not words and not all(value.isdecimal() for value in values):
            words = tuple(sorted(set(values)))
        number = {word: label for label, word in enumerate(words)}
        values = [number.get(v, int(v) if v.isdecimal() else v) for v in values]
    for value in values:
        whole = isinstance(value, int | float) and float(value).is_integer()
        if not whole or value < 0 or (words and value >= len(words)):
            known = f"names: {', '.join(words)}" if words else "numbers from 0"
            raise InputError(f"{source.path}: label {value!r} is not one of the {known}")
    return [int(value) for value in values], words
