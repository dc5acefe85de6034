"""What a recipe says of a Stable Diffusion model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from multidiff.config.recipe import to_yaml
from multidiff.image.autoencoders.kl import AutoencoderKL
from multidiff.image.diffusion.text_encoder import TextEncoder
from multidiff.image.diffusion.unet import UNet
from multidiff.image.stable_diffusion.naming import OUR_AUTOENCODER, OUR_TEXT_ENCODER, OUR_UNET
from multidiff.utils.errors import InputError

# The published configurations of Stable Diffusion, where a file does not tell.
SCHEDULE = {"use": "BetaSchedule.scaled_linear", "steps": 1000, "first": 0.00085, "last": 0.012}
SCALING = 0.18215
# Models that see an image beside the noisy latent, by the channels of their input.
IMAGE_INPUTS = {
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
        prediction: epsilon, v or x0.
        pad: number of the token that fills captions up.
        size: width and height of images where none are asked for.
        grid: at which times sampling evaluates.
        sampler: which walks.
        replaces: the scheduler that these stand for, as far as they differ from it.
    """

    denoiser: dict[str, Any]
    autoencoder: dict[str, Any]
    text_encoder: dict[str, Any]
    schedule: dict[str, Any]
    prediction: str
    pad: int
    size: tuple[int, int] = (512, 512)
    grid: str = "leading"
    sampler: str = "ddim"
    replaces: str = ""

    def model(self) -> dict[str, Any]:
        """The recipe's section."""
        tokenizer = {"length": self.text_encoder["length"], "pad": self.pad}
        sampling = {"steps": 50, "grid": self.grid, "sampler": self.sampler, "guidance_scale": 7.5}
        sampling |= {"replaces": self.replaces} if self.replaces else {}
        return {
            "use": "ImageDiffusion",
            "domain": {
                "use": "LatentDomain",
                "autoencoder": {"use": "AutoencoderKL", **self.autoencoder},
                "text_encoder": {"use": "TextEncoder", **self.text_encoder},
                "tokenizer": {"use": "ClipTokenizer", **tokenizer},
                "drop_caption": 0.1,
                "size": list(self.size),
            },
            "process": {
                "use": "GaussianProcess",
                "schedule": self.schedule,
                "prediction": self.prediction,
            },
            "denoiser": {"use": "UNet", **self.denoiser},
            "sampling": sampling,
        }

    def names(self) -> list[str]:
        """The names of the model's tensors."""
        with torch.device("meta"):
            parts: dict[str, Any] = {
                OUR_UNET: UNet(**self.denoiser),
                OUR_AUTOENCODER: AutoencoderKL(**self.autoencoder),
                OUR_TEXT_ENCODER: TextEncoder(**self.text_encoder).transformer,
            }
        return [prefix + name for prefix, one in parts.items() for name in one.state_dict()]

    def recipe(self, origin: str) -> str:
        """The recipe as YAML, with a line on top that says where it comes from.

        Args:
            origin: that line.
        """
        return f"# {' '.join(origin.split())}\n{to_yaml({'model': self.model()})}"


def zero_terminal(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a schedule that is rescaled to end without any signal."""
    return {"use": "BetaSchedule.zero_terminal_snr", "schedule": dict(schedule)}


def check_input(source: Path, seen: int, latent: int) -> None:
    """Refuse models that see an image beside the noisy latent.

    Args:
        source: where the model is from.
        seen: channels that its UNet reads.
        latent: channels of the latent.

    Raises:
        InputError: if the two are not the same.
    """
    if seen != latent:
        kind = IMAGE_INPUTS.get(seen, "of another kind")
        raise InputError(
            f"{source}: is a model {kind}: its UNet reads {seen} channels, the latent has {latent}"
        )
