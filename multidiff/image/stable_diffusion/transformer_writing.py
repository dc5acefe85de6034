"""Export of DiT and of Stable Diffusion 3 as folders that diffusers loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.image.stable_diffusion import dit_folder, naming, sd3_folder
from multidiff.image.stable_diffusion.folder import INDEX
from multidiff.image.stable_diffusion.folder_writing import (
    SINCE,
    autoencoder_config,
    check_tokenizer_files,
    clip_tensors,
    scheduler_config,
    text_encoder_config,
    tokenizer_config,
    write_components,
)
from multidiff.image.tokenizers import T5_TOKENIZER
from multidiff.utils.errors import InputError
from multidiff.utils.files import check_replaceable

SD3_INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusion3Pipeline",
    "_diffusers_version": SINCE,
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", sd3_folder.FLOW_MATCHING],
    "text_encoder_3": [None, None],
    "tokenizer_3": [None, None],
}
T5_CLASSES = {
    sd3_folder.THIRD: ["transformers", "T5EncoderModel"],
    sd3_folder.THIRD_TOKENIZER: ["transformers", "T5TokenizerFast"],
}


def write_dit(model: Mapping[str, Any], tensors: Mapping[str, Tensor], destination: Path) -> None:
    """Write a DiT, atomically.

    Args:
        model: the model's section of its resolved recipe.
        tensors: the model's tensors.
        destination: folder to write.

    Raises:
        InputError: if diffusers cannot represent the model, or the system refuses.
    """
    words, classes = model["denoiser"], model["domain"]["classes"]
    fixed = {"positions": "sincos", "freq_shift": 1, "condition_width": None}
    for key, value in fixed.items():
        if words[key] != value:
            raise InputError(f"denoiser.{key} is {words[key]!r}, in diffusers' DiT {value!r}")
    if not words["classes"] or words["size"][0] != words["size"][1]:
        raise InputError("diffusers' DiT has classes and a square size")
    check_replaceable(destination, INDEX)
    config = {
        "_class_name": "DiTTransformer2DModel",
        "_diffusers_version": SINCE,
        **{theirs: words[ours] for ours, theirs, _ in dit_folder.KEYS},
        **dit_folder.FIXED,
        "out_channels": words["out_channels"],
        "attention_head_dim": words["width"] // words["heads"],
        "sample_size": words["size"][0],
    }
    names = classes if isinstance(classes, list | tuple) else range(classes)
    index = {
        "_class_name": "DiTPipeline",
        "_diffusers_version": SINCE,
        "id2label": {str(number): str(name) for number, name in enumerate(names)},
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    scheduler = scheduler_config(model)
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    own = naming.within(naming.OUR_UNET, tensors)
    write_components(
        destination,
        index,
        {"transformer": config, "vae": autoencoder_config(model), "scheduler": scheduler},
        {
            "transformer": dit_folder.their_names(own, words["layers"]),
            "vae": naming.within(naming.OUR_AUTOENCODER, tensors),
        },
        {},
    )


def write_sd3(
    model: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    texts: Mapping[str, str],
    destination: Path,
) -> None:
    """Write Stable Diffusion 3, with T5 if the model has it, atomically.

    Args:
        model: the model's section of its resolved recipe.
        tensors: the model's tensors.
        texts: ``vocab.json`` and ``merges.txt``, which are required, and T5's tokenizer with it.
        destination: folder to write.

    Raises:
        InputError: if a tokenizer is missing, or the system refuses.
    """
    check_tokenizer_files(texts, destination)
    check_replaceable(destination, INDEX)
    words, text = model["denoiser"], model["domain"]["text_encoder"]
    scheduler = (model.get("sampling") or {}).get("scheduler") or {}
    vae = model["domain"]["autoencoder"]
    pads = {"first": model["domain"]["tokenizer"]["pad"], "second": text["pad"]}
    configs: dict[str, Any] = {
        "transformer": {
            "_class_name": "SD3Transformer2DModel",
            "_diffusers_version": SINCE,
            **{theirs: words[ours] for ours, theirs, _ in sd3_folder.KEYS},
            "out_channels": words["in_channels"],
            "caption_projection_dim": words["heads"] * words["head_width"],
            "dual_attention_layers": [*range(words["dual_layers"])],
            "qk_norm": "rms_norm" if words["normalizes"] else None,
            "sample_size": model["domain"]["size"][0] // 2 ** (len(vae["channels"]) - 1),
        },
        "vae": {
            **autoencoder_config(model),
            "shift_factor": vae["shift"],
            "use_quant_conv": vae["quant_conv"],
            "use_post_quant_conv": vae["quant_conv"],
        },
        "scheduler": {
            "_class_name": sd3_folder.FLOW_MATCHING,
            "_diffusers_version": SINCE,
            "num_train_timesteps": 1000,
            "shift": scheduler.get("shift", 1.0),
        },
    }
    parts = {
        "transformer": naming.within(naming.OUR_UNET, tensors),
        "vae": naming.within(naming.OUR_AUTOENCODER, tensors),
    }
    index: dict[str, Any] = dict(SD3_INDEX)
    widths = zip(sd3_folder.ENCODERS.items(), text["projections"], strict=True)
    for (one, component), projection in widths:
        tokenizer = component.replace("text_encoder", "tokenizer")
        encoder = {**text[one], "projection": projection}
        configs[component] = text_encoder_config(encoder, pads[one])
        configs[tokenizer] = tokenizer_config(model, texts, pads[one])
        start = f"{naming.OUR_TEXT}{one}"
        parts[component] = clip_tensors(tensors, f"{start}.transformer.", f"{start}_projection")
        index[component] = ["transformers", "CLIPTextModelWithProjection"]
        index[tokenizer] = ["transformers", "CLIPTokenizer"]
    if text.get("third"):
        if T5_TOKENIZER not in texts:
            raise InputError(f"the model's folder has no {T5_TOKENIZER}, which {destination} needs")
        configs |= _t5_configs(text["third"], text["t5_length"])
        parts[sd3_folder.THIRD] = sd3_folder.their_t5_names(
            naming.within(f"{naming.OUR_TEXT}third.transformer.", tensors)
        )
        index |= T5_CLASSES
    write_components(destination, index, configs, parts, texts)


def _t5_configs(words: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Return the configurations of T5 and of its tokenizer."""
    encoder = {"architectures": ["T5EncoderModel"], "model_type": "t5", "is_encoder_decoder": True}
    encoder |= {theirs: words[ours] for ours, theirs, _ in sd3_folder.T5_KEYS}
    ends = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = {"tokenizer_class": "T5TokenizerFast", "model_max_length": length, **ends}
    return {sd3_folder.THIRD: encoder, sd3_folder.THIRD_TOKENIZER: tokenizer}
