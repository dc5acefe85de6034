"""Experiment trackers: TensorBoard, Weights & Biases and trackio, each with TensorBoard's methods.

accelerate's trackers carry neither sounds nor the identity of a run that is resumed, so the
packages are called directly.
"""

from __future__ import annotations

import html
import importlib
import importlib.util
import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multidiff.training.lr_schedule import check_name
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write
from multidiff.utils.packages import PackageError, needs
from multidiff.utils.readers import read_json, reason_of

logger = logging.getLogger(__name__)

TrackerName = Literal["tensorboard", "wandb", "trackio"]
IDS = "trackers.json"
# A project's name, for those whose own variable names none.
PROJECT = "multidiff"
FIXES = {
    "wandb": "run `wandb login`, or set WANDB_MODE=offline",
    "trackio": "see the trackio documentation",
}


def check_trackers(names: Sequence[str]) -> None:
    """Reject unknown names of trackers, and names given twice.

    Raises:
        ValueError: if one is unknown or repeated.
    """
    for name in names:
        check_name("tracker", name, get_args(TrackerName))
    if len(set(names)) < len(names):
        raise ValueError(f"trackers {', '.join(names)}: one is named twice")


def check_packages(names: Sequence[str]) -> None:
    """Reject trackers whose packages are not installed.

    Raises:
        PackageError: if one is missing, with the command that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            fix = f'pip install "multidiff[{name}]"' if name in FIXES else f"pip install {name}"
            raise PackageError(f"trainer.trackers: needs {name}, which is not installed: {fix}")


class Trackers:
    """Several trackers as one writer with TensorBoard's methods.

    A tracker on the network that fails is reported once and left out: training goes on.

    Args:
        names: names of the trackers.
        folder: folder of the run.
        start: step that the run starts from; from 0 it is a new run for them.
        config: recipe of the run.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, start: int, config: Mapping[str, Any] | None
    ):
        ids = _identities(names, folder / IDS, resumed=start > 0)
        self._writers = {
            name: _tensorboard(folder, start)
            if name == "tensorboard"
            else MediaTracker(name, folder, ids[name], config or {})
            for name in names
        }

    def __getattr__(self, method: str) -> Callable[..., None]:
        able = {name: one for name, one in self._writers.items() if hasattr(one, method)}
        if self._writers and not able:
            raise AttributeError(f"no tracker has a method {method}")

        def call(*args: Any, **kwargs: Any) -> None:
            for name, writer in able.items():
                try:
                    getattr(writer, method)(*args, **kwargs)
                except Exception as error:
                    if name == "tensorboard":
                        raise
                    logger.warning("%s: %s; the run goes on without it", name, reason_of(error))
                    del self._writers[name]

        return call


class MediaTracker:
    """A tracker with the interface of ``wandb``, which trackio has too.

    Args:
        name: package.
        folder: folder of the run, by whose name the tracker lists it.
        identity: identity of the run; with the same one a resumed run continues.
        config: recipe of the run.

    Raises:
        InputError: if the run cannot be opened.
    """

    def __init__(self, name: str, folder: Path, identity: str, config: Mapping[str, Any]):
        with needs(name, "trainer.trackers", f'pip install --upgrade "multidiff[{name}]"'):
            self._package: Any = importlib.import_module(name)
        project = os.environ.get(f"{name.upper()}_PROJECT") or PROJECT
        options: dict[str, Any] = {"project": project, "config": dict(config), "resume": "allow"}
        if name == "wandb":
            options |= {"id": identity, "name": folder.resolve().name, "dir": str(folder)}
        else:  # trackio knows a run by its name
            options["name"] = f"{folder.resolve().name}-{identity}"
        try:
            self._run = self._package.init(**options)
        except Exception as error:
            raise InputError(
                f"trainer.trackers: {name}: {reason_of(error)}; {FIXES[name]}, or remove it"
            ) from error
        self._step = 0

    def _log(self, tag: str, value: Any, step: int) -> None:
        # W&B drops values of earlier steps, such as the originals beside the first previews.
        self._step = max(self._step, step)
        self._run.log({tag: value}, step=self._step)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Log a number."""
        self._log(tag, float(value), step)

    def add_image(self, tag: str, image: Tensor, step: int) -> None:
        """Log an image ``(channels, height, width)``, in [0, 1] or of bytes."""
        self._log(tag, self._package.Image(_picture(image)), step)

    def add_audio(self, tag: str, wave: Tensor, step: int, sample_rate: int) -> None:
        """Log a waveform ``(channels, samples)`` in [-1, 1]."""
        pcm = (wave.detach().float().cpu().clamp(-1, 1) * 32767).round().to(torch.int16)
        sound = pcm.squeeze(0).numpy().T
        self._log(tag, self._package.Audio(sound, sample_rate=sample_rate), step)

    def add_text(self, tag: str, text: str, step: int) -> None:
        """Log a text."""
        markdown = getattr(self._package, "Markdown", None)
        shown = (
            self._package.Html(f"<pre>{html.escape(text)}</pre>")
            if markdown is None
            else markdown(text)
        )
        self._log(tag, shown, step)

    def close(self) -> None:
        """End the run for the tracker."""
        self._run.finish()


def _tensorboard(folder: Path, start: int) -> Any:
    with needs("tensorboard", "the training log"):
        from torch.utils.tensorboard import SummaryWriter  # a second to import

    return SummaryWriter(str(folder / "tensorboard"), purge_step=start)


def _identities(names: Sequence[str], path: Path, resumed: bool) -> dict[str, str]:
    """Return the run's identity for each tracker, new where the run is, and keep it in a file."""
    wanted = [name for name in names if name != "tensorboard"]
    found = read_json(path) if resumed and path.is_file() else {}
    ids = {**found, **{name: uuid.uuid4().hex[:12] for name in wanted if name not in found}}
    if ids != found:
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(ids, indent=1) + "\n", "utf-8")
    return ids


def _picture(image: Tensor) -> Image.Image:
    if image.dtype != torch.uint8:
        image = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    levels: np.ndarray = image.cpu().numpy()
    return Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
