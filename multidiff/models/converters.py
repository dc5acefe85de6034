"""Checkpoints of other projects, read by whichever wing knows them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from multidiff.config.options import read_options
from multidiff.config.registry import CONVERTERS
from multidiff.models.weights import Conversion


def convert_weights(source: Path, words: Sequence[str] = ()) -> Conversion | None:
    """The model of a foreign checkpoint; None if no wing knows it.

    Args:
        source: a file or folder.
        words: further options of the wing that knows it.

    Raises:
        InputError: if the checkpoint is known but cannot be used, or an option is wrong.
    """
    for name in CONVERTERS:
        package = importlib.import_module(name)
        if package.knows(source):
            return package.convert(source, **read_options(words, package.convert, {"source"}))
    return None
