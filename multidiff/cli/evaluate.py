"""``multidiff eval``: figures of a model, or of all checkpoints of a run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from multidiff.cli.model_help import TAKEN, verb
from multidiff.config.options import read_options
from multidiff.models.loading import home_of, load
from multidiff.training.checkpoints import CheckpointFolder
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, table


def measure(name: str, words: Sequence[str], seed: int, device: str) -> Report:
    """Measure a model.

    Args:
        name: name of the model.
        words: data and options, as the command line gives them.
        seed: random seed.
        device: device to compute on.

    Raises:
        InputError: if the model cannot be measured, or an option is wrong.
    """
    ready = load(name, device)
    return _prepared(ready, words, seed, device)(ready, home_of(name))


def measure_checkpoints(run: str, words: Sequence[str], seed: int, device: str) -> Report:
    """Measure all checkpoints of a run with the same options; damaged ones are faults.

    Args:
        run: folder of the run.
        words: see :func:`measure`.
        seed: random seed, the same for each.
        device: device to compute on.

    Raises:
        InputError: if there are no checkpoints, they cannot be measured, or an option is wrong.
    """
    folder = CheckpointFolder(Path(run))
    paths = [*folder.paths(), *folder.named()]
    if not paths:
        raise InputError(f"{run}: has no checkpoints; --all-checkpoints needs a run's folder")
    figures: dict[str, dict[str, Any]] = {}
    report, measured = Report([], {"checkpoints": figures}), None
    for path in paths:
        try:
            ready = load(path, device)
        except InputError as damage:
            report.faults.append(str(damage))
            continue
        measured = measured or _prepared(ready, words, seed, device)
        found = measured(ready, path)
        figures[path.name] = found.facts
        report.faults.extend(f"{path}: {fault}" for fault in found.faults)
    report.lines.extend(_side_by_side(figures))
    return report


def _prepared(
    ready: Any, words: Sequence[str], seed: int, device: str
) -> Callable[[Any, Path], Report]:
    """Return a function that measures a model of the same kind, in a folder, by these options."""
    run = verb(ready, "eval")
    data: list[str] = []
    options = read_options(
        words, run, TAKEN["eval"], lambda one: load(one, device), owner=ready, positionals=data
    )
    if len(data) > 1:
        raise InputError(f"{data[1]}: DATA is one source, here {data[0]}; remove one")
    source = data[0] if data else None
    return lambda model, folder: run(model, source, folder, seed=seed, **options)


def _side_by_side(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table with a row for each checkpoint and a column for each figure that differs."""
    figures = {name: dict(figures_in(facts)) for name, facts in found.items()}
    names = dict.fromkeys(name for row in figures.values() for name in row)
    differing = [name for name in names if len({row.get(name) for row in figures.values()}) > 1]
    columns = differing or [*names]
    rows = [["checkpoint", *columns]]
    for name, row in figures.items():
        rows.append([name, *(_shown(row.get(column)) for column in columns)])
    return table(rows) if figures else []


def figures_in(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers in nested facts, by their keys joined with dots.

    Args:
        facts: facts of a report; entries of lists are named by their first text, such as a system.
        before: beginning of the names.
    """
    for key, value in facts.items():
        if isinstance(value, list):
            value = {_name_of(one, number): one for number, one in enumerate(value)}
        if isinstance(value, Mapping):
            yield from figures_in(value, f"{before}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{before}{key}", value


def _name_of(entry: Any, number: int) -> str:
    texts = (
        [one for one in entry.values() if isinstance(one, str)] if isinstance(entry, dict) else []
    )
    return texts[0] if texts else str(number)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
