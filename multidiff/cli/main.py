"""The command line: parse, call, print.

Exit status: 0; 2 for errors that the user can fix (one line on stderr, no traceback); 1 for a
bug; 130 on Ctrl-C. Everything heavy is imported inside the commands.
"""

from __future__ import annotations

import functools
import inspect
import io
import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from multidiff import __version__
from multidiff.cli.arguments import (
    BULK,
    Column,
    Count,
    Device,
    EngineName,
    Json,
    ModelName,
    Offload,
    Precision,
    PromptFiles,
    Seed,
    ShardSize,
    is_bulk,
)
from multidiff.cli.export import export
from multidiff.cli.model_help import TAKEN, ModelCommand, verb
from multidiff.cli.parsing import (
    Commands,
    LivePrinter,
    PrintableLines,
    complain,
    say,
    show_warning,
)
from multidiff.cli.prepare import prepare
from multidiff.cli.push import push
from multidiff.cli.serve import serve
from multidiff.cli.synth import synth
from multidiff.cli.train import train
from multidiff.utils.devices import checked_device
from multidiff.utils.errors import InputError, Interrupted
from multidiff.utils.files import REASONS

app = Commands(
    help="Diffusion for image, audio and text on one core.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Options that depend on the model are passed on unparsed.
OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}
# Commands whose options depend on the model, in their help too.
OF_MODEL: Any = {"cls": ModelCommand, "context_settings": OPEN}


def show_version(wanted: bool) -> None:
    """Print the version and exit, if ``--version`` is given."""
    if wanted:
        print(f"multidiff {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=show_version, help="Print it.")
    ] = False,
) -> None:
    """Diffusion for image, audio and text on one core."""


app.command(**OF_MODEL)(synth)


@app.command(**OF_MODEL)
def sample(
    context: typer.Context,
    model: ModelName,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="PATH", help="a folder", rich_help_panel="Output"),
    ] = None,
    num: Count = 1,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="the condition; may be repeated; - reads standard input",
            rich_help_panel="Inputs",
        ),
    ] = None,
    prompt_file: PromptFiles = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Precision = None,
    offload: Offload = False,
    shard_size: ShardSize = None,
    column: Column = None,
    engine: EngineName = "ranks",
    as_json: Json = False,
) -> None:
    """Draw samples from a model.

    `multidiff sample MODEL --help` lists all options of a model with its defaults.
    """
    from multidiff.config.options import read_options, texts_of
    from multidiff.models.loading import load

    if is_bulk(shard_size, column, engine):
        from multidiff.cli.bulk import BulkJob, run_bulk, sample_job

        if dtype is not None or offload:
            raise InputError("--dtype and --offload: do not go with --shard-size; remove either")
        job = BulkJob("sample", model, out, shard_size, column, num, seed, device)
        job = sample_job(job, context.args, prompt or [], prompt_file or [])
        say(run_bulk(job, engine), as_json)
        return
    prompts = texts_of("--prompt", prompt, prompt_file)
    ready = load(model, checked_device(device), dtype=dtype, offload=offload)
    run = verb(ready, "sample")
    usual = getattr(ready, "companions", {})
    options = read_options(
        context.args, run, TAKEN["sample"], lambda name: load(name, device), usual, ready
    )
    live = LivePrinter(goes_on=out is not None or getattr(ready, "writes_files", False))
    if not as_json and "on_line" in inspect.signature(run).parameters:
        options["on_line"] = live
    if not _leaves_seed(context, run):
        options["seed"] = seed
    report = run(ready, num=num, prompts=prompts, out=out, **options)
    say(report, as_json, live.count)


def _leaves_seed(context: typer.Context, run: Any) -> bool:
    """Return whether no seed is given, and the function has its own then, as a repeated image."""
    source = context.get_parameter_source("seed")
    given = source is not None and source.name != "DEFAULT"
    return not given and inspect.signature(run).parameters["seed"].default is None


@app.command("eval", **OF_MODEL)
def evaluate(
    context: typer.Context,
    model: ModelName,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help="Held-out media.")] = None,
    all_checkpoints: Annotated[
        bool,
        typer.Option("--all-checkpoints", help="measure each checkpoint of the run in MODEL"),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="PATH", help="folder of the shards", rich_help_panel=BULK
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    shard_size: ShardSize = None,
    engine: EngineName = "ranks",
    as_json: Json = False,
) -> None:
    """Measure a model, or all checkpoints of a run.

    `multidiff eval MODEL --help` lists all options of a model with its defaults.
    """
    from multidiff.cli.evaluate import measure, measure_checkpoints

    words = [*([] if data is None else [data]), *context.args]  # DATA may follow options
    if is_bulk(shard_size, None, engine):
        from multidiff.cli.bulk import BulkJob, eval_job, run_bulk

        if all_checkpoints:
            raise InputError("--all-checkpoints: does not go with --shard-size; remove either")
        job = BulkJob("eval", model, out, shard_size, "", seed=seed, device=device)
        say(run_bulk(eval_job(job, words), engine), as_json)
        return
    if out is not None:
        raise InputError(f"-o {out}: only bulk work writes a folder; add --shard-size")
    run_on = measure_checkpoints if all_checkpoints else measure
    say(run_on(model, words, seed, checked_device(device)), as_json)


