"""Make the folder that recipes/image/emoji.yaml trains on from a table of emoji.

    python -m benchmarks.emoji_data emoji.parquet data/emoji [--groups GROUP ...]

The table has the columns ``image`` (64x64 on white), ``name`` (CLDR short name), ``style`` and
``group``. The folder gets ``train`` and ``test``, each with images and a ``metadata.csv`` of
file_name, text (``NAME, STYLE style``), name, style and group.

Left out: flags, of which 250 outlines are one empty frame; names whose words another name has too;
and images that another name of the same style has as well, such as families (the first stays).
OpenMoji and its outline may be one image: that is what the two styles say of it.

Held out: 150 combinations of name and style, each name in all four styles without repeats: 50 noto,
50 twemoji, and 25 names in both openmoji and outline, which share a drawing.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multidiff.image.tokenizers import words_of

SEED = 20260
STYLES = ("noto", "twemoji", "openmoji", "outline")
HELD_OUT = ((("noto",), 50), (("twemoji",), 50), (("openmoji", "outline"), 25))
COLUMNS = ("file_name", "text", "name", "style", "group")
Row = dict[str, Any]


def rows_of(path: Path) -> list[Row]:
    """Return the rows of a table, each with a hash of its pixels."""
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(path).to_pylist()
    for row in rows:
        image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        row["pixels"] = hashlib.sha256(image.tobytes()).hexdigest()
    return sorted(rows, key=lambda row: (row["name"], row["style"]))


def cleaned(rows: list[Row], groups: Sequence[str] = ()) -> list[Row]:
    """Return the rows without flags, names of the same words, and repeats of other names.

    Args:
        rows: rows of the table.
        groups: groups that are kept; all where empty.
    """
    first_name: dict[str, str] = {}
    first_image: dict[tuple[str, str], str] = {}
    kept = []
    for row in rows:
        words = " ".join(words_of(row["name"]))
        named = first_name.setdefault(words, row["name"])
        drawn = first_image.setdefault((row["pixels"], row["style"]), row["name"])
        wanted = row["group"] in groups if groups else row["group"] != "flags"
        if wanted and named == drawn == row["name"]:
            kept.append(row)
    return kept


def held_out_of(rows: list[Row]) -> set[tuple[str, str]]:
    """Return the held-out combinations of name and style, drawn from the seed."""
    images, styles = defaultdict(set), defaultdict(set)
    for row in rows:
        images[row["pixels"]].add((row["name"], row["style"]))
        styles[row["name"]].add(row["style"])
    repeated = {name for pairs in images.values() if len(pairs) > 1 for name, _ in pairs}
    names = sorted(name for name in styles if len(styles[name]) == len(STYLES))
    names = [name for name in names if name not in repeated]
    drawn = iter(np.random.default_rng(SEED).permutation(names).tolist())
    return {
        (name, style)
        for group, count in HELD_OUT
        for name in (next(drawn) for _ in range(count))
        for style in group
    }


def write(folder: Path, rows: list[Row]) -> None:
    """Write images and their metadata.csv."""
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for row in rows:
            name = f"{'-'.join(words_of(row['name']))}-{row['style']}.webp"
            (folder / name).write_bytes(row["image"]["bytes"])
            text = f"{row['name'].replace(',', '')}, {row['style']} style"
            facts = {key: row[key] for key in ("name", "style", "group")}
            table.writerow({"file_name": name, "text": text, **facts})


def main() -> None:
    """Read the table and write the folder."""
    parser = argparse.ArgumentParser(description="Make a folder of emoji from a table.")
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--groups", nargs="+", default=(), help="such as food-drink; all by default"
    )
    options = parser.parse_args()
    folder = options.folder
    rows = cleaned(rows_of(options.table), options.groups)
    held_out = held_out_of(rows)
    for part, wanted in (("train", False), ("test", True)):
        chosen = [row for row in rows if ((row["name"], row["style"]) in held_out) == wanted]
        write(folder / part, chosen)
        print(f"{folder / part}: {len(chosen)} images")


if __name__ == "__main__":
    main()
