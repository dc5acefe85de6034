"""Provenance in an image's file, complete enough to generate the image again.

Files are identified by their sha256, as ``sha256sum`` prints it, so that another file of the same
name is not mistaken for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from multidiff import __version__
from multidiff.config.option_set import value_as_text
from multidiff.image.stable_diffusion.contents import SAFE, files_of
from multidiff.image.stable_diffusion.folder import INDEX, weight_files
from multidiff.utils.files import file_digest

Facts = dict[str, str]


class Traceable(Protocol):
    """A model with the path it was read from."""

    name: str
    home: Path | None

    @property
    def device(self) -> torch.device:
        """Device that the model computes on."""
        ...


@contextmanager
def model_facts(model: Traceable) -> Iterator[Callable[[], Facts]]:
    """Collect a model's facts: name, hash of its weights, version, torch's version and device.

    The weights, which may be gigabytes, are hashed in a separate thread while the block runs.

    Yields:
        A function that waits for the hash and returns the facts.
    """
    with ThreadPoolExecutor(1) as pool:
        found = None if model.home is None else pool.submit(weights_digest, model.home)

        def facts() -> Facts:
            digest = {} if found is None else {"weights": found.result()}
            versions = {"multidiff": __version__, "torch": torch.__version__.partition("+")[0]}
            return {"model": model.name, **digest, **versions, "device": model.device.type}

        yield facts


def weights_digest(home: Path) -> str:
    """Return the sha256 of a model's weights.

    Args:
        home: folder of the model, or the single file of another project.

    Returns:
        Hash of the file; of several files (a diffusers folder) that of the lines which
        ``sha256sum`` prints in the folder for them, sorted by name.
    """
    if home.is_file():
        return file_digest(home)
    files = weight_files(home) if (home / INDEX).is_file() else sorted(home.glob(f"*{SAFE}"))
    if len(files) == 1:
        return file_digest(files[0])
    names = sorted(file.relative_to(home).as_posix() for file in files)
    lines = [f"{file_digest(home / name)}  {name}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def source_facts(**files: Path | None) -> Facts:
    """Return name and hash of files that an image was generated from, under their keywords."""
    facts: Facts = {}
    for key, path in files.items():
        if path is not None:
            facts |= {key: path.name, f"{key}_sha256": source_digest(path)}
    return facts


def source_digest(path: Path) -> str:
    """Return the sha256 of a file, or of the weights in a component's folder."""
    if not path.is_dir():
        return file_digest(path)
    inner = path / "vae" if (path / "vae").is_dir() else path
    return file_digest(files_of(inner)[0])


def lora_facts(model: Any) -> Facts:
    """Return the LoRAs that are merged into a model: names with weights, and hashes."""
    merged = getattr(model, "loras", [])
    if not merged:
        return {}
    return {
        "lora": " ".join(f"{one.name}:{value_as_text(one.weight)}" for one in merged),
        "lora_sha256": " ".join(one.digest for one in merged),
    }


def embedding_facts(model: Any) -> Facts:
    """Return the textual inversions that were loaded: files with tokens, and hashes."""
    loaded = getattr(model, "embeddings", [])
    if not loaded:
        return {}
    return {
        "embedding": " ".join(f"{one.name}:{one.token}" for one in loaded),
        "embedding_sha256": " ".join(one.digest for one in loaded),
    }
