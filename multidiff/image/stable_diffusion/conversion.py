"""Conversion of Stable Diffusion 1.x, 2.x and XL to a model of ours, and back.

Two forms are read and written, both offline: a folder of the diffusers
library, and a single file (``.safetensors`` or ``.ckpt``) by CompVis' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from multidiff.config.option_set import flag
from multidiff.image.stable_diffusion.contents import names_in, stranger, tensors_in
from multidiff.image.stable_diffusion.dit_folder import is_dit, read_dit
from multidiff.image.stable_diffusion.folder import INDEX, read_folder
from multidiff.image.stable_diffusion.folder_writing import half_precision, write_folder
from multidiff.image.stable_diffusion.naming import AUTOENCODER, OUR_AUTOENCODER, UNET
from multidiff.image.stable_diffusion.openai import is_openai, read_openai
from multidiff.image.stable_diffusion.pixel_folder import (
    can_be_pixel_folder,
    is_pixel_folder,
    read_pixel_folder,
    write_pixel_folder,
)
from multidiff.image.stable_diffusion.recipe import Words
from multidiff.image.stable_diffusion.schedulers import SCHEDULER, announce
from multidiff.image.stable_diffusion.sd3_file import is_sd3_file, read_sd3_file
from multidiff.image.stable_diffusion.sd3_folder import is_sd3, read_sd3
from multidiff.image.stable_diffusion.single_file import read_single_file, single_file
from multidiff.image.stable_diffusion.tokenizer_files import END_OF_TEXT, number_of, tokenizer_files
from multidiff.image.stable_diffusion.transformer_writing import write_dit, write_sd3
from multidiff.image.stable_diffusion.vae import check_latents, read_autoencoder
from multidiff.image.tokenizers import MERGES, T5_TOKENIZER, VOCABULARY
from multidiff.models.weights import Conversion, save_tensors
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write
from multidiff.utils.readers import read_json, read_text
from multidiff.utils.report import Report

# Kinds of sources, and the options that each takes beside --allow-unexpected.
PIXELS, DIT, SD3 = "pixel diffusion without an autoencoder", "a DiT", "Stable Diffusion 3"
OPENAI = "a UNet of guided-diffusion"
FOLDER, FILE = "a folder of Stable Diffusion", "a file of Stable Diffusion"
TAKES = {
    PIXELS: {"prediction"},
    DIT: set[str](),
    SD3: {"tokenizer", "without_t5"},
    OPENAI: {"image_size", "heads", "schedule", "qkv_order"},
    FOLDER: {"prediction", "tokenizer", "vae"},
    FILE: {"prediction", "tokenizer", "vae", "ema"},
}
# Files of a folder without an index: a part of a model, or a LoRA.
ALONE = ("diffusion_pytorch_model.safetensors", "pytorch_lora_weights.safetensors")


def knows(source: Path) -> bool:
    """Return whether a folder or file is Stable Diffusion, or something often mistaken for it.

    :func:`convert` reports what is recognised but cannot be used.

    Raises:
        InputError: if a file would run code, or is damaged.
    """
    if source.is_dir():
        return (source / INDEX).is_file() or any((source / name).is_file() for name in ALONE)
    names = names_in(source)
    whole = any(name.startswith((UNET, AUTOENCODER)) for name in names)
    return whole or stranger(names) is not None


def convert(
    source: Path,
    *,
    prediction: Literal["epsilon", "v"] | None = None,
    tokenizer: Path | None = None,
    ema: bool = False,
    vae: Path | None = None,
    allow_unexpected: bool = False,
    image_size: int | None = None,
    heads: int | None = None,
    schedule: Literal["linear", "cosine"] | None = None,
    qkv_order: Literal["legacy", "new"] | None = None,
    without_t5: bool = False,
) -> Conversion:
    """Convert a folder or file to a model.

    Args:
        source: the folder with ``model_index.json``, or the file.
        prediction: output of the UNet, if the source does not state it or is wrong.
        tokenizer: folder with ``vocab.json`` and ``merges.txt``; for a single file, if
            they are not beside it.
        ema: whether to use the moving average of the UNet's weights from a single file that has
            both.
        vae: another autoencoder, a folder or a file; the model's scaling stays.
        allow_unexpected: whether to leave out tensors that the model does not have, with a warning.
        image_size: width and height of the images of a guided-diffusion file that is not published.
        heads: number of attention heads of such a file.
        schedule: schedule of a guided-diffusion file, if it is not the published one.
        qkv_order: order of queries, keys and values in it, if it is not the published one.
        without_t5: whether to leave out the third text encoder of Stable Diffusion 3.

    Raises:
        InputError: if it is another model, is incomplete, or does not state its prediction.
    """
    if source.is_dir() and not (source / INDEX).is_file():
        raise InputError(
            f"{source}: is only a part of a model, or a LoRA: give the folder with {INDEX}"
        )
    kind = _kind(source)
    given = {"prediction": prediction, "tokenizer": tokenizer, "ema": ema, "vae": vae}
    given |= {"image_size": image_size, "heads": heads, "schedule": schedule}
    _check_options(source, kind, {**given, "qkv_order": qkv_order, "without_t5": without_t5})
    if kind == PIXELS:
        found = Conversion(*read_pixel_folder(source, prediction))
    elif kind == DIT:
        found = read_dit(source)
    elif kind == OPENAI:
        said: dict[str, Any] = {"size": image_size, "heads": heads}
        said |= {"schedule": schedule, "order": qkv_order}
        found = Conversion(*read_openai(source, tensors_in(source), **said))
    else:
        texts = _tokenizer(source, tokenizer)
        if kind != SD3:
            found = _stable_diffusion(source, texts, prediction, ema, vae)
        elif source.is_dir():
            found = read_sd3(source, texts, not without_t5)
        else:
            found = read_sd3_file(source, tensors_in(source), texts, not without_t5)
    return replace(found, allow_unexpected=allow_unexpected)


def _kind(source: Path) -> str:
    if source.is_dir():
        index = read_json(source / INDEX)
        tests = {PIXELS: is_pixel_folder, DIT: is_dit, SD3: is_sd3}
        return next((kind for kind, matches in tests.items() if matches(index)), FOLDER)
    names = names_in(source)
    if is_openai(names):
        return OPENAI
    return SD3 if is_sd3_file(names) else FILE


def _check_options(source: Path, kind: str, given: Mapping[str, Any]) -> None:
    """Reject options that a kind of source does not have, which would change nothing."""
    unset = (None, False)
    wrong = [n for n, v in given.items() if all(v is not u for u in unset) and n not in TAKES[kind]]
    if wrong:
        words = ", ".join(map(flag, wrong))
        raise InputError(f"{words}: changes nothing in {source}, {kind}; leave it out")


def _stable_diffusion(
    source: Path,
    texts: dict[str, str],
    prediction: Literal["epsilon", "v"] | None,
    ema: bool,
    vae: Path | None,
) -> Conversion:
    """Convert version 1, 2 or XL."""
    if source.is_dir():
        words, tensors = read_folder(source, prediction)
        announce(source, words.replaces)
    else:
        words, tensors = read_single_file(source, prediction, ema)
        if words.pad:
            words = replace(words, pad=number_of(END_OF_TEXT, texts, words.pad))
    if vae is not None:
        words, tensors = _with_autoencoder(words, tensors, vae)
    about = f"{words.kind}, predicts {words.prediction}"
    if not texts:
        about += (
            f"; put {VOCABULARY} and {MERGES} of CLIP's tokenizer into the folder before using "
            "prompts"
        )
    return Conversion(words.recipe(f"{words.kind}, from {source.name}."), tensors, about, texts)


def _with_autoencoder(
    words: Words, tensors: Mapping[str, Tensor], vae: Path
) -> tuple[Words, dict[str, Tensor]]:
    """Return a model with another autoencoder."""
    found, own = read_autoencoder(vae)
    old = words.autoencoder
    check_latents(vae, found, old["latent_channels"], 2 ** (len(old["channels"]) - 1))
    kept = {name: t for name, t in tensors.items() if not name.startswith(OUR_AUTOENCODER)}
    kept |= {OUR_AUTOENCODER + name: tensor for name, tensor in own.items()}
    return replace(words, autoencoder={**found, "scaling": old["scaling"]}), kept


def _tokenizer(source: Path, given: Path | None) -> dict[str, str]:
    """Return the tokenizer's files: from the option's folder, the source or beside it."""
    if given is not None:
        found = tokenizer_files(given)
        if not found:
            raise InputError(f"--tokenizer {given}: has no {VOCABULARY} and {MERGES}")
        return found | _t5_file(given)
    root = source if source.is_dir() else source.parent
    return (tokenizer_files(root / "tokenizer") or tokenizer_files(root)) | _t5_file(root)


def _t5_file(folder: Path) -> dict[str, str]:
    """Return T5's tokenizer of a folder, by our name; empty if it has none."""
    path = folder / T5_TOKENIZER
    return {T5_TOKENIZER: read_text(path)} if path.is_file() else {}


