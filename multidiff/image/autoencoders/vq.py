"""Vector-quantized autoencoder: images to tokens and back, and its training."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from multidiff.core.random import Rng
from multidiff.image.autoencoders.discriminator import PatchDiscriminator
from multidiff.image.autoencoders.kl import Decoder, Encoder
from multidiff.image.autoencoders.perceptual import PerceptualDistance
from multidiff.image.autoencoders.quantizers import Quantized, Quantizer, perplexity, usage
from multidiff.image.autoencoders.training import AutoencoderTrainer
from multidiff.image.data.image_files import crop_to, from_unit


class VQAutoencoder(nn.Module):
    """Autoencoder from images to tokens (van den Oord et al. 2017; Esser et al. 2021, 3.1).

    Args:
        quantizer: quantizer of the latents.
        image_channels: 3 for colour.
        channels: channels of the levels, finest first; each but the last halves the size.
        layers: number of residual blocks of each encoder level; the decoder has one more.
        groups: number of groups of the group norms.
        norm_eps: epsilon of the group norms.
    """

    def __init__(
        self,
        quantizer: Quantizer,
        image_channels: Literal[1, 3] = 3,
        channels: tuple[int, ...] = (128, 128, 256, 256, 512),
        layers: int = 2,
        groups: int = 32,
        norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.image_channels: Literal[1, 3] = image_channels
        self.factor = 2 ** (len(channels) - 1)
        self.quantizer = quantizer
        width = quantizer.width
        self.encoder = Encoder(image_channels, channels, layers, width, groups, norm_eps)
        self.decoder = Decoder(width, channels, layers, image_channels, groups, norm_eps)
        self.quant_conv = nn.Conv2d(width, width, 1)
        self.post_quant_conv = nn.Conv2d(width, width, 1)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def encode(
        self,
        image: Float[Tensor, "batch channels height width"],
        training: bool = False,
        rng: Rng | None = None,
    ) -> Quantized:
        """Encode images in [-1, 1] to tokens and quantized latents.

        Args:
            image: images whose height and width are multiples of the reduction.
            training: whether the quantizer may learn from them.
            rng: generator for the quantizer's draws.

        Raises:
            ValueError: if the height, the width or the channels do not fit.
        """
        channels, height, width = image.shape[1:]
        if channels != self.image_channels or height % self.factor or width % self.factor:
            raise ValueError(
                f"an image of {width}x{height} with {channels} channels: width and height must be "
                f"multiples of {self.factor}, channels {self.image_channels}"
            )
        image = image.contiguous(memory_format=torch.channels_last)
        return self.quantizer(self.quant_conv(self.encoder(image)), training, rng)

    def decode(
        self, latents: Float[Tensor, "batch width rows columns"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Decode quantized latents to images near [-1, 1]."""
        latents = latents.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.post_quant_conv(latents))

    def lookup(
        self, tokens: Int[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch width rows columns"]:
        """Return the latents of tokens.

        Raises:
            ValueError: if a token is out of range.
        """
        if bool(((tokens < 0) | (tokens >= self.quantizer.size)).any()):
            raise ValueError(
                f"tokens {int(tokens.min())} to {int(tokens.max())}: must be in "
                f"0 to {self.quantizer.size - 1}"
            )
        return self.quantizer.lookup(tokens)


class TokenAutoencoder(AutoencoderTrainer):
    """A trainable :class:`VQAutoencoder`; also a model to encode and decode with.

    Args:
        autoencoder: network to train.
        discriminator: patch discriminator, or None; see
            :class:`~multidiff.image.autoencoders.training.AutoencoderTrainer` for this and what
            follows.
        adversarial_weight: weight of the adversarial loss.
        adversarial_from: number of batches before the adversarial loss begins.
        perceptual: perceptual distance, or None.
        pad_to: images are padded with black to multiples of this; the autoencoder's
            reduction by default.
    """

    autoencoder: VQAutoencoder

    def __init__(
        self,
        autoencoder: VQAutoencoder,
        discriminator: PatchDiscriminator | None = None,
        adversarial_weight: float = 0.5,
        adversarial_from: int = 0,
        perceptual: PerceptualDistance | None = None,
        pad_to: int | None = None,
    ):
        multiple = autoencoder.factor if pad_to is None else pad_to
        if multiple < 1 or multiple % autoencoder.factor:
            raise ValueError(
                f"pad_to {multiple}: must be a multiple of the reduction, {autoencoder.factor}"
            )
        super().__init__(
            autoencoder, discriminator, adversarial_weight, adversarial_from, perceptual, multiple
        )

    @property
    def size(self) -> int:
        """Number of codes."""
        return self.autoencoder.quantizer.size

    def metadata(self) -> dict[str, str]:
        """Return the properties that the weights depend on."""
        quantizer = self.autoencoder.quantizer
        return {
            "kind": "token autoencoder",
            "quantizer": type(quantizer).__name__,
            "codes": str(quantizer.size),
        }

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return errors of the reconstruction, the adversarial and the quantizer's losses, by name.

        The batch's codebook usage and perplexity are added for the log, as constants without
        gradients.
        """
        image = self._padded(batch["image"])
        learns = self.training and torch.is_grad_enabled()
        quantized = self.autoencoder.encode(image, learns, rng)
        made = self.autoencoder.decode(quantized.latents).float()
        measures = {"usage": usage, "perplexity": perplexity}
        described = {name: of(quantized.tokens, self.size) for name, of in measures.items()}
        return {
            **self.judged(image, made),
            **quantized.losses,
            **{name: value.expand(len(image)) for name, value in described.items()},
        }

    @torch.no_grad()
    def encode(
        self, image: UInt8[Tensor, "batch channels height width"]
    ) -> Int[Tensor, "batch rows columns"]:
        """Encode images to tokens, padding them first if needed."""
        return self.autoencoder.encode(self._padded(image)).tokens

    @torch.no_grad()
    def decode(
        self, tokens: Int[Tensor, "batch rows columns"], size: tuple[int, int] | None = None
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Decode tokens to images.

        Args:
            tokens: code indices.
            size: width and height that the images had before padding; the whole decoded image
                by default.

        Raises:
            ValueError: if a token is out of range, or the size is larger.
        """
        own = next(self.parameters())
        made = self.autoencoder.decode(self.autoencoder.lookup(tokens.to(own.device)).to(own.dtype))
        return from_unit(made if size is None else crop_to(made, *size))

    def reconstruct(
        self, image: UInt8[Tensor, "batch channels height width"]
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Return the reconstructions of images from their tokens."""
        height, width = image.shape[2:]
        return self.decode(self.encode(image), (width, height))
