"""Stable Diffusion 1.x, 2.x and XL as a folder of the diffusers library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.image.diffusion.embeddings import NUM_SIZES
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
from multidiff.image.tokenizers import VOCABULARY
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_json, reading

INDEX = "model_index.json"
COMPONENTS = ("unet", "vae", "text_encoder", "scheduler")
SECOND = "text_encoder_2"  # which Stable Diffusion XL has too
WEIGHTED = ("unet", "transformer", "vae", "text_encoder", SECOND, "text_encoder_3")
SUPPORTED = "supported are Stable Diffusion 1, 2 and XL"
# Networks of other models, and what those are.
OTHERS = {
    "FluxTransformer2DModel": " (Flux, a flow transformer that reads T5)",
    "PixArtTransformer2DModel": " (PixArt, a DiT that reads T5)",
    "HunyuanDiT2DModel": " (Hunyuan-DiT, a DiT that reads two languages)",
    "AuraFlowTransformer2DModel": " (AuraFlow, a flow transformer that reads T5)",
    "SanaTransformer2DModel": " (Sana, a linear DiT that reads Gemma)",
    "QwenImageTransformer2DModel": " (Qwen-Image, a flow transformer that reads Qwen)",
    "StableCascadeUNet": " (Stable Cascade, of three stages)",
}
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
    SECOND: {"layer_norm_eps": 1e-5},
}  # fmt: skip
# Options of the UNet with other values in version XL, where its levels may have more blocks.
XL = {"addition_embed_type": "text_time", "reverse_transformer_layers_per_block": None}
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
        index = _checked_index(folder)
        words = _words(folder, prediction, index)
    return words, _tensors(folder, words.is_xl)


def _words(folder: Path, prediction: str | None, index: Mapping[str, Any]) -> Words:
    is_xl = SECOND in index
    unet = _config(folder, "unet", XL if is_xl else {})
    denoiser = {**read_words(unet, UNET_KEYS), **_levels(folder, unet)}
    if is_xl:
        denoiser |= _caption_embedding(unet, len(denoiser["channels"]))
    autoencoder = autoencoder_words_of(folder / "vae" / "config.json")
    check_input(folder, denoiser["in_channels"], autoencoder["latent_channels"])
    text = read_words(_config(folder, "text_encoder"), TEXT_ENCODER_KEYS)
    pad = _pad(folder / "tokenizer", text["vocabulary"])
    text = _both_encoders(folder, text) if is_xl else text
    path = folder / "scheduler" / "scheduler_config.json"
    scheduler = read_json(path) if is_xl else as_stable_diffusion(read_json(path))
    denoiser["time_steps"] = scheduler.get("num_train_timesteps", 1000)
    sampling = sampling_of(path, scheduler)
    return Words(
        denoiser,
        autoencoder,
        text,
        schedule_of(path, scheduler),
        prediction or prediction_of(path, scheduler),
        pad,
        _size(unet, 2 ** (len(autoencoder["channels"]) - 1)),
        sampling.grid,
        sampling.sampler,
        sampling.replaces,
        sampling.scheduler,
        is_xl and index.get("force_zeros_for_empty_prompt", True),
    )


def _checked_index(folder: Path) -> dict[str, Any]:
    """Return the index of a folder that has Stable Diffusion's components."""
    index = read_json(folder / INDEX)
    kind = index.get("_class_name", "nameless")
    classes = {name: (index.get(name) or [None, None])[1] for name in ("unet", "text_encoder")}
    needed = [*COMPONENTS, *([SECOND] if SECOND in index else [])]
    lacking = [name for name in needed if not (folder / name).is_dir()]
    if SECOND in index and classes["text_encoder"] is None and index.get("unet"):
        raise InputError(
            f"{folder}: is the refiner of Stable Diffusion XL, which improves images of the base "
            "model and is not supported; convert the base model"
        )
    if "transformer" in index or classes["unet"] != "UNet2DConditionModel":
        classes["transformer"] = (index.get("transformer") or [None, None])[1]
        what = next((OTHERS[one] for one in classes.values() if one in OTHERS), "")
        raise InputError(f"{folder}: is a {kind}{what}; {SUPPORTED}, Stable Diffusion 3 and DiT")
    if lacking:
        raise InputError(f"{folder}: has no folder {', '.join(lacking)}; download the whole model")
    return index


