"""``multidiff check``: what is wrong in recipes, and what training them takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from multidiff.models.trial import try_recipe
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report


def check_recipes(
    words: Sequence[str],
    *,
    data: bool = True,
    dry_run: bool = False,
    gpu: str = "h200",
    mfu: float = 0.35,
    markdown: bool = False,
    show: Callable[[list[str]], None] | None = None,
) -> Report:
    """Check recipes, and estimate what training takes where that is asked for.

    Args:
        words: recipes, and ``key.path=value`` changes of all of them.
        data: whether the data must be there; they need not for a dry run.
        dry_run: run one training step of each on fake tensors.
        gpu: see :func:`multidiff.dry_run.report.dry_run`, for this and what follows.
        mfu: share of the GPU's peak.
        markdown: show a table.
        show: receives lines as soon as there are any.

    Raises:
        InputError: if no recipe is named, or an option is wrong.
    """
    overrides = [one for one in words if "=" in one and not Path(one).exists()]
    paths = [Path(one) for one in words if one not in overrides]
    if not paths:
        raise InputError("check: name a recipe")
    if dry_run:
        from multidiff.dry_run.report import dry_run as run_dry

        return run_dry(paths, overrides, gpu=gpu, mfu=mfu, markdown=markdown, show=show)
    faults: list[str] = []
    for path in paths:
        try:
            try_recipe(path, overrides, data=data)
        except InputError as fault:
            faults.append(str(fault))
    right = len(paths) - len(faults)
    facts = {"recipes": len(paths), "right": right}
    return Report([f"{right} of {len(paths)} recipes are right"], facts, faults)
