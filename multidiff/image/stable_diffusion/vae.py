"""Another autoencoder for a Stable Diffusion model: a folder of diffusers, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.image.autoencoders.kl import AutoencoderKL
from multidiff.image.diffusion.domains import LatentDomain
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.contents import tensors_in, weights_in
from multidiff.image.stable_diffusion.folder import autoencoder_words_of
from multidiff.image.stable_diffusion.shapes import autoencoder_words
from multidiff.image.stable_diffusion.tensors import as_matrices, modern_attention
from multidiff.models.weights import check_finite, load_into, some, without_values
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_json, reading

# Contents of published files beside the autoencoder itself.
LEFT_OUT = ("loss.", "model_ema.")


def read_autoencoder(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return an autoencoder's section of a recipe, without ``use``, and its tensors by our names.

    Args:
        path: folder with ``config.json`` and weights, or with both in ``vae/``; or a file by
            CompVis' or diffusers' names, alone or as a part of a whole model.

    Raises:
        InputError: if it is no KL autoencoder, or incomplete.
    """
    if path.is_dir():
        folder = path / "vae" if (path / "vae").is_dir() else path
        config = read_json(folder / "config.json")
        kind = config.get("_class_name", "AutoencoderKL")
        if kind != "AutoencoderKL":
            raise InputError(f"{folder}: is an {kind}; supported is AutoencoderKL")
        with reading(folder, "its configuration has values that diffusers never writes"):
            words = autoencoder_words_of(folder / "config.json")
        return words, as_matrices(modern_attention(weights_in(folder)))
    found = tensors_in(path)
    inside = naming.within(naming.AUTOENCODER, found)
    found = {n: t for n, t in (inside or found).items() if not n.startswith(LEFT_OUT)}
    check_finite(found, path)
    try:
        tensors = _renamed(found)
        prefixed = {naming.OUR_AUTOENCODER + name: tensor for name, tensor in tensors.items()}
        return autoencoder_words(prefixed), tensors
    except (InputError, KeyError, ValueError, IndexError) as error:
        shown = some(list(found)) or "nothing"
        raise InputError(
            f"{path}: is no autoencoder of Stable Diffusion; its tensors are {shown}"
        ) from error


def _renamed(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's tensors by our names, from CompVis' or diffusers'."""
    if any(name.startswith("encoder.down_blocks.") for name in found):
        return as_matrices(modern_attention(found))
    levels = 1 + max(int(n.split(".")[2]) for n in found if n.startswith("encoder.down."))
    layers = 1 + max(int(n.split(".")[4]) for n in found if n.startswith("encoder.down.0.block."))
    pairs = naming.inverted(naming.autoencoder_map(levels, layers))
    tensors, unknown = naming.sorted_out(found, pairs)
    if unknown:
        raise InputError(f"unknown tensors {some(unknown)}")
    return as_matrices(tensors)


def swap_autoencoder(model: Any, path: Path) -> None:
    """Replace a latent model's autoencoder in memory; its scaling stays, as published.

    Args:
        model: model with latents of such an autoencoder.
        path: see :func:`read_autoencoder`.

    Raises:
        InputError: if the model has no autoencoder, or its latents have other channels or sizes.
    """
    domain = getattr(model, "domain", None)
    if not isinstance(domain, LatentDomain):
        raise InputError(f"--vae {path}: this model has no latents")
    words, tensors = read_autoencoder(path)
    check_latents(path, words, domain.autoencoder.latent_channels, domain.autoencoder.factor)
    with without_values():
        autoencoder = AutoencoderKL(**{**words, "scaling": domain.autoencoder.scaling})
    load_into(autoencoder, tensors, path)
    like = next(domain.autoencoder.parameters())
    domain.autoencoder = autoencoder.to(like.device).eval().requires_grad_(False)


def check_latents(path: Path, words: Mapping[str, Any], channels: int, factor: int) -> None:
    """Reject an autoencoder whose latents are not those that a UNet was made for.

    Args:
        path: its file or folder.
        words: its section of a recipe.
        channels: number of channels of the UNet's latents.
        factor: number of pixels of an image for each position of them, in a row.

    Raises:
        InputError: if they differ.
    """
    own = (words["latent_channels"], 2 ** (len(words["channels"]) - 1))
    if own != (channels, factor):
        raise InputError(
            f"--vae {path}: its latents have {own[0]} channels and a scale of 1/{own[1]}, the "
            f"model's {channels} and 1/{factor}: give one for this model"
        )
