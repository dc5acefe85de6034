"""What a recipe says of a Stable Diffusion model, and the files that travel with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from multidiff.errors import InputError
from multidiff.image.autoencoder import Autoencoder
from multidiff.image.key_maps import OUR_AUTOENCODER, OUR_TEXT_ENCODER, OUR_UNET
from multidiff.image.text_encoder import TextEncoder
from multidiff.image.tokenizers import MERGES, VOCABULARY
from multidiff.image.unet import UNet

END_OF_TEXT = "<|endoftext|>"
# The published configurations of Stable Diffusion, where a file does not tell.
SCHEDULE = {"use": "BetaSchedule.scaled_linear", "steps": 1000, "first": 0.00085, "last": 0.012}
SCALING = 0.18215
# Models that see a picture beside the noisy latent, by the channels of their input.
PICTURE_INPUTS = {
    9: "for inpainting",
    8: "for editing by instruction",
    7: "for upscaling",
    5: "conditioned on depth",
}


@dataclass(frozen=True)
class Words:
    """A model in the words of a recipe.

    Attributes:
        denoiser: what its section says, but for ``use``; the next two alike.
        autoencoder: see above.
        text_encoder: see above.
        schedule: the section whole.
        predicts: noise, velocity or clean.
        pad: number of the token that fills captions up.
        size: width and height of pictures where none are asked for.
        grid: at which times sampling evaluates.
        solver: which walks.
    """

    denoiser: dict[str, Any]
    autoencoder: dict[str, Any]
    text_encoder: dict[str, Any]
    schedule: dict[str, Any]
    predicts: str
    pad: int
    size: tuple[int, int] = (512, 512)
    grid: str = "leading"
    solver: str = "ddim"

    def model(self) -> dict[str, Any]:
        """The recipe's section."""
        tokenizer = {"length": self.text_encoder["length"], "pad": self.pad}
        return {
            "use": "PictureDiffusion",
            "domain": {
                "use": "LatentDomain",
                "autoencoder": {"use": "Autoencoder", **self.autoencoder},
                "text_encoder": {"use": "TextEncoder", **self.text_encoder},
                "tokenizer": {"use": "ClipTokenizer", **tokenizer},
                "drop_caption": 0.1,
                "size": list(self.size),
            },
            "process": {
                "use": "GaussianProcess",
                "schedule": self.schedule,
                "predicts": self.predicts,
            },
            "denoiser": {"use": "UNet", **self.denoiser},
            "walk": {"steps": 50, "grid": self.grid, "solver": self.solver, "guidance": 7.5},
        }

    def names(self) -> list[str]:
        """The names of the model's tensors."""
        with torch.device("meta"):
            parts: dict[str, Any] = {
                OUR_UNET: UNet(**self.denoiser),
                OUR_AUTOENCODER: Autoencoder(**self.autoencoder),
                OUR_TEXT_ENCODER: TextEncoder(**self.text_encoder).transformer,
            }
        return [prefix + name for prefix, one in parts.items() for name in one.state_dict()]

    def recipe(self, origin: str) -> str:
        """The recipe as YAML, with a line on top that says where it comes from."""
        body = yaml.safe_dump(
            {"model": self.model()}, sort_keys=False, default_flow_style=None, width=100
        )
        return f"# {origin}\n{body}"


def zero_terminal(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a schedule that is rescaled to end without any signal."""
    return {"use": "BetaSchedule.zero_terminal_snr", "schedule": dict(schedule)}


def check_input(source: Path, seen: int, latent: int) -> None:
    """Refuse models that see a picture beside the noisy latent.

    Args:
        source: where the model is from.
        seen: channels that its UNet reads.
        latent: channels of the latent.

    Raises:
        InputError: if the two are not the same.
    """
    if seen != latent:
        kind = PICTURE_INPUTS.get(seen, "of another kind")
        raise InputError(
            f"{source}: is a model {kind}: its UNet reads {seen} channels, the latent has {latent}"
        )


def some(names: list[str]) -> str:
    """The first of many names, and how many they are."""
    shown = ", ".join(names[:3])
    return f"{shown} ({len(names)} in all)" if len(names) > 3 else shown


def tokenizer_files(folder: Path) -> dict[str, str]:
    """``vocab.json`` and ``merges.txt`` of a folder; empty if it has none.

    Newer programs write ``tokenizer.json`` instead, which holds both.

    Raises:
        InputError: if they cannot be read.
    """
    paths = [folder / VOCABULARY, folder / MERGES]
    whole = folder / "tokenizer.json"
    if all(path.is_file() for path in paths):
        read_json(paths[0])
        return {path.name: _text(path) for path in paths}
    if not whole.is_file():
        return {}
    try:
        model = read_json(whole)["model"]
        merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
        vocabulary = json.dumps(model["vocab"], ensure_ascii=False)
    except (KeyError, TypeError) as error:
        raise InputError(f"{whole}: has no vocabulary and merges of a byte-pair code") from error
    return {VOCABULARY: vocabulary, MERGES: "\n".join(["#version: 0.2", *merges, ""])}


def number_of(token: str, files: Mapping[str, str], otherwise: int) -> int:
    """A token's number in the vocabulary, if there is one."""
    return int(json.loads(files.get(VOCABULARY, "{}")).get(token, otherwise))


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: if it is missing or none.
    """
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is no JSON ({error}); copy or download it again") from error


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the folder is not whole") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
