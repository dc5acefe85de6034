"""``multidiff push``: a model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multidiff.cli.arguments import Json, ModelName
from multidiff.cli.parsing import say


def push(
    model: ModelName,
    name: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository; OWNER/NAME@BRANCH: a branch.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Create it as private.")] = False,
    license: Annotated[
        str | None,
        typer.Option(help="Licence, such as apache-2.0; by default the card's."),
    ] = None,
    message: Annotated[str | None, typer.Option(help="Message of the commit.")] = None,
    folder: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the files there instead; no network.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a model to the Hugging Face hub, with a card; the token is that of `hf auth login`."""
    from multidiff.models.hub import check_pushable
    from multidiff.models.hub_model import HubModel
    from multidiff.models.loading import load
    from multidiff.utils.report import Report

    if folder is None:
        check_pushable(name)
    ready: HubModel = load(model)
    if folder is not None:
        ready.save_pretrained(folder, license=license, name=name)
        say(Report([f"{folder}: the files of {name}"], {"output": str(folder)}), as_json)
        return
    made = ready.push_to_hub(name, private=private, license=license, message=message)
    line = f"{made.url}: pushed; this commit is {name.partition('@')[0]}@{made.commit}"
    say(Report([line], {"url": made.url, "commit": made.commit}), as_json)
