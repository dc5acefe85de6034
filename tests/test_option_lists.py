"""One list of options for each family: recipe, command line, help and Python read the same."""

import ast
import functools
import inspect
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import complains, does

import multidiff
from multidiff.audio.tts.sampling_config import SpeechSamplingConfig
from multidiff.audio.vocoder.inference_schedule import VocoderSamplingConfig
from multidiff.cli.main import app, verb
from multidiff.cli.model_help import TAKEN
from multidiff.config.build import check_section
from multidiff.config.option_help import argument_help, default_text
from multidiff.config.option_set import OptionSet, option, options_in
from multidiff.config.options import options_of, read_options
from multidiff.config.recipe import parse
from multidiff.config.registry import COMMANDS
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.maskgit.sampling_config import MaskGITSamplingConfig
from multidiff.models.loading import load_outline, shipped
from multidiff.text.diffuser.sampling_config import EditSamplingConfig
from multidiff.text.sampling_config import MaskedTextSamplingConfig, TextSamplingConfig
from multidiff.utils.errors import InputError

PACKAGE = Path(multidiff.__file__).parent
FAMILIES = (
    ImageSamplingConfig, MaskGITSamplingConfig, TextSamplingConfig, MaskedTextSamplingConfig,
    EditSamplingConfig, SpeechSamplingConfig, VocoderSamplingConfig,
)  # fmt: skip


@dataclass(frozen=True)
class Sampling(OptionSet):
    steps: int = option(4, "number of steps", least=1, most=9)
    scale: float = option(1.0, "a scale", least=0, note="1 is off")
    share: float = option(0.5, "a share", above=0, most=1)
    name: str = option("one", "a name", choices=("one", "two"))


def taker(*, sampling: Sampling, words: list[str] = [], loud: bool = False):  # noqa: B006
    """Take options.

    Args:
        sampling: options of sampling.
        words: words of any number, such as
            ``a``; may be repeated.
        loud: be loud.
    """


class Owner:
    sampling = Sampling(7, name="two")


# ------------------------------------------------------------------------------- one class


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("steps", 0, "from 1 to 9"),
        ("steps", 10, "from 1 to 9"),
        ("scale", -1.0, "0 or more; 1 is off"),
        ("share", 0.0, "above 0, up to 1"),
        ("name", "three", "expected one of one, two"),
    ],
)
def test_recipe_command_line_and_python_refuse_in_the_same_words(name, value, reason):
    line = f"--{name} {value:g}: {reason}" if isinstance(value, float) else (
        f"--{name} {value}: {reason}"
    )  # fmt: skip
    with pytest.raises(InputError, match=f"^{re.escape(line)}$"):
        Sampling(**{name: value})
    with pytest.raises(InputError, match=f"^{re.escape(line)}$"):
        read_options([f"--{name}", str(value)], taker, (), owner=Owner())
    recipe = parse(f"model:\n  use: Sampling\n  {name}: {value}\n", "r.yaml")
    parts = check_section(recipe, {"model": Sampling}, {"Sampling": f"{__name__}:Sampling"})
    with pytest.raises(InputError, match=f"^r.yaml:1: {re.escape(line)}$"):
        parts["model"].build()


@pytest.mark.parametrize("value", [math.nan, math.inf, "2", None, True])
def test_values_of_other_kinds_are_refused(value):
    with pytest.raises(InputError, match="--scale"):
        Sampling(scale=value)


def test_single_options_replace_those_of_the_model():
    new = Owner.sampling.replace(steps=2, scale=None)
    assert new == Sampling(2, name="two") and new.overrides == {"steps": 2}
    assert new.replace(scale=3.0).overrides == {"steps": 2, "scale": 3.0}
    assert Owner.sampling.overrides == {} == Sampling().replace().overrides
    with pytest.raises(TypeError, match="no option 'step'; did you mean steps"):
        Sampling().replace(step=3)
    with pytest.raises(TypeError, match="no option 'x'; expected one of steps, scale, share, name"):
        Sampling().replace(x=3)


