"""Checkpoints: written atomically, the last few kept, damaged ones skipped.

A checkpoint is a folder ``checkpoints/00012000`` that holds the whole run: safetensors files of
weights, moving average and optimizer moments; ``state.json`` with the step and the other numbers;
``run.json`` with the resolved recipe, the fingerprints of the data and the changes that were
allowed; the recipe and every asset of the model, such as its vocabulary; and a manifest with
the SHA-256 of each (see :mod:`multidiff.utils.manifest`). ``checkpoints/best`` is one that is never
deleted. The folder is written under another name
and renamed, so a killed process or a full disk leaves the older ones intact.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from multidiff.models.weights import read_tensors, save_tensors
from multidiff.training.record import Record
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write_dir, lock_dir
from multidiff.utils.leftovers import sweep, temporary_name
from multidiff.utils.manifest import MANIFEST, verified, write_manifest
from multidiff.utils.readers import read_json, read_text, reading

logger = logging.getLogger(__name__)
Found = TypeVar("Found")
_claims = threading.local()

BEST = "best"  # name of the checkpoint of the best validation, which is never deleted
STATE, RECORD = "state.json", "run.json"
WEIGHTS = ".safetensors"
OWN = {STATE, RECORD, MANIFEST}  # the others are a model's


@dataclass
class Checkpoint:
    """State of a run that training resumes from.

    Attributes:
        step: number of steps done.
        tensors: named tensors by file stem ("model", "ema", "optimizer").
        numbers: everything that is not a tensor, as JSON values.
        texts: further files, such as the resolved recipe.
        record: recipe and data of the run.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    numbers: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    record: Record = field(default_factory=lambda: Record({}, {}))


