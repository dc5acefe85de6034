"""Stable Diffusion 1.x and 2.x in one file, by the names of CompVis and Stability AI.

Nothing but the tensors says what the model is: channels, layers and widths are read from their
shapes. What shapes cannot tell is as in the published models, and a model of ours that differs
is not written so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from multidiff.errors import InputError
from multidiff.image import key_maps as maps
from multidiff.image.key_tensors import as_convolutions, as_matrices, packed, unpacked
from multidiff.image.stable_diffusion_recipe import (
    SCHEDULE,
    Words,
    check_input,
    some,
    zero_terminal,
)
from multidiff.image.stable_diffusion_shapes import (
    autoencoder_words,
    schedule_of,
    text_words,
    unet_words,
)
from multidiff.weights import is_pickle, read_pickle, read_tensors

# What published files hold besides, of no use here: the schedule's tables, the discriminator
# of the autoencoder's training, and of OpenCLIP what reads a caption as a whole.
PASSED_OVER = (
    *("betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_", "logvar"),
    *("lvlb_weights", "scale_factor", "model_ema.", "v_pred", "ztsnr"),
    maps.AUTOENCODER + "loss.",
    *(maps.OPEN_CLIP + name for name in ("text_projection", "logit_scale", "attn_mask")),
    *(f"cond_stage_model.{name}" for name in ("text_projection", "logit_scale")),
)
# What else a file may be, by a piece of a name in it.
STRANGERS = {
    "lora": "a LoRA, which is merged into a model",
    "hada_w1": "a LoHa, which is merged into a model",
    "conditioner.embedders.": "Stable Diffusion XL",
    "model.diffusion_model.label_emb.": "Stable Diffusion XL or another that reads labels",
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux",
    "control_model.": "a ControlNet",
    "controlnet_cond_embedding.": "a ControlNet",
}
NEEDED = (
    ("UNet", maps.UNET),
    ("autoencoder", maps.AUTOENCODER),
    ("text encoder", maps.CLIP, maps.OPEN_CLIP),
)


def names_in(path: Path) -> list[str] | None:
    """The names of a file's tensors, without reading these; None if it is no file of tensors.

    Raises:
        InputError: if it is a pickle that would run code or poses as safetensors.
    """
    if not path.is_file():
        return None
    if is_pickle(path):
        return list(_pickled(path))
    try:
        with safetensors.safe_open(path, "pt") as file:
            return list(file.keys())
    except safetensors.SafetensorError:
        return None


def _pickled(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        raise InputError(
            f"{path}: is a pickle by the name of safetensors; if you trust where it comes from, "
            "call it .ckpt to have its tensors read, and nothing else"
        )
    content = read_pickle(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    items = state.items() if isinstance(state, Mapping) else ()
    return {str(name): one for name, one in items if isinstance(one, Tensor)}


def stranger(names: Iterable[str]) -> str | None:
    """What a file is that is often taken for Stable Diffusion; None if none of those known."""
    names = list(names)
    for piece, what in STRANGERS.items():
        if any(piece in name for name in names):
            return what
    parts = {name.split(".")[0] for name in names}
    if ("encoder" in parts and "decoder" in parts) or parts == {maps.AUTOENCODER[:-1]}:
        return "an autoencoder alone"
    if {"down_blocks", "up_blocks"} <= parts or {"input_blocks", "output_blocks"} <= parts:
        return "a UNet alone"
    return None


def read_single_file(
    path: Path, predicts: str | None = None, ema: bool = False
) -> tuple[Words, dict[str, Tensor]]:
    """A file's model in a recipe's words, and its tensors by our names.

    Args:
        path: the file.
        predicts: noise or velocity, which shapes do not tell.
        ema: take the moving average of the UNet.

    Raises:
        InputError: if it is another model, or holds or lacks tensors, named in the message.
    """
    state = _pickled(path) if is_pickle(path) else read_tensors(path)[0]
    other = stranger(state)
    if other is not None:
        raise InputError(f"{path}: is {other}; what is read is Stable Diffusion 1 or 2, whole")
    kept = unpacked(_kept(path, state))
    if ema:
        kept |= _averaged(path, kept, state)
    try:
        pairs = maps.file_map(kept)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    tensors, unknown = maps.sorted_out(kept, maps.turned(pairs))
    if unknown:
        raise InputError(f"{path}: holds what is no part of Stable Diffusion: {some(unknown)}")
    tensors = as_matrices(tensors)
    try:
        words = _words(path, tensors, state, predicts)
    except KeyError as missing:
        raise InputError(f"{path}: lacks {maps.renamed(missing.args[0], pairs)}") from missing
    lacking = [maps.renamed(name, pairs) or name for name in words.names() if name not in tensors]
    if lacking:
        raise InputError(f"{path}: lacks {some(lacking)}; copy or download it again")
    return words, tensors


def _kept(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that make the model, the text encoder's by the names of older files."""
    kept: dict[str, Tensor] = {}
    beyond = f"{maps.OPEN_CLIP}transformer.resblocks.{maps.OPEN_CLIP_LAYERS}."
    bare = maps.CLIP.removesuffix("text_model.")
    for name, tensor in state.items():
        if name.startswith((*PASSED_OVER, beyond)) or name.endswith("position_ids"):
            continue
        if name.startswith(bare) and not name.startswith(maps.CLIP):
            name = maps.CLIP + name.removeprefix(bare)
        kept[name] = tensor
    for what, *prefixes in NEEDED:
        if not any(name.startswith(tuple(prefixes)) for name in kept):
            raise InputError(f"{path}: holds no {what}; all of Stable Diffusion is needed")
    return kept


