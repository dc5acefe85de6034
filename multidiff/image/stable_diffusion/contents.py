"""What a file holds, without knowing more of it: tensors, their names, JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors
from torch import Tensor

from multidiff.image.stable_diffusion import naming
from multidiff.models.weights import (
    NOT_WHOLE,
    check_finite,
    is_pickle,
    read_pickle,
    read_tensors,
    some,
)
from multidiff.utils.budgets import check_safetensors, refuse_lfs_pointer
from multidiff.utils.errors import InputError
from multidiff.utils.readers import AGAIN, read_json, reading

SAFE = ".safetensors"
UNSAFE = {"/", "\\", "\0"}  # in the name of a file that an index lists
LONGEST_NAME = 255
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
# What a file may be besides Stable Diffusion, by a piece of a name in it.
STRANGERS = {
    "lora": "a LoRA, which changes a model: give it to sample by --lora",
    "hada_w1": "a LoHa, which changes a model and is not read",
    "conditioner.embedders.": "Stable Diffusion XL",
    "model.diffusion_model.label_emb.": "Stable Diffusion XL or another that reads labels",
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux",
    "control_model.": "a ControlNet",
    "controlnet_cond_embedding.": "a ControlNet",
}


def tensors_in(path: Path) -> dict[str, Tensor]:
    """A file's tensors; of a pickle those in its ``state_dict``, if it has one.

    Raises:
        InputError: if there is no such file, it is damaged or of another kind, or would run code.
    """
    if path.suffix == SAFE or not (path.is_file() and is_pickle(path)):
        _refuse_disguise(path)
        return read_tensors(path)[0]
    content = read_pickle(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    items = state.items() if isinstance(state, Mapping) else ()
    return {str(name): one for name, one in items if isinstance(one, Tensor)}


def weights_in(folder: Path) -> dict[str, Tensor]:
    """The tensors of a component of diffusers.

    Args:
        folder: the component's; its files may be parts, told by an index.

    Raises:
        InputError: if it holds none, or they are not whole or no numbers.
    """
    found: dict[str, Tensor] = {}
    for path in files_of(folder):
        tensors = tensors_in(path)
        check_finite(tensors, path)
        found |= tensors
    return found


def files_of(folder: Path) -> list[Path]:
    """Return the files of a component's weights: whole precision and safetensors first.

    Raises:
        InputError: if it holds none.
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
    raise InputError(f"{folder}: holds no weights ({some(found)}); download the model whole")


def parts_of(index: Path) -> list[str]:
    """Return the names of the files that an index lists, which all lie beside it.

    Args:
        index: such as ``model.safetensors.index.json``.

    Raises:
        InputError: if it lists none, or a name leads out of its folder.
    """
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise InputError(f"{index}: has no weight_map of tensors to files; {AGAIN}")
    for tensor, name in listed.items():
        if not _is_name_beside(name):
            raise InputError(
                f"{index}: says that {tensor} is in {name!r}, which is no file beside it; {AGAIN}"
            )
    return sorted(set(listed.values()))


def _is_name_beside(name: object) -> bool:
    """Return whether this can be the name of a file in the same folder."""
    if not isinstance(name, str) or not 0 < len(name.encode("utf-8", "replace")) <= LONGEST_NAME:
        return False
    return name not in (".", "..") and not set(name) & UNSAFE


def names_in(path: Path) -> list[str]:
    """The names of a file's tensors, in safetensors without reading these; none in other files.

    Raises:
        InputError: if it is damaged, or a pickle that would run code or poses as safetensors.
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
            f"{path}: is a pickle by the name of safetensors; if you trust where it comes from, "
            "call it .ckpt to have its tensors read, and nothing else"
        )


def stranger(names: Iterable[str]) -> str | None:
    """What a file is that is often taken for Stable Diffusion; None if none of those known.

    Args:
        names: of its tensors.
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
