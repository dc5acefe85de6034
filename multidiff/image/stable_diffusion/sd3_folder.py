"""Stable Diffusion 3 and 3.5 as a folder of the diffusers library.

The third text encoder, T5, may be left out: the model was trained to do without it, and diffusers
does so where a folder has none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.config.recipe import to_yaml
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.contents import weights_in
from multidiff.image.stable_diffusion.folder import (
    TEXT_ENCODER_KEYS,
    autoencoder_words_of,
    read_words,
)
from multidiff.image.stable_diffusion.schedulers import SCHEDULER
from multidiff.image.stable_diffusion.tensors import (
    as_matrices,
    modern_attention,
    without_clip_prefix,
)
from multidiff.image.tokenizers import T5_TOKENIZER
from multidiff.models.weights import Conversion
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_json, read_text, reading

logger = logging.getLogger(__name__)

# Our key, theirs, and the default of theirs.
KEYS = (
    ("in_channels", "in_channels", 16),
    ("patch", "patch_size", 2),
    ("layers", "num_layers", 18),
    ("heads", "num_attention_heads", 18),
    ("head_width", "attention_head_dim", 64),
    ("condition_width", "joint_attention_dim", 4096),
    ("pooled_width", "pooled_projection_dim", 2048),
    ("most_patches", "pos_embed_max_size", 96),
)
ENCODERS = {"first": "text_encoder", "second": "text_encoder_2"}
T5_KEYS = (
    ("vocabulary", "vocab_size", 32128),
    ("width", "d_model", 512),
    ("feed_forward", "d_ff", 2048),
    ("layers", "num_layers", 6),
    ("heads", "num_heads", 8),
    ("head_width", "d_kv", 64),
    ("activation", "feed_forward_proj", "relu"),
    ("buckets", "relative_attention_num_buckets", 32),
    ("farthest", "relative_attention_max_distance", 128),
    ("norm_eps", "layer_norm_epsilon", 1e-6),
)
THIRD, THIRD_TOKENIZER = "text_encoder_3", "tokenizer_3"
FLOW_MATCHING = "FlowMatchEulerDiscreteScheduler"
T5_LENGTH = 256
TABLE = "embed_tokens.weight"


def is_sd3(index: Mapping[str, Any]) -> bool:
    """Return whether an index describes Stable Diffusion 3."""
    return (index.get("transformer") or [None, None])[1] == "SD3Transformer2DModel"


def read_sd3(folder: Path, texts: dict[str, str], with_t5: bool = True) -> Conversion:
    """Convert a folder to a model.

    Args:
        folder: the folder.
        texts: files of its tokenizer.
        with_t5: whether to take its third text encoder, if it has one.

    Raises:
        InputError: if it is another model, or incomplete.
    """
    third = folder / THIRD_TOKENIZER / "tokenizer.json"
    with_t5 = with_t5 and (folder / THIRD).is_dir()
    if with_t5 and not third.is_file():
        raise InputError(
            f"{folder}: has T5, but no {third.relative_to(folder)}; download it, or leave T5 out "
            "by multidiff convert --without-t5"
        )
    texts = {**texts, T5_TOKENIZER: read_text(third)} if with_t5 else texts
    with reading(folder, "its configurations have values that diffusers never writes"):
        recipe = {"model": _model(folder, with_t5)}
    if not with_t5 and (folder / THIRD).is_dir():
        logger.warning("%s: its third text encoder, T5, is left out", folder)
    about = f"Stable Diffusion 3, predicts flow, with{'' if with_t5 else 'out'} T5"
    text = f"# Stable Diffusion 3, from {folder.name}.\n{to_yaml(recipe)}"
    return Conversion(text, _tensors(folder, with_t5), about, texts)


def _model(folder: Path, with_t5: bool) -> dict[str, Any]:
    """Return the recipe's model section."""
    path = folder / "transformer" / "config.json"
    config = read_json(path)
    denoiser = read_words(config, KEYS) | _checked_blocks(path, config)
    autoencoder = autoencoder_words_of(folder / "vae" / "config.json", shifts=True)
    configs = {one: read_json(folder / name / "config.json") for one, name in ENCODERS.items()}
    both = {
        one: {"use": "TextEncoder", **read_words(said, TEXT_ENCODER_KEYS)}
        for one, said in configs.items()
    }
    side = config.get("sample_size", 128) * 2 ** (len(autoencoder["channels"]) - 1)
    if with_t5:
        third = read_words(read_json(folder / THIRD / "config.json"), T5_KEYS)
        both["third"] = {"use": "T5TextEncoder", **third}
    projections = [said.get("projection_dim", 512) for said in configs.values()]
    sampling = _sampling(folder / "scheduler" / "scheduler_config.json")
    return sd3_model(denoiser, autoencoder, both, projections, side, sampling)


