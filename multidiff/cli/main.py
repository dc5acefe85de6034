"""The command line: parse, call, print.

Exit status: 0; 2 for what the user can mend (one line on stderr, no traceback); 1 for a
fault of ours; 130 on Ctrl-C. Everything heavy is imported inside the commands.
"""

from __future__ import annotations

import inspect
import io
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multidiff import __version__
from multidiff.cli.parsing import (
    Commands,
    LivePrinter,
    PrintableLines,
    complain,
    say,
    show_warning,
)
from multidiff.utils.devices import checked_device, environment_number, process_ratio
from multidiff.utils.errors import InputError, Interrupted
from multidiff.utils.files import REASONS

if TYPE_CHECKING:
    from multidiff.utils.report import Report

app = Commands(
    help="Diffusion for image, audio and text on one core.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelName = Annotated[
    str, typer.Argument(help="A shipped model, a folder, a hub id, or a foreign checkpoint.")
]
Steps = Annotated[int | None, typer.Option(help="Network evaluations.")]
Sampler = Annotated[str | None, typer.Option(help="ddpm, ddim, heun or dpm++.")]
Seed = Annotated[int, typer.Option(min=-(2**63), max=2**63 - 1, help="Of the noise.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, last.")]
PromptFiles = Annotated[
    list[str] | None, typer.Option(help="A file of prompts, one a line; may be repeated.")
]
MOST_SAMPLES = 1_000_000
# Options that the model's own wing adds travel as unread arguments.
OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}


def show_version(wanted: bool) -> None:
    """Print the version and end, where ``--version`` is given."""
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


