"""Bodies of requests, derived from the options of the families: one list of options for all."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import ConfigDict, Field

from multidiff.config.option_set import Option, OptionSet, options_in
from multidiff.serve.settings import ServerSettings

SEED = (
    int,
    Field(0, ge=-(2**63), le=2**63 - 1, description="random seed; equal seeds, equal answers"),
)
# Options of which a service allows less than the command line: memory, or time within one step.
MOST = {
    "feather": 32,
    "num_candidates": 16,
    "beam": 16,
    "revision_beams": 16,
    "projections": 64,
    "final_projections": 64,
}
Fields = Mapping[str, tuple[Any, Any]]


class Body(pydantic.BaseModel):
    """Base of all requests: unknown names and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @property
    def set_values(self) -> dict[str, Any]:
        """Return what the client has set, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def body_of(name: str, inputs: Fields, sampling: OptionSet) -> type[Body]:
    """Return the class of a model's requests: inputs, a seed, and each option of its sampling.

    Args:
        name: name of the class.
        inputs: type and field of each input.
        sampling: the model's own options, which are the defaults.
    """
    options = option_fields(sampling, options_in(type(sampling)))
    return pydantic.create_model(name, __base__=Body, **{**inputs, "seed": SEED, **options})


def option_fields(options: OptionSet, names: Iterable[str]) -> Fields:
    """Return some of a set's options as fields, whose defaults are its values."""
    hints, known = typing.get_type_hints(type(options)), options_in(type(options))
    return {
        name: _field(known[name], hints[name], getattr(options, name), MOST.get(name))
        for name in names
    }


def options_from(body: Body, sampling: OptionSet) -> Any:
    """Return a model's options with those of a request in their place."""
    known = options_in(type(sampling))
    return sampling.replace(**{k: v for k, v in body.set_values.items() if k in known})


def text_field(description: str, settings: ServerSettings, default: Any = "") -> tuple[Any, Any]:
    """Return a text of bounded length."""
    kind = str if default is not None else str | None
    if default is ...:
        return (Annotated[str, Field(min_length=1)], _text(description, settings, ...))
    return (kind, _text(description, settings, default))


def file_field(description: str, settings: ServerSettings, default: Any = None) -> tuple[Any, Any]:
    """Return a file's bytes in base64."""
    most = 4 * settings.max_bytes // 3
    kind = str if default is ... else str | None
    about = f"{description}, in base64"
    return (kind, Field(default, max_length=most, description=about))


def _text(description: str, settings: ServerSettings, default: Any) -> Any:
    return Field(default, max_length=settings.max_characters, description=description)


def _field(about: Option, hint: Any, default: Any, most: int | None) -> tuple[Any, Any]:
    """Return an option as a field: its range and choices are those of the command line."""
    text = about.help + (f" ({about.note})" if about.note else "")
    if about.choices:
        hint = Literal[about.choices]  # pyright: ignore[reportInvalidTypeForm]
        return (hint, Field(default, description=text))
    bounds = {"ge": about.least, "gt": about.above, "le": most or about.most}
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    return (hint, Field(default, description=text, **bounds))  # type: ignore[arg-type]


def one_line(error: pydantic.ValidationError | Any) -> str:
    """Return the first fault of a request as a line: where, what is wrong, what was given."""
    found = error.errors()[0]
    where = ".".join(str(one) for one in found["loc"] if one != "body") or "the body"
    reason = found["msg"]
    reason = reason if reason[1:2].isupper() else reason[:1].lower() + reason[1:]
    given = found.get("input")
    simple = isinstance(given, str | int | float | bool | None) and found["type"] != "missing"
    return f"{where}: {reason}" + (f", got {given!r:.60}" if simple else "")
