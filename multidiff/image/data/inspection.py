"""Checks of image data before training.

Held-out images that are in the training data too may be memorised rather than generalised to, and
no loss shows it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from typing import Any

from multidiff.image.data.images import Images

logger = logging.getLogger(__name__)

# Number of held-out images to check, evenly spread, and of training images to compare with, if
# files have to be read for it: seconds, not an hour of an hour's training.
LOOKS, MOST_FILES = 2_000, 200_000


def inspect(model: Any, data: Any, held_out: Any) -> list[str]:
    """Warn of held-out images that are in the training data too.

    Args:
        model: image model.
        data: training batches.
        held_out: validation batches, or None.

    Returns:
        An empty list: warnings are logged.
    """
    trained, kept = _images(data), _images(held_out)
    if trained is None or kept is None:
        return []
    if trained.grouping is not None or kept.grouping is not None:
        return []  # all of it would have to be fetched
    count, total = repeated(kept, trained)
    if count:
        logger.warning(
            "%s: %d of %d held-out images are in the training data too (%s), which flatters "
            "the held-out figures; remove them from either",
            kept.source.path, count, total, trained.source.path,
        )  # fmt: skip
    return []


def _images(batches: Any) -> Images | None:
    examples = getattr(batches, "examples", None)
    examples = getattr(examples, "images", examples)  # behind the cache of a first pass
    return examples if isinstance(examples, Images) else None


def repeated(held_out: Images, trained: Images) -> tuple[int, int]:
    """Return how many held-out images are in the training data, and how many were checked.

    Sets in memory are compared by their pixels, whatever files these came from; larger ones by the
    content of files of equal size, a sample of the held-out ones if there are many.
    """
    if held_out.in_memory and trained.in_memory and _form(held_out) == _form(trained):
        pairs = [[one.pixel_digest(row) for row in range(len(one))] for one in (held_out, trained)]
        there = set(pairs[1])
        return sum(one in there for one in pairs[0]), len(pairs[0])
    step = max(1, len(held_out) // LOOKS)
    sizes = {row: held_out.file_size(row) for row in range(0, len(held_out), step)}
    wanted = {*sizes.values()} - {0}  # 0 if there is no file
    if len(trained) > MOST_FILES:
        return 0, len(sizes)
    there = set(
        _digests(trained, [r for r in range(len(trained)) if trained.file_size(r) in wanted])
    )
    found = _digests(held_out, [row for row, size in sizes.items() if size in wanted])
    return sum(one in there for one in found), len(sizes)


def _form(images: Images) -> tuple[Any, ...]:
    return images.size, images.channels


def _digests(images: Images, rows: Iterable[int]) -> list[bytes]:
    return [hashlib.sha256(images.file_content(row)).digest() for row in rows]
