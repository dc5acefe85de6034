"""DiT as a folder of the diffusers library: ``DiTPipeline``, such as DiT-XL/2.

Its labels become the names of the classes. The folder's network has learned variances, which its
own pipeline leaves unused; here they are read, and used by the sampler "ddpm".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff.config.recipe import to_yaml
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.contents import weights_in
from multidiff.image.stable_diffusion.folder import (
    INDEX,
    autoencoder_words_of,
    prediction_of,
    read_words,
    schedule_of,
)
from multidiff.image.stable_diffusion.schedulers import announce, sampling_of
from multidiff.image.stable_diffusion.tensors import as_matrices, modern_attention
from multidiff.models.weights import Conversion
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_json, reading

# Our key, theirs, and the default of theirs.
KEYS = (
    ("in_channels", "in_channels", 4),
    ("patch", "patch_size", 2),
    ("layers", "num_layers", 28),
    ("heads", "num_attention_heads", 16),
    ("classes", "num_embeds_ada_norm", 1000),
    ("mlp_norm_eps", "norm_eps", 1e-5),
    ("dropout", "dropout", 0.0),
)
# Options that change the computation, with the only values that we compute.
FIXED = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    "upcast_attention": False,
}
BLOCK = "transformer_blocks."
EMBEDDINGS = {
    "norm1.emb.timestep_embedder.": "time_embedding.",
    "norm1.emb.class_embedder.embedding_table.": "class_embedding.",
}


def is_dit(index: Mapping[str, Any]) -> bool:
    """Return whether an index describes a DiT."""
    return (index.get("transformer") or [None, None])[1] == "DiTTransformer2DModel"


def read_dit(folder: Path) -> Conversion:
    """Convert a folder to a model.

    Raises:
        InputError: if it is another model, or incomplete.
    """
    with reading(folder, "its configurations have values that diffusers never writes"):
        recipe = {"model": _model(folder)}
    announce(folder, recipe["model"]["sampling"].get("replaces", ""))
    transformer, vae = weights_in(folder / "transformer"), weights_in(folder / "vae")
    tensors = {naming.OUR_UNET + name: one for name, one in own_names(transformer, folder).items()}
    tensors |= {
        naming.OUR_AUTOENCODER + name: one
        for name, one in as_matrices(modern_attention(vae)).items()
    }
    width = recipe["model"]["denoiser"]["width"]
    return Conversion(
        f"# DiT, from {folder.name}.\n{to_yaml(recipe)}", tensors, f"DiT of width {width}"
    )


def _model(folder: Path) -> dict[str, Any]:
    """Return the recipe's model section."""
    path = folder / "transformer" / "config.json"
    config = read_json(path)
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise InputError(f"{path}: {key} is {config[key]!r}; supported are DiTs with {value!r}")
    heads, side = config.get("num_attention_heads", 16), config.get("sample_size", 32)
    autoencoder = autoencoder_words_of(folder / "vae" / "config.json")
    pixels = side * 2 ** (len(autoencoder["channels"]) - 1)
    denoiser = read_words(config, KEYS) | {
        "out_channels": config.get("out_channels") or config.get("in_channels", 4),
        "size": [side, side],
        "width": heads * config.get("attention_head_dim", 72),
        "freq_shift": 1,  # as diffusers computes; the paper's code has 0
    }
    scheduler_path = folder / "scheduler" / "scheduler_config.json"
    scheduler = read_json(scheduler_path)
    denoiser["time_steps"] = scheduler.get("num_train_timesteps", 1000)
    learns = denoiser["out_channels"] == 2 * denoiser["in_channels"]
    sampling = sampling_of(scheduler_path, scheduler)
    process: dict[str, Any] = {
        "use": "GaussianProcess",
        "schedule": schedule_of(scheduler_path, scheduler),
        "prediction": prediction_of(scheduler_path, scheduler),
    }
    if learns:
        trained = {"objective": {"use": "HybridLoss"}, "times": {"use": "DiscreteTimes"}}
        process |= {"learns_variance": True, **trained}
    return {
        "use": "ImageDiffusion",
        "domain": {
            "use": "LatentDomain",
            "autoencoder": {"use": "AutoencoderKL", **autoencoder},
            "classes": _classes(folder, denoiser["classes"]),
            "size": [pixels, pixels],
        },
        "process": process,
        "denoiser": {"use": "DiT", **denoiser},
        "sampling": {
            "steps": 50,
            "timestep_spacing": sampling.grid,
            "sampler": sampling.sampler,
            "guidance_scale": 4.0,
            **({"replaces": sampling.replaces} if sampling.replaces else {}),
            **({"scheduler": dict(sampling.scheduler)} if sampling.scheduler else {}),
        },
        "drop_condition": 0.1,
    }


def _classes(folder: Path, count: int) -> int | list[str]:
    """Return the labels of the index in order, or their number if some are missing or repeated."""
    said = read_json(folder / INDEX).get("id2label") or {}
    names = [str(said.get(str(number), "")) for number in range(count)]
    return names if all(names) and len(set(names)) == count else count


def own_names(tensors: Mapping[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """Return a DiT's tensors by our names.

    Diffusers repeats the embeddings of level and class in every block, all of them alike in
    published weights.

    Raises:
        InputError: if blocks have different embeddings.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        block, _, inner = name.removeprefix(BLOCK).partition(".")
        start = next((one for one in EMBEDDINGS if inner.startswith(one)), None)
        if name.startswith(BLOCK) and start is not None:
            name = EMBEDDINGS[start] + inner.removeprefix(start)
            if name in found and not torch.equal(found[name], tensor):
                raise InputError(
                    f"{path}: block {block} has embeddings of its own; supported are DiTs whose "
                    "blocks share them, as those of the paper"
                )
        found[name] = tensor
    return found


def their_names(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Invert :func:`own_names`: every block gets the shared embeddings."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        theirs = next((t for t, ours in EMBEDDINGS.items() if name.startswith(ours)), None)
        if theirs is None:
            found[name] = tensor
            continue
        inner = theirs + name.removeprefix(EMBEDDINGS[theirs])
        found |= {f"{BLOCK}{number}.{inner}": tensor for number in range(layers)}
    return found
