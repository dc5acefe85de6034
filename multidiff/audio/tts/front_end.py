"""Text to phones by gruut: the optional extra ``tts``."""

from __future__ import annotations

import functools
import logging
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import groupby
from typing import Any

from multidiff.audio.tts.dictionary import UserWords
from multidiff.audio.tts.normalization import normalized
from multidiff.audio.tts.phones import STRESSES, Phone, sentence_of
from multidiff.utils.errors import InputError
from multidiff.utils.packages import TTS_EXTRA, needs

logger = logging.getLogger(__name__)

LANGUAGES = {"en-us": "en", "de-de": "de"}
MAJOR = {"?": "?", "!": "!"}
_LOCK = threading.Lock()  # threads share gruut's processors


@dataclass(frozen=True)
class Sentence:
    """A sentence as it is read and as it is spoken.

    Attributes:
        text: its words.
        phones: from the pause that begins it to the one that ends it.
    """

    text: str
    phones: tuple[Phone, ...]


class FrontEnd:
    """Sentences of a text as phones.

    Args:
        language: ``en-us`` or ``de-de``.
        dictionary: phones of words, which go before the library's own; by word in lower case.

    Raises:
        InputError: if there is no such language.
    """

    def __init__(
        self, language: str = "en-us", dictionary: Mapping[str, Sequence[Phone]] | None = None
    ):
        if language not in LANGUAGES:
            raise InputError(f"language {language!r}: one of {', '.join(LANGUAGES)}")
        self.language = language
        self.words = UserWords(dictionary or {}, language)

    @property
    def version(self) -> str:
        """The library and its version, on which phones depend."""
        with needs("gruut", "speech from text", TTS_EXTRA):
            return f"gruut {metadata.version('gruut')}"

    def preload(self) -> None:
        """Load the library and its data, which the first text would wait two seconds for.

        Raises:
            PackageError: if the library is missing.
        """
        self._parts("one")

    def sentences(self, text: str) -> list[Sentence]:
        """Return the sentences of a text.

        Raises:
            InputError: if it has no words.
            PackageError: if the library is missing.
        """
        found: list[Sentence] = []
        for part in self._parts(normalized(text, self.language)):
            words, pauses, texts = self._read(part)
            if words:
                found.append(Sentence(" ".join(texts), tuple(sentence_of(words, pauses))))
        if not found:
            raise InputError(f"text {text[:60]!r}: has no words to speak; give a sentence")
        return found

    def phones(self, text: str) -> list[Phone]:
        """Return the phones of a text as those of one utterance, as transcripts are read."""
        sentences = self.sentences(text)
        return [sentences[0].phones[0], *(p for one in sentences for p in one.phones[1:])]

    def _parts(self, text: str) -> list[Any]:
        with _LOCK:
            processor = _processor(self.language)
            graph, root = processor(text, lang=self.language)
            return list(processor.sentences(graph, root))

    def _read(self, part: Any) -> tuple[list[list[Phone]], list[str], list[str]]:
        words: list[list[Phone]] = []
        pauses: list[str] = []
        texts: list[str] = []
        for breaks, group in groupby(part, lambda word: word.is_major_break or word.is_minor_break):
            if breaks:
                for word in group if pauses else ():
                    pauses[-1] = MAJOR.get(word.text[:1], ".") if word.is_major_break else ","
                continue
            rest = [*group]
            while rest:
                phones, count = self.words.find([one.text for one in rest]) or (
                    _phones_of(rest[0].phonemes or ()), 1
                )  # fmt: skip
                if phones:
                    words.append([*phones])
                    pauses.append("")
                    texts.append(" ".join(one.text for one in rest[:count]))
                rest = rest[count:]
        return words, pauses, texts


@functools.cache
def _processor(language: str) -> Any:
    """Return gruut's processor of a language; its lexicon is in memory, with an index of words.

    The package's file has no index: each new word takes a scan of 13 MB, 6 ms.
    """
    with needs("gruut", "speech from text", TTS_EXTRA):
        import gruut  # two seconds to import
    processor = gruut.TextProcessor(default_lang=language)
    lookup: Any = processor.get_settings(language).lookup_phonemes
    if lookup is not None:
        lookup("a")  # opens the file
    # Not part of its interface: another version may keep its lexicon elsewhere, as it is.
    phonemizer: Any = getattr(lookup, "phonemizer", None)
    opened = getattr(phonemizer, "db_conn", None)
    if isinstance(opened, sqlite3.Connection):
        indexed = sqlite3.connect(":memory:", check_same_thread=False)
        opened.backup(indexed)
        opened.close()
        indexed.execute("CREATE INDEX words ON word_phonemes (word, pron_order)")
        phonemizer.db_conn = indexed
    return processor


def _phones_of(marked: Sequence[str]) -> list[Phone]:
    phones: list[Phone] = []
    for one in marked:
        stress = STRESSES.get(one[:1], 0)
        symbol = one[1:] if stress else one
        if symbol:
            phones.append(Phone(symbol, stress, not phones))
    return phones