def test_options_of_a_set_are_options_of_the_command():
    words = ["--steps", "3", "first", "--words", "a", "--loud", "second"]
    rest = []
    found = read_options(words, taker, (), owner=Owner(), positionals=rest)
    assert found == {"sampling": Sampling(3, name="two"), "words": ["a"], "loud": True}
    assert found["sampling"].overrides == {"steps": 3} and rest == ["first", "second"]
    with pytest.raises(InputError, match="--step: no such option here; did you mean --steps"):
        read_options(["--step", "3"], taker, ())
    assert argument_help(taker)["words"] == "words of any number, such as a; may be repeated"


# ----------------------------------------------------------------------------- every model


outlined = functools.cache(load_outline)


def commands():
    for name in shipped():
        kind = type(outlined(name)).__name__
        yield from ((name, one) for one in ("synth", "sample", "eval") if one in COMMANDS[kind])


def listed(text):
    """The options of a help text, in their order, and the default of each that has one."""
    entries = re.split(r"\n  (?=-)", text)[1:]
    names = [re.findall(r"(?:^|, )(--?[a-z][a-z-]*)", one.split("  ")[0])[-1] for one in entries]
    flat = [" ".join(one.split()) for one in entries]
    shown = [re.search(r"\[default: ([^\]]*)\]", one) for one in flat]
    return names, {n: one[1] for n, one in zip(names, shown, strict=True) if one}


@pytest.mark.parametrize(("name", "command"), [*commands()])
def test_help_lists_every_option_once_with_its_default(capsys, name, command):
    named = [name] if command != "synth" else ["--model", name]
    names, defaults = listed(does(capsys, command, *named, "--help"))
    model = outlined(name)
    run = verb(model, command)
    own = read_by_parser(command)
    assert len(names) == len({*names})
    options = options_of(run, TAKEN[command], model)
    assert {*names} == own | {f"--{one}" for one in {*options.flags, *options.from_files}}
    for one in {*names} - own:  # each is taken: what is lacking is its value, if anything
        flag = options.kinds.get(options.flags.get(one.removeprefix("--"))) is bool
        if not flag:
            with pytest.raises(InputError, match=f"{one}: needs a value"):
                read_options([one], run, TAKEN[command], owner=model)
    samples = "sampling" in inspect.signature(run).parameters  # bounds alone need no options of it
    held = getattr(model, "sampling", None) if samples else None
    for field in () if held is None else options_in(type(held)):
        shown, one = default_text(getattr(held, field)), f"--{field.replace('_', '-')}"
        assert (defaults[one] in shown) if shown else one not in defaults, field
    described = argument_help(run)
    assert {one for one in inspect.signature(run).parameters if one not in TAKEN[command]} <= {
        *described
    }, "an option has no help in the docstring"


def read_by_parser(command):
    """The options that the parser reads itself, by their longest names."""
    import typer

    group = typer.main.get_command(app)
    params = group.commands[command].params  # pyright: ignore
    return {max(one.opts, key=len) for one in params if one.param_type_name == "option"} | {
        "--help"
    }


def test_help_without_a_model_lists_no_options_of_models(capsys):
    for command in ("synth", "sample", "eval"):
        assert "--steps" not in does(capsys, command, "--help")
    assert "no model 'nowhere'" in complains(capsys, "sample", "nowhere", "--help")


def test_no_list_of_options_is_repeated():
    """Functions take the config; none but its check takes the guidance scale by itself."""
    guided = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = {one.arg for one in every}
                guided += [node.name] * ("guidance_scale" in names)
                for family in FAMILIES:
                    shared = names & {*options_in(family)}
                    assert len(shared) <= 3, f"{path}:{node.lineno} {node.name}: {shared}"
    assert guided == ["check_guidance"]
