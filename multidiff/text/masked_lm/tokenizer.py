"""Tokenizers of transformers as vocabularies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidiff.text.data.subwords import HuggingFaceVocabulary
from multidiff.text.data.tokenizer_file import CHAT_TEMPLATE, TOKENIZER
from multidiff.text.masked_lm.denoiser import SpecialTokens
from multidiff.utils.errors import InputError
from multidiff.utils.packages import needs
from multidiff.utils.readers import reason_of

# Placeholders in a vocabulary, which were never trained.
UNUSED = re.compile(r"\[unused\d+\]|<unused\d+>")
MOST_POSITIONS = 1 << 20
# Files that hold the words of a tokenizer.
FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model",
         "sentencepiece.bpe.model")  # fmt: skip


@dataclass(frozen=True)
class Words:
    """A tokenizer of transformers, as our vocabulary.

    Attributes:
        folder: folder that it was read from.
        tokenizer: the tokenizer.
        texts: assets of the vocabulary by file name.
        vocabulary: our vocabulary.
        numbers: id of each of its tokens from number 3 up.
    """

    folder: Path
    tokenizer: Any
    texts: dict[str, str]
    vocabulary: HuggingFaceVocabulary
    numbers: dict[int, int]

    @property
    def mask(self) -> int | None:
        """Id of the mask token."""
        return self.tokenizer.mask_token_id

    @property
    def never(self) -> set[int]:
        """Ids that are never generated: placeholders and special tokens."""
        vocabulary = self.tokenizer.get_vocab().items()
        unused = {one for word, one in vocabulary if UNUSED.fullmatch(word)}
        return unused | {*self.tokenizer.all_special_ids}

    @property
    def longest(self) -> int:
        """Number of tokens of the longest sequence that the tokenizer was made for."""
        return min(self.tokenizer.model_max_length, MOST_POSITIONS)

    def special(self) -> SpecialTokens:
        """Return the ids of the special tokens around a sequence of a masked language model."""
        words = self.tokenizer
        start = () if words.cls_token_id is None else (words.cls_token_id,)
        end = words.sep_token_id if words.sep_token_id is not None else words.eos_token_id
        pad = next((one for one in (words.pad_token_id, end, self.mask) if one is not None), 0)
        return SpecialTokens(self.mask or 0, pad, start, end, words.unk_token_id)

    def check_rows(self, rows: int) -> None:
        """Check that a network has a row for each token.

        Raises:
            InputError: if it has fewer.
        """
        most = max(self.numbers.values())
        if most >= rows:
            raise InputError(
                f"{self.folder}: has {most + 1} tokens for a network with {rows}; use the "
                "tokenizer of the same model"
            )

    def section(self) -> dict[str, Any]:
        """Return the vocabulary's section of a recipe."""
        end = {"end": self.vocabulary.end} if self.vocabulary.end else {}
        return {"use": "HuggingFaceVocabulary", "size": self.vocabulary.size, **end}


def read_tokenizer(folder: Path, generated_end: bool = False, kind: str = "AutoTokenizer") -> Words:
    """Return the tokenizer of a folder.

    Args:
        folder: its folder.
        generated_end: whether the end-of-sequence token is END, and other special tokens are kept.
        kind: class of transformers that reads it.

    Raises:
        InputError: if transformers reads no tokenizer there without remote code.
    """
    with needs("transformers", "a published tokenizer"):
        import transformers  # takes seconds to import

    if not folder.is_dir():
        raise InputError(f"--tokenizer {folder}: no such folder")
    # Of a folder without any of these, transformers makes a tokenizer without words.
    if not any((folder / name).is_file() for name in FILES):
        raise _unreadable(folder, f"it has none of {', '.join(FILES)}")
    options: dict[str, Any] = {"local_files_only": True}
    if kind == "AutoTokenizer":
        options["trust_remote_code"] = False
    try:
        with quiet():
            found = getattr(transformers, kind).from_pretrained(str(folder), **options)
        content = found.backend_tokenizer.to_str()
    except Exception as error:  # the library's many readers raise many types
        raise _unreadable(folder, reason_of(error)) from error
    end = found.eos_token if generated_end else None
    vocabulary, numbers = HuggingFaceVocabulary.of(content, str(folder / TOKENIZER), end)
    texts = {TOKENIZER: content}
    if isinstance(found.chat_template, str):
        named = {key: value for key, value in found.special_tokens_map.items()
                 if isinstance(value, str)}  # fmt: skip
        sets = (f"{{% set {key} = {json.dumps(value)} %}}" for key, value in named.items())
        texts[CHAT_TEMPLATE] = "".join(sets) + found.chat_template
    return Words(folder, found, texts, vocabulary, numbers)


def _unreadable(folder: Path, reason: str) -> InputError:
    return InputError(
        f"{folder}: has no tokenizer that transformers reads ({reason}); name its folder: "
        "multidiff convert MODEL NEW --tokenizer FOLDER"
    )


def special_section(special: SpecialTokens) -> dict[str, Any]:
    """Return special tokens as a recipe has them."""
    return {**vars(special), "start": list(special.start)}


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the notes and bars of transformers, whose faults are reported here."""
    from transformers.utils import logging as library

    level = library.get_verbosity()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        library.enable_progress_bar()
