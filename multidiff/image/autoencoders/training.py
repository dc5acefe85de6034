"""Training an autoencoder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from multidiff.core.random import Rng
from multidiff.image.autoencoders.discriminator import PatchDiscriminator, balance
from multidiff.image.autoencoders.kl import AutoencoderKL, Decoder, Encoder
from multidiff.image.autoencoders.perceptual import PerceptualDistance
from multidiff.image.data.image_files import crop_to, from_unit, pad_to_multiple, to_unit
from multidiff.models.hub_model import HubModel

BLACK = -1.0


class Autoencoder(Protocol):
    """A network that encodes images to something smaller and decodes them."""

    image_channels: Literal[1, 3]
    encoder: Encoder
    decoder: Decoder


class AutoencoderTrainer(HubModel, nn.Module):
    """A trainable autoencoder with its reconstruction and adversarial losses (Esser et al. 2021).

    Discriminator and autoencoder step at once: the discriminator's loss does not reach
    the autoencoder, nor the other way round, so one sum of losses trains both.

    Args:
        autoencoder: network to train.
        discriminator: patch discriminator, or None.
        adversarial_weight: weight of the adversarial loss, after both gradients are balanced.
        adversarial_from: number of batches before the adversarial loss begins.
        perceptual: perceptual distance, added to that of pixels with the same weight, or None.
        pad_to: images are padded to multiples of this; 0 for no padding.
    """

    pipeline_tag = "image-feature-extraction"

    def __init__(
        self,
        autoencoder: Autoencoder,
        discriminator: PatchDiscriminator | None,
        adversarial_weight: float,
        adversarial_from: int,
        perceptual: PerceptualDistance | None,
        pad_to: int,
    ):
        super().__init__()
        self.autoencoder = autoencoder
        self.discriminator, self.perceptual = discriminator, perceptual
        self.adversarial_weight, self.adversarial_from = adversarial_weight, adversarial_from
        self.pad_to = pad_to
        self.batches: Tensor
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def task(self) -> nn.Module:
        """Return the model itself."""
        return self

    def begin_costliest(self) -> None:
        """See :class:`~multidiff.training.trainer.Task`: enable the discriminator from now on."""
        self.batches.fill_(self.adversarial_from)

    def assets(self) -> dict[str, str]:
        """Return the required assets: none."""
        return {}

    def load_assets(self, folder: Path) -> None:
        """Do nothing: there are no assets."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the encoder and the decoder."""
        self.autoencoder.encoder.compile(*args, **kwargs)
        self.autoencoder.decoder.compile(*args, **kwargs)

    def reconstruct(
        self, image: UInt8[Tensor, "batch channels height width"]
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Return the reconstructions of images."""
        raise NotImplementedError

    def judged(self, image: Tensor, made: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """Return errors of reconstructed images, and both adversarial losses, by name."""
        error = (made - image).abs().flatten(1).mean(dim=1)
        losses = {"reconstruction": error}
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(made, image)
        if self.discriminator is not None:
            quality = error + losses.get("perceptual", 0)
            losses |= self._game(self.discriminator, image, made, quality)
        return losses

    def _game(
        self, discriminator: PatchDiscriminator, image: Tensor, made: Tensor, quality: Tensor
    ) -> dict[str, Float[Tensor, " batch"]]:
        if not self._game_is_on():
            # Several processes wait for the gradient of every weight: it is zero, but exists.
            idle = torch.stack([weight.sum() for weight in discriminator.parameters()]).sum()
            return {"discriminator": (0 * idle).expand(len(image))}
        generator_loss = discriminator.generator_loss(made)
        weight = self.adversarial_weight * self._balance(quality, generator_loss)
        return {
            "adversarial": weight * generator_loss,
            "discriminator": discriminator.loss(image, made),
        }

    def _game_is_on(self) -> bool:
        if torch.is_grad_enabled():
            self.batches += 1
        return int(self.batches) > self.adversarial_from

    def _balance(self, quality: Tensor, generator_loss: Tensor) -> Tensor:
        if not quality.requires_grad:
            return quality.new_ones(())
        return balance(quality, generator_loss, self.autoencoder.decoder.conv_out.weight)

    def _padded(self, image: Tensor) -> Tensor:
        own = next(self.parameters())
        unit = to_unit(image).to(own.device)
        return pad_to_multiple(unit, self.pad_to, BLACK) if self.pad_to else unit


class ImageAutoencoder(AutoencoderTrainer):
    """A trainable autoencoder with Gaussian latents (Rombach et al. 2022, section 3.1).

    Args:
        autoencoder: network to train.
        kl_weight: weight of the latents' KL from a normal, in nats for each image, beside
            errors that are means over an image.
        discriminator: patch discriminator, or None; see :class:`AutoencoderTrainer` for this and
            what follows.
        adversarial_weight: weight of the adversarial loss.
        adversarial_from: number of batches before the adversarial loss begins.
        perceptual: perceptual distance, or None.
        pad_to: images are padded to multiples of this; 0 for no padding.
    """

    autoencoder: AutoencoderKL

    def __init__(
        self,
        autoencoder: AutoencoderKL,
        kl_weight: float = 1e-6,
        discriminator: PatchDiscriminator | None = None,
        adversarial_weight: float = 0.5,
        adversarial_from: int = 0,
        perceptual: PerceptualDistance | None = None,
        pad_to: int = 0,
    ):
        super().__init__(
            autoencoder, discriminator, adversarial_weight, adversarial_from, perceptual, pad_to
        )
        self.kl_weight = kl_weight

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        return {"kind": "autoencoder", "scaling": f"{self.autoencoder.scaling:g}"}

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return errors of the reconstruction, both adversarial losses, and the KL, by name."""
        image = self._padded(batch["image"])
        latents = self.autoencoder.encode(image)
        made = self.autoencoder.decode(latents.sample(rng)).float()
        return {**self.judged(image, made), "kl": self.kl_weight * latents.kl().float()}

    @torch.no_grad()
    def reconstruct(
        self, image: UInt8[Tensor, "batch channels height width"]
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Return the reconstructions of images from the latents' means."""
        height, width = image.shape[2:]
        latents = self.autoencoder.encode(self._padded(image))
        return from_unit(crop_to(self.autoencoder.decode(latents.mean), width, height))
