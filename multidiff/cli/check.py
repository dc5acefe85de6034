"""``multidiff check``: errors in recipes, and the cost of training them."""

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
    gpu: str | None = None,
    mfu: float | None = None,
    markdown: bool = False,
    show: Callable[[list[str]], None] | None = None,
) -> Report:
    """Check recipes, and optionally estimate the cost of training.

    Args:
        words: recipes, and ``key.path=value`` changes to all of them.
        data: whether the data must exist; a dry run never needs them.
        dry_run: whether to run one training step of each on fake tensors.
        gpu: name of the GPU that a dry run estimates for, by default ``h200``; see
            :func:`multidiff.dry_run.report.dry_run`.
        mfu: fraction of the GPU's peak that training reaches, by default 0.35.
        markdown: whether a dry run shows a table.
        show: function that receives lines as soon as they exist.

    Raises:
        InputError: if no recipe is named, or an option is wrong or without a dry run has no effect.
    """
    overrides = [one for one in words if "=" in one and not Path(one).exists()]
    paths = [Path(one) for one in words if one not in overrides]
    if not paths:
        raise InputError("check: name a recipe")
    if dry_run:
        from multidiff.dry_run.report import dry_run as run_dry

        return run_dry(
            paths,
            overrides,
            gpu="h200" if gpu is None else gpu,
            mfu=0.35 if mfu is None else mfu,
            markdown=markdown,
            show=show,
        )
    given = {"--gpu": gpu is not None, "--mfu": mfu is not None, "--markdown": markdown}
    unused = [name for name, one in given.items() if one]
    if unused:
        raise InputError(f"{', '.join(unused)}: only a dry run estimates costs: add --dry-run")
    faults: list[str] = []
    for path in paths:
        try:
            try_recipe(path, overrides, data=data)
        except InputError as fault:
            faults.append(str(fault))
    right = len(paths) - len(faults)
    facts = {"recipes": len(paths), "right": right}
    return Report([f"{right} of {len(paths)} recipes are right"], facts, faults)
