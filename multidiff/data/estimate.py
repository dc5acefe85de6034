"""Estimates of the time of a pass over a source, and of the size of its table."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from multidiff.data.prepare import Plan, missing_parts
from multidiff.data.table_writer import written_part


@dataclass(frozen=True)
class Estimate:
    """Parts of a table that are still to be made.

    Attributes:
        parts: number of all parts.
        missing: number of parts that are still to make.
        rows: estimated number of their rows.
        bytes: estimated size of them on disk.
        core_seconds: estimated time on one core.
    """

    parts: int
    missing: int
    rows: float = 0.0
    bytes: float = 0.0
    core_seconds: float = 0.0


def estimated(plan: Plan) -> Estimate:
    """Return what is still to be made of a table, from one of its parts, which is made and timed.

    Raises:
        InputError: if the source cannot be read.
    """
    parts = plan.parts()
    todo = missing_parts(plan, parts)
    if not todo:
        return Estimate(len(parts), 0)
    sizes = sorted((float(plan.size_of(parts[number])), number) for number in todo)
    size, number = sizes[len(sizes) // 2]
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "part")
        began = time.perf_counter()
        with written_part(part, plan.columns) as writer:
            plan.make(parts[number], writer)
        seconds = time.perf_counter() - began
        stored = sum(file.stat().st_size for file in part.iterdir())
    ratio = sum(one for one, _ in sizes) / size if size else float(len(todo))
    return Estimate(len(parts), len(todo), writer.rows * ratio, stored * ratio, seconds * ratio)
