"""``multidiff synth``: speech from text, mel spectrograms or recordings."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer

from multidiff.cli.arguments import (
    Column,
    Device,
    EngineName,
    Json,
    Precision,
    Seed,
    ShardSize,
    is_bulk,
)
from multidiff.cli.model_help import TAKEN, verb
from multidiff.cli.parsing import say
from multidiff.utils.devices import checked_device
from multidiff.utils.errors import InputError


def synth(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Sound or mel files, folders."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="text to speak; may be repeated; - reads standard input",
            rich_help_panel="Inputs",
        ),
    ] = None,
    text_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="file of texts: one per line if OUT is a folder, else one text in all",
            rich_help_panel="Inputs",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            *("-o", "--out"),
            metavar="PATH",
            help="a sound file, or a folder",
            rich_help_panel="Output",
        ),
    ] = ...,  # type: ignore[assignment]
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="voice for texts (kathleen) or vocoder for inputs (speech)",
            rich_help_panel="Inputs",
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Precision = None,
    shard_size: ShardSize = None,
    column: Column = None,
    engine: EngineName = "ranks",
    as_json: Json = False,
) -> None:
    """Make speech from text, from mel spectrograms, or from recordings via their mels.

    `multidiff synth --model MODEL --help` lists the options of sampling too.
    """
    from multidiff.config.options import read_options, texts_of
    from multidiff.models.loading import load

    if is_bulk(shard_size, column, engine):
        if dtype is not None:
            raise InputError("--dtype: does not go with lists and shards; remove it")
        from multidiff.cli.bulk import BulkJob, run_bulk, synth_job

        voice = model or ("kathleen" if text_file else "speech")
        job = BulkJob("synth", voice, out, shard_size, column, seed=seed, device=device)
        say(run_bulk(synth_job(job, inputs or [], text or [], text_file or []), engine), as_json)
        return
    texts = texts_of("--text", text, text_file)
    has_inputs = bool(inputs) and not (inputs or [""])[0].startswith("--")
    if has_inputs == bool(texts) and (has_inputs or not inputs):
        raise InputError("give INPUT files, or --text, and not both")
    ready = load(model or ("kathleen" if texts else "speech"), checked_device(device), dtype=dtype)
    run = verb(ready, "synth")
    if ("texts" in inspect.signature(run).parameters) != bool(texts):
        raise InputError(f"--model {model}: {'speaks no text' if texts else 'reads only text'}")
    files: list[str] = []
    options = read_options(inputs or [], run, TAKEN["synth"], owner=ready, positionals=files)
    if bool(files) == bool(texts):
        raise InputError("give INPUT files, or --text, and not both")
    say(run(ready, texts or [Path(one) for one in files], out, seed=seed, **options), as_json)
