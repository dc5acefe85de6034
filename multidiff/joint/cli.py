"""Commands of joint models."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from multidiff.config.option_set import options_as_text
from multidiff.image.data.image_files import grid, write_image
from multidiff.image.data.provenance import model_facts
from multidiff.joint.model import JointModel
from multidiff.joint.records import Cell
from multidiff.joint.sampling_config import JointSamplingConfig
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write, lock_dir
from multidiff.utils.names import suggestion
from multidiff.utils.report import OnLine, Report

SAMPLES = Path("samples")
MANIFEST, GRID = "manifest.json", "grid.png"
BACKGROUND = 255  # level between the images of a grid


def sample(
    model: JointModel,
    *,
    num: int,
    prompts: Sequence[str] = (),
    out: Path | None = None,
    seed: int = 0,
    sampling: JointSamplingConfig,
    given: list[str] | None = None,
    make: tuple[str, ...] = (),
    keep: list[str] | None = None,
    on_line: OnLine | None = None,
) -> Report:
    """Generate media, with others given: a file each, a line of text each, and one manifest.

    Args:
        model: the model.
        num: number of samples; sample ``i`` uses seed ``seed + i``.
        prompts: must be empty: texts are given by ``--given text=...``.
        out: folder of the samples.
        seed: random seed of the first sample.
        sampling: sampling options.
        given: given media, ``MEDIUM=FILE`` or ``MEDIUM=TEXT``; [MASK] in a text is any word.
        make: media to generate, joined by commas; by default all that are not given.
        keep: ``MEDIUM=FRACTION`` of a given medium, from its beginning (images: from the top),
            that is kept; the rest is generated. Short sounds and texts count as they are, without
            what fills them up to the model's length.
        on_line: function called with each line of the report as soon as it is known.

    Raises:
        InputError: if an option is wrong.
    """
    if prompts:
        raise InputError(f"--prompt: this model has several media; use --given text={prompts[0]!r}")
    folder = SAMPLES if out is None else out
    if folder.suffix or (folder.exists() and not folder.is_dir()):
        raise InputError(f"-o {folder}: several files are written; name a folder")
    sources = _assignments(given or [], "--given", model)
    fractions = {
        name: _fraction(name, text)
        for name, text in _assignments(keep or [], "--keep", model).items()
    }
    cells = {name: Cell(text, f"--given {name}={text}") for name, text in sources.items()}
    with lock_dir(folder), model_facts(model) as facts:
        if (folder / MANIFEST).exists():
            raise InputError(f"{folder}: has samples of an earlier run; name another folder")
        writer = _Writer(model, folder, {**sources}, on_line)
        model.generate(
            cells,
            make,
            num=num,
            keep=fractions,
            seed=seed,
            config=sampling,
            on_batch=lambda first, media: writer.write(first, media, seed),
        )
        return writer.report({**facts(), **options_as_text(sampling)})


def _assignments(words: Sequence[str], option: str, model: JointModel) -> dict[str, str]:
    """Return ``MEDIUM=VALUE`` pairs.

    Raises:
        InputError: if one is no such pair, its medium is unknown, or it is given twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise InputError(f"{option} {word}: write MEDIUM=VALUE, such as {option} image=7.png")
        if name not in [*model.domain]:
            known = suggestion(name, [*model.domain])
            raise InputError(f"{option} {word}: the model has no medium {name!r}: {known}")
        if name in found:
            raise InputError(f"{option} {name}: is given twice but takes one value; keep one")
        found[name] = value
    return found


def _fraction(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"--keep {name}={text}: write a fraction from 0 to 1") from error


class _Writer:
    """Writes samples into a folder as they are generated.

    Args:
        model: the model.
        folder: output folder.
        sources: given media, as the command line has them.
        on_line: function called with each line of the report.
    """

    def __init__(
        self, model: JointModel, folder: Path, sources: dict[str, str], on_line: OnLine | None
    ):
        self.model, self.folder, self.sources, self._on_line = model, folder, sources, on_line
        self.rows: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._images: list[tuple[torch.Tensor, ...]] = []
        self._began = time.perf_counter()

    def write(self, first: int, media: Mapping[str, Sequence[Any]], seed: int) -> None:
        """Write the media of one batch, and a line for each sample."""
        for number, one in enumerate(zip(*media.values(), strict=True), first):
            row: dict[str, Any] = {"sample": number, "seed": seed + number}
            for name, medium in zip(media, one, strict=True):
                stream = self.model.domain[name]
                if stream.ending:
                    row[name] = f"{number:03d}-{name}{stream.ending}"
                    stream.write(medium, self.folder / row[name])
                else:
                    row[name] = str(medium)
            self.rows.append(row)
            self.say(", ".join(str(value) for key, value in row.items() if key in media))
        images = [one for name, one in media.items() if self.model.domain[name].ending == ".png"]
        self._images += zip(*images, strict=True)

    def say(self, line: str) -> None:
        """Add a line to the report, and pass it to ``on_line`` at once."""
        self.lines.append(line)
        if self._on_line is not None:
            self._on_line(line)

    def report(self, facts: dict[str, str]) -> Report:
        """Write texts, a grid of all images and the manifest, and return the command's report."""
        for name in self.model.domain:
            if not self.model.domain[name].ending and self.rows and name in self.rows[0]:
                lines = [f"{row[name]}\n" for row in self.rows]
                with atomic_write(self.folder / f"{name}.txt") as path:
                    path.write_text("".join(lines), "utf-8")
        if self._images:
            write_image(_sheet(self._images), self.folder / GRID)
        seconds = round(time.perf_counter() - self._began, 3)
        content = {**facts, "given": self.sources, "samples": self.rows}
        with atomic_write(self.folder / MANIFEST) as path:
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
        self.say(f"{self.folder / MANIFEST}: {len(self.rows)} samples, {seconds:.1f} s")
        return Report(self.lines, {**content, "wall_seconds": seconds})


def _sheet(samples: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """Return a grid of the images of all samples, those of one sample beside each other.

    Images of several sizes, or grey ones beside coloured ones, are centred in equal cells.
    """
    images = [image for one in samples for image in one]
    shape = [max(sizes) for sizes in zip(*(one.shape for one in images), strict=True)]
    cells = torch.full((len(images), *shape), BACKGROUND, dtype=torch.uint8)
    for cell, image in zip(cells, images, strict=True):
        top, left = ((n - own) // 2 for n, own in zip(shape[1:], image.shape[1:], strict=True))
        cell[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    beside = len(samples[0])
    columns = beside * math.ceil(math.sqrt(len(samples) / beside))
    return grid(cells, columns, background=BACKGROUND)
