"""Vocabularies of other libraries: SentencePiece, and what has a ``tokenizer.json``.

Their pieces are numbered anew, in their own order, from 3 up. Their special pieces (begin, end,
padding, unknown, mask and so on) are left out, since every vocabulary here has the same three.
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
from multidiff.text.data.vocabulary import (
    END,
    FIRST,
    PAD,
    PIECE,
    REPLACEMENT,
    UNKNOWN,
    Vocabulary,
    checked,
)
from multidiff.text.data.vocabulary_assets import SavedVocabulary
from multidiff.utils.errors import InputError
from multidiff.utils.packages import needs
from multidiff.utils.readers import (
    check_file_size,
    parse_json,
    read_bytes,
    read_text,
    reading,
    without_panic_report,
)

TOKENIZER = "tokenizer.json"
# What a tokenizer is tried with when it is read.
TRIALS = ("A small trial, with 42 words and more.", "", " ", "\u6f22\u5b57 \u00e9\n\t\U0001f642")
# Of English, German and the like, by vocabularies of some ten thousand, 1.2 to 1.6; rounded up.
PIECES_OF_A_WORD = 2


class PieceVocabulary(SavedVocabulary):
    """Pieces that another library finds in a text; its own numbers are called ids.

    Args:
        size: of the vocabulary, ``PAD``, ``END`` and ``UNKNOWN`` among them.
        source: texts it is made from.
    """

    def __init__(self, size: int, source: TextSource | None = None):
        super().__init__(size, source)
        self._ids: dict[int, int] = {}
        self._numbers: dict[int, int] = {}

    @abstractmethod
    def _encode(self, text: str) -> list[int]:
        """The id of each piece of a text."""

    @abstractmethod
    def _parts(self, text: str) -> list[str]:
        """What each piece is in the text."""

    @abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """The text of ids."""

    def numbers(self, text: str) -> list[int]:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`."""
        self._ready()
        return [self._numbers.get(piece, UNKNOWN) for piece in self._encode(_whole(text))]

    def text(self, numbers: Sequence[int]) -> str:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`.

        ``UNKNOWN`` is shown as the other library shows it, and passed over if it has no such
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
        """Return a vocabulary of that size which reads no file and no texts, for dry runs."""
        from multidiff.text.made_up import MadeUpVocabulary

        cls(size, **options)
        return MadeUpVocabulary(size, PIECE.findall, PIECES_OF_A_WORD)

    def _renumber(self, ids: Iterable[int], unknown: int | None, name: str) -> None:
        """Number the ids of pieces that are not special; ``unknown`` is that of the unknown."""
        self._ids = dict(enumerate(ids, FIRST))
        if len(self._ids) + FIRST != self.size:
            raise InputError(
                f"{name}: has {len(self._ids)} pieces beside the special ones, which makes a "
                f"vocabulary of size {len(self._ids) + FIRST}, not {self.size}; set that size"
            )
        self._numbers = {piece: number for number, piece in self._ids.items()}
        if unknown is not None:
            self._ids[UNKNOWN] = unknown


def _whole(text: str) -> str:
    """A text without halves of characters, at which the libraries fail.

    A command line in another encoding than the system's is read with such.
    """
    return re.sub("[\ud800-\udfff]", REPLACEMENT, text)


class SentencePieceVocabulary(PieceVocabulary):
    """Pieces of words that SentencePiece finds (Kudo and Richardson 2018).

    Texts stay as they are: nothing is normalised, and all white space is kept. Only U+2581 is
    read as a space, since it stands for one inside the library.

    Args:
        size: of the vocabulary, ``PAD``, ``END`` and ``UNKNOWN`` among them.
        source: trained on its texts that are not held out, and on what they are made from.
        model: path of a ``.model`` file that is there already, in place of a source.
        kind: how pieces are found, of those that are trained here.

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
            raise InputError(f"{model}: a model is not trained again; leave out it or the source")
        self.model, self.kind = model, kind
        self._processor: Any = None
        self._name = self.FILE

    def check_path(self) -> None:
        """Refuse a model that is not there.

        Raises:
            InputError: if it is not.
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

    def _trained(self, texts: list[str], name: str) -> bytes:
        with needs("sentencepiece", "a vocabulary of pieces"):
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
                # Longer texts would be left out without a word.
                max_sentence_length=max(len(text.encode()) for text in texts) + 1,
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = str(error).rpartition("] ")[2]
            raise InputError(
                f"{name}: no {self.kind} vocabulary of size {self.size} comes of it ({reason})"
            ) from error
        return model.getvalue()

    def _take(self, content: str, name: str) -> None:
        with needs("sentencepiece", "a vocabulary of pieces"):
            import sentencepiece

        with reading(name, "is no SentencePiece model"):
            processor = sentencepiece.SentencePieceProcessor()
            processor.LoadFromSerializedProto(base64.b64decode(content.strip(), validate=True))
            for piece in range(processor.GetPieceSize()):
                processor.IdToPiece(piece)  # fails of what is not UTF-8
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

        Exact where the library leaves texts as they are, as models that are trained here do; a
        model that normalises them spreads what it adds and drops evenly.
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
    """Pieces of any tokenizer that is kept as a ``tokenizer.json``.

    Args:
        size: of the vocabulary: pieces of the tokenizer that are not special, and 3.
        folder: where the file lies for training; a model that is written keeps it beside its
            weights.

    Raises:
        InputError: if the size is under 4; at the first use, if the file cannot be read or does
            not fit the size.
    """

    FILE = TOKENIZER

    def __init__(self, size: int, folder: str | None = None):
        super().__init__(size)
        self.folder = folder
        self._tokenizer: Any = None
        self._name = TOKENIZER

    def check_path(self) -> None:
        """Refuse a folder without a tokenizer.

        Raises:
            InputError: if there is none.
        """
        if self.folder is not None:
            check_file_size(Path(self.folder) / TOKENIZER)

    def _make(self) -> tuple[str, str]:
        if self.folder is None:
            raise InputError(
                f"{TOKENIZER}: the model's folder holds none, and its vocabulary has no folder; "
                "put the file there, or set the folder"
            )
        path = Path(self.folder) / TOKENIZER
        if not path.is_file():
            raise InputError(f"{path}: no such file; name a folder that holds a {TOKENIZER}")
        return read_text(path), str(path)

    def _origin(self) -> Path | None:
        return None if self.folder is None else Path(self.folder) / TOKENIZER

    def _take(self, content: str, name: str) -> None:
        with needs("tokenizers", "a Hugging Face vocabulary"):
            from tokenizers import Tokenizer

        model = parse_json(content, name)
        with reading(name, "is no tokenizer"), without_panic_report():
            model = model["model"]
            tokenizer = Tokenizer.from_str(content)
            # What a tokenizer was last used with stays in its file: lengths that it cuts or fills
            # to.
            tokenizer.no_truncation()
            tokenizer.no_padding()
            unknown = model.get("unk_id")
            if model.get("unk_token") is not None:
                unknown = tokenizer.token_to_id(model["unk_token"])
            added = tokenizer.get_added_tokens_decoder()
            special = {piece for piece, token in added.items() if token.special} | {unknown}
            pieces = sorted({*tokenizer.get_vocab().values()} - special)
            # Some faults show, as panics even, when a text is encoded.
            for text in TRIALS:
                tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids)
        self._renumber(pieces, unknown, name)
        self._tokenizer, self._name = tokenizer, name

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
            return self._tokenizer.decode(ids, skip_special_tokens=False)
