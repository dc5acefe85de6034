"""``multidiff prepare``: what a run would prepare at its start, made beforehand."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from multidiff.cli.arguments import CacheDir, EngineName, Json
from multidiff.cli.parsing import say
from multidiff.utils.devices import process_ratio
from multidiff.utils.errors import InputError


def prepare(
    recipe: Annotated[Path, typer.Argument(help="A recipe, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ...")] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--slice",
            metavar="I/N",
            help="only slice I of N, from 1/N; by default of RANK, WORLD_SIZE",
        ),
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="only check the slices and join them")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only estimate number, size and time")
    ] = False,
    engine: EngineName = "ranks",
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> None:
    """Prepare all that training with a recipe would prepare at its start.

    Several machines that share the cache folder may make a slice each. A launcher's processes wait
    for each other; with --slice the last one joins all.
    """
    from multidiff.config.options import refuse_repeated
    from multidiff.data.engines import by_ray
    from multidiff.data.prepare import parts_made_by
    from multidiff.models.prepare import prepare_recipe

    refuse_repeated(word.partition("=")[0] for word in overrides or ())
    chosen = process_ratio() if part is None else slice_named(part)
    if engine == "ray" and (part is not None or join or dry_run):
        raise InputError("--engine ray: goes with none of --slice, --join and --dry-run")
    with parts_made_by(by_ray) if engine == "ray" else nullcontext():
        report = prepare_recipe(
            recipe,
            overrides or [],
            part=chosen,
            wait=part is None,
            join=join,
            dry_run=dry_run,
        )
    say(report, as_json)


def slice_named(text: str) -> tuple[int, int]:
    """Return the number of a slice, from 0, and the number of slices, of ``I/N``.

    Raises:
        InputError: if the text is not of that form.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})", text)
    if not found or int(found[1]) > int(found[2]):
        raise InputError(f"--slice {text}: write I/N, from 1/N to N/N")
    return int(found[1]) - 1, int(found[2])
