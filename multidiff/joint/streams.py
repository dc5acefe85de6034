"""Media as sequences of tokens: the parts of a joint state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from multidiff.audio.data.sound import write_sound
from multidiff.audio.vocoder.model import Vocoder
from multidiff.audio.vocoder.projection import MelProjection
from multidiff.core.random import generators, normal
from multidiff.image.autoencoders.vq import VQAutoencoder
from multidiff.image.data.image_files import read_image, resized, write_image
from multidiff.image.maskgit.domain import ImageTokenDomain
from multidiff.joint.records import Cell
from multidiff.joint.sound_tokens import MelAutoencoder
from multidiff.text.data.vocabulary import END, Vocabulary, with_blanks
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint
from multidiff.utils.names import suggestion

# Iterations from noise towards a mel, without a vocoder (Griffin-Lim).
ITERATIONS = 60
# Range above the quietest level within which a frame counts as silence, as a fraction of the range.
SILENT = 0.15


class TokenStream(nn.Module):
    """One medium as tokens ``0 .. size - 1``, a fixed number of them; ``size`` is the mask.

    A medium of one's own derives from this class; a recipe names it by ``use: module:Class``. Its
    networks stay in the precision that they were built with, also in a model that is cast.

    Attributes:
        size: number of distinct tokens.
        length: number of tokens of a medium.
        ending: ending of its files; empty for media that are lines of a text file.
    """

    by_path: ClassVar[bool] = True
    size: int
    length: int
    ending: ClassVar[str] = ""

    @abstractmethod
    def read(self, cell: Cell) -> Any:
        """Return the medium of a table's cell.

        Raises:
            InputError: if it is not of this kind, or does not fit.
        """

    @abstractmethod
    def encode(self, media: Sequence[Any]) -> Int[Tensor, "batch length"]:
        """Return the tokens of media as :meth:`read` returns them."""

    @abstractmethod
    def decode(self, tokens: Int[Tensor, "batch length"], seeds: Sequence[int]) -> list[Any]:
        """Return the media of tokens, each by its own seed where that matters."""

    def known(self, cell: Cell) -> tuple[Any, Int[Tensor, " length"]]:
        """Return the medium of a cell, and its tokens; unknown ones may be masked."""
        medium = self.read(cell)
        return medium, self.encode([medium])[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the networks without a cast: mels and phases need float32, and tokens stay equal."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        return super()._apply(moved, recurse)

    def own_length(self, medium: Any) -> int:
        """Return the number of tokens of a medium itself; the rest fills it up to the length."""
        return self.length

    def write(self, medium: Any, path: Path) -> None:
        """Write a medium into a file of this ending."""
        raise NotImplementedError(f"{type(self).__name__} has no files")

    def assets(self) -> dict[str, str]:
        """Return the assets, files beside the weights, by name."""
        return {}

    def load_assets(self, folder: Path) -> None:
        """Load the assets from a folder."""

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprints of the sources of its assets."""
        return {}


class ImageStream(TokenStream):
    """Images as the tokens of a quantized autoencoder, row by row from the top.

    Args:
        autoencoder: autoencoder from images to tokens; frozen.
        size: width and height of images.
        resize: whether other sizes are cropped at the centre and resized; otherwise they are
            refused.
    """

    ending = ".png"

    def __init__(
        self,
        autoencoder: VQAutoencoder,
        size: tuple[int, int] = (256, 256),
        resize: bool = False,
    ):
        super().__init__()
        self.domain, self.resize = ImageTokenDomain(autoencoder, size=size), resize
        self.size, self.length = self.domain.codes, self.domain.length

    def read(self, cell: Cell) -> UInt8[Tensor, "channels height width"]:
        """See :class:`TokenStream`; a tensor of bytes is an image too."""
        width, height = self.domain.size
        value, channels = cell.value, self.domain.channels
        if not isinstance(value, Tensor):
            value = read_image(cell.file(), cell.name, channels)
        if value.dtype != torch.uint8 or value.ndim != 3 or len(value) != channels:
            raise InputError(
                f"{cell.name}: {tuple(value.shape)} of {value.dtype}; an image is uint8, "
                f"({channels}, {height}, {width})"
            )
        if self.resize:
            return resized(value, width, height)
        if value.shape[1:] != (height, width):
            raise InputError(
                f"{cell.name}: an image of {value.shape[2]}x{value.shape[1]}; this model's have "
                f"{width}x{height}: resize it"
            )
        return value

    def encode(self, media: Sequence[Tensor]) -> Int[Tensor, "batch length"]:
        """See :class:`TokenStream`."""
        return self.domain.tokens(torch.stack([*media]).to(self.domain.device))

    def decode(
        self, tokens: Int[Tensor, "batch length"], seeds: Sequence[int]
    ) -> list[UInt8[Tensor, "channels height width"]]:
        """See :class:`TokenStream`."""
        return [*self.domain.images(tokens).cpu()]

    def write(self, medium: Tensor, path: Path) -> None:
        """See :class:`TokenStream`."""
        write_image(medium, path)


