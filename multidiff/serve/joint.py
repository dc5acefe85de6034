"""Several media of one model behind the service: any given, any made."""

from __future__ import annotations

import base64
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import Field

from multidiff.joint.records import Cell
from multidiff.serve.families import Family
from multidiff.serve.jobs import DONE, Event, Job
from multidiff.serve.schemas import Fields, options_from
from multidiff.serve.settings import ServerSettings
from multidiff.serve.sound_uploads import BoundedSound
from multidiff.serve.uploads import bytes_from, image_from
from multidiff.utils.errors import InputError


def _inputs(model: Any, settings: ServerSettings) -> Fields:
    media = [*model.domain]
    given = f"given media by name ({', '.join(media)}): texts, and files in base64"
    return {
        "given": (dict[str, str], Field({}, max_length=len(media), description=given)),
        "make": (
            list[str],
            Field([], max_length=len(media), description="media to make; all others by default"),
        ),
        "keep": (
            dict[str, float],
            Field({}, max_length=len(media), description="fraction of a given medium that is kept"),
        ),
    }


def _cell(model: Any, name: str, value: str, settings: ServerSettings) -> Cell:
    """Return a given medium: a text, or the bytes of a file; never a path."""
    if name not in [*model.domain]:
        raise InputError(f"given {name}: the model's media are {', '.join(model.domain)}")
    ending, where = model.domain[name].ending, f"given {name}"
    if not ending:
        if len(value) > settings.max_characters:
            raise InputError(f"{where}: {settings.max_characters} characters at most here")
        return Cell(value, where)
    content = bytes_from(where, value)
    if ending == ".png":
        image_from(where, value, settings, model.domain[name].domain.channels)
    elif ending == ".wav":
        BoundedSound(content, where, settings.max_seconds).check()
    return Cell(content, where)


def _made(model: Any, body: Any, job: Job, settings: ServerSettings) -> Event:
    given = {name: _cell(model, name, one, settings) for name, one in body.given.items()}
    config = options_from(body, model.sampling)
    job.check()
    made = model.generate(given, body.make, num=1, keep=body.keep, seed=body.seed, config=config)
    answer: dict[str, Any] = {"seed": body.seed, "model": model.name}
    with TemporaryDirectory() as folder:
        for name, (medium,) in made.items():
            stream = model.domain[name]
            if not stream.ending:
                answer[name] = str(medium)
                continue
            path = Path(folder) / f"medium{stream.ending}"
            stream.write(medium, path)
            answer[name] = base64.b64encode(path.read_bytes()).decode()
    return Event(DONE, answer)


JOINT = Family("joint", "Make media, with others given.", _inputs, _made, network="denoiser")
