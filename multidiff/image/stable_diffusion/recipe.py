"""Recipe of a Stable Diffusion model, of version 1, 2 or XL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from multidiff.config.recipe import to_yaml
from multidiff.image.autoencoders.kl import AutoencoderKL
from multidiff.image.diffusion.inpainting import input_channels
from multidiff.image.diffusion.sampling_config import SCHEDULER
from multidiff.image.diffusion.text_encoder import SDXLTextEncoder, TextEncoder
from multidiff.image.diffusion.unet import UNet
from multidiff.image.stable_diffusion.naming import OUR_AUTOENCODER, OUR_TEXT, OUR_UNET
from multidiff.utils.errors import InputError

# The published configurations of Stable Diffusion, used where a file states none.
SCHEDULE = {"use": "BetaSchedule.scaled_linear", "steps": 1000, "first": 0.00085, "last": 0.012}
SCALING, SCALING_XL = 0.18215, 0.13025
ENCODERS = ("first", "second")  # of version XL
VERSIONS = {"quick_gelu": "Stable Diffusion 1", "gelu": "Stable Diffusion 2"}
# Models whose UNet reads an image beside the noisy latent, by the channels of their input.
IMAGE_INPUTS = {
    8: "for editing by instruction",
    7: "for upscaling",
    5: "conditioned on depth",
}


@dataclass(frozen=True)
class Words:
    """A model in terms of a recipe.

    Attributes:
        denoiser: the section's values without ``use``.
        autoencoder: values of the autoencoder's section, without ``use``.
        text_encoder: values of the text encoder's section, without ``use``; those of version XL
            have ``first`` and ``second``, the values of each of two.
        schedule: whole section of the schedule.
        prediction: epsilon, v or x0.
        pad: number of the token that pads captions.
        size: default width and height of images.
        grid: spacing of the timesteps.
        sampler: name of the sampler.
        replaces: the scheduler that these replace, and what differs.
        scheduler: values of the scheduler's section; None without one.
        zero_null: whether zeros stand for a missing negative prompt.
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
    scheduler: Mapping[str, Any] | None = None
    zero_null: bool = False

    @property
    def is_xl(self) -> bool:
        """Return whether there are two text encoders."""
        return "second" in self.text_encoder

    @property
    def kind(self) -> str:
        """Return the model's name, as far as its configuration determines it."""
        inpaints = self.denoiser["in_channels"] == input_channels(self.denoiser["out_channels"])
        name = VERSIONS.get(self.text_encoder.get("activation", ""), "Stable Diffusion")
        name = "Stable Diffusion XL" if self.is_xl else name
        return f"{name} for inpainting" if inpaints else name

    def sampled_by(self, scheduler: Mapping[str, Any] | None) -> Words:
        """Return these with a scheduler, if there is one, as sampler and spacing."""
        if scheduler is None:
            return self
        return replace(self, grid=SCHEDULER, sampler=SCHEDULER, scheduler=scheduler)

    def model(self) -> dict[str, Any]:
        """Return the recipe's model section."""
        text = self._text_encoder()
        tokenizer = {"length": text.get("first", text)["length"], "pad": self.pad}
        sampling = {"steps": 50, "timestep_spacing": self.grid, "sampler": self.sampler}
        sampling |= {"guidance_scale": 5.0 if self.is_xl else 7.5}
        sampling |= {"replaces": self.replaces} if self.replaces else {}
        sampling |= {"scheduler": dict(self.scheduler)} if self.scheduler else {}
        return {
            "use": "ImageDiffusion",
            "domain": {
                "use": "LatentDomain",
                "autoencoder": {"use": "AutoencoderKL", **self.autoencoder},
                "text_encoder": text,
                "tokenizer": {"use": "ClipTokenizer", **tokenizer},
                "drop_caption": 0.1,
                "size": list(self.size),
                **({"zero_null": True} if self.zero_null else {}),
            },
            "process": {
                "use": "GaussianProcess",
                "schedule": self.schedule,
                "prediction": self.prediction,
            },
            "denoiser": {"use": "UNet", **self.denoiser},
            "sampling": sampling,
        }

    def _text_encoder(self) -> dict[str, Any]:
        """Return the text encoder's section."""
        if not self.is_xl:
            return {"use": "TextEncoder", **self.text_encoder}
        both = {
            one: {"use": "TextEncoder", **self.text_encoder[one]} for one in ("first", "second")
        }
        return {"use": "SDXLTextEncoder", **self.text_encoder, **both}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the model's tensors by name."""
        with torch.device("meta"):
            parts: dict[str, Any] = {
                OUR_UNET: UNet(**self.denoiser),
                OUR_AUTOENCODER: AutoencoderKL(**self.autoencoder),
                OUR_TEXT: self._built_text_encoder(),
            }
        return {
            prefix + name: tuple(tensor.shape)
            for prefix, one in parts.items()
            for name, tensor in one.state_dict().items()
        }

    def _built_text_encoder(self) -> TextEncoder | SDXLTextEncoder:
        values = dict(self.text_encoder)
        if not self.is_xl:
            return TextEncoder(**values)
        first, second = (TextEncoder(**values.pop(one)) for one in ENCODERS)
        return SDXLTextEncoder(first, second, **values)

    def recipe(self, origin: str) -> str:
        """Return the recipe as YAML, with a comment on its origin in the first line.

        Args:
            origin: that comment.
        """
        return f"# {' '.join(origin.split())}\n{to_yaml({'model': self.model()})}"


def zero_terminal(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section of a schedule rescaled to zero terminal SNR."""
    return {"use": "BetaSchedule.zero_terminal_snr", "schedule": dict(schedule)}


def check_input(source: Path, seen: int, latent: int) -> None:
    """Reject models that read an image beside the noisy latent, except those for inpainting.

    Args:
        source: file or folder of the model.
        seen: number of channels that its UNet reads.
        latent: number of channels of the latent.

    Raises:
        InputError: if the two differ.
    """
    if seen not in (latent, input_channels(latent)):
        kind = IMAGE_INPUTS.get(seen, "of another kind")
        raise InputError(
            f"{source}: is a model {kind}: its UNet reads {seen} channels, the latent has {latent}"
        )
