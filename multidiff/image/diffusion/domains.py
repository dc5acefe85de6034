"""Images as states: their pixels, or an autoencoder's latents with a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from multidiff.core.guidance import drop_condition, null_condition
from multidiff.core.protocols import Condition, Domain, Encoded
from multidiff.core.random import Rng, uniform
from multidiff.image.autoencoders.kl import AutoencoderKL, LatentGaussian
from multidiff.image.data.image_files import crop_to, pad_to_multiple, to_unit
from multidiff.image.data.labels import class_complaint, class_labels, class_numbers
from multidiff.image.diffusion.text_encoder import SD3TextEncoder, SDXLTextEncoder, TextEncoder
from multidiff.image.prompt_weights import apply_weights, unread_notation, weighted_prompt
from multidiff.image.prompts import PromptTokenizer
from multidiff.image.tokenizers import Captioned, ClipTokenizer, Tokenizer

BLACK = -1.0


class PixelDomain(Captioned, Domain):
    """Pixels in [-1, 1], optionally with a class (Ho et al. 2020) or a prompt.

    Args:
        size: width and height.
        channels: 1 for grey, 3 for colour.
        pad_to: images are padded with black to multiples of this for the network.
        classes: names of the classes that condition the images; empty for none.
        tokenizer: tokenizer of the prompts that condition the images; None for none.
        factor: side of an image over that of its state, whose pixels are means of squares;
            images are enlarged by bicubic interpolation.

    Raises:
        ValueError: if there are classes and a tokenizer, or ``pad_to`` is no multiple of the
            factor.
    """

    def __init__(
        self,
        size: tuple[int, int] = (32, 32),
        channels: Literal[1, 3] = 3,
        pad_to: int = 1,
        classes: tuple[str, ...] = (),
        tokenizer: PromptTokenizer | None = None,
        factor: int = 1,
    ):
        if factor < 1 or pad_to % factor:
            raise ValueError(f"pad_to {pad_to}: must be a multiple of the factor {factor}")
        if classes and tokenizer is not None:
            raise ValueError("classes and a tokenizer: images have either classes or prompts")
        self.tokenizer = tokenizer
        self.channels: Literal[1, 3] = channels
        self.size, self.pad_to, self.classes = size, pad_to, classes
        self.multiple, self.factor = 1, factor
        self.reads: Literal["prompt", "class", "nothing"] = "class" if classes else "nothing"
        if tokenizer is not None:
            self.reads = "prompt"

    def encode(self, batch: Any, rng: Rng | None) -> Encoded:
        """Return pixels, and labels or the prompts' condition if there are any.

        Raises:
            InputError: if there are classes and an image has no label, or one beyond them.
        """
        if self.tokenizer is not None:
            prompts = self.tokenizer(batch["caption"], rng)
            return Encoded(self.to_state(to_unit(batch["image"])), prompts)
        label = class_labels(batch, len(self.classes)) if self.classes else None
        return Encoded(self.to_state(to_unit(batch["image"])), label)

    def decode(self, state: Tensor, condition: Condition = None) -> Tensor:
        """Return images near [-1, 1] of the domain's size."""
        return self.to_image(state, self.size)

    def state_shape(self, count: int, size: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of the states of ``count`` images of a width and height."""
        width, height = _reduced(size, self.pad_to, self.factor)
        return count, self.channels, height, width

    def to_state(self, image: Tensor) -> Tensor:
        """Return images in [-1, 1], padded and reduced if needed."""
        padded = pad_to_multiple(image, self.pad_to, BLACK)
        return padded if self.factor == 1 else F.avg_pool2d(padded, self.factor)

    def to_image(self, state: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the part of the states that is an image of a width and height, enlarged."""
        if self.factor > 1:
            state = F.interpolate(state, scale_factor=float(self.factor), mode="bicubic")
        return crop_to(state, *size)

    def condition(self, names: list[str], size: tuple[int, int] | None = None) -> Condition:
        """Return the denoiser's condition: that of prompts, or class numbers, -1 where empty.

        Args:
            names: prompts or names of classes.
            size: width and height of the images, which this condition does not have.

        Raises:
            InputError: if a class or a style is unknown.
        """
        if self.tokenizer is not None:
            return self.tokenizer(names)
        return class_numbers(names, self.classes)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Reject prompts that describe nothing; see ``PromptTokenizer.check_prompt``."""
        if self.tokenizer is not None:
            for prompt in prompts:
                self.tokenizer.check_prompt(prompt)

    def complaint(self, prompt: str) -> str | None:
        """Return a line on words that name neither a class nor anything else; None if all do."""
        return class_complaint(prompt, self.classes) if self.classes else super().complaint(prompt)


class LatentDomain(nn.Module, Captioned, Domain):
    """Latents of an autoencoder and a caption or a class (Rombach et al. 2022).

    Args:
        autoencoder: autoencoder of the images; frozen in training.
        text_encoder: encoder of the captions' tokens; None without captions. That of Stable
            Diffusion XL makes a condition that has the images' sizes too.
        tokenizer: tokenizer of the captions.
        drop_caption: fraction of the captions that training empties, for classifier-free guidance.
            The null condition is the empty caption, as in the published models, not zeros.
        zero_null: whether it is zeros instead, as in Stable Diffusion XL; an empty negative prompt
            that is given still is the empty caption.
        size: default width and height of images.
        pad_to: images are padded with black to multiples of this for the network.
        classes: names of the classes that condition the images in place of captions, or their
            number, for names from "0".

    Raises:
        ValueError: if only one of text encoder and tokenizer is given, or classes beside them.
    """

    def __init__(
        self,
        autoencoder: AutoencoderKL,
        text_encoder: TextEncoder | SDXLTextEncoder | SD3TextEncoder | None = None,
        tokenizer: Tokenizer | None = None,
        drop_caption: float = 0.1,
        size: tuple[int, int] = (512, 512),
        pad_to: int | None = None,
        zero_null: bool = False,
        classes: int | tuple[str, ...] = (),
    ):
        if (text_encoder is None) != (tokenizer is None):
            raise ValueError("a text encoder and a tokenizer go together: give both or neither")
        if classes and tokenizer is not None:
            raise ValueError("classes and a tokenizer: images have either classes or captions")
        if not 0 <= drop_caption <= 1:
            raise ValueError(f"drop_caption {drop_caption:g} is not in [0, 1]")
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False)
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.drop_caption, self.size, self.zero_null = drop_caption, size, zero_null
        self.channels: Literal[1, 3] = autoencoder.image_channels
        self.multiple = autoencoder.factor if pad_to is None else 1
        self.pad_to = autoencoder.factor if pad_to is None else pad_to
        names = tuple(map(str, range(classes))) if isinstance(classes, int) else classes
        self.classes: tuple[str, ...] = names
        self.reads: Literal["prompt", "class", "nothing"] = "class" if classes else "nothing"
        self.reads = "prompt" if tokenizer else self.reads

    def encode(self, batch: Any, rng: Rng | None) -> Encoded:
        """Draw the latents, and return them with the captions' condition or the labels.

        Some of the captions are emptied. A batch has images, or the latents' ``latent_mean`` and
        ``latent_log_variance`` from a first pass over them.
        """
        with torch.no_grad():
            x0 = self.autoencoder.to_state(self._latents(batch).sample(rng))
        if self.text_encoder is None:
            label = class_labels(batch, len(self.classes)) if self.classes else None
            return Encoded(x0, label)
        empty = uniform((len(x0),), rng) < self.drop_caption
        captions = ["" if e else c for c, e in zip(batch["caption"], empty.tolist(), strict=True)]
        height, width = (n * self.autoencoder.factor for n in x0.shape[2:])
        condition = self.condition(captions, (width, height))
        if self.zero_null:
            condition = drop_condition(condition, dict.fromkeys(self.prompt_parts(), empty))
        return Encoded(x0, condition)

    def _latents(self, batch: Any) -> LatentGaussian:
        if "latent_mean" in batch:
            return LatentGaussian(batch["latent_mean"], batch["latent_log_variance"])
        return self.gaussian(to_unit(batch["image"]))

    def kept(self, image: UInt8[Tensor, "batch channels height width"]) -> dict[str, Tensor]:
        """Return what a first pass stores for images."""
        found = self.gaussian(to_unit(image))
        return {"latent_mean": found.mean, "latent_log_variance": found.log_variance}

    def gaussian(self, image: Float[Tensor, "batch channels height width"]) -> LatentGaussian:
        """Return the encoder's Gaussian for images in [-1, 1], padded first if needed."""
        own = next(self.autoencoder.parameters())
        padded = pad_to_multiple(image.to(own.device, own.dtype), self.pad_to, BLACK)
        found = self.autoencoder.encode(padded)
        return LatentGaussian(found.mean.float(), found.log_variance.float())

    def condition(self, captions: list[str], size: tuple[int, int] | None = None) -> Condition:
        """Return the denoiser's condition for captions, or names of classes.

        Args:
            captions: captions or classes.
            size: width and height of their images, the domain's by default; Stable Diffusion XL
                reads it as the size of the original image, which is not cropped.
        """
        if self.text_encoder is None or self.tokenizer is None:
            return class_numbers(captions, self.classes)
        return self._with_sizes(self.text_encoder(self.tokenizer(captions)), size)

    def _with_sizes(self, found: Condition, size: tuple[int, int] | None) -> Condition:
        """Return a text encoder's output with the sizes that Stable Diffusion XL reads."""
        if not isinstance(found, dict):
            return found
        (width, height), pooled = size or self.size, found["pooled"]
        sizes = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)
        return {**found, "sizes": sizes.to(pooled.device).expand(len(pooled), -1)}

    def prompt_parts(self) -> tuple[str, ...]:
        """Return the parts of the condition that a missing prompt leaves out."""
        return ("words", "pooled") if isinstance(self.text_encoder, SDXLTextEncoder) else ()

    def null_prompt(self, empty: Condition) -> Condition:
        """See :class:`~multidiff.image.tokenizers.Captioned`."""
        return null_condition(empty, self.prompt_parts()) if self.zero_null else empty

    def pieces(self, prompt: str, weighted: bool = True) -> int:
        """Return in how many pieces a prompt is encoded: 1 unless it is long or has BREAKs."""
        if not self._reads_pieces():
            return 1
        return len(weighted_prompt(self.tokenizer, prompt, weighted).tokens)

    def _reads_pieces(self) -> bool:
        """Return whether captions may be long and have weights."""
        has_more = isinstance(self.text_encoder, SD3TextEncoder)
        return isinstance(self.tokenizer, ClipTokenizer) and not has_more

    def prompted(
        self,
        prompts: list[str],
        pieces: int = 1,
        weighted: bool = True,
        size: tuple[int, int] | None = None,
    ) -> Condition:
        """Return the denoiser's condition for prompts, which may be long and have weights.

        Args:
            prompts: texts (see :mod:`~multidiff.image.prompt_weights`).
            pieces: number of pieces of each; shorter prompts are continued by empty ones.
            weighted: whether brackets are weights; otherwise they are text.
            size: see :meth:`condition`.
        """
        if not self._reads_pieces():
            return self.condition(prompts, size)
        assert self.text_encoder is not None and self.tokenizer is not None
        found = [weighted_prompt(self.tokenizer, prompt, weighted) for prompt in prompts]
        empty = weighted_prompt(self.tokenizer, "")
        rows = [row for one in found for row in [one, *[empty] * (pieces - len(one.tokens))]]
        weights = torch.cat([row.weights for row in rows])
        read = self.text_encoder(torch.cat([row.tokens for row in rows]))
        hidden = apply_weights(read["words"] if isinstance(read, dict) else read, weights)
        hidden = hidden.reshape(len(prompts), -1, hidden.shape[2])
        if not isinstance(read, dict):
            return hidden
        first = read["pooled"][:: len(read["pooled"]) // len(prompts)]  # of the first piece
        return self._with_sizes({"words": hidden, "pooled": first}, size)

    def complaint(self, prompt: str) -> str | None:
        """Return a line on what of a prompt is not read as it may be meant; None without any."""
        if self.classes:
            return class_complaint(prompt, self.classes)
        if self._reads_pieces():  # long prompts are read in pieces
            return unread_notation(prompt)
        return super().complaint(prompt)

    def decode(self, state: Tensor, condition: Condition = None) -> Tensor:
        """Return images near [-1, 1] of the domain's size."""
        return self.to_image(state, self.size)

    def state_shape(self, count: int, size: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of the states of ``count`` images of a width and height."""
        width, height = _reduced(size, self.pad_to, self.autoencoder.factor)
        return count, self.autoencoder.latent_channels, height, width

    def to_state(self, image: Tensor) -> Tensor:
        """Encode images in [-1, 1] as the latents' scaled means."""
        return self.autoencoder.to_state(self.gaussian(image).mean)

    def to_image(self, state: Tensor, size: tuple[int, int]) -> Tensor:
        """Decode states to images near [-1, 1] of a width and height."""
        own = next(self.autoencoder.parameters())
        latent = self.autoencoder.to_latent(state).to(own.device, own.dtype)
        return crop_to(self.autoencoder.decode(latent).float(), *size)


def _reduced(size: tuple[int, int], pad_to: int, factor: int) -> tuple[int, int]:
    """Return the width and height of the states of images that are padded to a multiple."""
    width, height = ((length + -length % pad_to) // factor for length in size)
    return width, height