def export(
    model: nn.Module,
    folder: Path,
    destination: Path,
    *,
    recipe: Mapping[str, Any],
    to: Literal["diffusers", "single-file"],
    half: bool = False,
) -> Report:
    """Write a model in a format that other programs read.

    Args:
        model: the model.
        folder: its folder.
        destination: a folder for diffusers, or a ``.safetensors`` file.
        recipe: the model's section of its resolved recipe.
        to: the format.
        half: whether to write float16.

    Raises:
        InputError: if the format cannot represent the model, or the system refuses.
    """
    if recipe["domain"]["use"] == "PixelDomain":
        return _pixels_exported(model, folder, destination, recipe, to, half)
    tensors = half_precision(model.state_dict()) if half else model.state_dict()
    kind = recipe["denoiser"]["use"]
    if kind in ("DiT", "MMDiT"):
        if to != "diffusers":
            raise InputError(f"{folder}: a {kind} can only be written with --to diffusers")
        if kind == "DiT":
            write_dit(recipe, tensors, destination)
        else:
            texts = tokenizer_files(folder) | _t5_file(folder)
            write_sd3(recipe, tensors, texts, destination)
        return Report([f"{destination}: written for {to}"], {"destination": str(destination)})
    _check_kind(folder, recipe)
    if to == "diffusers":
        write_folder(recipe, tensors, tokenizer_files(folder), destination)
    else:
        if destination.suffix != ".safetensors":
            raise InputError(f"{destination}: a single file must be called NAME.safetensors")
        renamed = single_file(recipe, tensors)
        with atomic_write(destination) as partial:
            save_tensors(renamed, partial, {"format": "pt"})
    lines = [f"{destination}: written for {to}"]
    sampler = (recipe.get("sampling") or {}).get("sampler", "ddim")
    if sampler not in ("ddim", SCHEDULER):
        lines.append(f"{destination}: uses the sampler ddim there, not {sampler} as here")
    return Report(lines, {"destination": str(destination)})


