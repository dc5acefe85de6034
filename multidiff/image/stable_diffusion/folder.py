"""Stable Diffusion 1.x and 2.x as a folder of the diffusers library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.contents import files_of, weights_in
from multidiff.image.stable_diffusion.recipe import SCALING, Words, check_input, zero_terminal
from multidiff.image.stable_diffusion.schedulers import as_stable_diffusion, rescales, sampling_of
from multidiff.image.stable_diffusion.tensors import (
    as_matrices,
    modern_attention,
    without_clip_prefix,
)
from multidiff.image.stable_diffusion.tokenizer_files import END_OF_TEXT, number_of, tokenizer_files
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_json, reading

INDEX = "model_index.json"
COMPONENTS = ("unet", "vae", "text_encoder", "scheduler")
# Our key, theirs, and the default of theirs.
UNET_KEYS = (
    ("in_channels", "in_channels", 4),
    ("out_channels", "out_channels", 4),
    ("channels", "block_out_channels", (320, 640, 1280, 1280)),
    ("layers", "layers_per_block", 2),
    ("condition_width", "cross_attention_dim", 1280),
    ("linear_projection", "use_linear_projection", False),
    ("upcast", "upcast_attention", False),
    ("groups", "norm_num_groups", 32),
    ("norm_eps", "norm_eps", 1e-5),
    ("dropout", "dropout", 0.0),
    ("flip_sin_to_cos", "flip_sin_to_cos", True),
    ("freq_shift", "freq_shift", 0),
)
AUTOENCODER_KEYS = (
    ("image_channels", "in_channels", 3),
    ("channels", "block_out_channels", (64,)),
    ("layers", "layers_per_block", 1),
    ("latent_channels", "latent_channels", 4),
    ("scaling", "scaling_factor", SCALING),
    ("groups", "norm_num_groups", 32),
)
TEXT_ENCODER_KEYS = (
    ("vocabulary", "vocab_size", 49408),
    ("width", "hidden_size", 512),
    ("feed_forward", "intermediate_size", 2048),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 8),
    ("activation", "hidden_act", "quick_gelu"),
    ("length", "max_position_embeddings", 77),
)
# Options that change the computation, with the only values that we compute.
FIXED: dict[str, dict[str, Any]] = {
    "unet": {
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "act_fn": "silu",
        "resnet_time_scale_shift": "default",
        "time_embedding_type": "positional",
        "attention_type": "default",
        "transformer_layers_per_block": 1,
        "downsample_padding": 1,
        "mid_block_scale_factor": 1,
        "resnet_out_scale_factor": 1.0,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
    }
    | dict.fromkeys(
        ("class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim",
         "time_cond_proj_dim", "timestep_post_act", "time_embedding_act_fn",
         "time_embedding_dim", "cross_attention_norm", "mid_block_only_cross_attention")
    )
    | dict.fromkeys(
        ("center_input_sample", "only_cross_attention", "dual_cross_attention",
         "resnet_skip_time_act"), False,
    ),
    "vae": {
        "act_fn": "silu",
        "shift_factor": None,
        "latents_mean": None,
        "latents_std": None,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
        "mid_block_add_attention": True,
    },
    "text_encoder": {"layer_norm_eps": 1e-5},
}  # fmt: skip
LEVELS = {"CrossAttnDownBlock2D": "cross", "DownBlock2D": "none"}
MIRRORED = {"CrossAttnDownBlock2D": "CrossAttnUpBlock2D", "DownBlock2D": "UpBlock2D"}
PREDICTS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
SCHEDULES = {"scaled_linear": "BetaSchedule.scaled_linear", "linear": "BetaSchedule.linear"}


def read_folder(folder: Path, prediction: str | None = None) -> tuple[Words, dict[str, Tensor]]:
    """Return a folder's model in terms of a recipe, and its tensors by our names.

    Args:
        folder: folder with ``model_index.json``.
        prediction: output of the UNet; that of the scheduler's configuration if None.

    Raises:
        InputError: if it is another model, or incomplete.
    """
    with reading(folder, "its configurations have values that diffusers never writes"):
        _check_index(folder)
        words = _words(folder, prediction)
    return words, _tensors(folder)


def _words(folder: Path, prediction: str | None) -> Words:
    unet = _config(folder, "unet")
    denoiser = {**read_words(unet, UNET_KEYS), **_levels(folder, unet)}
    autoencoder = autoencoder_words_of(folder / "vae" / "config.json")
    check_input(folder, denoiser["in_channels"], autoencoder["latent_channels"])
    text = read_words(_config(folder, "text_encoder"), TEXT_ENCODER_KEYS)
    path = folder / "scheduler" / "scheduler_config.json"
    scheduler = as_stable_diffusion(read_json(path))
    denoiser["time_steps"] = scheduler.get("num_train_timesteps", 1000)
    sampling = sampling_of(path, scheduler)
    return Words(
        denoiser,
        autoencoder,
        text,
        schedule_of(path, scheduler),
        prediction or prediction_of(path, scheduler),
        _pad(folder / "tokenizer", text["vocabulary"]),
        _size(unet, 2 ** (len(autoencoder["channels"]) - 1)),
        sampling.grid,
        sampling.sampler,
        sampling.replaces,
        sampling.scheduler,
    )


def _check_index(folder: Path) -> None:
    index = read_json(folder / INDEX)
    kind = index.get("_class_name", "nameless")
    unet = (index.get("unet") or [None, None])[1]
    lacking = [name for name in COMPONENTS if not (folder / name).is_dir()]
    if "text_encoder_2" in index or "transformer" in index or unet != "UNet2DConditionModel":
        raise InputError(f"{folder}: is a {kind}; supported are Stable Diffusion 1 and 2")
    if lacking:
        raise InputError(f"{folder}: has no folder {', '.join(lacking)}; download the whole model")


def autoencoder_words_of(path: Path) -> dict[str, Any]:
    """Return an autoencoder's section of a recipe, without ``use``, from its configuration."""
    config = _checked(path, read_json(path), "vae")
    return {**read_words(config, AUTOENCODER_KEYS), "norm_eps": 1e-6}


