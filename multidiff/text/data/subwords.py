"""Vocabularies of other libraries: SentencePiece, and tokenizers with a ``tokenizer.json``.

Their pieces are renumbered, in their own order, from 3 up. Their special pieces (begin, end,
padding, unknown, mask and so on) are dropped, since every vocabulary here has the same three.
"""

from __future__ import annotations

import base64
import io
import itertools
import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from multidiff.text.data.listing import TextSource
from multidiff.text.data.tokenizer_file import (
    CHAT_TEMPLATE,
    TOKENIZER,
    TRIALS,
    TokenizerFile,
    read_tokenizer_file,
)
from multidiff.text.data.vocabulary import (
    END,
    FIRST,
    PAD,
    REPLACEMENT,
    UNKNOWN,
    Vocabulary,
    checked,
)
from multidiff.text.data.vocabulary_assets import SavedVocabulary
from multidiff.text.data.words import PIECE
from multidiff.utils.errors import InputError
from multidiff.utils.packages import needs
from multidiff.utils.readers import (
    check_file_size,
    read_bytes,
    read_text,
    reading,
)

# Pieces per word: 1.2 to 1.6 for English, German and the like with ten thousand pieces; rounded up.
PIECES_OF_A_WORD = 2


class PieceVocabulary(SavedVocabulary):
    """Pieces that another library finds in a text; its own numbers are called ids.

    Args:
        size: size of the vocabulary, including ``PAD``, ``END`` and ``UNKNOWN``.
        source: texts to train it on.
    """

    def __init__(self, size: int, source: TextSource | None = None):
        super().__init__(size, source)
        self._ids: dict[int, int] = {}
        self._numbers: dict[int, int] = {}

    @abstractmethod
    def _encode(self, text: str) -> list[int]:
        """Return the id of each piece of a text."""

    @abstractmethod
    def _parts(self, text: str) -> list[str]:
        """Return the text of each piece."""

    @abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """Return the text of ids."""

    def numbers(self, text: str) -> list[int]:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`."""
        self._ready()
        return [self._numbers.get(piece, UNKNOWN) for piece in self._encode(_whole(text))]

    def text(self, numbers: Sequence[int]) -> str:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`.

        ``UNKNOWN`` is shown as the other library shows it, and skipped if it has no such
        piece.
        """
        self._ready()
        kept = checked(numbers, self.size)
        return self._decode([self._ids[number] for number in kept if number in self._ids])

    def unknown(self, text: str) -> list[str]:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`."""
        numbers, parts = self.numbers(text), self._parts(_whole(text))
        return [part for n, part in zip(numbers, parts, strict=True) if n == UNKNOWN]

    @abstractmethod
    def token_ends(self, text: str) -> list[int]:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`."""

    @classmethod
    def synthetic(cls, size: int, **options: Any) -> Vocabulary:
        """Return a vocabulary of that size that reads neither files nor texts, for dry runs."""
        from multidiff.text.made_up import MadeUpVocabulary

        cls(size, **options)
        return MadeUpVocabulary(size, PIECE.findall, PIECES_OF_A_WORD)

    def _renumber(self, ids: Iterable[int], unknown: int | None, name: str) -> None:
        """Number the ids of pieces that are not special; ``unknown`` is the unknown piece's id."""
        self._ids = dict(enumerate(ids, FIRST))
        if len(self._ids) + FIRST != self.size:
            raise InputError(
                f"{name}: has {len(self._ids)} pieces besides the special ones, which makes a "
                f"vocabulary of size {len(self._ids) + FIRST}, not {self.size}; set that size"
            )
        self._numbers = {piece: number for number, piece in self._ids.items()}
        if unknown is not None:
            self._ids[UNKNOWN] = unknown


def _whole(text: str) -> str:
    """Return a text without unpaired surrogates, at which the libraries fail.

    Command lines in another encoding than the system's contain them.
    """
    return re.sub("[\ud800-\udfff]", REPLACEMENT, text)


class SentencePieceVocabulary(PieceVocabulary):
    """Subwords found by SentencePiece (Kudo and Richardson 2018).

    Texts stay as they are: nothing is normalised, and all white space is kept. Only U+2581 is
    read as a space, since it stands for one inside the library.

    Args:
        size: size of the vocabulary, including ``PAD``, ``END`` and ``UNKNOWN``.
        source: source to train it on: its texts that are not held out, and their sources.
        model: path of an existing ``.model`` file, instead of a source.
        kind: algorithm for vocabularies trained here.

    Raises:
        InputError: if the size is under 4, or both a source and a model are given; at the first
            use, if they cannot be read or do not fit the size.
    """

    FILE = "sentencepiece.txt"

    def __init__(
        self,
        size: int,
        source: TextSource | None = None,
        model: str | None = None,
        kind: Literal["unigram", "bpe"] = "unigram",
    ):
        super().__init__(size, source)
        if source is not None and model is not None:
            raise InputError(f"{model}: a model is not trained again; remove it or the source")
        self.model, self.kind = model, kind
        self._processor: Any = None
        self._name = self.FILE

    def check_path(self) -> None:
        """Reject a model that does not exist.

        Raises:
            InputError: if it does not exist.
        """
        if self.model is not None:
            check_file_size(Path(self.model))

    def _make(self) -> tuple[str, str]:
        if self.model is None:
            texts = self._training_texts()
            name = self.source.path if self.source is not None else ""
            content = self._trained(texts, name)
        else:
            name = self.model
            content = read_bytes(Path(name))
        return base64.b64encode(content).decode() + "\n", name

    def _origin(self) -> Path | None:
        return None if self.model is None else Path(self.model)

    def _trained(self, texts: Iterable[str], name: str) -> bytes:
        with needs("sentencepiece", "a SentencePiece vocabulary"):
            import sentencepiece

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                model_type=self.kind,
                vocab_size=self.size,
                pad_id=PAD,
                eos_id=END,
                unk_id=UNKNOWN,
                bos_id=-1,
                unk_surface=REPLACEMENT,
                character_coverage=1.0,
                byte_fallback=False,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                # Longer texts would be skipped silently.
                max_sentence_length=max(len(text.encode()) for text in texts) + 1,
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = str(error).rpartition("] ")[2]
            raise InputError(
                f"{name}: does not yield a {self.kind} vocabulary of size {self.size} ({reason})"
            ) from error
        return model.getvalue()

    def _take(self, content: str, name: str) -> None:
        with needs("sentencepiece", "a SentencePiece vocabulary"):
            import sentencepiece

        with reading(name, "is not a SentencePiece model"):
            processor = sentencepiece.SentencePieceProcessor()
            processor.LoadFromSerializedProto(base64.b64decode(content.strip(), validate=True))
            for piece in range(processor.GetPieceSize()):
                processor.IdToPiece(piece)  # fails if it is not UTF-8
            for text in TRIALS:
                processor.DecodeIds(processor.Encode(text, out_type=int))
        special = (processor.IsControl, processor.IsUnknown, processor.IsUnused)
        ids = range(processor.GetPieceSize())
        plain = [piece for piece in ids if not any(check(piece) for check in special)]
        self._renumber(plain, processor.unk_id(), name)
        self._processor, self._name = processor, name

    def _encode(self, text: str) -> list[int]:
        with reading(self._name, "cannot encode a text"):
            return self._processor.Encode(text, out_type=int)

    def _parts(self, text: str) -> list[str]:
        with reading(self._name, "cannot encode a text"):
            return self._processor.Encode(text, out_type=str)

    def token_ends(self, text: str) -> list[int]:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`.

        Exact if the library does not normalise texts, as models trained here; a
        model that normalises them spreads inserted and deleted characters evenly.
        """
        self._ready()
        ends = [*itertools.accumulate(map(len, self._parts(_whole(text))))]
        added = ends[-1] - len(text) if ends else 0
        if added in (0, 1):  # a space before the text
            return [max(0, end - added) for end in ends]
        return [round(end * len(text) / ends[-1]) for end in ends]

    def _decode(self, ids: list[int]) -> str:
        with reading(self._name, "cannot decode its own pieces"):
            return self._processor.DecodeIds(ids)


class HuggingFaceVocabulary(PieceVocabulary):
    """Pieces of any tokenizer stored as a ``tokenizer.json``.

    Args:
        size: size of the vocabulary: the tokenizer's pieces that are not special, plus 3.
        folder: folder of the file for training; a saved model keeps it beside its
            weights.
        end: special token that is ``END``; the other special tokens then are tokens of their own,
            which prompts of chat models contain. None drops all special tokens.

    Raises:
        InputError: if the size is under 4; at the first use, if the file cannot be read or does
            not fit the size.
    """

    FILE = TOKENIZER

    def __init__(self, size: int, folder: str | None = None, end: str | None = None):
        super().__init__(size)
        self.folder, self.end = folder, end
        self._special: set[int] = set()
        self._template = ""
        self._tokenizer: Any = None
        self._name = TOKENIZER

    @classmethod
    def of(
        cls, content: str, name: str, end: str | None = None
    ) -> tuple[HuggingFaceVocabulary, dict[int, int]]:
        """Return the vocabulary of a ``tokenizer.json``, and the id of each number from 3 up.

        Args:
            content: the file's content.
            name: its name, for messages.
            end: special token that is ``END``.

        Raises:
            InputError: if it is not a tokenizer, or has no such token.
        """
        found = read_tokenizer_file(content, name, end)
        made = cls(len(found.pieces) + FIRST, end=end)
        made._content = content
        made._use(found, name)
        return made, {number: one for number, one in made._ids.items() if number >= FIRST}

    def check_path(self) -> None:
        """Reject a folder without a tokenizer.

        Raises:
            InputError: if it has none.
        """
        if self.folder is not None:
            check_file_size(Path(self.folder) / TOKENIZER)

    def _make(self) -> tuple[str, str]:
        if self.folder is None:
            raise InputError(
                f"{TOKENIZER}: is not in the model's folder, and its vocabulary has no folder; "
                "put the file there, or set the folder"
            )
        path = Path(self.folder) / TOKENIZER
        if not path.is_file():
            raise InputError(f"{path}: no such file; name a folder that has a {TOKENIZER}")
        return read_text(path), str(path)

    def _origin(self) -> Path | None:
        return None if self.folder is None else Path(self.folder) / TOKENIZER

    def _take(self, content: str, name: str) -> None:
        self._use(read_tokenizer_file(content, name, self.end), name)

    def _use(self, found: TokenizerFile, name: str) -> None:
        self._renumber(found.pieces, found.unknown, name)
        if found.end is not None:
            self._numbers[found.end] = END
        self._special = {number for number, one in self._ids.items() if one in found.special}
        self._tokenizer, self._name = found.tokenizer, name

    def assets(self) -> dict[str, str]:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`; with the chat template."""
        return super().assets() | ({CHAT_TEMPLATE: self._template} if self._template else {})

    def load_assets(self, folder: Path) -> None:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`."""
        super().load_assets(folder)
        if (folder / CHAT_TEMPLATE).is_file():
            self._template = read_text(folder / CHAT_TEMPLATE)

    def chat_prompt(self, text: str) -> str:
        """Return a user's text as a chat model reads it; unchanged without a chat template.

        Raises:
            InputError: if the template cannot be used.
        """
        if not self._template:
            return text
        with needs("transformers", "a chat template"):
            from transformers import PreTrainedTokenizerFast  # takes seconds to import

        self._ready()
        words: Any = PreTrainedTokenizerFast(tokenizer_object=self._tokenizer)
        with reading(CHAT_TEMPLATE, "cannot be used"):
            return words.apply_chat_template(
                [{"role": "user", "content": text}],
                chat_template=self._template, tokenize=False, add_generation_prompt=True,
            )  # fmt: skip

    def has_words(self, text: str) -> bool:
        """Return whether a text has tokens besides special ones."""
        return not {*self.numbers(text)} <= self._special | {END, UNKNOWN}

    def _encode(self, text: str) -> list[int]:
        return self._encoding(text).ids

    def _parts(self, text: str) -> list[str]:
        return [text[first:last] for first, last in self._encoding(text).offsets]

    def token_ends(self, text: str) -> list[int]:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`."""
        self._ready()
        return [last for _, last in self._encoding(_whole(text)).offsets]

    def _encoding(self, text: str) -> Any:
        with reading(self._name, "cannot encode a text"):
            return self._tokenizer.encode(text, add_special_tokens=False)

    def _decode(self, ids: list[int]) -> str:
        with reading(self._name, "cannot decode its own pieces"):
            return self._tokenizer.decode(ids, skip_special_tokens=self.end is not None)