def autoencoder_words_of(path: Path, shifts: bool = False) -> dict[str, Any]:
    """Return an autoencoder's section of a recipe, without ``use``, from its configuration.

    Args:
        path: the configuration.
        shifts: whether it may be one without 1x1 convolutions around its latents, and with a
            mean to be subtracted from them.
    """
    config = read_json(path)
    if not shifts:
        config = _checked(path, config, "vae")
        return {**read_words(config, AUTOENCODER_KEYS), "norm_eps": 1e-6}
    keys = (("use_quant_conv", True), ("use_post_quant_conv", True))
    converts = {config.get(key, usual) for key, usual in keys}
    if len(converts) > 1:
        raise InputError(f"{path}: use_quant_conv and use_post_quant_conv differ")
    special = {key: config.get(key) for key in ("shift_factor", *dict(keys))}
    config = _checked(path, config, "vae", {k: v for k, v in special.items() if v is not None})
    return {
        **read_words(config, AUTOENCODER_KEYS),
        "norm_eps": 1e-6,
        "shift": config.get("shift_factor") or 0.0,
        "quant_conv": converts.pop(),
    }


def _config(folder: Path, component: str, special: Mapping[str, Any] = {}) -> dict[str, Any]:
    path = folder / component / "config.json"
    return _checked(path, read_json(path), component, special)


def _checked(
    path: Path, config: dict[str, Any], component: str, special: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """Return a component's configuration, in which only what is read may differ."""
    fixed = {**FIXED[component], **special}
    if special is XL:
        del fixed["transformer_layers_per_block"]
    for key, value in fixed.items():
        said = config.get(key, value)
        if said != value and not (isinstance(said, list) and set(map(str, said)) == {str(value)}):
            raise InputError(
                f"{path}: {key} is {json.dumps(said)}; {SUPPORTED}, where it is {json.dumps(value)}"
            )
    return config


def _caption_embedding(unet: Mapping[str, Any], levels: int) -> dict[str, Any]:
    """Return the values of the UNet that only version XL has."""
    blocks = unet.get("transformer_layers_per_block", 1)
    waves = unet["addition_time_embed_dim"]
    return {
        "blocks": [blocks] * levels if isinstance(blocks, int) else [int(one) for one in blocks],
        "pooled_width": unet["projection_class_embeddings_input_dim"] - NUM_SIZES * waves,
        "size_waves": waves,
    }


def _both_encoders(folder: Path, first: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the two text encoders, which read the same tokens."""
    config = _config(folder, SECOND)
    second = read_words(config, TEXT_ENCODER_KEYS)
    files = [tokenizer_files(folder / name) for name in ("tokenizer", "tokenizer_2")]
    if all(files) and json.loads(files[0][VOCABULARY]) != json.loads(files[1][VOCABULARY]):
        raise InputError(f"{folder}: tokenizer and tokenizer_2 have different vocabularies")
    pad = _pad(folder / "tokenizer_2", second["vocabulary"], otherwise=0)
    return {
        "first": first,
        "second": second,
        "projection": config.get("projection_dim", 512),
        "pad": pad,
    }


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


def _pad(folder: Path, vocabulary: int, otherwise: int | None = None) -> int:
    """Return the number of the token that pads captions."""
    files, token = tokenizer_files(folder), END_OF_TEXT
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            said = read_json(folder / name).get("pad_token") or token
            token = said["content"] if isinstance(said, dict) else said
    return number_of(token, files, vocabulary - 1 if otherwise is None else otherwise)


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights that a folder's model is read from.

    Raises:
        InputError: if a component has none.
    """
    parts = [folder / part for part in WEIGHTED]
    found = [path for path in parts if path.is_dir()] or [folder]
    return [path for part in found for path in files_of(part)]


def _tensors(folder: Path, is_xl: bool) -> dict[str, Tensor]:
    parts = {
        naming.OUR_UNET: weights_in(folder / "unet"),
        naming.OUR_AUTOENCODER: as_matrices(modern_attention(weights_in(folder / "vae"))),
        naming.OUR_FIRST if is_xl else naming.OUR_TEXT_ENCODER: without_clip_prefix(
            weights_in(folder / "text_encoder")
        ),
    }
    found: dict[str, Tensor] = {}
    if is_xl:
        second = without_clip_prefix(weights_in(folder / SECOND))
        for name in [name for name in second if name.startswith("text_projection.")]:
            found[naming.OUR_TEXT + name] = second.pop(name)
        parts[naming.OUR_SECOND] = second
    for prefix, tensors in parts.items():
        found |= {prefix + name: tensor for name, tensor in tensors.items()}
    return found
