"""Conversion of foreign checkpoints by the modality package that recognises them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from multidiff.config.options import read_options
from multidiff.config.registry import CONVERTERS
from multidiff.models.weights import Conversion


def convert_weights(source: Path, words: Sequence[str] = ()) -> Conversion | None:
    """Convert a foreign checkpoint to a model; return None if no converter recognises it.

    Args:
        source: a file or folder.
        words: further options of the converter that recognises it.

    Raises:
        InputError: if the checkpoint is recognised but cannot be used, or an option is wrong.
    """
    for name in CONVERTERS:
        package = importlib.import_module(name)
        if package.knows(source):
            return package.convert(source, **read_options(words, package.convert, {"source"}))
    return None
