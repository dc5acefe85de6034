"""Export of an image model of ours as a folder that diffusers loads as Stable Diffusion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff.image.stable_diffusion import folder as folders
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.schedulers import SCHEDULER, config_of
from multidiff.image.stable_diffusion.tokenizer_files import BEGIN_OF_TEXT, END_OF_TEXT
from multidiff.image.tokenizers import MERGES, VOCABULARY
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
    if VOCABULARY not in texts or MERGES not in texts:
        raise InputError(
            f"the model's folder has no {VOCABULARY} and {MERGES}, which {destination} needs: "
            "put those of CLIP's tokenizer there"
        )
    check_replaceable(destination, folders.INDEX)
    configs = {
        "unet": _unet(model),
        "vae": _autoencoder(model),
        "text_encoder": _text_encoder(model),
        "scheduler": scheduler_config(model),
        "tokenizer": _tokenizer(model, texts),
    }
    index = _index(configs["scheduler"]["_class_name"])
    with atomic_write_dir(destination) as partial:
        for component, config in configs.items():
            (partial / component).mkdir()
            path = partial / component / _config_name(component)
            path.write_text(json.dumps(config, indent=2), "utf-8")
        for name in (VOCABULARY, MERGES):
            (partial / "tokenizer" / name).write_text(texts[name], "utf-8")
        for component, prefix, name, inner in (
            ("unet", naming.OUR_UNET, "diffusion_pytorch_model", ""),
            ("vae", naming.OUR_AUTOENCODER, "diffusion_pytorch_model", ""),
            ("text_encoder", naming.OUR_TEXT_ENCODER, "model", "text_model."),
        ):
            own = {inner + n: t for n, t in naming.within(prefix, tensors).items()}
            save_tensors(own, partial / component / f"{name}.safetensors", {"format": "pt"})
        (partial / folders.INDEX).write_text(json.dumps(index, indent=2), "utf-8")


def _config_name(component: str) -> str:
    special = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
    return special.get(component, "config.json")


def _index(scheduler: str) -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
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
    }


def _autoencoder(model: Mapping[str, Any]) -> dict[str, Any]:
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


def _text_encoder(model: Mapping[str, Any]) -> dict[str, Any]:
    words = dict(model["domain"]["text_encoder"])
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        **_written(words, folders.TEXT_ENCODER_KEYS),
        "layer_norm_eps": 1e-5,
        "bos_token_id": words["vocabulary"] - 2,
        "eos_token_id": words["vocabulary"] - 1,
        "pad_token_id": model["domain"]["tokenizer"]["pad"],
        "projection_dim": words["width"],
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


def _tokenizer(model: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    words = model["domain"]["tokenizer"]
    numbers = {number: token for token, number in json.loads(texts[VOCABULARY]).items()}
    return {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": words["length"],
        "bos_token": BEGIN_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "pad_token": numbers.get(words["pad"], END_OF_TEXT),
        "do_lower_case": True,
    }


def _written(words: Mapping[str, Any], table: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    return {theirs: words[ours] for ours, theirs, _ in table}


def half_precision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as float16, half the size."""
    return {n: t.half() if t.dtype == torch.float32 else t for n, t in tensors.items()}
