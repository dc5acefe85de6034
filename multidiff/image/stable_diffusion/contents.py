"""Contents of model files of unknown origin: tensors, their names, JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import safetensors
from torch import Tensor

from multidiff.image.stable_diffusion import naming
from multidiff.models.moving import read_into_memory
from multidiff.models.weights import (
    NOT_WHOLE,
    check_finite,
    is_pickle,
    read_pickle,
    some,
)
from multidiff.utils.budgets import check_safetensors, refuse_lfs_pointer
from multidiff.utils.errors import InputError
from multidiff.utils.readers import AGAIN, read_json, reading

SAFE = ".safetensors"
UNSAFE = {"/", "\\", "\0"}  # characters rejected in file names that an index lists
LONGEST_NAME = 255
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
# Files that are not Stable Diffusion, recognised by a part of a tensor's name.
STRANGERS = {
    "lora": "a LoRA, which changes a model: pass it to sample with --lora",
    "hada_w1": "a LoHa, which changes a model and is not supported",
    "lokr_w": "a LoKr, which changes a model and is not supported",
    "ip_adapter.": "an IP-Adapter, which is not supported",
    "emb_params": "a textual inversion: pass it to sample with --embedding",
    "conditioner.embedders.0.model.": "the refiner of Stable Diffusion XL, which improves images "
    "of the base model",
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux",
    "control_model.": "a ControlNet",
    "controlnet_cond_embedding.": "a ControlNet",
}


def tensors_in(path: Path, skip: Collection[str] = ()) -> dict[str, Tensor]:
    """Return a file's tensors; of a pickle those in its ``state_dict``, if it has one.

    Args:
        path: the file.
        skip: beginnings of names that are not read.

    Raises:
        InputError: if it is missing, damaged, of another kind, or would run code.
    """
    if path.suffix == SAFE or not (path.is_file() and is_pickle(path)):
        _refuse_disguise(path)
        return read_into_memory(path, skip)[0]
    content = read_pickle(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    items = state.items() if isinstance(state, Mapping) else ()
    return {
        str(name): one
        for name, one in items
        if isinstance(one, Tensor) and not str(name).startswith(tuple(skip))
    }


def weights_in(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a diffusers component.

    Args:
        folder: folder of the component; its weights may be sharded, with an index.

    Raises:
        InputError: if there are none, or they are incomplete or not finite.
    """
    found: dict[str, Tensor] = {}
    for path in files_of(folder):
        tensors = tensors_in(path)
        check_finite(tensors, path)
        found |= tensors
    return found


def files_of(folder: Path) -> list[Path]:
    """Return a component's weight files: full precision and safetensors first.

    Raises:
        InputError: if there are none.
    """
    for variant in ("", ".fp16"):
        for ending in ("safetensors", "bin"):
            for stem in STEMS:
                path = folder / f"{stem}{variant}.{ending}"
                index = folder / f"{stem}.{ending}.index{variant}.json"
                if path.is_file():
                    return [path]
                if index.is_file():
                    return [folder / name for name in parts_of(index)]
    found = sorted(path.name for path in folder.iterdir())
    raise InputError(f"{folder}: has no weights ({some(found)}); download the whole model")


def parts_of(index: Path) -> list[str]:
    """Return the names of the files that an index lists, all in the same folder.

    Args:
        index: index file such as ``model.safetensors.index.json``.

    Raises:
        InputError: if it lists none, or a name points outside its folder.
    """
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise InputError(f"{index}: has no weight_map of tensors to files; {AGAIN}")
    for tensor, name in listed.items():
        if not _is_name_beside(name):
            raise InputError(
                f"{index}: lists {tensor} in {name!r}, which is not a file beside it; {AGAIN}"
            )
    return sorted(set(listed.values()))


def _is_name_beside(name: object) -> bool:
    """Return whether this can be the name of a file in the same folder."""
    if not isinstance(name, str) or not 0 < len(name.encode("utf-8", "replace")) <= LONGEST_NAME:
        return False
    return name not in (".", "..") and not set(name) & UNSAFE


def names_in(path: Path) -> list[str]:
    """Return the names of a file's tensors, without reading safetensors data; none in other files.

    Raises:
        InputError: if it is damaged, or a pickle that would run code or is named safetensors.
    """
    if not path.is_file():
        return []
    if path.suffix != SAFE and is_pickle(path):
        return list(tensors_in(path))
    _refuse_disguise(path)
    refuse_lfs_pointer(path)
    try:
        check_safetensors(path)
        with reading(path, NOT_WHOLE), safetensors.safe_open(path, "pt") as file:
            return list(file.keys())
    except InputError:
        if path.suffix != SAFE:
            return []
        raise


def _refuse_disguise(path: Path) -> None:
    if path.suffix == SAFE and path.is_file() and is_pickle(path):
        raise InputError(
            f"{path}: is a pickle with the name of a safetensors file; if you trust its source, "
            "rename it to .ckpt, and only its tensors will be read"
        )


def stranger(names: Iterable[str]) -> str | None:
    """Return the kind of a file that is often mistaken for Stable Diffusion; None if unknown.

    Args:
        names: names of its tensors.
    """
    names = list(names)
    for piece, what in STRANGERS.items():
        if any(piece in name for name in names):
            return what
    parts = {name.split(".")[0] for name in names}
    if {"encoder", "decoder"} <= parts or parts == {naming.AUTOENCODER.rstrip(".")}:
        return "an autoencoder alone"
    if {"down_blocks", "up_blocks"} <= parts or {"input_blocks", "output_blocks"} <= parts:
        return "a UNet alone"
    return None
