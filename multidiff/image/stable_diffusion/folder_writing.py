"""Export of an image model of ours as a folder that diffusers loads as Stable Diffusion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff.image.diffusion.embeddings import NUM_SIZES
from multidiff.image.diffusion.inpainting import input_channels
from multidiff.image.stable_diffusion import folder as folders
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.schedulers import SCHEDULER, config_of
from multidiff.image.stable_diffusion.tokenizer_files import BEGIN_OF_TEXT, END_OF_TEXT
from multidiff.image.tokenizers import MERGES, T5_TOKENIZER, VOCABULARY
from multidiff.models.weights import save_tensors
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write_dir, check_replaceable

SINCE = "0.18.0"  # diffusers version whose configuration and tensor names are written


def write_folder(
    model: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    texts: Mapping[str, str],
    destination: Path,
) -> None:
    """Write the folder, atomically.

    Args:
        model: the model's section of its resolved recipe.
        tensors: the model's tensors.
        texts: ``vocab.json`` and ``merges.txt``, which are required.
        destination: folder to write.

    Raises:
        InputError: if diffusers cannot represent the model, or the system refuses.
    """
    check_tokenizer_files(texts, destination)
    check_replaceable(destination, folders.INDEX)
    text = model["domain"]["text_encoder"]
    is_xl, pad = "second" in text, model["domain"]["tokenizer"]["pad"]
    configs = {
        "unet": _unet(model),
        "vae": autoencoder_config(model),
        "text_encoder": text_encoder_config(text.get("first", text), pad),
        "scheduler": scheduler_config(model),
        "tokenizer": tokenizer_config(model, texts, pad),
    }
    clip = naming.OUR_FIRST if is_xl else naming.OUR_TEXT_ENCODER
    parts = {
        "unet": naming.within(naming.OUR_UNET, tensors),
        "vae": naming.within(naming.OUR_AUTOENCODER, tensors),
        "text_encoder": clip_tensors(tensors, clip),
    }
    if is_xl:
        second = {**text["second"], "projection": text["projection"]}
        configs[folders.SECOND] = text_encoder_config(second, text["pad"])
        configs["tokenizer_2"] = tokenizer_config(model, texts, text["pad"])
        parts[folders.SECOND] = clip_tensors(tensors, naming.OUR_SECOND, naming.OUR_PROJECTION)
    index = _index(model, configs["scheduler"]["_class_name"])
    write_components(destination, index, configs, parts, texts)


def check_tokenizer_files(texts: Mapping[str, str], destination: Path) -> None:
    """Check that a model has the files of CLIP's tokenizer.

    Args:
        texts: files of the model by name.
        destination: folder that needs them, for the message.

    Raises:
        InputError: if one of them is missing.
    """
    if VOCABULARY not in texts or MERGES not in texts:
        raise InputError(
            f"the model's folder has no {VOCABULARY} and {MERGES}, which {destination} needs: "
            "put those of CLIP's tokenizer there"
        )


def clip_tensors(
    tensors: Mapping[str, Tensor], prefix: str, projection: str | None = None
) -> dict[str, Tensor]:
    """Return the tensors of a text encoder, and of its projection, by transformers' names.

    Args:
        tensors: the model's tensors.
        prefix: beginning of the encoder's names.
        projection: path of the projection; None without.
    """
    found = {f"text_model.{name}": one for name, one in naming.within(prefix, tensors).items()}
    if projection is not None:
        found["text_projection.weight"] = tensors[f"{projection}.weight"]
    return found


def write_components(
    destination: Path,
    index: Mapping[str, Any],
    configs: Mapping[str, Mapping[str, Any]],
    parts: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
) -> None:
    """Write a folder of components, atomically.

    Args:
        destination: folder to write.
        index: ``model_index.json``.
        configs: configuration of each component.
        parts: tensors of those that have some.
        texts: files of each tokenizer.

    Raises:
        InputError: if the system refuses.
    """
    with atomic_write_dir(destination) as partial:
        for component, config in configs.items():
            (partial / component).mkdir()
            path = partial / component / _config_name(component)
            path.write_text(json.dumps(config, indent=2), "utf-8")
            if component == "tokenizer_3":
                (partial / component / "tokenizer.json").write_text(texts[T5_TOKENIZER], "utf-8")
            elif component.startswith("tokenizer"):
                for name in (VOCABULARY, MERGES):
                    (partial / component / name).write_text(texts[name], "utf-8")
        for component, own in parts.items():
            is_text = component.startswith("text_encoder")
            name = "model" if is_text else "diffusion_pytorch_model"
            save_tensors(own, partial / component / f"{name}.safetensors", {"format": "pt"})
        (partial / folders.INDEX).write_text(json.dumps(index, indent=2), "utf-8")


def _config_name(component: str) -> str:
    special = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
    return special.get(component.rstrip("_23"), "config.json")


def _index(model: Mapping[str, Any], scheduler: str) -> dict[str, Any]:
    reads = model["denoiser"]["in_channels"]
    kind = "Inpaint" if reads == input_channels(model["denoiser"]["out_channels"]) else ""
    if "second" in model["domain"]["text_encoder"]:
        return {
            "_class_name": f"StableDiffusionXL{kind}Pipeline",
            "_diffusers_version": SINCE,
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", scheduler],
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "force_zeros_for_empty_prompt": model["domain"]["zero_null"],
        }
    return {
        "_class_name": f"StableDiffusion{kind}Pipeline",
        "_diffusers_version": SINCE,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", scheduler],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }


def _unet(model: Mapping[str, Any]) -> dict[str, Any]:
    words = model["denoiser"]
    kinds = {attention: block for block, attention in folders.LEVELS.items()}
    down = [kinds[kind] for kind in words["attention"]]
    factor = 2 ** (len(model["domain"]["autoencoder"]["channels"]) - 1)
    width, height = (side // factor for side in model["domain"]["size"])
    heads = words["heads"]
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": SINCE,
        **_written(words, folders.UNET_KEYS),
        "attention_head_dim": heads[0] if len(set(heads)) == 1 else heads,
        "down_block_types": down,
        "up_block_types": [folders.MIRRORED[kind] for kind in reversed(down)],
        "sample_size": width if width == height else [height, width],
        **_caption_embedding(words),
    }


def _caption_embedding(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the UNet that only version XL has."""
    if words["pooled_width"] is None:
        return {}
    waves = words["size_waves"]
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": waves,
        "projection_class_embeddings_input_dim": words["pooled_width"] + NUM_SIZES * waves,
        "transformer_layers_per_block": words["blocks"] or 1,
    }