class SoundStream(TokenStream):
    """Short sounds as the tokens of their mels; the vocoder makes waveforms of decoded mels.

    Args:
        autoencoder: autoencoder from mels to tokens; frozen.
        vocoder: vocoder of the same mels; without one, phases are found by iteration.
        postfilter: factor of the variation of decoded mels, see :func:`postfiltered`; 1 is off.

    Raises:
        ValueError: if the vocoder reads other mels, or the factor is not positive.
    """

    ending = ".wav"

    def __init__(
        self,
        autoencoder: MelAutoencoder,
        vocoder: Vocoder | None = None,
        postfilter: float = 1.0,
    ):
        if not postfilter > 0:
            raise ValueError(f"postfilter {postfilter:g}: must be above 0; 1 is off")
        super().__init__()
        if vocoder is not None and vocoder.preset != autoencoder.preset:
            raise ValueError(
                f"a vocoder of {vocoder.preset.name} mels for tokens of "
                f"{autoencoder.preset.name} mels: set both to the same mel"
            )
        self.autoencoder = autoencoder.requires_grad_(False)
        self.vocoder = None if vocoder is None else vocoder.requires_grad_(False)
        self.size, self.length = autoencoder.size, autoencoder.length
        self.postfilter = postfilter

    @property
    def rate_hz(self) -> int:
        """Sample rate of the sounds."""
        return self.autoencoder.preset.sample_rate_hz

    def read(self, cell: Cell) -> Float[Tensor, " samples"]:
        """See :class:`TokenStream`; a tensor of samples at the model's rate is a sound too."""
        return self.autoencoder.read(cell)

    def encode(self, media: Sequence[Tensor]) -> Int[Tensor, "batch length"]:
        """See :class:`TokenStream`."""
        waves = self.autoencoder.padded(media)
        return self.autoencoder.tokens(waves.to(next(self.parameters()).device))

    @torch.no_grad()
    def decode(
        self, tokens: Int[Tensor, "batch length"], seeds: Sequence[int]
    ) -> list[Float[Tensor, " samples"]]:
        """See :class:`TokenStream`; silence at the end is cut off."""
        decoded = mel = self.autoencoder.sound_mel(tokens)
        if self.postfilter != 1:
            mel = postfiltered(decoded, self.postfilter, self._loud(decoded))
            mel = mel.clamp(*self.autoencoder.preset.level_range)
        if self.vocoder is not None:
            waves = self.vocoder.synthesize(mel, seed=seeds, mel_scale="preset").cpu()
        else:
            noise = normal((len(mel), self.autoencoder.num_samples), generators(seeds))
            waves = MelProjection(self.autoencoder.preset)(noise.to(mel), mel, ITERATIONS).cpu()
        return [wave[:count] for wave, count in zip(waves, self.sounding(decoded), strict=True)]

    def own_length(self, medium: Float[Tensor, " samples"]) -> int:
        """See :class:`TokenStream`: without the silence after a sound that is shorter."""
        return self.autoencoder.own_length(len(medium))

    def sounding(self, mel: Float[Tensor, "batch mels frames"]) -> list[int]:
        """Return the number of samples of each sound up to its silent end."""
        loud = self._loud(mel)
        last = [int(one.nonzero().max()) + 1 if bool(one.any()) else 1 for one in loud]
        return [self.autoencoder.preset.num_samples(one) for one in last]

    def _loud(self, mel: Float[Tensor, "batch mels frames"]) -> Bool[Tensor, "batch frames"]:
        """Return the frames that are not silent."""
        low, high = self.autoencoder.preset.level_range
        return (mel.amax(dim=1) - low) / (high - low) > SILENT

    def write(self, medium: Tensor, path: Path) -> None:
        """See :class:`TokenStream`."""
        write_sound(path, iter([medium.numpy()]), self.rate_hz)


def postfiltered(
    mel: Float[Tensor, "batch mels frames"], factor: float, loud: Bool[Tensor, "batch frames"]
) -> Float[Tensor, "batch mels frames"]:
    """Return log mels with more contrast between near bands, and between frames.

    A decoder that is trained on errors smooths both, and sounds hollow. Differences from the mean
    of five bands are multiplied first (a formant post-filter), then those from each band's mean
    over the loud frames (global variance, Toda & Tokuda 2007). Sounds stay as loud as they were.

    Args:
        mel: natural logarithms of amplitudes.
        factor: factor of both.
        loud: frames whose mean counts.
    """
    edges = F.pad(mel.transpose(1, 2), (2, 2), mode="replicate")
    smooth = F.avg_pool1d(edges, 5, 1).transpose(1, 2)
    sharp = smooth + factor * (mel - smooth)
    weight = loud[:, None].to(mel)
    mean = (sharp * weight).sum(dim=2, keepdim=True) / weight.sum(dim=2, keepdim=True).clamp(min=1)
    found = mean + factor * (sharp - mean)
    before, after = (one.mul(2).logsumexp(dim=(1, 2), keepdim=True) / 2 for one in (mel, found))
    return found + before - after


