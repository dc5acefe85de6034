"""All that a run of a recipe prepares at its start, made beforehand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from multidiff.config.build import Spec
from multidiff.data.columns import Columns
from multidiff.data.estimate import estimated
from multidiff.data.prepare import (
    Plan,
    Unfinished,
    available_cores,
    before_preparing,
    missing_parts,
    prepare_slice,
)
from multidiff.models.loading import check_recipe
from multidiff.models.train import begun, prepared_for
from multidiff.models.weights import without_values
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report

POLL_SECONDS = 1.0


def prepare_recipe(
    recipe: Path | str,
    overrides: Sequence[str] = (),
    *,
    part: tuple[int, int] = (0, 1),
    wait: bool = False,
    join: bool = False,
    dry_run: bool = False,
) -> Report:
    """Prepare what training with a recipe prepares at its start.

    The components are built as in training. Each table that they read from the cache is made
    first, or a slice of it.

    Args:
        recipe: recipe file.
        overrides: ``key.path=value`` changes to it.
        part: number of this slice, from 0, and number of slices. Whoever finishes last joins the
            slices and makes what is no table.
        wait: whether to wait until the other slices are made, to go on to what depends on them.
        join: whether to check and join slices that are all made.
        dry_run: whether to estimate only, from one part of each table that is made and timed.

    Raises:
        InputError: if the recipe is wrong, its data cannot be read, the cache cannot be written,
            or slices are missing.
    """
    parts = check_recipe(Path(recipe), overrides)
    for needed in ("model", "data", "trainer"):
        if needed not in parts:
            raise InputError(f"{recipe}: has no section {needed!r}, which preparing needs")
    work = _Estimates() if dry_run else _Join() if join else _Slice(part, wait)
    with before_preparing(work):
        try:
            notes = _estimated(parts) if dry_run else begun(parts).notes
        except Unfinished:
            notes = ["not estimated: what depends on these tables"] if dry_run else []
            with suppress(Unfinished):  # its own slice, which does not depend on the others'
                if "validation" in parts:
                    parts["validation"].build()
    lines, facts = work.outcome()
    return Report([*lines, *notes], facts)


def _estimated(parts: Mapping[str, Spec]) -> list[str]:
    """Build the data, and the model without weights; return what is not estimated."""
    sides = [parts[section].build() for section in ("data", "validation") if section in parts]
    with without_values():
        model = parts["model"].build()
    for batches in sides:
        prepared_for(model, batches)
    others = "the section precompute" if "precompute" in parts else ""
    return [f"not estimated: {others}"] if others else []


class _Work:
    """Work on each table that is read, and a report on it."""

    def __init__(self) -> None:
        self.ready: dict[Path, bool] = {}

    def __call__(self, plan: Plan) -> None:
        if plan.folder not in self.ready:
            self.ready[plan.folder] = self.begin(plan)
        if not self.ready[plan.folder]:
            raise Unfinished(str(plan.folder))

    def begin(self, plan: Plan) -> bool:
        """Make parts of a table that is read for the first time; return whether all are made."""
        raise NotImplementedError

    def outcome(self) -> tuple[list[str], dict[str, Any]]:
        """Return lines for people and facts for programs."""
        raise NotImplementedError


class _Slice(_Work):
    """Makes a slice of each table; the last process joins all."""

    def __init__(self, part: tuple[int, int], wait: bool):
        super().__init__()
        self.part, self.wait = part, wait
        self.seconds: dict[Path, float] = {}
        self.made: dict[Path, int] = {}
        self.missing: dict[Path, int] = {}

    def begin(self, plan: Plan) -> bool:
        began = time.monotonic()
        if not plan.is_prepared:
            self.made[plan.folder] = prepare_slice(plan, *self.part)
            self.seconds[plan.folder] = time.monotonic() - began
        while self.part[1] > 1 and not plan.is_prepared:
            missing = missing_parts(plan, plan.parts())
            if not missing:
                break
            if not self.wait:
                self.missing[plan.folder] = len(missing)
                return False
            time.sleep(POLL_SECONDS)
        return True

    def outcome(self) -> tuple[list[str], dict[str, Any]]:
        lines, tables = [], []
        for folder in self.ready:
            facts: dict[str, Any] = {"table": str(folder), "made": self.made.get(folder, 0)}
            facts["missing"] = missing = self.missing.get(folder, 0)
            if missing:
                text = f"{facts['made']} parts made, {missing} are left to the other slices"
            else:
                facts |= {"rows": len(Columns(folder)), "bytes": _size_of(folder)}
                seconds = self.seconds.get(folder)
                how = "was there" if seconds is None else f"{seconds:.1f} s"
                text = f"{_amount(facts['rows'], facts['bytes'])}, {how}"
            lines.append(f"{folder}: {text}")
            tables.append(facts)
        return lines, {"tables": tables, "complete": not self.missing}


class _Join(_Slice):
    """Refuses tables of which parts are missing."""

    def __init__(self) -> None:
        super().__init__((0, 1), wait=False)

    def begin(self, plan: Plan) -> bool:
        parts = [] if plan.is_prepared else plan.parts()
        missing = missing_parts(plan, parts)
        if missing:
            shown = ", ".join(f"{number:06d}" for number in missing[:3])
            raise InputError(
                f"{plan.folder}: {len(missing)} of {len(parts)} parts are missing or damaged, such "
                f"as {shown}; run the slices that make them again"
            )
        return True


class _Estimates(_Work):
    """Estimates tables instead of making them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.tables: list[dict[str, Any]] = []

    def begin(self, plan: Plan) -> bool:
        what = f"{plan.source}: {plan.kind}"
        if plan.is_prepared:
            self.lines.append(f"{what}: prepared already, {plan.folder}")
            return True
        found, cores = estimated(plan), available_cores()
        seconds = found.core_seconds / cores
        self.lines.append(
            f"{what}: {found.missing} of {found.parts} parts to make, about "
            f"{_amount(found.rows, found.bytes)}, {_duration(seconds)} on {cores} cores, into "
            f"{plan.folder}"
        )
        self.tables.append({
            "table": str(plan.folder),
            "parts": found.parts,
            "missing": found.missing,
            "rows": round(found.rows),
            "bytes": round(found.bytes),
            "core_seconds": round(found.core_seconds, 1),
        })  # fmt: skip
        return False

    def outcome(self) -> tuple[list[str], dict[str, Any]]:
        lines = self.lines or ["the data are small: a run reads them at its start"]
        return lines, {"tables": self.tables}


def _amount(rows: float, size: float) -> str:
    return f"{rows:,.0f} rows, {size / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
