"""Checkpoints: whole or not there, the last few kept, damaged ones passed over.

A checkpoint is a folder ``checkpoints/00012000`` of safetensors files and a ``state.json``
that holds the step and the SHA-256 of every file beside it. The folder is written under
another name and renamed, so a killed process or a full disk leaves the older ones as they
were.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.errors import InputError
from multidiff.files import folder_written_whole, parsed_json
from multidiff.weights import read_tensors, save_tensors

logger = logging.getLogger(__name__)

STATE = "state.json"


@dataclass
class Checkpoint:
    """What training needs to go on.

    Attributes:
        step: steps done.
        tensors: by file stem ("model", "ema", "optimizer"), named tensors.
        numbers: everything that is not a tensor, as JSON holds it.
        texts: further files, such as the resolved recipe.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    numbers: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: of the run.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int = 3):
        self.folder, self.keep = folder / "checkpoints", keep

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then drop those beyond the number kept.

        Raises:
            InputError: if the system refuses; the older checkpoints are still there.
        """
        path = self.folder / f"{checkpoint.step:08d}"
        with folder_written_whole(path) as partial:
            for stem, tensors in checkpoint.tensors.items():
                save_tensors(tensors, partial / f"{stem}.safetensors")
            for name, text in checkpoint.texts.items():
                (partial / name).write_text(text)
            state = {
                "step": checkpoint.step,
                "numbers": checkpoint.numbers,
                "sha256": {file.name: digest(file) for file in sorted(partial.iterdir())},
            }
            (partial / STATE).write_text(json.dumps(state, indent=1))
        for old in self.paths()[: -self.keep]:
            shutil.rmtree(old)
        return path

    def paths(self) -> list[Path]:
        """The checkpoints there are, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.name.isdigit())

    def newest(self) -> Checkpoint:
        """The newest checkpoint that is whole; damaged ones are reported and passed over.

        Raises:
            InputError: if there is none.
        """
        for path in reversed(self.paths()):
            try:
                return read(path)
            except InputError as damage:
                logger.warning("passed over a damaged checkpoint: %s", damage)
        raise InputError(f"{self.folder}: holds no whole checkpoint; train without --resume")


def read(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        InputError: if a file is missing or is not what was written.
    """
    try:
        state = parsed_json((path / STATE).read_text())
        step, numbers, digests = int(state["step"]), dict(state["numbers"]), dict(state["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / STATE}: cannot be read ({error})") from error
    for name, wanted in digests.items():
        if not (path / name).is_file() or digest(path / name) != wanted:
            raise InputError(f"{path / name}: missing or not what was written")
    weights = [name for name in digests if name.endswith(".safetensors")]
    tensors = {Path(name).stem: read_tensors(path / name)[0] for name in weights}
    texts = {name: (path / name).read_text() for name in digests if name not in weights}
    return Checkpoint(step, tensors, numbers, texts)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
