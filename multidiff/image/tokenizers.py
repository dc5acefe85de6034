"""Captions to token numbers."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint, of_files
from multidiff.utils.packages import needs
from multidiff.utils.readers import check_file_size, read_text, reading, without_panic_report

logger = logging.getLogger(__name__)

VOCABULARY, MERGES = "vocab.json", "merges.txt"


@runtime_checkable
class Tokenizer(Protocol):
    """What a text encoder's input is made by: rows of ``length`` token numbers."""

    length: int

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch length"]:
        """Token numbers; what does not fit is cut off."""
        ...

    def complaint(self, caption: str) -> str | None:
        """What of a caption does not reach the encoder, told in a line; None if all does."""
        ...

    def assets(self) -> dict[str, str]:
        """What must lie beside a model's weights, by name."""
        ...

    def load_assets(self, folder: Path) -> None:
        """Take those files up."""
        ...


class Captioned:
    """A domain whose images may be told by captions.

    Attributes:
        tokenizer: captions to tokens; None without captions.
    """

    tokenizer: Tokenizer | None

    def complaint(self, prompt: str) -> str | None:
        """What of a caption does not reach the network."""
        return None if self.tokenizer is None else self.tokenizer.complaint(prompt)

    def assets(self) -> dict[str, str]:
        """What must lie beside the weights."""
        return {} if self.tokenizer is None else self.tokenizer.assets()

    def load_assets(self, folder: Path) -> None:
        """Take that up."""
        if self.tokenizer is not None:
            self.tokenizer.load_assets(folder)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of what the tokenizer is made from."""
        return getattr(self.tokenizer, "data_fingerprint", dict)()


class WordTokenizer:
    """One token for each word of a fixed list, in lower case.

    Args:
        words: the list; the position is the number, after begin, end (also the padding) and
            unknown.
        length: tokens of every caption.
    """

    BEGIN, END, UNKNOWN, FIRST = 0, 1, 2, 3

    def __init__(self, words: tuple[str, ...], length: int = 16):
        if len(set(words)) != len(words):
            raise ValueError("words: one is there twice")
        self.length = length
        self.numbers = {word: self.FIRST + position for position, word in enumerate(words)}

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch length"]:
        """See :class:`Tokenizer`."""
        return torch.tensor([self._numbers(caption) for caption in captions])

    def _numbers(self, caption: str) -> list[int]:
        known = [self.numbers.get(word, self.UNKNOWN) for word in words_of(caption)]
        framed = [self.BEGIN, *known[: self.length - 2], self.END]
        return framed + [self.END] * (self.length - len(framed))

    def complaint(self, caption: str) -> str | None:
        """See :class:`Tokenizer`."""
        words = words_of(caption)
        if len(words) > self.length - 2:
            cut = " ".join(words[self.length - 2 :])
            return f"{caption!r}: has {len(words)} words; cut off: {cut!r}"
        unknown = [word for word in words if word not in self.numbers]
        if unknown:
            return f"{caption!r}: the model never read {', '.join(unknown)}; it is passed over"
        return None

    def assets(self) -> dict[str, str]:
        """None: the words stand in the recipe."""
        return {}

    def load_assets(self, folder: Path) -> None:
        """Nothing to take up."""


def words_of(caption: str) -> list[str]:
    """The words of a caption, in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", caption.lower())


class ClipTokenizer:
    """The byte-pair encoding of CLIP, from its ``vocab.json`` and ``merges.txt``.

    Args:
        folder: where they lie for training; a model that is written keeps them beside its
            weights.
        length: tokens of every caption, begin and end among them.
        pad: number of the padding: 49407 (the end token) for Stable Diffusion 1, 0 for 2.
    """

    def __init__(self, folder: str | None = None, length: int = 77, pad: int = 49407):
        self.length, self.pad = length, pad
        self._files: dict[str, str] = {}
        self._encoder: Any = None
        self.folder = None if folder is None else Path(folder)
        if folder is not None:
            self.load_assets(Path(folder))

    def check_path(self) -> None:
        """Refuse a folder without the files of the code.

        Raises:
            InputError: if there are none.
        """
        if self.folder is not None:
            for name in (VOCABULARY, MERGES):
                check_file_size(self.folder / name)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of both files; nothing where they are not there."""
        if self.folder is None:
            return {}
        files = [self.folder / name for name in (VOCABULARY, MERGES)]
        there = all(file.is_file() for file in files)
        return {"tokenizer": of_files(files, self.folder)} if there else {}

    @classmethod
    def synthetic(
        cls, folder: str | None = None, length: int = 77, pad: int = 49407
    ) -> ClipTokenizer:
        """Return a tokenizer that reads no files and gives padding alone, for dry runs."""
        return _Padding(None, length, pad)

    def load_assets(self, folder: Path) -> None:
        """See :class:`Tokenizer`; files that are missing are asked for when they are needed."""
        if all((folder / name).is_file() for name in (VOCABULARY, MERGES)):
            self.take({name: read_text(folder / name) for name in (VOCABULARY, MERGES)})

    def take(self, files: dict[str, str]) -> None:
        """Take up the contents of both files."""
        self._files, self._encoder = dict(files), None

    def assets(self) -> dict[str, str]:
        """See :class:`Tokenizer`."""
        return dict(self._files)

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch length"]:
        """See :class:`Tokenizer`.

        Raises:
            InputError: if the files were not found beside the weights.
        """
        rows = []
        for caption in captions:
            begin, *inner, end = self._ids(caption)
            framed = [begin, *inner[: self.length - 2], end]
            rows.append(framed + [self.pad] * (self.length - len(framed)))
        return torch.tensor(rows)

    def complaint(self, caption: str) -> str | None:
        """See :class:`Tokenizer`."""
        inner = self._ids(caption)[1:-1]
        if len(inner) <= self.length - 2:
            return None
        cut = self._ready().decode(inner[self.length - 2 :])
        return f"{caption!r}: has {len(inner)} tokens, {self.length - 2} fit; cut off: {cut!r}"

    def _ids(self, caption: str) -> list[int]:
        encoder = self._ready()
        with reading(f"{VOCABULARY} and {MERGES}", "cannot encode a caption"):
            return encoder(caption)["input_ids"]

    def _ready(self) -> Any:
        if self._encoder is None:
            if not self._files:
                raise InputError(
                    f"the model's folder holds no {VOCABULARY} and {MERGES}: put those of CLIP's "
                    "tokenizer there to have prompts read"
                )
            with (
                reading(
                    f"{VOCABULARY} and {MERGES}",
                    "in the model's folder are no byte-pair code",
                    "put those of CLIP's tokenizer there",
                ),
                without_panic_report(),
            ):
                self._encoder = _clip_encoder(self._files)
        return self._encoder


class _Padding(ClipTokenizer):
    """Gives padding for every caption."""

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch length"]:
        """See :class:`Tokenizer`."""
        return torch.tensor([[self.pad] * self.length] * len(captions))


def _clip_encoder(files: dict[str, str]) -> Any:
    import json

    with needs("transformers", "CLIP's tokenizer"):
        from transformers import CLIPTokenizer  # seconds to import

    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)
    lines = [line for line in files[MERGES].splitlines() if line and not line.startswith("#")]
    merges: Any = [tuple(line.split(" ", 1)) for line in lines]
    return CLIPTokenizer(vocab=json.loads(files[VOCABULARY]), merges=merges)
