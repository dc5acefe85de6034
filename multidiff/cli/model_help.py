"""Commands whose options depend on the model: ``multidiff sample MODEL --help`` lists them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import typer

from multidiff.cli.parsing import OncePerOption
from multidiff.utils.errors import InputError

if TYPE_CHECKING:
    from multidiff.utils.report import Report

HELP = "--help"
LAST = ("Output", "Other")
# Parameters of the commands' functions that the command line fills in itself.
TAKEN = {
    "synth": {"model", "inputs", "texts", "out", "seed"},
    "sample": {"model", "num", "prompts", "out", "seed", "on_line"},
    "eval": {"model", "data", "folder", "seed"},
}


class ModelCommand(OncePerOption):
    """A command that adds the options of the model it names, in its help too.

    ``--help`` with a model's name reads the model's recipe; without one nothing heavy is
    imported.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command's arguments, or print the help of the model that they name."""
        if HELP in args:
            values, _, _ = self.make_parser(ctx).parse_args([one for one in args if one != HELP])
            name = self._model_named(values)
            if name is not None:
                self._print_model_help(ctx, name)
                raise typer.Exit
        return super().parse_args(ctx, args)

    def _model_named(self, values: dict[str, Any]) -> str | None:
        """Return the model that the arguments name; for ``synth``, also as the first argument."""
        name = values.get("model")
        inputs = values.get("inputs") or ()
        if not isinstance(name, str) and inputs and not str(inputs[0]).startswith("-"):
            name = inputs[0]
        return name if isinstance(name, str) else None

    def _print_model_help(self, ctx: Any, name: str) -> None:
        from multidiff.config.option_help import help_entries
        from multidiff.models.loading import load_outline

        model = load_outline(name)
        usual = getattr(model, "companions", {})
        group = "Evaluation" if self.name == "eval" else "Inputs"
        command = str(self.name)
        own = [_entry_of(one) for one in self.get_params(ctx) if one.param_type_name == "option"]
        entries = help_entries(verb(model, command), TAKEN[command], model, usual, group)
        print(
            self._formatted(ctx, [*own, *entries], f"Options of {name} ({type(model).__name__}):")
        )

    def _formatted(self, ctx: Any, entries: Iterable[Any], about: str) -> str:
        """Return usage, description and the entries under their headings."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for one in entries:
            groups.setdefault(one.group, []).append((one.name, one.help))
        formatter = ctx.make_formatter()
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(about)
        for heading in sorted(groups, key=lambda name: (name in LAST, name == LAST[-1])):
            with formatter.section(heading):
                formatter.write_dl(groups[heading])
        return formatter.getvalue().rstrip("\n")


def _entry_of(parameter: Any) -> Any:
    """Return the help of an option that the parser itself reads."""
    from multidiff.config.option_help import HelpEntry, default_text

    value = "" if parameter.is_flag else f" {parameter.metavar or 'TEXT'}"
    default = "" if parameter.is_flag or parameter.required else default_text(parameter.default)
    heading = getattr(parameter, "rich_help_panel", None) or LAST[-1]
    return HelpEntry(f"{', '.join(parameter.opts)}{value}", f"{parameter.help}{default}", heading)


def verb(model: Any, name: str) -> Callable[..., Report]:
    """Return the function that a command runs for a kind of model.

    Raises:
        InputError: if the model has no such command.
    """
    from multidiff.config.build import locate
    from multidiff.config.registry import COMMANDS

    kind = type(model).__name__
    if name not in COMMANDS.get(kind, {}):
        raise InputError(f"a {kind} does not {name}; it can {', '.join(COMMANDS.get(kind, {}))}")
    return locate(COMMANDS[kind][name])
