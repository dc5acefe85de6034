"""Tokenizers of captions."""

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
T5_TOKENIZER = "t5_tokenizer.json"


@runtime_checkable
class Tokenizer(Protocol):
    """Encoder of captions: rows of ``length`` token numbers."""

    length: int

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch length"]:
        """Return token numbers; captions that are too long are truncated."""
        ...

    def complaint(self, caption: str) -> str | None:
        """Return a line on what of a caption does not reach the encoder; None if all does."""
        ...

    def assets(self) -> dict[str, str]:
        """Return the assets, files beside a model's weights, by name."""
        ...

    def load_assets(self, folder: Path) -> None:
        """Load the assets from a folder."""
        ...


class Captioned:
    """A domain whose images may have captions.

    Attributes:
        tokenizer: tokenizer of the captions; None without captions.
    """

    tokenizer: Any

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Reject prompts that describe nothing; here any text is a prompt, even an empty one."""

    def complaint(self, prompt: str) -> str | None:
        """Return a line on what of a caption does not reach the network; None if all does."""
        return None if self.tokenizer is None else self.tokenizer.complaint(prompt)

    def null_prompt(self, empty: Any) -> Any:
        """Return the condition of no negative prompt, given that of an empty one."""
        return empty

    def assets(self) -> dict[str, str]:
        """Return the assets by file name."""
        return {} if self.tokenizer is None else self.tokenizer.assets()

    def load_assets(self, folder: Path) -> None:
        """Load the assets from a folder."""
        if self.tokenizer is not None:
            self.tokenizer.load_assets(folder)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of the tokenizer's files."""
        return getattr(self.tokenizer, "data_fingerprint", dict)()


class WordTokenizer:
    """One token for each word of a fixed list, in lower case.

    Args:
        words: list of words, numbered in order after the begin, end (also padding) and unknown
            tokens.
        length: number of tokens of every caption.
    """

    BEGIN, END, UNKNOWN, FIRST = 0, 1, 2, 3

    def __init__(self, words: tuple[str, ...], length: int = 16):
        if len(set(words)) != len(words):
            raise ValueError("words: has duplicates; list each word once")
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
            return f"{caption!r}: the model does not know {', '.join(unknown)}, which is ignored"
        return None

    def assets(self) -> dict[str, str]:
        """Return the required assets: none, the words are in the recipe."""
        return {}

    def load_assets(self, folder: Path) -> None:
        """Do nothing: there are no assets."""


def words_of(caption: str) -> list[str]:
    """Return the words of a caption, in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", caption.lower())


class ClipTokenizer:
    """Byte-pair encoding of CLIP, from its ``vocab.json`` and ``merges.txt``.

    Args:
        folder: folder of these files for training; a saved model keeps them beside its
            weights.
        length: number of tokens of every caption, including begin and end.
        pad: number of the padding: 49407 (the end token) for Stable Diffusion 1, 0 for 2.
    """

    def __init__(self, folder: str | None = None, length: int = 77, pad: int = 49407):
        self.length, self.pad = length, pad
        self._files: dict[str, str] = {}
        self._encoder: Any = None
        self._added: dict[str, list[str]] = {}
        self.folder = None if folder is None else Path(folder)
        if folder is not None:
            self.load_assets(Path(folder))

    def check_path(self) -> None:
        """Reject a folder without the tokenizer's files.

        Raises:
            InputError: if they are missing.
        """
        if self.folder is not None:
            for name in (VOCABULARY, MERGES):
                check_file_size(self.folder / name)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of both files; empty if they do not exist."""
        if self.folder is None:
            return {}
        files = [self.folder / name for name in (VOCABULARY, MERGES)]
        there = all(file.is_file() for file in files)
        return {"tokenizer": of_files(files, self.folder)} if there else {}

    @classmethod
    def synthetic(
        cls, folder: str | None = None, length: int = 77, pad: int = 49407
    ) -> ClipTokenizer:
        """Return a tokenizer without files that returns only padding, for dry runs."""
        return _Padding(None, length, pad)

    def load_assets(self, folder: Path) -> None:
        """See :class:`Tokenizer`; missing files are only reported when they are needed."""
        if all((folder / name).is_file() for name in (VOCABULARY, MERGES)):
            self.take({name: read_text(folder / name) for name in (VOCABULARY, MERGES)})

    def take(self, files: dict[str, str]) -> None:
        """Set the contents of both files."""
        self._files, self._encoder = dict(files), None

    def assets(self) -> dict[str, str]:
        """See :class:`Tokenizer`."""
        return dict(self._files)

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch length"]:
        """See :class:`Tokenizer`.

        Raises:
            InputError: if the files are missing beside the weights.
        """
        rows = []
        for caption in captions:
            begin, *inner, end = self._ids(caption)
            framed = [begin, *inner[: self.length - 2], end]
            rows.append(framed + [self.pad] * (self.length - len(framed)))
        return torch.tensor(rows)

    @property
    def ends(self) -> tuple[int, int]:
        """Numbers of the begin and the end token."""
        framed = self._ids("")
        return framed[0], framed[-1]

    def add(self, token: str, count: int, path: Path) -> list[int]:
        """Add a token, which stands for one or several new ones, and return their numbers.

        Args:
            token: its name in captions.
            count: number of tokens that it stands for.
            path: file of its embedding, for messages.

        Raises:
            InputError: if it is empty, has blanks, or is a token already.
        """
        names = [token, *(f"{token}_{number}" for number in range(1, count))]
        known = self._ready().get_vocab()
        taken = [name for name in names if name in known or f"{name.lower()}</w>" in known]
        if not token or re.search(r"\s", token) or taken:
            why = f"{taken[0]} is a token already" if taken else "a token has no blanks"
            raise InputError(f"{path}: the token {token!r}: {why}; choose one by FILE:TOKEN")
        self._added[token] = names
        self._encoder.add_tokens(names)
        return [int(one) for one in self._encoder.convert_tokens_to_ids(names)]

    @property
    def added(self) -> list[str]:
        """Names of the added tokens."""
        return list(self._added)

    def inner(self, text: str) -> list[int]:
        """Return a text's token numbers without begin, end and padding."""
        return self._ids(text)[1:-1]

    def complaint(self, caption: str) -> str | None:
        """See :class:`Tokenizer`."""
        inner = self.inner(caption)
        if len(inner) <= self.length - 2:
            return None
        cut = self._ready().decode(inner[self.length - 2 :])
        return f"{caption!r}: has {len(inner)} tokens, {self.length - 2} fit; cut off: {cut!r}"

    def _ids(self, caption: str) -> list[int]:
        encoder = self._ready()
        for token, names in self._added.items():
            caption = caption.replace(token, " ".join(names))
        with reading(f"{VOCABULARY} and {MERGES}", "cannot encode a caption"):
            return encoder(caption)["input_ids"]

    def _ready(self) -> Any:
        if self._encoder is None:
            if not self._files:
                raise InputError(
                    f"the model's folder has no {VOCABULARY} and {MERGES}: put those of CLIP's "
                    "tokenizer there to use prompts"
                )
            with (
                reading(
                    f"{VOCABULARY} and {MERGES}",
                    "in the model's folder are not a byte-pair encoding",
                    "put those of CLIP's tokenizer there",
                ),
                without_panic_report(),
            ):
                self._encoder = _clip_encoder(self._files)
        return self._encoder


