"""Options of an image from its file's metadata, so that ``sample --from`` makes it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidiff.config.option_set import options_in
from multidiff.image.canvas_files import Fit
from multidiff.image.data.image_files import read_facts
from multidiff.image.data.provenance import source_digest, weights_digest
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.models.requests import FirstSeeds
from multidiff.utils.errors import InputError

# A file and what follows its last colon, in a list separated by blanks.
ENTRY = re.compile(r"(\S.*?):(\S+)(?=\s|$)")


@dataclass(frozen=True)
class Made:
    """Options of one run of ``sample``, besides the number of images and their folder."""

    sampling: ImageSamplingConfig
    prompts: list[str]
    seed: FirstSeeds
    negative_prompt: list[str] | None = None
    size: str | None = None
    strength: float | None = None
    init_image: Path | None = None
    mask_image: Path | None = None
    fit: Fit | None = None
    feather: int = 0
    lora: tuple[str, ...] = ()
    embedding: tuple[str, ...] = ()
    vae: Path | None = None
    hires: float = 1.0
    hires_strength: float = 0.5


def made_from(image: Path, model: Any, given: Made) -> Made:
    """Return an image's options, with those that are given in their place.

    Files that it was made from are looked for beside it and in the working folder, by name and
    hash; another path is given by their own option.

    Args:
        image: image that ``sample`` wrote.
        model: the model; its weights must be those of the image.
        given: options of this run.

    Raises:
        InputError: if the image has no such metadata, is of other weights, or a file is missing.
    """
    facts = read_facts(image)
    if "seed" not in facts or "sampler" not in facts:
        raise InputError(f"--from {image}: has no record of how it was made")
    if "interpolate" in facts or not re.fullmatch(r"-?\d+", facts["seed"]):
        raise InputError(f"--from {image}: is a grid or a frame; name a single image")
    _check_weights(image, model, facts)
    strength = float(facts["strength"]) if "strength" in facts else None
    return Made(
        _sampling(image, given.sampling, facts),
        given.prompts or ([facts["prompt"]] if facts.get("prompt") else []),
        given.seed or int(facts["seed"]),
        given.negative_prompt
        or ([facts["negative_prompt"]] if "negative_prompt" in facts else None),
        given.size or _size(facts),
        strength if given.strength is None else given.strength,
        given.init_image or _found(image, facts, "init_image"),
        given.mask_image or _found(image, facts, "mask_image"),
        given.fit or facts.get("fit"),  # pyright: ignore[reportArgumentType]
        given.feather or int(facts.get("feather", 0)),
        given.lora or _entries(image, facts, "lora"),
        given.embedding or _entries(image, facts, "embedding"),
        given.vae or _found(image, facts, "vae"),
        given.hires if given.hires != 1 else float(facts.get("hires", 1)),
        float(facts.get("hires_strength", given.hires_strength)),
    )


def _check_weights(image: Path, model: Any, facts: Mapping[str, str]) -> None:
    wanted = facts.get("weights")
    own = None if model.home is None else weights_digest(model.home)
    if wanted is not None and own is not None and wanted != own:
        raise InputError(
            f"--from {image}: was made by {facts.get('model', 'a model')} with weights "
            f"{wanted[:12]}, but this model's are {own[:12]}"
        )


def _sampling(
    image: Path, config: ImageSamplingConfig, facts: Mapping[str, str]
) -> ImageSamplingConfig:
    """Return sampling options of the image, without those that this run overrides."""
    values = {}
    for name in options_in(type(config)):
        if name in facts and name not in config.overrides:
            usual = getattr(type(config), name)
            kind = float if usual is None else type(usual)
            values[name] = facts[name] == "True" if kind is bool else kind(facts[name])
    if values.get("steps") == 0:  # of strength 0, which makes none
        del values["steps"]
    try:
        kept = {name: getattr(config, name) for name in config.overrides}
        return config.replace(**values).replace(**kept)
    except (ValueError, InputError) as error:
        raise InputError(f"--from {image}: {error}") from error


def _size(facts: Mapping[str, str]) -> str | None:
    """Return the size, unless it is that of the initial image, or of an enlarged one."""
    if "hires" in facts:
        return facts.get("hires_from")
    is_fitted = "init_image" not in facts or "fit" in facts
    return facts.get("size") if is_fitted else None


def _found(image: Path, facts: Mapping[str, str], key: str) -> Path | None:
    """Return a file that the image was made from."""
    if key not in facts:
        return None
    return _file(image, facts[key], facts.get(f"{key}_sha256", ""), key)


def _file(image: Path, name: str, digest: str, key: str) -> Path:
    for path in (image.parent / name, Path(name)):
        if path.exists() and digest in ("", source_digest(path)):
            return path
    flag = f"--{key.replace('_', '-')}"
    raise InputError(
        f"--from {image}: was made with {name} (sha256 {digest[:12]}), which is not beside it: "
        f"give its path by {flag}"
    )


def _entries(image: Path, facts: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Return files with their weights or tokens."""
    if key not in facts:
        return ()
    found = ENTRY.findall(facts[key])
    digests = facts.get(f"{key}_sha256", "").split()
    if len(found) != len(digests):
        raise InputError(f"--from {image}: its {key} is unclear; give it by --{key}")
    pairs = zip(found, digests, strict=True)
    return tuple(f"{_file(image, name, digest, key)}:{rest}" for (name, rest), digest in pairs)
