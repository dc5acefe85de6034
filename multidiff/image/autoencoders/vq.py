"""Images as tokens: an autoencoder with a quantiser in the middle, and its training."""

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
    """Images to tokens and back (van den Oord et al. 2017; Esser et al. 2021, section 3.1).

    Args:
        quantizer: what rounds the latents.
        image_channels: 3 for colour.
        channels: of the levels, finest first; each but the last halves the size.
        layers: residual blocks of each level of the encoder; the decoder has one more.
        groups: of the group norms.
        norm_eps: of the group norms.
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
        """Tokens of images in [-1, 1], and the latents that they stand for.

        Args:
            image: height and width are multiples of the reduction.
            training: whether the quantiser may learn from them.
            rng: draws what that takes.

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
        """Images near [-1, 1] of rounded latents."""
        latents = latents.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.post_quant_conv(latents))

    def lookup(
        self, tokens: Int[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch width rows columns"]:
        """The latents that tokens stand for.

        Raises:
            ValueError: if one is the number of no code.
        """
        if bool(((tokens < 0) | (tokens >= self.quantizer.size)).any()):
            raise ValueError(
                f"tokens {int(tokens.min())} to {int(tokens.max())}: the codes are numbered "
                f"0 to {self.quantizer.size - 1}"
            )
        return self.quantizer.lookup(tokens)


class TokenAutoencoder(AutoencoderTrainer):
    """A :class:`VQAutoencoder` in training; a model of its own to encode and decode by.

    Args:
        autoencoder: what is wanted.
        discriminator: judges patches; see
            :class:`~multidiff.image.autoencoders.training.AutoencoderTrainer` for it and all that
            follows.
        adversarial_weight: of its judgement.
        adversarial_from: batches before it begins.
        perceptual: a distance of features.
        pad_to: images are padded with black to multiples of this; of the autoencoder's
            reduction where not given.
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
                f"pad_to {multiple}: is no multiple of the reduction, {autoencoder.factor}"
            )
        super().__init__(
            autoencoder, discriminator, adversarial_weight, adversarial_from, perceptual, multiple
        )

    @property
    def size(self) -> int:
        """Number of codes."""
        return self.autoencoder.quantizer.size

    def metadata(self) -> dict[str, str]:
        """What the weights were made for."""
        quantizer = self.autoencoder.quantizer
        return {
            "kind": "token autoencoder",
            "quantizer": type(quantizer).__name__,
            "codes": str(quantizer.size),
        }

    def losses(self, batch: Any, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Errors of the reconstruction, the game's two losses, and the quantiser's, by name.

        Beside them stand the batch's codebook usage and perplexity, for the log: constants,
        from which nothing is learnt.
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
        """The tokens of images, padded first where need be."""
        return self.autoencoder.encode(self._padded(image)).tokens

    @torch.no_grad()
    def decode(
        self, tokens: Int[Tensor, "batch rows columns"], size: tuple[int, int] | None = None
    ) -> UInt8[Tensor, "batch channels height width"]:
        """The images of tokens.

        Args:
            tokens: numbers of codes.
            size: width and height that the images had before they were padded; all of the
                decoder's image where not given.

        Raises:
            ValueError: if a token is the number of no code, or the size is larger.
        """
        own = next(self.parameters())
        made = self.autoencoder.decode(self.autoencoder.lookup(tokens.to(own.device)).to(own.dtype))
        return from_unit(made if size is None else crop_to(made, *size))

    def reconstruct(
        self, image: UInt8[Tensor, "batch channels height width"]
    ) -> UInt8[Tensor, "batch channels height width"]:
        """What is left of images as tokens."""
        height, width = image.shape[2:]
        return self.decode(self.encode(image), (width, height))
