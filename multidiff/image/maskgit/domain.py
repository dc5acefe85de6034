"""Images as the tokens of a quantized autoencoder, with a class or a caption."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from multidiff.core.protocols import Condition, Domain, Encoded
from multidiff.core.random import Rng
from multidiff.image.autoencoders.vq import VQAutoencoder
from multidiff.image.data.image_files import crop_to, from_unit, pad_to_multiple, to_unit
from multidiff.image.data.labels import class_complaint, class_labels, class_number
from multidiff.image.diffusion.domains import BLACK
from multidiff.image.tokenizers import Captioned, Tokenizer

Size = tuple[int, int]


class ImageTokenDomain(nn.Module, Captioned, Domain):
    """Images as token sequences, row by row from the top (Esser et al. 2021; Chang et al. 2022).

    The condition is a dict with ``source`` (batch, positions): the class's number, or the tokens
    of a caption; -1 where it is dropped.

    Args:
        autoencoder: autoencoder from images to tokens; frozen in training.
        classes: names of the classes that condition the images; empty for none. A number
            stands for that many classes, named "0", "1" and so on.
        tokenizer: tokenizer of captions; None without captions.
        size: width and height of images.
        pad_to: images are padded with black to multiples of this; the autoencoder's
            reduction by default.

    Raises:
        ValueError: if both classes and captions are given, the number of classes is negative, or
            the padding does not fit.
    """

    def __init__(
        self,
        autoencoder: VQAutoencoder,
        classes: tuple[str, ...] | int = (),
        tokenizer: Tokenizer | None = None,
        size: Size = (256, 256),
        pad_to: int | None = None,
    ):
        if isinstance(classes, int):
            if classes < 0:
                raise ValueError(f"classes {classes}: must be a number of classes, or their names")
            classes = tuple(map(str, range(classes)))
        if classes and tokenizer is not None:
            raise ValueError("classes and a tokenizer: give one condition, not both")
        factor = autoencoder.factor
        multiple = factor if pad_to is None else pad_to
        if multiple < 1 or multiple % factor:
            raise ValueError(f"pad_to {multiple}: must be a multiple of the reduction, {factor}")
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False)
        self.classes, self.tokenizer = tuple(classes), tokenizer
        self.size, self.pad_to = size, multiple
        self.channels: Literal[1, 3] = autoencoder.image_channels
        self.reads: Literal["prompt", "class", "nothing"] = (
            "class" if classes else "nothing" if tokenizer is None else "prompt"
        )

    @property
    def codes(self) -> int:
        """Number of distinct tokens."""
        return self.autoencoder.quantizer.size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens of an image."""
        width, height = ((n + -n % self.pad_to) // self.autoencoder.factor for n in self.size)
        return height, width

    @property
    def length(self) -> int:
        """Number of tokens of an image."""
        rows, columns = self.grid
        return rows * columns

    def encode(self, batch: Any, rng: Rng | None) -> Encoded:
        """Return tokens and condition.

        A batch has images, or the ``tokens`` from a first pass over them.
        """
        tokens = batch["tokens"].long() if "tokens" in batch else self.tokens(batch["image"])
        return Encoded(tokens.to(self.device), self._told(batch))

    @property
    def device(self) -> torch.device:
        """Device that it computes on."""
        return next(self.autoencoder.parameters()).device

    def _told(self, batch: Any) -> Condition:
        if self.reads == "class":
            label = class_labels(batch, len(self.classes))
            return {"source": label.long()[:, None].to(self.device)}
        return self.condition(batch["caption"]) if self.reads == "prompt" else None

    def kept(self, image: UInt8[Tensor, "batch channels height width"]) -> dict[str, Tensor]:
        """Return what a first pass stores for images."""
        return {"tokens": self.tokens(image).to(torch.int32)}

    @torch.no_grad()
    def tokens(
        self, image: UInt8[Tensor, "batch channels height width"]
    ) -> Int[Tensor, "batch length"]:
        """Encode images of the domain's size as tokens.

        Raises:
            ValueError: if they have another size.
        """
        height, width = image.shape[2:]
        if (width, height) != tuple(self.size):
            wanted = "x".join(map(str, self.size))
            raise ValueError(f"images of {width}x{height}: this domain's have {wanted}")
        own = next(self.autoencoder.parameters())
        padded = pad_to_multiple(to_unit(image.to(own.device)).to(own.dtype), self.pad_to, BLACK)
        return self.autoencoder.encode(padded).tokens.flatten(1)

    def decode(
        self, state: Int[Tensor, "batch length"], condition: Condition = None
    ) -> Float[Tensor, "batch channels height width"]:
        """Return images near [-1, 1] of the domain's size."""
        own = next(self.autoencoder.parameters())
        tokens = state.to(own.device).unflatten(1, self.grid)
        return crop_to(self.autoencoder.decode(self.autoencoder.lookup(tokens)).float(), *self.size)

    @torch.no_grad()
    def images(
        self, tokens: Int[Tensor, "batch length"]
    ) -> UInt8[Tensor, "batch channels height width"]:
        """Decode tokens to images; the mask, number ``codes``, is shown as grey."""
        hidden = tokens == self.codes
        made = self.decode(tokens.masked_fill(hidden, 0))
        rows, columns = self.grid
        factor = self.autoencoder.factor
        seen = hidden.view(-1, 1, rows, columns)
        covered = seen.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
        covered = crop_to(covered, *self.size).to(made.device)
        return from_unit(made.masked_fill(covered, 0.0))

    def condition(self, prompts: list[str]) -> Condition:
        """Return the denoiser's condition for classes or captions; an empty one is dropped.

        Raises:
            InputError: if a class is unknown.
        """
        if self.reads == "nothing":
            return None
        if self.tokenizer is None:
            numbers = [[class_number(name, self.classes)] for name in prompts]
            return {"source": torch.tensor(numbers, device=self.device)}
        found = torch.as_tensor(self.tokenizer(prompts)).to(self.device)
        empty = torch.tensor([not prompt for prompt in prompts], device=self.device)
        return {"source": found.masked_fill(empty[:, None], -1)}

    def complaint(self, prompt: str) -> str | None:
        """Return a line on what of a prompt does not reach the network; None if all does."""
        return class_complaint(prompt, self.classes) if self.classes else super().complaint(prompt)
