"""Files of CLIP's tokenizer, which belong to a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from multidiff.image.tokenizers import MERGES, VOCABULARY
from multidiff.utils.readers import read_json, read_text, reading

BEGIN_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"


def tokenizer_files(folder: Path) -> dict[str, str]:
    """Return ``vocab.json`` and ``merges.txt`` of a folder, by name; empty if it has none.

    Newer programs write ``tokenizer.json`` instead, which holds both.

    Raises:
        InputError: if they cannot be read.
    """
    paths = [folder / VOCABULARY, folder / MERGES]
    whole = folder / "tokenizer.json"
    if all(path.is_file() for path in paths):
        read_json(paths[0])
        return {path.name: read_text(path) for path in paths}
    if not whole.is_file():
        return {}
    content = read_json(whole)
    with reading(whole, "has no vocabulary and merges of a byte-pair encoding"):
        model = content["model"]
        merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
        vocabulary = json.dumps(model["vocab"], ensure_ascii=False)
    return {VOCABULARY: vocabulary, MERGES: "\n".join(["#version: 0.2", *merges, ""])}


def number_of(token: str, files: Mapping[str, str], otherwise: int) -> int:
    """Return a token's number in the vocabulary, or a default.

    Args:
        token: the token's text in the vocabulary.
        files: files of the tokenizer; may be empty.
        otherwise: number if it is not found.
    """
    with reading(VOCABULARY, "is not a vocabulary of tokens and their numbers"):
        return int(json.loads(files.get(VOCABULARY, "{}")).get(token, otherwise))