def autoencoder_config(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a model's autoencoder.

    Raises:
        InputError: if diffusers has no such autoencoder.
    """
    words = model["domain"]["autoencoder"]
    if words["norm_eps"] != 1e-6:
        raise InputError(f"the autoencoder's norm_eps is {words['norm_eps']}, in diffusers 1e-6")
    levels = len(words["channels"])
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": SINCE,
        **_written(words, folders.AUTOENCODER_KEYS),
        "out_channels": words["image_channels"],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "sample_size": model["domain"]["size"][0],
    }


def text_encoder_config(words: Mapping[str, Any], pad: int) -> dict[str, Any]:
    """Return the configuration of a text encoder, whose section may have ``projection``."""
    projects = "projection" in words
    return {
        "architectures": ["CLIPTextModelWithProjection" if projects else "CLIPTextModel"],
        "model_type": "clip_text_model",
        **_written(words, folders.TEXT_ENCODER_KEYS),
        "layer_norm_eps": 1e-5,
        "bos_token_id": words["vocabulary"] - 2,
        "eos_token_id": words["vocabulary"] - 1,
        "pad_token_id": pad,
        "projection_dim": words.get("projection", words["width"]),
    }


def scheduler_config(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a model's scheduler: its own, or DDIM's.

    Args:
        model: the model's section of its resolved recipe.
    """
    process, sampling = model["process"], model.get("sampling") or {}
    said = {ours: theirs for theirs, ours in folders.PREDICTS.items()}
    schedule = process["schedule"]
    is_zero = schedule["use"] == "BetaSchedule.zero_terminal_snr"
    return {
        "_diffusers_version": SINCE,
        **_betas(schedule["schedule"] if is_zero else schedule),
        "prediction_type": said[process["prediction"]],
        "rescale_betas_zero_snr": is_zero,
        **(_own_sampling(sampling) or _ddim(sampling)),
    }


def _own_sampling(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Return the published scheduler's options; empty if the model samples by another rule."""
    names = {sampling.get("sampler"), sampling.get("timestep_spacing")}
    return config_of(sampling["scheduler"]) if names == {SCHEDULER} else {}


def _ddim(sampling: Mapping[str, Any]) -> dict[str, Any]:
    grid = sampling.get("timestep_spacing", "leading")
    is_leading = grid not in ("trailing", "linspace")
    return {
        "_class_name": "DDIMScheduler",
        "timestep_spacing": "leading" if is_leading else grid,
        "steps_offset": int(is_leading),
        "set_alpha_to_one": not is_leading,
        "clip_sample": False,
    }


def _betas(schedule: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {ours: theirs for theirs, ours in folders.SCHEDULES.items()}
    kind = schedule["use"]
    if kind == "BetaSchedule":
        betas = schedule["betas"]
        return {"num_train_timesteps": len(betas), "trained_betas": betas}
    steps = {"num_train_timesteps": schedule.get("steps")}
    if kind == "BetaSchedule.cosine" and schedule["offset"] == 0.008:
        return {**steps, "beta_schedule": "squaredcos_cap_v2"}
    if kind not in kinds or schedule["first"] is None or schedule["last"] is None:
        raise InputError(f"diffusers has no scheduler for the recipe's {kind}")
    ends = {"beta_start": schedule["first"], "beta_end": schedule["last"]}
    return {**steps, "beta_schedule": kinds[kind], **ends}


def tokenizer_config(
    model: Mapping[str, Any], texts: Mapping[str, str], pad: int
) -> dict[str, Any]:
    """Return the configuration of a tokenizer that pads with a token."""
    words = model["domain"]["tokenizer"]
    numbers = {number: token for token, number in json.loads(texts[VOCABULARY]).items()}
    return {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": words["length"],
        "bos_token": BEGIN_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "pad_token": numbers.get(pad, END_OF_TEXT),
        "do_lower_case": True,
    }


def _written(words: Mapping[str, Any], table: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    return {theirs: words[ours] for ours, theirs, _ in table}


def half_precision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as float16, half the size."""
    return {n: t.half() if t.dtype == torch.float32 else t for n, t in tensors.items()}
