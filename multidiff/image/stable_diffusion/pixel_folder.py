"""Pixel diffusion (DDPM, DDIM) as a folder of the diffusers library: a UNet2DModel, no autoencoder.

New folders have ``unet/`` and ``scheduler/``; older ones (google/ddpm-*) keep both components'
files beside ``model_index.json``. The parameters have our names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.config.recipe import to_yaml
from multidiff.image.stable_diffusion import folder as folders
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.contents import weights_in
from multidiff.image.stable_diffusion.folder_writing import SINCE, scheduler_config
from multidiff.image.stable_diffusion.schedulers import announce, sampling_of
from multidiff.image.stable_diffusion.tensors import modern_attention
from multidiff.models.weights import save_tensors
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write_dir, check_replaceable
from multidiff.utils.readers import read_json, reading

CLASS = "UNet2DModel"
# Our key, theirs, and the default of theirs.
UNET_KEYS = (
    ("in_channels", "in_channels", 3),
    ("out_channels", "out_channels", 3),
    ("channels", "block_out_channels", (224, 448, 672, 896)),
    ("layers", "layers_per_block", 2),
    ("groups", "norm_num_groups", 32),
    ("norm_eps", "norm_eps", 1e-5),
    ("dropout", "dropout", 0.0),
    ("flip_sin_to_cos", "flip_sin_to_cos", True),
    ("freq_shift", "freq_shift", 0),
    ("classes", "num_class_embeds", None),
)
# Options that change the computation, with the only value that we compute.
FIXED = {
    "act_fn": "silu",
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
    "center_input_sample": False,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "add_attention": True,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "class_embed_type": None,
    "attn_norm_num_groups": None,
    "time_embedding_dim": None,
}
LEVELS = {"DownBlock2D": "none", "AttnDownBlock2D": "self"}
PIPELINES = {"DDPM": "DDPMPipeline"}  # any other scheduler: DDIMPipeline
STEPS = {"DDPM": 1000}  # number of steps of the pipeline's default; 50 of any other


def is_pixel_folder(index: Mapping[str, Any]) -> bool:
    """Return whether a ``model_index.json`` describes pixel diffusion."""
    return (index.get("unet") or [None, None])[1] == CLASS and not index.get("vae")


def read_pixel_folder(
    folder: Path, prediction: str | None = None
) -> tuple[str, dict[str, Tensor], str]:
    """Return a folder's model as a recipe, its tensors by our names, and a description.

    Args:
        folder: folder with ``model_index.json``.
        prediction: output of the network, if the folder is wrong about it.

    Raises:
        InputError: if a part is missing, or is computed in a way that we do not.
    """
    with reading(folder, "its configurations have values that diffusers never writes"):
        own, beside = _component(folder, "unet"), _component(folder, "scheduler")
        path = own / "config.json"
        config = _checked(path, read_json(path))
        schedule_path = beside / "scheduler_config.json"
        scheduler = read_json(schedule_path)
        model = _model(path, config, schedule_path, scheduler, prediction)
    tensors = modern_attention(weights_in(own))
    tensors = {naming.OUR_UNET + name: tensor for name, tensor in tensors.items()}
    said = model["process"]["prediction"]
    about = f"pixel diffusion, predicts {said}"
    announce(folder, model["sampling"].get("replaces", ""))
    return f"# Pixel diffusion, from {folder.name}.\n{to_yaml({'model': model})}", tensors, about


def weight_folder(folder: Path) -> Path:
    """Return the folder of a pixel model's weights."""
    return _component(folder, "unet")


