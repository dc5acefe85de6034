"""Arguments shared by several commands, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multidiff.data.cache import use_cache_dir

MOST_SAMPLES = 1_000_000

Count = Annotated[
    int,
    typer.Option(
        "-n",
        min=1,
        max=MOST_SAMPLES,
        metavar="INTEGER",
        help="number of samples of each prompt",
        rich_help_panel="Output",
    ),
]
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
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="precision of large networks: float32 (the default), float16, bfloat16, or auto for "
        "that of the file",
    ),
]
Offload = Annotated[
    bool,
    typer.Option(
        "--offload", help="move each part of the model to the device only when its turn comes"
    ),
]
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
