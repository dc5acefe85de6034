"""Arguments shared by several commands, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeGuard

import typer

from multidiff.data.cache import use_cache_dir
from multidiff.utils.devices import process_ratio
from multidiff.utils.errors import InputError

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

BULK = "Bulk work"
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
ShardSize = Annotated[
    int | None,
    typer.Option(
        "--shard-size",
        min=1,
        metavar="N",
        help="bulk work: a folder of OUT for every N items of a list, each written whole; those "
        "that exist are skipped",
        rich_help_panel=BULK,
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="column of the items in a list of .jsonl or .parquet; text by default",
        rich_help_panel=BULK,
    ),
]
EngineName = Annotated[
    Literal["ranks", "ray"],
    typer.Option(
        metavar="NAME",
        help="who makes the shards: ranks, the processes of a launcher, or ray, a cluster",
        rich_help_panel=BULK,
    ),
]


def is_bulk(shard_size: int | None, column: str | None, engine: str) -> TypeGuard[int]:
    """Return whether a command works on a list in shards, as ``--shard-size`` asks for.

    Raises:
        InputError: if another option, or a launcher of several processes, needs it.
    """
    if shard_size is not None:
        return True
    for option, given in (("--column", column), ("--engine", engine)):
        if given not in (None, "ranks"):
            raise InputError(f"{option} {given}: goes with --shard-size, such as --shard-size 100")
    count = process_ratio()[1]
    if count > 1:
        raise InputError(
            f"WORLD_SIZE={count}: several processes share work in shards; add --shard-size, such "
            "as --shard-size 100"
        )
    return False
