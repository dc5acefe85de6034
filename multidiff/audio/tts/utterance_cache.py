"""Prepared utterances on disk, so that mels and durations are made once."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multidiff.audio.tts.utterance import SpokenUtterance
from multidiff.models.weights import read_tensors, save_tensors
from multidiff.utils.files import atomic_write

logger = logging.getLogger(__name__)

# Raised whenever the same recordings and texts are prepared in another way.
VERSION = 2


def cached(
    folder: Path | None, made_of: Any, prepared: Callable[[], list[SpokenUtterance]]
) -> list[SpokenUtterance]:
    """Return prepared utterances, from a file where one was written before.

    Args:
        folder: folder of the files; nothing is kept where None.
        made_of: all that the utterances depend on, as plain values.
        prepared: makes them.
    """
    if folder is None:
        return prepared()
    key = json.dumps([VERSION, made_of], sort_keys=True)
    path = folder / f"utterances-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    if not path.is_file():
        logger.warning("recordings are prepared once, into %s", path)
        found = prepared()
        _write(path, found)
        return found
    return _read(path)


def _write(path: Path, utterances: Sequence[SpokenUtterance]) -> None:
    lines = [
        {"name": one.name, "speaker": one.speaker, "phones": one.phones, "frames": len(one.mel)}
        for one in utterances
    ]
    tensors = {
        "mel": torch.from_numpy(np.concatenate([one.mel for one in utterances])),
        "durations": torch.from_numpy(np.concatenate([one.durations for one in utterances])),
    }
    with atomic_write(path) as partial:
        save_tensors(tensors, partial, {"utterances": json.dumps(lines)})


def _read(path: Path) -> list[SpokenUtterance]:
    tensors, notes = read_tensors(path)
    mel, durations = tensors["mel"].numpy(), tensors["durations"].numpy()
    found, frame, position = [], 0, 0
    for line in json.loads(notes["utterances"]):
        frames, count = line["frames"], len(line["phones"].split())
        found.append(
            SpokenUtterance(
                line["name"],
                line["speaker"],
                line["phones"],
                mel[frame : frame + frames],
                durations[position : position + count],
            )
        )
        frame, position = frame + frames, position + count
    return found