class TextStream(TokenStream):
    """Texts as the tokens of a vocabulary, with its ``END`` up to the full length.

    ``[MASK]`` in a given text stands for any token.

    Args:
        vocabulary: vocabulary of the texts.
        length: number of tokens, the last of which is an ``END``.
    """

    def __init__(self, vocabulary: Vocabulary, length: int):
        super().__init__()
        self.vocabulary, self.size, self.length = vocabulary, vocabulary.size, length

    def read(self, cell: Cell) -> str:
        """See :class:`TokenStream`."""
        text = cell.value
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{cell.name}: {text!r:.60} is not a text")
        self._numbers(text, cell.name)
        return text

    def encode(self, media: Sequence[str]) -> Int[Tensor, "batch length"]:
        """See :class:`TokenStream`."""
        return torch.tensor([self._numbers(one, one) for one in media])

    def decode(self, tokens: Int[Tensor, "batch length"], seeds: Sequence[int]) -> list[str]:
        """See :class:`TokenStream`."""
        return [self.vocabulary.text(row) for row in tokens.tolist()]

    def own_length(self, medium: str) -> int:
        """See :class:`TokenStream`: without ``END``."""
        return len(with_blanks(self.vocabulary, medium))

    def _numbers(self, text: str, name: str) -> list[int]:
        """Return the tokens of a text, the mask at its blanks."""
        found = with_blanks(self.vocabulary, text)
        if len(found) >= self.length:
            raise InputError(
                f"{name}: {text!r:.60} has {len(found)} tokens; this model's texts have at most "
                f"{self.length - 1}"
            )
        unknown = self.vocabulary.unknown(text.replace("[MASK]", " "))
        if unknown:
            words = getattr(self.vocabulary, "words", ())
            hint = f": {suggestion(unknown[0], words)}" if words else ""
            raise InputError(f"{name}: the model does not know {unknown[0]!r}{hint}")
        found += [END] * (self.length - len(found))
        return [self.size if one is None else one for one in found]

    def assets(self) -> dict[str, str]:
        """See :class:`TokenStream`."""
        return self.vocabulary.assets()

    def load_assets(self, folder: Path) -> None:
        """See :class:`TokenStream`."""
        self.vocabulary.load_assets(folder)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """See :class:`TokenStream`."""
        return getattr(self.vocabulary, "data_fingerprint", dict)()


class WordList:
    """A vocabulary of words that are listed in the recipe, with white space between them.

    Args:
        words: the words, numbered in their order.

    Raises:
        ValueError: if a word appears twice or contains white space.
    """

    FIRST = 3  # after PAD, END and UNKNOWN

    def __init__(self, words: tuple[str, ...]):
        if len(set(words)) != len(words) or any(one.split() != [one] for one in words):
            raise ValueError("words: list each word once, without white space")
        self.words, self.size = words, len(words) + self.FIRST
        self._numbers = {word: number for number, word in enumerate(words, self.FIRST)}

    def numbers(self, text: str) -> list[int]:
        """See :class:`~multidiff.text.data.vocabulary.Vocabulary`."""
        return [self._numbers.get(word, 2) for word in text.split()]

    def text(self, numbers: Sequence[int]) -> str:
        """See :class:`~multidiff.text.data.vocabulary.Vocabulary`."""
        found = [*map(int, numbers)]
        found = found[: found.index(END)] if END in found else found
        return " ".join(self.words[n - self.FIRST] for n in found if n >= self.FIRST)

    def unknown(self, text: str) -> list[str]:
        """See :class:`~multidiff.text.data.vocabulary.Vocabulary`."""
        return [word for word in text.split() if word not in self._numbers]

    def token_ends(self, text: str) -> list[int]:
        """See :class:`~multidiff.text.data.vocabulary.Vocabulary`."""
        ends = np.cumsum([len(part) + 1 for part in text.split(" ")]) - 1
        return [int(end) for end, part in zip(ends, text.split(" "), strict=True) if part]

    def assets(self) -> dict[str, str]:
        """Return no assets: the words are in the recipe."""
        return {}

    def load_assets(self, folder: Path) -> None:
        """Do nothing: there are no assets."""
