"""Textual inversion: learned embeddings as new tokens of a prompt (Gal et al. 2022).

A file has one or several vectors. Several become the tokens ``<t>``, ``<t>_1``, .., and ``<t>`` in
a prompt stands for all of them. Three forms are read: diffusers' ``{"<t>": vectors}``,
``{"emb_params": vectors}`` whose token is the file's name, and the pickle of stable-diffusion-webui
with ``string_to_param`` and ``name``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multidiff.image.tokenizers import ClipTokenizer
from multidiff.models.weights import check_finite, is_pickle, read_pickle, read_tensors, some
from multidiff.utils.errors import InputError
from multidiff.utils.files import file_digest

PARAMS, WEBUI = "emb_params", "string_to_param"
WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2"}


@dataclass(frozen=True)
class Embedded:
    """An embedding that a model's prompts may name.

    Attributes:
        token: its name in prompts.
        count: number of its vectors.
        name: file name.
        digest: sha256 of the file.
    """

    token: str
    count: int
    name: str
    digest: str


def load_embedding(model: Any, path: Path, token: str | None = None) -> Embedded:
    """Add an embedding to a model's tokenizer and text encoder, in memory.

    Loaded embeddings are listed in ``model.embeddings``.

    Args:
        model: model with CLIP's tokenizer and text encoder.
        path: the file.
        token: name in prompts; by default that in the file, or the file's.

    Raises:
        InputError: if it is no embedding, is of another model, or its token is a word already.
    """
    domain = getattr(model, "domain", None)
    tokenizer = getattr(domain, "tokenizer", None)
    encoder: Any = getattr(domain, "text_encoder", None)
    if not hasattr(encoder, "transformer") or not isinstance(tokenizer, ClipTokenizer):
        raise InputError(
            f"--embedding {path}: this model has no text encoder of Stable Diffusion 1 or 2"
        )
    own, vectors = read_embedding(path)
    if vectors.shape[1] != encoder.width:
        raise InputError(
            f"{path}: its vectors have {vectors.shape[1]} numbers"
            f"{_of(vectors.shape[1])}, the model's tokens {encoder.width}{_of(encoder.width)}"
        )
    token = own if token is None else token
    numbers = tokenizer.add(token, len(vectors), path)
    _set_rows(encoder, numbers, vectors)
    found = Embedded(token, len(vectors), path.name, file_digest(path))
    vars(model).setdefault("embeddings", []).append(found)
    return found


def _of(width: int) -> str:
    return f" ({WIDTHS[width]})" if width in WIDTHS else ""


def read_embedding(path: Path) -> tuple[str, Tensor]:
    """Return a file's token and its vectors, ``(count, width)``.

    Raises:
        InputError: if the file is of another kind, or its values are not finite.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content: Any = read_pickle(path) if is_pickle(path) else read_tensors(path)[0]
    found = content if isinstance(content, Mapping) else {}
    if {"clip_l", "clip_g"} & set(found):
        raise InputError(f"{path}: is a textual inversion of Stable Diffusion XL, not 1 or 2")
    token = path.stem
    if isinstance(found.get(WEBUI), Mapping):
        token = str(found.get("name") or token)
        found = found[WEBUI]
    tensors = {str(name): one for name, one in found.items() if isinstance(one, Tensor)}
    vectors = next(iter(tensors.values())) if len(tensors) == 1 else None
    if vectors is None or vectors.ndim not in (1, 2) or not vectors.is_floating_point():
        shown = some([str(name) for name in found]) or "nothing"
        raise InputError(f"{path}: is no textual inversion; it has {shown}")
    check_finite(tensors, path)
    name = next(iter(tensors))
    token = token if name in (PARAMS, "*") else name
    return token, vectors.detach().float().reshape(-1, vectors.shape[-1])


def _set_rows(encoder: Any, numbers: list[int], vectors: Tensor) -> None:
    """Set rows of the table of tokens, longer by the new ones."""
    table = encoder.transformer.embeddings.token_embedding
    old = table.weight
    rows = torch.zeros(max(numbers[-1] + 1, len(old)), old.shape[1]).to(old)
    rows[: len(old)] = old.detach()
    rows[numbers] = vectors.to(old)
    longer = nn.Embedding(len(rows), rows.shape[1], _weight=rows).requires_grad_(old.requires_grad)
    encoder.transformer.embeddings.token_embedding = longer