def _component(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_dir() else folder


def _checked(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    for key, value in FIXED.items():
        said = config.get(key)
        if said is not None and said != value:
            raise InputError(f"{path}: {key} is {json.dumps(said)}; supported is {value!r} alone")
    return config


def _model(
    path: Path,
    config: Mapping[str, Any],
    schedule_path: Path,
    scheduler: Mapping[str, Any],
    prediction: str | None,
) -> dict[str, Any]:
    denoiser = folders.read_words(config, UNET_KEYS) | _levels(path, config)
    denoiser["time_steps"] = scheduler.get("num_train_timesteps", 1000)
    padding = config.get("downsample_padding", 1)
    if padding not in (0, 1):
        raise InputError(f"{path}: downsample_padding is {padding}; 0 or 1")
    denoiser["one_sided_downsampling"] = padding == 0
    channels, size = denoiser["in_channels"], config.get("sample_size") or 32
    height, width = size if isinstance(size, list) else (size, size)
    domain = {"use": "PixelDomain", "size": [width, height], "channels": channels}
    if denoiser["classes"]:
        domain["classes"] = [str(number) for number in range(denoiser["classes"])]
    process = {
        "use": "GaussianProcess",
        "schedule": folders.schedule_of(schedule_path, scheduler),
        "prediction": prediction or folders.prediction_of(schedule_path, scheduler),
    }
    if denoiser["out_channels"] == 2 * channels:
        hybrid = {"objective": {"use": "HybridLoss"}, "times": {"use": "DiscreteTimes"}}
        process |= {"learns_variance": True, **hybrid}
    found = sampling_of(schedule_path, scheduler)
    kind = (found.scheduler or {}).get("kind", "")
    sampling = {"steps": STEPS.get(kind, 50), "sampler": found.sampler}
    sampling |= {"timestep_spacing": found.grid}
    sampling |= {"replaces": found.replaces} if found.replaces else {}
    sampling |= {"scheduler": dict(found.scheduler)} if found.scheduler else {}
    return {
        "use": "ImageDiffusion",
        "domain": domain,
        "process": process,
        "denoiser": {"use": "UNet", **denoiser},
        "sampling": sampling,
    }


def _levels(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return attention and heads of each level."""
    down = config.get("down_block_types", ["DownBlock2D", *["AttnDownBlock2D"] * 3])
    up = config.get("up_block_types", [*["AttnUpBlock2D"] * 3, "UpBlock2D"])
    for kind in down:
        if kind not in LEVELS:
            raise InputError(f"{path}: a level is {kind}; expected one of {', '.join(LEVELS)}")
    if [kind.replace("Down", "Up", 1) for kind in reversed(down)] != up:
        raise InputError(f"{path}: up_block_types do not mirror down_block_types")
    # Here the configuration's number is the width of a head; none is one head.
    width = config.get("attention_head_dim", 8)
    channels = config.get("block_out_channels", UNET_KEYS[2][2])
    heads = [max(1, one // width) if width else 1 for one in channels]
    return {"attention": [LEVELS[kind] for kind in down], "heads": heads}


def write_pixel_folder(
    model: Mapping[str, Any], tensors: Mapping[str, Tensor], destination: Path
) -> None:
    """Write the folder, atomically.

    Args:
        model: the model's section of its resolved recipe.
        tensors: the model's tensors.
        destination: folder to write.

    Raises:
        InputError: if diffusers cannot represent the model, or the system refuses.
    """
    check_replaceable(destination, folders.INDEX)
    scheduler = scheduler_config(model)
    kind = scheduler["_class_name"].removesuffix("Scheduler")
    index = {
        "_class_name": PIPELINES.get(kind, "DDIMPipeline"),
        "_diffusers_version": SINCE,
        "unet": ["diffusers", CLASS],
        "scheduler": ["diffusers", scheduler["_class_name"]],
    }
    unet = _unet(model)
    with atomic_write_dir(destination) as partial:
        for component, name, config in (
            ("unet", "config.json", unet),
            ("scheduler", "scheduler_config.json", scheduler),
        ):
            (partial / component).mkdir()
            (partial / component / name).write_text(json.dumps(config, indent=2), "utf-8")
        own = naming.within(naming.OUR_UNET, tensors)
        path = partial / "unet" / "diffusion_pytorch_model.safetensors"
        save_tensors(own, path, {"format": "pt"})
        (partial / folders.INDEX).write_text(json.dumps(index, indent=2), "utf-8")


def _unet(model: Mapping[str, Any]) -> dict[str, Any]:
    words, (width, height) = model["denoiser"], model["domain"]["size"]
    widths = {c // n for c, n in zip(words["channels"], words["heads"], strict=True)}
    if set(words["heads"]) != {1} and len(widths) > 1:
        raise InputError(f"heads {words['heads']}: in diffusers all heads of a UNet have one width")
    kinds = {attention: block for block, attention in LEVELS.items()}
    down = [kinds[kind] for kind in words["attention"]]
    return {
        "_class_name": CLASS,
        "_diffusers_version": SINCE,
        **{theirs: words[ours] for ours, theirs, _ in UNET_KEYS},
        "attention_head_dim": None if set(words["heads"]) == {1} else widths.pop(),
        "downsample_padding": 0 if words["one_sided_downsampling"] else 1,
        "down_block_types": down,
        "up_block_types": [kind.replace("Down", "Up", 1) for kind in reversed(down)],
        "sample_size": width if width == height else [height, width],
    }


def can_be_pixel_folder(model: Mapping[str, Any]) -> bool:
    """Return whether a model, by its section of the resolved recipe, has such a form."""
    domain, denoiser = model["domain"], model["denoiser"]
    plain = denoiser["use"] == "UNet" and set(LEVELS.values()).issuperset(denoiser["attention"])
    if domain["use"] != "PixelDomain" or domain.get("tokenizer") or not plain:
        return False
    return domain["pad_to"] == denoiser["patch"] == 1 and not denoiser["convolve_first"]
