"""Synthetic sets of any size for :mod:`benchmarks.data`, and how each is read."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.data_sound import (
    keep_sound_in_memory,
    make_recordings,
    sound_batches,
    sound_rows,
)
from benchmarks.timing import Row
from multidiff.data.batches import Batches

MEGABYTE = 10**6
BATCH = 8


@dataclass(frozen=True)
class DataSet:
    """A kind of data.

    Attributes:
        unit: unit of its size.
        small: size that the memory of a large one is compared with.
        listed: size of a set that is read from memory, to compare steps.
        make: function that writes a set of a size into a folder and returns its path.
        batches: function that returns the batches of a path.
        keep_in_memory: function that makes sets of any size be read from memory (True) or disk.
        further: function that measures what only this kind has, of a path.
    """

    unit: str
    small: int
    listed: int
    make: Callable[[Path, int], Path]
    batches: Callable[[Path], Batches]
    keep_in_memory: Callable[[bool], None]
    further: Callable[[str, Path], list[Row]] = lambda case, path: []


def make_texts(folder: Path, megabytes: int) -> Path:
    """Write a text file of made-up sentences whose words are distributed as in natural ones."""
    rng = np.random.default_rng(0)
    letters = np.array([chr(ord("a") + n) for n in range(26)])
    words = ["".join(rng.choice(letters, 2 + n % 9)) for n in range(50_000)]
    chances = 1 / np.arange(1, len(words) + 1)
    edges = np.cumsum(chances / chances.sum())
    path, written = folder / f"{megabytes}.txt", 0
    with path.open("w") as file:
        while written < megabytes * MEGABYTE:
            drawn = [words[n] for n in np.searchsorted(edges, rng.random(2**18)).tolist()]
            ends = np.cumsum(rng.integers(5, 40, 2**14)).tolist()
            lines = [" ".join(drawn[a:b]) for a, b in pairwise(ends) if a < b]
            written += file.write("".join(f"{line}\n" for line in lines if line))
    return path


def text_batches(path: Path) -> Batches:
    """Return batches of a text file with the tokens of a vocabulary of words."""
    from multidiff.text.data.listing import TextSource
    from multidiff.text.data.sentences import Sentences
    from multidiff.text.data.vocabulary import WordVocabulary

    source = TextSource(str(path), held_out_every=1000)
    examples = Sentences(source, 60)
    examples.tokenized(WordVocabulary(10_000, source), sources=False)
    return Batches(examples, BATCH, group_by_length=50)


def keep_texts_in_memory(wanted: bool) -> None:
    """Let texts of any size be read from memory, or from disk."""
    from multidiff.text.data import stored

    stored.MOST_IN_MEMORY = 2**62 if wanted else -1


def make_images(folder: Path, count: int) -> Path:
    """Write a parquet file of small images with captions of their own."""
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    rng, files = np.random.default_rng(0), []
    for _ in range(256):
        content = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(content, "PNG")
        files.append({"bytes": content.getvalue(), "path": None})
    path, writer, rows = folder / f"{count}.parquet", None, 50_000
    for first in range(0, count, rows):
        some = range(first, min(first + rows, count))
        columns = {
            "image": [files[n % len(files)] for n in some],
            "text": [f"image number {n}, of the colours {n % 7} and {n % 11}" for n in some],
        }
        kinds = {"image": pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})}
        schema = pyarrow.schema({**kinds, "text": pyarrow.string()})
        table = pyarrow.table(columns, schema=schema)
        writer = writer or pyarrow.parquet.ParquetWriter(path, schema)
        writer.write_table(table, row_group_size=1000)
    assert writer is not None
    writer.close()
    return path


def image_batches(path: Path) -> Batches:
    """Return batches of a parquet file of images."""
    from multidiff.image.data import images

    images.PIXELS_READ_AT_ONCE = 0  # decoded at each visit, as large images are
    source = images.ImageSource(str(path), held_out_every=1000, caption_column="text")
    return Batches(images.Images(source, (8, 8)), BATCH)


def keep_images_in_memory(wanted: bool) -> None:
    """Let listings of any length be read from memory, or from disk."""
    from multidiff.image.data import large

    large.MOST_LISTED = 2**62 if wanted else -1


SETS: dict[str, DataSet] = {
    "text": DataSet("MB", 2, 4, make_texts, text_batches, keep_texts_in_memory),
    "images": DataSet("rows", 5000, 5000, make_images, image_batches, keep_images_in_memory),
    "sound": DataSet(
        "minutes", 1, 10, make_recordings, sound_batches, keep_sound_in_memory, sound_rows
    ),
}
