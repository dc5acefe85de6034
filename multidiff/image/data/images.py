"""Training images with captions and labels."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from multidiff.data.columns import FixedColumn
from multidiff.data.group_order import Grouping, GroupRows
from multidiff.data.order import SplitRows
from multidiff.image.data.image_files import read_first_frame, resized
from multidiff.image.data.listing import ALTERNATIVE, ImageSource, Listing
from multidiff.image.data.stored import StoredListing
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint

__all__ = ["ImageSource", "Images"]

logger = logging.getLogger(__name__)

# A set is read at once, and kept in memory, if that takes seconds and at most a gigabyte.
PIXELS_READ_AT_ONCE = 4e8
BYTES_KEPT = 2**30
FINGERPRINTED = 64


class Black(ImageSource):
    """A source with one black image that has a label and no caption."""

    def listing(self) -> Listing:
        """See :class:`~multidiff.image.data.listing.ImageSource`."""
        content = io.BytesIO()
        Image.new("L", (1, 1)).save(content, "PNG")
        return Listing([content.getvalue()], ["a black image"], labels=[0])

    def rows(self, count: int, held_out: bool) -> Sequence[int]:
        """Return the one row."""
        return [0]


class Images:
    """Images of one size, with their captions and labels.

    Small sets are read once and kept in memory; of large ones each image is read on
    demand. Unreadable images are reported by name, once, and skipped; if the set is too
    large to check in advance, the next readable image replaces them.

    Args:
        source: source of the images.
        size: width and height in pixels: images are cropped to that shape at the centre and
            resized. None leaves them as they are and requires that all have one size.
        channels: 1 for grey, 3 for colour.
        flip: whether to mirror images left to right, with probability 1/2.
        held_out: whether to take the images kept for validation.

    Attributes:
        grouping: the row groups that they are read by, if they are; see
            :class:`~multidiff.data.group_order.GroupOrder`.

    Raises:
        ValueError: if the size is not positive.
        InputError: if the source cannot be found or has no readable images, or if they
            differ in size and no size is given.
    """

    def __init__(
        self,
        source: ImageSource,
        size: tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        flip: bool = False,
        held_out: bool = False,
    ):
        if size is not None and min(size) < 1:
            raise ValueError(f"size {size}: width and height must be at least 1 pixel")
        self.source, self.channels, self.flip = source, channels, flip
        self._listing = source.listing()
        self.grouping: Grouping | None = None
        groups = self._listing.groups
        if groups is None:
            self._rows = source.rows(len(self._listing.contents), held_out)
        else:
            self._rows = GroupRows(groups.sizes, source.held_out_every, held_out, source.path)
            self.grouping = groups.grouping(self._rows.sizes)
        self._broken: set[int] = set()
        self._kept: Tensor | None = None
        self._warned_of_frames = False
        first = self._first()
        height, width = first.shape[1:]
        self.size, self._is_resized = size or (width, height), size is not None
        kept_bytes = len(self) * channels * self.size[0] * self.size[1]
        is_small = kept_bytes <= BYTES_KEPT and len(self) * width * height <= PIXELS_READ_AT_ONCE
        if is_small and self.grouping is None:
            self._keep_all()

    @classmethod
    def synthetic(
        cls, source: ImageSource, size: tuple[int, int] | None = None, **options: Any
    ) -> Images:
        """Return one synthetic black image of the stated size, for dry runs.

        Raises:
            InputError: if no size is stated.
        """
        if size is None:
            raise InputError(f"{source.path}: a dry run needs the images' size; set size")
        return cls(Black(source.path), size, **options)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def labels(self) -> Int64[Tensor, " images"] | None:
        """Labels of the images, if all have one."""
        labels = self._listing.labels
        if labels is None:
            return None
        if isinstance(labels, FixedColumn):
            rows = self._rows
            rows = rows[np.arange(len(rows))] if isinstance(rows, SplitRows) else np.array(rows)
            return torch.from_numpy(labels[rows])
        return torch.tensor([labels[row] for row in self._rows])

    def example(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """See :class:`~multidiff.data.batches.Examples`.

        ``image`` has bytes "channels height width"; ``label`` exists if all have one.
        """
        index, image = self._at(index)
        row = self._rows[index]
        example = {
            "image": image,
            "caption": self.caption_of(index, rng),
            "name": self._listing.names[row],
        }
        label = self.label_of(index)
        if label is not None:
            example["label"] = label
        if self.flip and rng.random() < 0.5:
            example["image"] = image.flip(-1)
        return example

    def label_of(self, index: int) -> int | None:
        """Return the label of an image, if all have one."""
        labels = self._listing.labels
        return None if labels is None else int(labels[self._rows[index]])

    def image(self, index: int) -> UInt8[Tensor, "channels height width"]:
        """Return an image as it is, or its replacement if unreadable; never mirrored."""
        return self._at(index)[1]

    def stand_in(self, index: int) -> int:
        """Return the index whose image, caption and label are used: its own, if readable."""
        return self._at(index)[0]

    def caption_of(self, index: int, rng: np.random.Generator) -> str:
        """Return a caption, drawn from several; empty if there is neither a caption nor a name."""
        row, listing = self._rows[index], self._listing
        if listing.captions is not None:
            texts = listing.captions[row]
        elif listing.labels is not None and listing.words:
            words = listing.words[listing.labels[row]].split(ALTERNATIVE)
            texts = tuple(t.format(word) for t in self.source.templates for word in words)
        else:
            texts = ()
        return texts[int(rng.integers(len(texts)))] if texts else ""

    @property
    def in_memory(self) -> bool:
        """Return whether all images are kept in memory."""
        return self._kept is not None

    def pixel_digest(self, index: int) -> bytes:
        """Return a hash of an image as training sees it."""
        return hashlib.sha256(self.image(index).numpy().tobytes()).digest()

    def file_size(self, index: int) -> int:
        """Return the size of an image's file in bytes; 0 if it cannot be found."""
        content = self._listing.contents[self._rows[index]]
        if isinstance(content, bytes):
            return len(content)
        return content.stat().st_size if content.is_file() else 0

    def file_content(self, index: int) -> bytes:
        """Return the content of an image's file; empty if it cannot be found."""
        content = self._listing.contents[self._rows[index]]
        if isinstance(content, bytes):
            return content
        return content.read_bytes() if content.is_file() else b""

    def fingerprint(self) -> str:
        """Return a hash of the images: their source, names, size, and some pixels."""
        source = self.source
        described = {
            "source": [source.path, source.split, source.config, source.column],
            "size": [*self.size, self.channels],
            "names": self._described(),
        }
        digest = hashlib.sha256(json.dumps(described).encode())
        for index in np.linspace(0, len(self) - 1, min(len(self), FINGERPRINTED)).round():
            digest.update(self.image(int(index)).numpy().tobytes())
        return digest.hexdigest()

    def _described(self) -> list[Any]:
        listing, every = self._listing, self.source.held_out_every
        if listing.groups is not None:
            return [listing.groups.fingerprint(), every, len(self)]
        if isinstance(listing, StoredListing):
            return [listing.table.folder.name, every, len(self)]
        return [listing.names[row] for row in self._rows]

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of its source."""
        return {"source": self.source.fingerprint()}

    def _first(self) -> UInt8[Tensor, "channels height width"]:
        for index in range(len(self)):
            image = self._read(index)
            if image is not None:
                return image
        raise InputError(f"{self.source.path}: no readable images on this side of the split")

    def _keep_all(self) -> None:
        width, height = self.size
        kept = torch.empty(len(self), self.channels, height, width, dtype=torch.uint8)
        rows: list[int] = []
        for index, row in enumerate(self._rows):
            image = self._read(index)
            if image is not None:
                kept[len(rows)] = self._sized(index, image)
                rows.append(row)
        self._kept, self._rows = kept[: len(rows)], rows

    def _at(self, index: int) -> tuple[int, UInt8[Tensor, "channels height width"]]:
        if not 0 <= index < len(self):
            raise IndexError(f"{index}: there are {len(self)} images")
        if self._kept is not None:
            return index, self._kept[index].clone()
        for step in range(len(self)):
            position = (index + step) % len(self)
            image = self._read(position)
            if image is not None:
                return position, self._sized(position, image)
        raise InputError(f"{self.source.path}: none of its images can be read any more")

    def _read(self, index: int) -> UInt8[Tensor, "channels height width"] | None:
        if index in self._broken:
            return None
        row = self._rows[index]
        name = self._listing.names[row]
        # A row group that cannot be read is an error: no image of its own is to blame.
        content = None if self.grouping is None else self._listing.contents[row]
        try:
            content = self._listing.contents[row] if content is None else content
            image, frames = read_first_frame(content, name, self.channels)
        except InputError as fault:
            logger.warning("skipped: %s", fault)
            self._broken.add(index)
            return None
        if frames > 1 and not self._warned_of_frames:
            self._warned_of_frames = True
            logger.warning("%s: has %d frames; of all such files the first is used", name, frames)
        return image

    def _sized(
        self, index: int, image: UInt8[Tensor, "channels height width"]
    ) -> UInt8[Tensor, "channels new_height new_width"]:
        (width, height), (rows, columns) = self.size, image.shape[1:]
        if not self._is_resized and (columns, rows) != (width, height):
            raise InputError(
                f"{self._listing.names[self._rows[index]]}: is {columns}x{rows}, but others are "
                f"{width}x{height}; give a size that all are resized to"
            )
        return resized(image, width, height)
