"""Manifest of a folder: the SHA-256 of every file, in a list that verifies itself.

The list is written last, so that a folder without it is incomplete. Its bytes are a function of
its content: any change to the list, to a file that it names, or to their number is detected.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from multidiff.utils.errors import InputError
from multidiff.utils.readers import parse_json, read_text

MANIFEST = "manifest.json"
LAYOUT = 2


def write_manifest(folder: Path) -> None:
    """Write the manifest of a folder's files."""
    files = {file.name: digest_of(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(_rendered(files), "utf-8")


def verified(folder: Path, passed_over: Collection[str] = ()) -> list[str]:
    """Return the names of a folder's files after comparing them with the manifest.

    Args:
        folder: folder with a manifest.
        passed_over: suffixes of files that are neither read nor returned.

    Raises:
        InputError: if the manifest or a file is missing or has changed, naming it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{path}: no such file, so the folder is incomplete; use an older one")
    text = read_text(path)
    content = parse_json(text, path)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or text != _rendered(files):
        raise InputError(
            f"{path}: differs from what was written; copy it again, or use an older one"
        )
    names = [name for name in files if Path(name).suffix not in passed_over]
    for name in names:
        file = folder / name
        if not file.is_file() or digest_of(file) != files[name]:
            fault = "differs from what was written" if file.is_file() else "is missing"
            raise InputError(f"{file}: {fault}; copy it again, or use an older one")
    return names


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rendered(files: dict[str, Any]) -> str:
    own = hashlib.sha256(json.dumps([LAYOUT, files]).encode()).hexdigest()
    return json.dumps({"layout": LAYOUT, "files": files, "sha256": own}, indent=1) + "\n"