def _pixels_exported(
    model: nn.Module,
    folder: Path,
    destination: Path,
    recipe: Mapping[str, Any],
    to: str,
    half: bool,
) -> Report:
    if to != "diffusers" or not can_be_pixel_folder(recipe):
        raise InputError(
            f"{folder}: only pixel diffusion by a UNet with classes or without a condition can be "
            "written, with --to diffusers"
        )
    tensors = half_precision(model.state_dict()) if half else model.state_dict()
    write_pixel_folder(recipe, tensors, destination)
    return Report([f"{destination}: written for diffusers"], {"destination": str(destination)})


def _check_kind(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Check that Stable Diffusion's programs can run the model."""
    domain, denoiser = recipe["domain"], recipe["denoiser"]
    if domain["use"] != "LatentDomain" or not domain.get("text_encoder"):
        raise InputError(f"{folder}: has no latents and captions, as Stable Diffusion has")
    reads_captions = denoiser["condition_width"] is not None and denoiser["classes"] is None
    if not reads_captions or not {"cross", "none"}.issuperset(denoiser["attention"]):
        raise InputError(
            f"{folder}: its UNet has classes, or attention without captions, unlike Stable "
            "Diffusion's"
        )
    skip = domain["text_encoder"].get("skip", 0)
    if skip:
        raise InputError(
            f"{folder}: skips {skip} blocks of its text encoder "
            "(skip), which the other formats cannot express"
        )
