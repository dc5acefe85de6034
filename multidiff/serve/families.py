"""Families of models as the service offers them: their inputs, and how an answer is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from multidiff.config.build import locate
from multidiff.serve.jobs import Event, Job
from multidiff.serve.schemas import Body, Fields
from multidiff.serve.settings import ServerSettings
from multidiff.utils.errors import InputError

# Family of each kind of model.
FAMILIES = {
    "ImageDiffusion": "multidiff.serve.images:DIFFUSION",
    "MaskGIT": "multidiff.serve.images:MASKGIT",
    "MaskedText": "multidiff.serve.texts:MASKED",
    "UniformText": "multidiff.serve.texts:MASKED",
    "TextDiffusion": "multidiff.serve.texts:EMBEDDED",
    "PromptedText": "multidiff.serve.texts:ANSWERS",
    "EditedText": "multidiff.serve.texts:EDITS",
    "AcousticModel": "multidiff.serve.sounds:SPEECH",
    "Vocoder": "multidiff.serve.sounds:VOCODER",
    "JointModel": "multidiff.serve.joint:JOINT",
}


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        route: name in paths.
        about: a line on what it makes.
        inputs: function from a model and the limits to the fields of a request besides seed and
            options.
        make: function that makes the answer to a request; the job receives what is made before.
        media_type: kind of file that it answers with; ``application/json`` for texts.
        network: attribute of the model whose calls can be batched; empty for none.
    """

    route: str
    about: str
    inputs: Callable[[Any, ServerSettings], Fields]
    make: Callable[[Any, Body, Job, ServerSettings], Event]
    media_type: str = "application/json"
    network: str = ""


def family_of(model: Any, name: str) -> Family:
    """Return the family of a model.

    Raises:
        InputError: if the service has none for it.
    """
    kind = type(model).__name__
    if kind not in FAMILIES:
        raise InputError(f"{name}: {kind} generates nothing to serve; name another model")
    return locate(FAMILIES[kind])
