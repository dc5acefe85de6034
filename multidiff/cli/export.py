"""``multidiff export``: a model's network as a program for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multidiff.cli.arguments import Json, ModelName
from multidiff.cli.parsing import say


def export(
    model: ModelName,
    destination: Annotated[Path, typer.Argument(help="File to write, .pt2.")],
    as_json: Json = False,
) -> None:
    """Write a model's network as a program of torch.export, compared with the model."""
    from multidiff.models.loading import load
    from multidiff.models.program import export_program

    say(export_program(load(model), destination), as_json)
