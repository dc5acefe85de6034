"""Held-out splits: which texts a model was trained on, so that it is evaluated on others."""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from multidiff.config.recipe import read_recipe
from multidiff.text.data.inspection import repeated
from multidiff.text.data.listing import TextSource
from multidiff.text.data.words import plain
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.report import Report

logger = logging.getLogger(__name__)

RECIPE = "recipe.yaml"
# Training texts of larger files are not compared with those that are evaluated.
MOST_BYTES = 64 << 20
USUAL_RATIO = 0.1


def held_out_of(source: TextSource, folder: Path, every: int | None, report: Report) -> TextSource:
    """Return a source of texts with the split by which the model was trained.

    Args:
        source: texts to evaluate on.
        folder: folder of the model, whose recipe names its training data.
        every: ``--held-out-every``; 0 takes all texts, None the recipe's value if the texts are
            those that the model was trained on.
        report: report that the split is added to.

    Raises:
        InputError: if the model was trained on all of them, unless ``every`` is 0.
    """
    report.facts["data"] = source.path
    trained = dict(_trained_on(folder))
    same = next((one for name, one in trained.items() if is_same(name, source.path)), None)
    if every is None and same is None:
        _warn_of_trained(source, [*trained])
        return source
    if every is None and same is not None:
        every = int(same.get("held_out_every") or 0)
        if every == 0:
            raise InputError(
                f"{source.path}: the model was trained on all of it, as its recipe says; name "
                "other texts, or evaluate on these with --held-out-every 0"
            )
        report.lines.append(f"held-out texts: every {every}th group, as the model's recipe says")
    report.facts["held_out_every"] = every or 0
    if same is not None and every:  # what belongs together stays on one side, as in training
        group_by = same.get("group_by") or same.get("meaning_column")
        return replace(source, held_out_every=every, group_by=group_by)
    return replace(source, held_out_every=every or 0)


def held_out_ratio_of(
    source: TextSource, folder: Path, ratio: float | None, report: Report
) -> float:
    """Return the fraction of a running text that is held out, as the model was trained.

    Args:
        source: running text to evaluate on.
        folder: folder of the model.
        ratio: ``--held-out-ratio``; None takes the recipe's value if the text is that which the
            model was trained on.
        report: report that the fraction is added to.

    Raises:
        InputError: if the model was trained on all of it, unless ``ratio`` is given.
    """
    for name, examples in _examples_of(folder):
        if ratio is not None or not is_same(name, source.path):
            continue
        ratio = float(examples.get("held_out_ratio", USUAL_RATIO) or 0.0)
        if ratio == 0:
            raise InputError(
                f"{source.path}: the model was trained on all of it, as its recipe says; name "
                "another text, or evaluate on a part of this with --held-out-ratio 0.1"
            )
        report.lines.append(f"held out: the last {ratio:.0%}, as the model's recipe says")
    report.facts["held_out_ratio"] = ratio = USUAL_RATIO if ratio is None else ratio
    return ratio


def is_same(one: str, other: str) -> bool:
    """Return whether two paths or names refer to the same texts, including copies of a file."""
    if one == other:
        return True
    here, there = resolve_path(one), resolve_path(other)
    try:
        if here.is_file() and there.is_file():
            return filecmp.cmp(here, there, shallow=False)
        return here.exists() and there.exists() and here.samefile(there)
    except OSError:
        return False


def _examples_of(folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the recipe's training data with the path of their source."""
    recipe = folder / RECIPE
    if not recipe.is_file():
        return
    data = read_recipe(recipe).plain().get("data")
    examples = data.get("examples") if isinstance(data, dict) else None
    source = examples.get("source") if isinstance(examples, dict) else None
    if isinstance(examples, dict) and isinstance(source, dict) and "path" in source:
        yield str(source["path"]), examples


def _trained_on(folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the sources that the recipe trains on, by their path."""
    for path, examples in _examples_of(folder):
        yield path, examples["source"]


def _warn_of_trained(source: TextSource, trained: list[str]) -> None:
    """Warn of texts that are in the model's training data, if those exist here."""
    for name in trained:
        path = resolve_path(name)
        if Path(name).name == Path(source.path).name and not path.exists():
            logger.warning(
                "%s: the model was trained on a file of this name, which is no longer at %s; "
                "if it is the same, give --held-out-every as in the recipe",
                source.path, name,
            )  # fmt: skip
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            continue
        try:
            other = TextSource(name, source.column).listing().texts
            texts = source.listing().texts
        except InputError:  # with other columns it has no such texts
            continue
        count, total = repeated(map(plain, texts), map(plain, other))
        if count:
            logger.warning(
                "%s: %d of %d texts are in the model's training data too (%s), which "
                "flatters the figures", source.path, count, total, name,
            )  # fmt: skip