def sd3_model(
    denoiser: Mapping[str, Any],
    autoencoder: Mapping[str, Any],
    encoders: Mapping[str, Mapping[str, Any]],
    projections: list[int],
    side: int,
    sampling: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a recipe's model section.

    Args:
        denoiser: values of the denoiser's section, without ``use``.
        autoencoder: values of the autoencoder's.
        encoders: sections of the text encoders, ``first``, ``second`` and perhaps ``third``.
        projections: widths of the captions' embeddings by the first two.
        side: width and height of images.
        sampling: section of sampling.
    """
    length, vocabulary = encoders["first"]["length"], encoders["first"]["vocabulary"]
    tokenizer = {"use": "ClipTokenizer", "length": length, "pad": vocabulary - 1}
    if "third" in encoders:
        tokenizer |= {"use": "SD3Tokenizer", "t5_length": T5_LENGTH}
    return {
        "use": "ImageDiffusion",
        "domain": {
            "use": "LatentDomain",
            "autoencoder": {"use": "AutoencoderKL", **autoencoder},
            "text_encoder": {
                "use": "SD3TextEncoder",
                **encoders,
                "width": denoiser["condition_width"],
                "projections": projections,
                "t5_length": T5_LENGTH,
            },
            "tokenizer": tokenizer,
            "size": [side, side],
            "pad_to": None,
        },
        "process": {
            "use": "GaussianProcess",
            "schedule": {"use": "RectifiedFlow"},
            "prediction": "flow",
            "times": {"use": "LogitNormalTimes"},
        },
        "denoiser": {"use": "MMDiT", **denoiser},
        "sampling": dict(sampling),
    }


def _checked_blocks(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the blocks that the two versions differ in."""
    dual, norm = config.get("dual_attention_layers") or [], config.get("qk_norm")
    width = config.get("num_attention_heads", 18) * config.get("attention_head_dim", 64)
    if [*dual] != [*range(len(dual))] or norm not in (None, "rms_norm"):
        raise InputError(
            f"{path}: dual_attention_layers {dual} and qk_norm {norm!r}; supported are "
            "Stable Diffusion 3 and 3.5, where the first layers are dual and the norm is rms_norm"
        )
    if config.get("caption_projection_dim", 1152) != width:
        raise InputError(f"{path}: caption_projection_dim is not {width}, the width of its blocks")
    return {"dual_layers": len(dual), "normalizes": norm is not None}


def _sampling(path: Path) -> dict[str, Any]:
    config = read_json(path)
    name = config.get("_class_name")
    if name != FLOW_MATCHING or config.get("use_dynamic_shifting"):
        raise InputError(
            f"{path}: the scheduler {name} is not supported for Stable Diffusion 3; expected "
            f"{FLOW_MATCHING} with a fixed shift"
        )
    return shifted_sampling(config.get("shift", 1.0))


def shifted_sampling(shift: float) -> dict[str, Any]:
    """Return the section of sampling with a shift of the timesteps."""
    scheduler = {"kind": "FlowMatchEulerDiscrete", "shift": shift}
    sampling = {"steps": 28, "timestep_spacing": SCHEDULER, "sampler": SCHEDULER}
    return {**sampling, "guidance_scale": 7.0, "scheduler": scheduler}


def _tensors(folder: Path, with_t5: bool) -> dict[str, Tensor]:
    vae = as_matrices(modern_attention(weights_in(folder / "vae")))
    found = {naming.OUR_UNET + n: t for n, t in weights_in(folder / "transformer").items()}
    found |= {naming.OUR_AUTOENCODER + name: tensor for name, tensor in vae.items()}
    for one, name in ENCODERS.items():
        for inner, tensor in without_clip_prefix(weights_in(folder / name)).items():
            projects = inner.startswith("text_projection.")
            start = f"{one}_projection." if projects else f"{one}.transformer."
            found[naming.OUR_TEXT + start + inner.removeprefix("text_projection.")] = tensor
    if with_t5:
        start = f"{naming.OUR_TEXT}third.transformer."
        found |= {start + name: one for name, one in t5_names(weights_in(folder / THIRD)).items()}
    return found


def t5_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return T5's tensors by the names within its encoder, the table of tokens once."""
    found = {name.removeprefix("encoder."): one for name, one in tensors.items()}
    table = found.pop("shared.weight", None)
    return found if table is None else {**found, TABLE: table}


def their_t5_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert :func:`t5_names`."""
    named = {f"encoder.{name}": one for name, one in tensors.items() if name != TABLE}
    return {**named, "shared.weight": tensors[TABLE]}
