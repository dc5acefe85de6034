"""Arguments shared by several commands, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multidiff.data.cache import use_cache_dir

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A shipped model, a folder, a hub id, or a foreign checkpoint."
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=-(2**63),
        max=2**63 - 1,
        metavar="INTEGER",
        help="random seed of the first sample; sample i uses seed + i",
        rich_help_panel="Sampling",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1 ...")]
Json = Annotated[
    bool,
    typer.Option("--json", help="print one JSON object on stdout, last", rich_help_panel="Output"),
]
PromptFiles = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="file of prompts, one per line; may be repeated",
        rich_help_panel="Inputs",
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="FOLDER",
        callback=use_cache_dir,
        help="Folder of prepared data; by default MULTIDIFF_CACHE_DIR, or the user's cache.",
    ),
]