app.command()(train)
app.command()(prepare)
app.command()(export)
app.command()(push)
app.command()(serve)


@app.command()
def check(
    recipes: Annotated[
        list[str], typer.Argument(help="Recipes (YAML files); key.path=value changes all of them.")
    ],
    skip_data: Annotated[
        bool, typer.Option("--skip-data", help="Do not require the data to exist.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Also run one training step of each, without a GPU.")
    ] = False,
    gpu: Annotated[
        str | None, typer.Option(help="GPU that a dry run estimates for, by default h200.")
    ] = None,
    mfu: Annotated[
        float | None,
        typer.Option(help="Fraction of the GPU's peak that is reached, by default 0.35."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a dry run's costs as a table.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find everything wrong in recipes without reading data or running anything.

    With --dry-run, which needs no data, also print the cost of training them.
    """
    from multidiff.cli.check import check_recipes
    from multidiff.utils.report import Report

    described = check_recipes(
        recipes,
        data=not skip_data,
        dry_run=dry_run,
        gpu=gpu,
        mfu=mfu,
        markdown=markdown,
        show=None if as_json else (lambda lines: say(Report(lines))),
    )
    say(described, as_json)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that come with the package."""
    from multidiff.models.shipped import shipped_table

    say(shipped_table(), as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check the installation: versions, devices, optional parts, shipped models."""
    from multidiff.cli.doctor import examine

    say(examine(), as_json)


@app.command(context_settings=OPEN)
def convert(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A foreign checkpoint, or a folder of ours.")],
    destination: Annotated[Path, typer.Argument(help="Folder of the new model.")],
    half: Annotated[bool, typer.Option("--half", help="Write float16, half the size.")] = False,
    base: Annotated[
        str | None, typer.Option(help="Model it started from: write only the difference.")
    ] = None,
    bits: Annotated[
        int | None, typer.Option(help="Bits for each number of the difference (4).")
    ] = None,
    posthoc_ema: Annotated[
        float | None,
        typer.Option(
            metavar="SIGMA_REL",
            help="Average the weights of a run with this relative width, from its snapshots.",
        ),
    ] = None,
) -> None:
    """Convert a checkpoint, of another project or of a run, to a model.

    Options of the source's kind come last. Stable Diffusion: --prediction epsilon or
    v, --tokenizer FOLDER, --ema; from a model of ours: --to diffusers or single-file.
    """
    from multidiff.models.convert import convert_checkpoint

    made = convert_checkpoint(source, destination, half, context.args, base, bits, posthoc_ema)
    say(made, as_json=False)


# ------------------------------------------------------------------------- printing


def main() -> None:
    """Run the program ``multidiff``."""
    # File names need not be text that the terminal can show.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableLines("multidiff: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    warnings.showwarning = show_warning
    sys.exit(run(sys.argv[1:]))


# The parser's exception for wrong options: the common parent of its exceptions, which typer
# does not export.
ParserError: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


@functools.cache
def _parser() -> Any:
    """Return the parser of all commands, made once for a process that runs several."""
    return typer.main.get_command(app)


def run(arguments: list[str]) -> int:
    """Run a command and return its exit status."""
    try:
        status = _parser()(arguments, prog_name="multidiff", standalone_mode=False)
    except InputError as fault:
        complain(str(fault))
        return 2
    except FloatingPointError as fault:  # NotFiniteError of the core, which is not imported here
        complain(str(fault))
        return 2
    except OSError as fault:  # a path or disk error, wherever it is raised
        if fault.errno not in REASONS:
            raise
        complain(f"{fault.filename or 'a file'}: {REASONS[fault.errno]}; fix that, or name another")
        return 2
    except ImportError as fault:  # a package that is missing or incompatible
        from multidiff.utils.packages import unimportable

        complain(unimportable(fault))
        return 2
    except typer.Exit as end:
        return end.exit_code
    except ParserError as fault:
        complain(fault.format_message())
        return 2
    except Interrupted as stop:
        complain(str(stop))
        return 128 + stop.number
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return int(status or 0)


if __name__ == "__main__":
    main()