def _averaged(
    path: Path, kept: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    names = {maps.UNET + name: maps.averaged_name(name) for name in maps.within(maps.UNET, kept)}
    lacking = [name for name in names.values() if name not in state]
    if lacking:
        raise InputError(f"{path}: holds no moving average: lacks {some(lacking)}; leave --ema out")
    return {name: state[averaged] for name, averaged in names.items()}


# ------------------------------------------------------------------------------- words


def _words(
    path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], predicts: str | None
) -> Words:
    text = text_words(tensors, any(name.startswith(maps.OPEN_CLIP) for name in state))
    autoencoder, denoiser = autoencoder_words(tensors), unet_words(tensors)
    check_input(path, denoiser["in_channels"], autoencoder["latent_channels"])
    is_second = text["activation"] == "gelu"
    if "v_pred" in state:
        predicts = predicts or "velocity"
    if predicts is None and is_second:
        raise InputError(
            f"{path}: is Stable Diffusion 2, whose tensors do not tell what it predicts: give "
            "--predicts noise (512-base) or --predicts velocity (768)"
        )
    schedule, is_zero = schedule_of(state.get("betas")), "ztsnr" in state
    denoiser["time_steps"] = schedule.get("steps", len(schedule.get("betas", ())))
    return Words(
        denoiser,
        autoencoder,
        text,
        zero_terminal(schedule) if is_zero else schedule,
        predicts or "noise",
        pad=0 if is_second else text["vocabulary"] - 1,
        size=(768, 768) if is_second and predicts == "velocity" else (512, 512),
        grid="trailing" if is_zero else "leading",
    )


# ----------------------------------------------------------------------------- writing


def single_file(model: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's tensors by CompVis' names.

    Args:
        model: the model's section of its resolved recipe.
        tensors: the model's.

    Raises:
        InputError: if the model is anything that such a file does not tell.
    """
    text = model["domain"]["text_encoder"]
    is_open_clip = text["activation"] == "gelu"
    read = Words(
        unet_words(tensors), autoencoder_words(tensors), text_words(tensors, is_open_clip),
        dict(SCHEDULE), model["process"]["predicts"], 0,
    )  # fmt: skip
    for ours, others, name in (
        (model["denoiser"], read.denoiser, "denoiser"),
        (model["domain"]["autoencoder"], read.autoencoder, "autoencoder"),
        (text, read.text_encoder, "text_encoder"),
        (model["process"]["schedule"], read.schedule, "schedule"),
    ):
        for key, value in others.items():
            if key != "upcast" and ours.get(key) != value:
                raise InputError(
                    f"{name}: {key} is {ours.get(key)}, where readers of single files take "
                    f"{value}: write it with --to diffusers"
                )
    pairs = maps.model_map(tensors, is_open_clip)
    written, unknown = maps.sorted_out(as_convolutions(tensors), pairs)
    if unknown:
        raise InputError(f"a single file has no place for {some(unknown)}")
    return packed(written)