@app.command()
def synth(
    inputs: Annotated[
        list[Path] | None, typer.Argument(help="Sound or mel files, folders.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Text to speak; may be repeated. - reads stdin."),
    ] = None,
    text_file: Annotated[
        list[str] | None,
        typer.Option(help="A file of texts: one a line with a folder as OUT, else one in all."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="A sound file, or a folder.")] = ...,  # type: ignore[assignment]
    model: Annotated[
        str | None, typer.Option(help="Voice of texts (kathleen) or vocoder of inputs (speech).")
    ] = None,
    steps: Steps = None,
    sampler: Sampler = None,
    seed: Seed = 0,
    mel_scale: Annotated[
        str | None,
        typer.Option(
            help="Scale of mel files that state none: natural, log10, decibels, linear, preset, "
            "range:LOW:HIGH:FROM:TO, standard:MEAN:STD, times:FACTOR:OFFSET."
        ),
    ] = None,
    mel_preset: Annotated[
        str | None, typer.Option(help="Preset that made mel files which state none.")
    ] = None,
    speaker: Annotated[str | None, typer.Option(help="Voice of a model that has several.")] = None,
    speed: Annotated[float | None, typer.Option(help="Of texts: 2 speaks twice as fast.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of texts: noise that sampling starts from.")
    ] = None,
    dictionary: Annotated[
        Path | None, typer.Option(help="Of texts: a file of words and their IPA phones.")
    ] = None,
    save_mel: Annotated[Path | None, typer.Option(help="Of texts: write the mels too.")] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Make speech from text, from mel spectrograms, or from recordings by way of their mels."""
    from multidiff.config.options import texts_of
    from multidiff.models.loading import load

    texts = texts_of("--text", text, text_file)
    if bool(inputs) == bool(texts):
        raise InputError("give INPUT files, or --text, and not both")
    common = {"steps": steps, "sampler": sampler, "seed": seed}
    of_mels = {"mel_scale": mel_scale, "mel_preset": mel_preset}
    of_texts = {"speaker": speaker, "speed": speed, "temperature": temperature}
    of_texts |= {"dictionary": dictionary, "save_mel": save_mel}
    strange = of_mels if texts else of_texts
    for name, value in strange.items():
        if value is not None:
            kind = "INPUT files" if texts else "--text"
            raise InputError(f"--{name.replace('_', '-')} {value}: goes with {kind} alone")
    ready = load(model or ("kathleen" if texts else "speech"), checked_device(device))
    run = verb(ready, "synth")
    if ("texts" in inspect.signature(run).parameters) != bool(texts):
        raise InputError(f"--model {model}: {'speaks no text' if texts else 'reads only text'}")
    if texts:
        say(run(ready, texts, out, **common, **of_texts), as_json)
    else:
        say(run(ready, inputs, out, **common, **of_mels, ratio=process_ratio()), as_json)


@app.command(context_settings=OPEN)
def sample(
    context: typer.Context,
    model: ModelName,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A folder.")] = None,
    num: Annotated[
        int, typer.Option("-n", min=1, max=MOST_SAMPLES, help="Samples for each prompt.")
    ] = 1,
    prompt: Annotated[
        list[str] | None, typer.Option(help="The condition; may be repeated. - reads stdin.")
    ] = None,
    prompt_file: PromptFiles = None,
    steps: Steps = None,
    sampler: Sampler = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Scale; 1 is off.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Draw samples from a model; its wing may add options of its own."""
    from multidiff.config.options import read_options, texts_of
    from multidiff.models.loading import load

    prompts = texts_of("--prompt", prompt, prompt_file)
    ready = load(model, checked_device(device))
    run = verb(ready, "sample")
    common = {"steps": steps, "sampler": sampler, "guidance_scale": guidance_scale, "seed": seed}
    taken = {*common, "model", "num", "prompts", "out", "on_line"}
    usual = getattr(ready, "companions", {})
    own = read_options(context.args, run, taken, lambda name: load(name, device), usual)
    live = LivePrinter(goes_on=out is not None or getattr(ready, "writes_files", False))
    if not as_json and "on_line" in inspect.signature(run).parameters:
        own["on_line"] = live
    say(run(ready, num=num, prompts=prompts, out=out, **common, **own), as_json, live.count)


@app.command("eval", context_settings=OPEN)
def evaluate(
    context: typer.Context,
    model: ModelName,
    data: Annotated[str | None, typer.Argument(help="Held-out media.")] = None,
    steps: Steps = None,
    sampler: Sampler = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Measure a model; its wing may add options of its own."""
    from multidiff.config.options import read_options
    from multidiff.models.loading import home_of, load

    ready = load(model, checked_device(device))
    run = verb(ready, "eval")
    common = {"steps": steps, "sampler": sampler, "seed": seed}
    words = list(context.args)
    if data is not None and data.startswith("--"):  # an option that the parser took for DATA
        words, data = [data, *words], None
    taken = {*common, "model", "data", "folder"}
    own = read_options(words, run, taken, lambda name: load(name, device))
    say(run(ready, data, home_of(model), **common, **own), as_json)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.path=value ...")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/NAME where not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="From the newest checkpoint.")] = False,
    allow_changed: Annotated[
        list[str] | None,
        typer.Option(help="With --resume: recipe or data, if a change of it is meant."),
    ] = None,
) -> None:
    """Train what a recipe says; the model comes to lie in OUT/model."""
    from multidiff.config.options import refuse_repeated
    from multidiff.models.train import train_recipe

    process_ratio()  # the environment is refused here, before libraries read it
    environment_number("LOCAL_RANK", 0)
    refuse_repeated(word.partition("=")[0] for word in overrides or ())
    folder = Path("runs") / recipe.stem if out is None else out
    allowed = allow_changed or []
    report = train_recipe(recipe, overrides or [], out=folder, resume=resume, allow_changed=allowed)
    say(report, as_json=False)


@app.command()
def check(
    recipes: Annotated[
        list[str], typer.Argument(help="Recipes, YAML files; key.path=value changes them all.")
    ],
    skip_data: Annotated[
        bool, typer.Option("--skip-data", help="The data need not be there yet.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Also run one training step of each, on no GPU.")
    ] = False,
    gpu: Annotated[str, typer.Option(help="GPU that time and memory are of.")] = "h200",
    mfu: Annotated[float, typer.Option(help="Share of the GPU's peak that is reached.")] = 0.35,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table.")] = False,
    as_json: Json = False,
) -> None:
    """Find everything wrong in recipes without reading data or running anything.

    With --dry-run, which needs no data, also print what training them takes.
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
    from multidiff.models.loading import shipped_table

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
    destination: Annotated[Path, typer.Argument(help="Folder of the model to be.")],
    half: Annotated[bool, typer.Option("--half", help="Write float16, half the size.")] = False,
) -> None:
    """Turn a checkpoint, of another project or of a run, into a model.

    What the source's kind needs besides comes last. Stable Diffusion: --prediction epsilon or
    v, --tokenizer FOLDER, --ema; from a model of ours: --to diffusers or single-file.
    """
    from multidiff.models.convert import convert_checkpoint

    say(convert_checkpoint(source, destination, half, context.args), as_json=False)


# ------------------------------------------------------------------------- printing


def verb(model: Any, name: str) -> Callable[..., Report]:
    """What the model's wing does under a command.

    Raises:
        InputError: if it does nothing of the sort.
    """
    from multidiff.config.build import locate
    from multidiff.config.registry import COMMANDS

    kind = type(model).__name__
    if name not in COMMANDS.get(kind, {}):
        raise InputError(f"a {kind} does not {name}; it knows {', '.join(COMMANDS.get(kind, {}))}")
    return locate(COMMANDS[kind][name])


def main() -> None:
    """The program ``multidiff``."""
    # Names of files need not be text that the terminal can show.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableLines("multidiff: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    warnings.showwarning = show_warning
    sys.exit(run(sys.argv[1:]))


# What the parser raises about wrong options: the parent of all its kinds, which typer does
# not export.
ParserError: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def run(arguments: list[str]) -> int:
    """Run a command; returns its exit status."""
    try:
        status = app(arguments, prog_name="multidiff", standalone_mode=False)
    except InputError as fault:
        complain(str(fault))
        return 2
    except OSError as fault:  # of a path or a disk, wherever the system refuses it
        if fault.errno not in REASONS:
            raise
        complain(
            f"{fault.filename or 'a file'}: {REASONS[fault.errno]}; mend that, or name another"
        )
        return 2
    except ImportError as fault:  # a package that is missing or does not fit the others
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
