"""``multidiff train``: a recipe, or a file of texts and a time."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from multidiff.cli.arguments import CacheDir
from multidiff.cli.parsing import complain, say
from multidiff.utils.devices import environment_number, process_ratio
from multidiff.utils.errors import InputError

CHOSEN = "chosen.yaml"


def train(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe, a YAML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ...")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file of texts, instead of a recipe.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="With --data: time of training.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/NAME by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="From the newest checkpoint.")] = False,
    allow_changed: Annotated[
        list[str] | None,
        typer.Option(help="With --resume: recipe or data, to accept that it changed."),
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Train the model of a recipe, or one for a file of texts; it is written to OUT/model."""
    from multidiff.config.options import refuse_repeated
    from multidiff.models.train import train_recipe

    process_ratio()  # reject a wrong environment here, before libraries read it
    environment_number("LOCAL_RANK", 0)
    if (recipe is None) == (data is None):
        raise InputError("train: give a recipe, or --data FILE with --minutes N")
    if (data is None) != (minutes is None):
        raise InputError("--data FILE and --minutes N: go together; give both")
    if data is not None and minutes is not None:
        if resume or allow_changed:
            raise InputError(f"--resume: goes with the recipe that was chosen, OUT/{CHOSEN}")
        train_on_texts(data, minutes, Path("runs") / Path(data).stem if out is None else out)
        return
    assert recipe is not None
    refuse_repeated(word.partition("=")[0] for word in overrides or ())
    folder = Path("runs") / recipe.stem if out is None else out
    allowed: Collection[str] = allow_changed or []
    report = train_recipe(recipe, overrides or [], out=folder, resume=resume, allow_changed=allowed)
    say(report, as_json=False)


def train_on_texts(data: str, minutes: float, out: Path) -> None:
    """Choose a recipe for a file of texts, train by it, and bound the held-out texts' cost.

    Raises:
        InputError: if the file cannot be read or used, or the folder holds another run.
    """
    import time

    from multidiff.cli.evaluate import measure
    from multidiff.models.train import keep_best_model, seconds_a_step, train_recipe
    from multidiff.text.auto_recipe import chosen, planned, recipe_text
    from multidiff.utils.files import atomic_write

    began = time.monotonic()
    path = out / CHOSEN
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; give a new folder, or train {path} --resume")
    plan = planned(data, minutes)
    complain(_described(plan))
    plan = chosen(plan, lambda text: seconds_a_step(text, str(path)), began)
    with atomic_write(path) as partial:
        partial.write_text(recipe_text(plan), "utf-8")
    width, layers, _ = plan.network
    complain(f"{path}: {layers} blocks of width {width}, {plan.steps} steps")
    say(train_recipe(path, out=out), as_json=False)
    step = keep_best_model(out)
    words = [data, "--num", "0", "--bound", "200"]
    if plan.contents.kind != "running":
        words += ["--column", plan.contents.source.column]
        if plan.contents.source.source_column is not None:
            words += ["--source-column", plan.contents.source.source_column]
        if not plan.contents.source.header:
            words.append("--headless")
    report = measure(str(out), words, 0, "cpu")
    report.lines.insert(0, f"{out}: the model of step {step}, {time.monotonic() - began:.0f} s")
    say(report, as_json=False)


def _described(plan: Any) -> str:
    words = plan.vocabulary
    return (
        f"{plan.contents.source.path}: {plan.contents.kind}, {plan.tokens} tokens by a "
        f"{words.use} of {words.size}; {words.unknown:.2%} of the held-out tokens are UNKNOWN"
    )