def _config(folder: Path, component: str) -> dict[str, Any]:
    path = folder / component / "config.json"
    return _checked(path, read_json(path), component)


def _checked(path: Path, config: dict[str, Any], component: str) -> dict[str, Any]:
    for key, value in FIXED[component].items():
        said = config.get(key, value)
        if said != value and not (isinstance(said, list) and set(said) == {value}):
            raise InputError(
                f"{path}: {key} is {json.dumps(said)}; supported are Stable Diffusion 1 and 2, "
                f"where it is {json.dumps(value)}"
            )
    return config


def _size(unet: Mapping[str, Any], factor: int) -> tuple[int, int]:
    """Return width and height of the images that the UNet was made for."""
    said = unet.get("sample_size") or 64
    height, width = said if isinstance(said, list) else (said, said)
    return factor * width, factor * height


def read_words(config: Mapping[str, Any], table: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    """Return a configuration's values by our keys: our key, theirs and its default in each row."""
    found = {ours: config.get(theirs, default) for ours, theirs, default in table}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in found.items()}


def _levels(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return attention and heads of each level."""
    path = folder / "unet" / "config.json"
    down = config.get("down_block_types", [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"])
    up = config.get("up_block_types", ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3])
    for kind in down:
        if kind not in LEVELS:
            raise InputError(f"{path}: a level is {kind}; expected one of {', '.join(LEVELS)}")
    if [MIRRORED[kind] for kind in reversed(down)] != up:
        raise InputError(f"{path}: up_block_types do not mirror down_block_types")
    # The configuration has "dim" in its key but means the number of heads; later ones document it.
    heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
    if isinstance(heads, int):
        heads = [heads] * len(down)
    return {"attention": [LEVELS[kind] for kind in down], "heads": heads}


def schedule_of(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's section of the schedule that a scheduler's configuration describes."""
    kind, steps = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", 1000)
    if config.get("trained_betas") is not None:
        found: dict[str, Any] = {"use": "BetaSchedule", "betas": config["trained_betas"]}
    elif kind in SCHEDULES:
        ends = {"first": config.get("beta_start", 1e-4), "last": config.get("beta_end", 0.02)}
        found = {"use": SCHEDULES[kind], "steps": steps, **ends}
    elif kind == "squaredcos_cap_v2":
        found = {"use": "BetaSchedule.cosine", "steps": steps}
    else:
        known = ", ".join([*SCHEDULES, "squaredcos_cap_v2"])
        raise InputError(f"{path}: beta_schedule {kind!r} must be one of {known}")
    return zero_terminal(found) if rescales(path, config) else found


def prediction_of(path: Path, config: Mapping[str, Any]) -> str:
    """Return the prediction that a scheduler's configuration states."""
    said = config.get("prediction_type", "epsilon")
    if said not in PREDICTS:
        raise InputError(f"{path}: prediction_type {said!r} is not one of {', '.join(PREDICTS)}")
    return PREDICTS[said]


def _pad(folder: Path, vocabulary: int) -> int:
    files, token = tokenizer_files(folder), END_OF_TEXT
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            said = read_json(folder / name).get("pad_token") or token
            token = said["content"] if isinstance(said, dict) else said
    return number_of(token, files, vocabulary - 1)


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights that a folder's model is read from.

    Raises:
        InputError: if a component has none.
    """
    parts = [folder / part for part in ("unet", "vae", "text_encoder")]
    found = [path for path in parts if path.is_dir()] or [folder]
    return [path for part in found for path in files_of(part)]


def _tensors(folder: Path) -> dict[str, Tensor]:
    unet = weights_in(folder / "unet")
    vae = as_matrices(modern_attention(weights_in(folder / "vae")))
    text = without_clip_prefix(weights_in(folder / "text_encoder"))
    found: dict[str, Tensor] = {}
    for prefix, tensors in (
        (naming.OUR_UNET, unet),
        (naming.OUR_AUTOENCODER, vae),
        (naming.OUR_TEXT_ENCODER, text),
    ):
        found |= {prefix + name: tensor for name, tensor in tensors.items()}
    return found