class OldLayoutError(InputError):
    """A checkpoint that an older version wrote."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Lock a run's folder against other runs, and remove leftovers of killed ones.

    The lock is reentrant within a thread: a command takes it for all its work, and the trainer
    that it calls takes it for its own part.

    Raises:
        InputError: if another run has the lock, or the system refuses it.
    """
    mine: set[Path] = _claims.__dict__.setdefault("folders", set())
    key = folder.resolve()
    if key in mine:
        yield
        return
    with lock_dir(folder):
        mine.add(key)
        try:
            for where in (folder, folder / "checkpoints"):
                sweep(where)
            yield
        finally:
            mine.discard(key)


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: folder of the run.
        keep: number of newest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int = 3):
        self.folder, self.keep = folder / "checkpoints", keep

    def save(self, checkpoint: Checkpoint, name: str | None = None) -> Path:
        """Write a checkpoint, then delete those beyond the number to keep.

        Args:
            checkpoint: state to write.
            name: name of a checkpoint that is never deleted, only replaced; its step if None.

        Raises:
            InputError: if the system refuses; the older checkpoints remain.
        """
        path = self.path_of(checkpoint.step, name)
        with atomic_write_dir(path) as partial:
            for stem, tensors in checkpoint.tensors.items():
                save_tensors(tensors, partial / f"{stem}.safetensors")
            for name, text in checkpoint.texts.items():
                (partial / name).write_text(text, "utf-8")
            state = {"step": checkpoint.step, "numbers": checkpoint.numbers}
            (partial / STATE).write_text(json.dumps(state, indent=1) + "\n", "utf-8")
            (partial / RECORD).write_text(checkpoint.record.to_json(), "utf-8")
            write_manifest(partial)
        for old in self.paths()[: -self.keep]:
            doomed = old.with_name(temporary_name(old.name))
            old.rename(doomed)  # so that a partly deleted checkpoint is never visible
            shutil.rmtree(doomed)
        return path

    def path_of(self, step: int, name: str | None = None) -> Path:
        """Return the folder of a checkpoint, by its step or its name."""
        return self.folder / (name or f"{step:08d}")

    def paths(self) -> list[Path]:
        """Return the existing checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.name.isdigit())

    def named(self) -> list[Path]:
        """Return the checkpoints that are never deleted."""
        return [path for path in [self.folder / BEST] if path.is_dir()]

    def newest(self) -> Checkpoint:
        """Return the newest intact checkpoint; damaged ones are reported and skipped.

        Raises:
            InputError: if there are no intact checkpoints, or one has an older layout.
        """
        return self._first_whole(read)

    def assets(self) -> Path:
        """Return the path of the newest checkpoint whose files besides the weights are intact.

        Raises:
            InputError: if there are no intact checkpoints, or one has an older layout.
        """

        def checked(path: Path) -> Path:
            check(path, passed_over=(WEIGHTS,))
            return path

        return self._first_whole(checked)

    def record(self) -> Record:
        """Return the recipe and data of the run, as recorded in the newest checkpoint.

        Raises:
            InputError: if there are no intact checkpoints, or one has an older layout.
        """
        return read_record(self.assets())

    def _first_whole(self, take: Callable[[Path], Found]) -> Found:
        for path in reversed(self.paths()):
            try:
                return take(path)
            except OldLayoutError:
                raise
            except InputError as damage:
                logger.warning("skipped a damaged checkpoint: %s", damage)
        raise InputError(f"{self.folder}: has no intact checkpoint; train without --resume")


def check(path: Path, passed_over: Collection[str] = ()) -> list[str]:
    """Return the names of a checkpoint's files after comparing their digests.

    Args:
        path: folder of the checkpoint.
        passed_over: suffixes of files that are not checked.

    Raises:
        InputError: if a file is missing or differs from its digest, naming it.
    """
    if (path / STATE).is_file() and not (path / MANIFEST).is_file() and _is_old(path / STATE):
        raise OldLayoutError(
            f"{path}: was written by an older version of multidiff, without {MANIFEST}; continue "
            "with that version, or train again into a new folder"
        )
    return verified(path, passed_over)


def _is_old(state: Path) -> bool:
    """Return whether a state file holds the digests, as it did before manifests existed."""
    with suppress(InputError):
        return "sha256" in read_json(state)
    return False


def read(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        InputError: if a file is missing or differs from its digest, naming it.
    """
    names = check(path)
    state = read_json(path / STATE)
    with reading(path / STATE, "is not a state of a run"):
        step, numbers = int(state["step"]), dict(state["numbers"])
    record = read_record(path)
    weights = [name for name in names if name.endswith(WEIGHTS)]
    tensors = {Path(name).stem: read_tensors(path / name)[0] for name in weights}
    texts = {name: read_text(path / name) for name in names if name not in {*weights, *OWN}}
    return Checkpoint(step, tensors, numbers, texts, record)


def read_record(path: Path) -> Record:
    """Return the recipe and data of a checkpoint's run.

    Raises:
        InputError: if the file is not a run record.
    """
    text = read_text(path / RECORD)
    with reading(path / RECORD, "is not a record of a run"):
        return Record.from_json(text)


def checkpoint_of(run: Path, name: int | str | None) -> Path:
    """Return the folder of a run's checkpoint.

    Args:
        run: folder of the run, or of a checkpoint if no name is given.
        name: step of the checkpoint, or "best"; the newest one if None.

    Raises:
        InputError: if there is no such checkpoint.
    """
    if name is None and (run / STATE).is_file():
        return run
    folder = CheckpointFolder(run)
    found = {path.name: path for path in [*folder.named(), *folder.paths()]}
    if name is None and found:
        return [*found.values()][-1]
    wanted = str(name)
    wanted = f"{int(wanted):08d}" if wanted.isdecimal() else wanted
    if wanted in found:
        return found[wanted]
    known = f"it has {', '.join(sorted(found))}" if found else "name a run's folder"
    what = "checkpoints" if name is None else f"checkpoint {name}"
    raise InputError(f"{run}: has no {what}; {known}")