class _Padding(ClipTokenizer):
    """Returns padding for every caption."""

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch length"]:
        """See :class:`Tokenizer`."""
        return torch.tensor([[self.pad] * self.length] * len(captions))


class SD3Tokenizer(ClipTokenizer):
    """CLIP's tokens of a caption, followed by those of T5, from its ``tokenizer.json``.

    Args:
        folder: see :class:`ClipTokenizer`; T5's file is called ``t5_tokenizer.json`` there.
        length: number of CLIP's tokens of every caption.
        pad: see :class:`ClipTokenizer`.
        t5_length: number of T5's tokens of every caption.
    """

    T5_PAD = 0

    def __init__(
        self, folder: str | None = None, length: int = 77, pad: int = 49407, t5_length: int = 256
    ):
        self.t5_length = t5_length
        self._t5: Any = None
        super().__init__(folder, length, pad)

    @classmethod
    def synthetic(
        cls, folder: str | None = None, length: int = 77, pad: int = 49407, t5_length: int = 256
    ) -> ClipTokenizer:
        """Return a tokenizer without files that returns only padding, for dry runs."""
        return _Padding(None, length + t5_length, pad)

    def load_assets(self, folder: Path) -> None:
        """See :class:`Tokenizer`."""
        super().load_assets(folder)
        if (folder / T5_TOKENIZER).is_file():
            self._files[T5_TOKENIZER] = read_text(folder / T5_TOKENIZER)

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch length"]:
        """See :class:`Tokenizer`.

        Raises:
            InputError: if a file is missing beside the weights.
        """
        if self._t5 is None:
            self._t5 = self._t5_encoder()
        rows = [one.ids for one in self._t5.encode_batch([*captions])]
        rows = [row + [self.T5_PAD] * (self.t5_length - len(row)) for row in rows]
        return torch.cat([super().__call__(captions), torch.tensor(rows)], dim=1)

    def _t5_encoder(self) -> Any:
        with needs("tokenizers", "T5's tokenizer"):
            from tokenizers import Tokenizer as Encoder

        if T5_TOKENIZER not in self._files:
            raise InputError(
                f"the model's folder has no {T5_TOKENIZER}: put the tokenizer.json of tokenizer_3 "
                "there by this name"
            )
        with reading(T5_TOKENIZER, "is not a tokenizer"), without_panic_report():
            found = Encoder.from_str(self._files[T5_TOKENIZER])
            found.enable_truncation(self.t5_length)
            found.no_padding()
        return found


def _clip_encoder(files: dict[str, str]) -> Any:
    import json

    with needs("transformers", "CLIP's tokenizer"):
        from transformers import CLIPTokenizer  # takes seconds to import

    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)
    lines = [line for line in files[MERGES].splitlines() if line and not line.startswith("#")]
    merges: Any = [tuple(line.split(" ", 1)) for line in lines]
    return CLIPTokenizer(vocab=json.loads(files[VOCABULARY]), merges=merges)
