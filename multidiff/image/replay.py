"""Options of an image from its file's metadata, so that ``sample --from`` makes it again."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from multidiff.config.option_set import OptionSet, flag, options_as_text, value_as_text
from multidiff.config.options import values_from_text
from multidiff.image.canvas import Canvas
from multidiff.image.data.image_files import read_facts
from multidiff.image.data.provenance import (
    embedding_facts,
    lora_facts,
    source_digest,
    source_facts,
    weights_digest,
)
from multidiff.image.diffusion.sampling_config import SCHEDULER, ImageSamplingConfig
from multidiff.image.request import ImageRequest
from multidiff.models.requests import FirstSeeds
from multidiff.utils.errors import InputError

Options = TypeVar("Options", bound=OptionSet)
# A file and what follows its last colon, in a list separated by blanks.
ENTRY = re.compile(r"(\S.*?):(\S+)(?=\s|$)")
FILES = ("init_image", "init_latents", "mask_image", "vae")
LISTS = ("lora", "embedding")
# The size that was asked for; "size" is that of the image.
REQUESTED = "requested_size"


@dataclass(frozen=True)
class Made:
    """Options of one run of ``sample``, besides the number of images and their folder."""

    sampling: ImageSamplingConfig
    request: ImageRequest
    prompts: list[str]
    negative_prompt: list[str] | None
    seed: FirstSeeds | None

    def check(self, named: Collection[str], canvas: Canvas | None) -> None:
        """Reject options that change nothing without another one.

        Args:
            named: options that this run names.
            canvas: initial image; None without.

        Raises:
            InputError: if there is such an option; names both.
        """
        request = self.request
        needs = {
            "hires_strength": ("--hires", request.hires != 1),
            "variation_seed": ("--variation-strength", request.variation_strength != 0),
            "strength_of": ("--init-image", canvas is not None or request.hires != 1),
            "rescale": ("--guidance-scale", self.sampling.is_guided),
        }
        usual = {**vars(ImageRequest()), **vars(ImageSamplingConfig())}
        said = {**vars(request), **vars(self.sampling)}
        for name, (other, is_there) in needs.items():
            if name in named and said[name] != usual[name] and not is_there:
                raise InputError(f"{flag(name)}: changes nothing without {other}; add it")
        if request.size and request.outpaint and request.fit is None:
            raise InputError("--size: add --fit beside --outpaint, to bring the image to it first")


def request_facts(model: Any, request: ImageRequest, canvas: Canvas | None) -> dict[str, str]:
    """Return what an image's file records of its request: options that are set, and files.

    Args:
        model: the model, with its LoRAs and embeddings.
        request: the options.
        canvas: initial image; None without.
    """
    usual = options_as_text(ImageRequest())
    said = options_as_text(request)
    facts = {k: v for k, v in said.items() if v != usual.get(k) and k not in (*FILES, *LISTS)}
    facts |= {REQUESTED: facts.pop("size")} if "size" in facts else {}
    facts |= {"strength": value_as_text(canvas.strength)} if canvas is not None else {}
    facts |= {"hires_strength": said["hires_strength"]} if request.hires != 1 else {}
    files = {name: getattr(request, name) for name in FILES if name != "init_image"}
    facts |= source_facts(**files)  # each image has its own initial one
    return facts | lora_facts(model) | embedding_facts(model)


def sampling_facts(config: ImageSamplingConfig, canvas: Canvas | None) -> dict[str, str]:
    """Return what an image's file records of sampling.

    Args:
        config: the options.
        canvas: initial image; None without.
    """
    facts = options_as_text(config)
    facts |= {"replaces": config.replaces} if config.replaces else {}
    if SCHEDULER in (config.sampler, config.timestep_spacing):
        facts["scheduler"] = str(config.scheduler)
    if canvas is not None and canvas.strength != 1 and config.strength_of == "time":
        facts["timestep_spacing"] = "even"
    return {**facts, "steps": "0"} if canvas is not None and canvas.strength == 0 else facts


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
    texts = {k: v for k, v in facts.items() if k not in ("size", *FILES, *LISTS)}
    texts |= {"size": facts[REQUESTED]} if REQUESTED in facts else {}
    if texts.get("steps") == "0":  # of strength 0, which makes none
        del texts["steps"]
    missing = [k for k in (*FILES, *LISTS) if k in facts and k not in given.request.overrides]
    files = {k: (_found if k in FILES else _entries)(image, facts, k) for k in missing}
    try:
        request = _restored(given.request, texts, files)
        sampling = _restored(given.sampling, texts)
    except (ValueError, InputError) as error:
        raise InputError(f"--from {image}: {error}") from error
    negative = [facts["negative_prompt"]] if "negative_prompt" in facts else None
    return Made(
        sampling,
        request,
        given.prompts or ([facts["prompt"]] if facts.get("prompt") else []),
        given.negative_prompt or negative,
        int(facts["seed"]) if given.seed is None else given.seed,
    )


def _restored(given: Options, texts: Mapping[str, str], more: Mapping[str, Any] = {}) -> Options:
    """Return options with recorded values, except those that this run overrides."""
    values = {**values_from_text(type(given), texts), **more}
    kept = {name: getattr(given, name) for name in given.overrides}
    return given.replace(**values).replace(**kept)


def _check_weights(image: Path, model: Any, facts: Mapping[str, str]) -> None:
    wanted = facts.get("weights")
    own = None if model.home is None else weights_digest(model.home)
    if wanted is not None and own is not None and wanted != own:
        raise InputError(
            f"--from {image}: was made by {facts.get('model', 'a model')} with weights "
            f"{wanted[:12]}, but this model's are {own[:12]}"
        )


def _found(image: Path, facts: Mapping[str, str], key: str) -> Path:
    return _file(image, facts[key], facts.get(f"{key}_sha256", ""), key)


def _file(image: Path, name: str, digest: str, key: str) -> Path:
    for path in (image.parent / name, Path(name)):
        if path.exists() and digest in ("", source_digest(path)):
            return path
    raise InputError(
        f"--from {image}: was made with {name} (sha256 {digest[:12]}), which is not beside it: "
        f"give its path by {flag(key)}"
    )


def _entries(image: Path, facts: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Return files with their weights or tokens."""
    found = ENTRY.findall(facts[key])
    digests = facts.get(f"{key}_sha256", "").split()
    if len(found) != len(digests):
        raise InputError(f"--from {image}: its {key} is unclear; give it by --{key}")
    pairs = zip(found, digests, strict=True)
    return tuple(f"{_file(image, name, digest, key)}:{rest}" for (name, rest), digest in pairs)
