"""Bulk work: a list of items in shards of fixed content, a folder of results for each.

A shard's folder appears whole, so one that exists is finished, and a start makes those that are
missing. ``bulk.json`` beside them says what they were made of and how.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidiff.data.cache import cache_turn
from multidiff.data.prepare import FAULTS, MOST_FAULTS
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write, atomic_write_dir, check_replaceable
from multidiff.utils.packages import PackageError
from multidiff.utils.readers import read_json, read_text

logger = logging.getLogger(__name__)

MANIFEST = "bulk.json"
RESULTS = "items.jsonl"
FORMAT = 1
# Numbers and reasons of items that cannot be used.
Faults = list[tuple[int, str]]
Records = list[dict[str, Any]]
# Maps the numbers of a shard's items, and its folder, to what the folder's list says of each
# result, and to the items without one.
Make = Callable[[range, Path], tuple[Records, Faults]]


@dataclass(frozen=True)
class Shards:
    """The shards of a list.

    Attributes:
        out: folder of their folders.
        count: number of items.
        size: number of items in a shard; the last may have fewer.
    """

    out: Path
    count: int
    size: int

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def items(self, number: int) -> range:
        """Return the numbers of a shard's items."""
        return range(number * self.size, min((number + 1) * self.size, self.count))

    def path(self, number: int) -> Path:
        """Return the folder of a shard's results."""
        return self.out / f"{number:06d}"

    def is_made(self, number: int) -> bool:
        """Return whether a shard is finished."""
        return (self.path(number) / RESULTS).is_file()

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are still to make."""
        return [number for number in range(len(self)) if not self.is_made(number)]

    def begin(self, description: Mapping[str, Any]) -> None:
        """Describe the work in the folder, or compare it with the description that is there.

        Args:
            description: JSON that identifies the work: list, command, model, options.

        Raises:
            InputError: if the folder holds other work or other files.
        """
        wanted = {"format": FORMAT, "items": self.count, "shard_size": self.size, **description}
        wanted = json.loads(json.dumps(wanted))
        path = self.out / MANIFEST
        with cache_turn(self.out):
            check_replaceable(self.out, MANIFEST)
            if not path.is_file():
                with atomic_write(path) as partial:
                    partial.write_text(json.dumps(wanted, indent=1) + "\n", "utf-8")
        found = read_json(path)
        for key in sorted({*wanted, *found}):
            if wanted.get(key) != found.get(key):
                raise InputError(
                    f"{self.out}: holds shards of other work: {key} was {_short(found.get(key))}, "
                    f"is {_short(wanted.get(key))}; name another folder"
                )

    def make(self, number: int, make: Make) -> None:
        """Make a shard, unless it is there.

        Args:
            number: number of the shard.
            make: function that makes the results of its items.

        Raises:
            InputError: if they cannot be made or written, or too many items cannot be used.
        """
        if self.is_made(number):
            return
        with atomic_write_dir(self.path(number)) as folder:
            records, faults = make(self.items(number), folder)
            lines = (json.dumps(record, ensure_ascii=False) for record in records)
            (folder / RESULTS).write_text("".join(f"{line}\n" for line in lines), "utf-8")
            if faults:
                rows = (f"{item}\t{' '.join(reason.split())}\n" for item, reason in faults)
                (folder / FAULTS).write_text("".join(rows), "utf-8")
        if faults:
            self.check_faults()

    def check_faults(self) -> list[str]:
        """Return a line for each item that could not be used, after writing them into a file.

        Raises:
            InputError: if they are more than 1 % of all; their shards are removed.
        """
        paths = sorted(self.out.glob(f"[0-9]*/{FAULTS}"))
        lines = [line for path in paths for line in read_text(path).splitlines()]
        if not lines:
            return []
        report = self.out / FAULTS
        with atomic_write(report) as partial:
            partial.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        item, _, reason = lines[0].partition("\t")
        counted = f"{len(lines):,} of {self.count:,} items cannot be used"
        if len(lines) > max(1, MOST_FAULTS * self.count) or len(lines) == self.count:
            for path in paths:
                shutil.rmtree(path.parent, ignore_errors=True)
            raise InputError(
                f"{self.out}: {counted}, more than {MOST_FAULTS:.0%}, such as item {item} "
                f"({reason}); repair those in {report} and start again"
            )
        return [f"{counted}, such as item {item} ({reason}); all are named in {report}"]

    def records(self) -> Records:
        """Return what is known of each result, of all shards."""
        return [
            json.loads(line)
            for number in range(len(self))
            for line in (self.path(number) / RESULTS).read_text("utf-8").splitlines()
        ]


def in_halves(
    numbers: Sequence[int], make: Callable[[Sequence[int]], Records]
) -> tuple[Records, Faults]:
    """Make results of items together; if one cannot be used, of all the others.

    Args:
        numbers: numbers of the items.
        make: function that makes the results of some of them.
    """
    try:
        return (make(numbers), []) if numbers else ([], [])
    except PackageError:
        raise
    except InputError as fault:
        if len(numbers) == 1:
            return [], [(numbers[0], str(fault))]
    middle = len(numbers) // 2
    first, second = in_halves(numbers[:middle], make), in_halves(numbers[middle:], make)
    return first[0] + second[0], first[1] + second[1]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 100 else f"{text[:80]} ..."
