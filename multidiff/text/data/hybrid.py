"""Frequent words whole, all others in characters (Luong and Manning 2016)."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from multidiff.text.data.listing import TextSource
from multidiff.text.data.subwords import HuggingFaceVocabulary
from multidiff.text.data.vocabulary import FIRST, REPLACEMENT
from multidiff.utils.errors import InputError

SPACE = "\u2581"  # as SentencePiece writes it
WORDS = rf"{SPACE}?\w+(?:['\u2019]\w+)*|{SPACE}?[^\w{SPACE}]|{SPACE}"
LEAST_COUNT = 20  # of a character that is not ASCII; rarer ones are UNKNOWN


class HybridVocabulary(HuggingFaceVocabulary):
    """The most frequent words, with the space before them, and characters for all other words.

    A misspelled word is one in characters, and any word can be written. Upper and lower case,
    punctuation and white space stay as they are, except for a space before the text.

    Args:
        size: size of the vocabulary, including ``PAD``, ``END`` and ``UNKNOWN``.
        source: source of the words and characters: its texts that are not held out.

    Raises:
        InputError: if the size is under 4; at the first use, if the source cannot be read or has
            too few words, or more characters than fit.
    """

    def __init__(self, size: int, source: TextSource | None = None):
        super().__init__(size)
        self.source = source

    def _make(self) -> tuple[str, str]:
        counts: Counter[str] = Counter()
        letters: Counter[str] = Counter()
        splitter = _tokenizer([]).pre_tokenizer
        for text in self._training_texts():
            counts.update(word for word, _ in splitter.pre_tokenize_str(text))
            letters.update(text.replace(" ", SPACE))
        characters = [
            one for one, count in letters.items() if one.isascii() or count >= LEAST_COUNT
        ]
        room = self.size - FIRST - len(characters)
        words = [word for word, _ in counts.most_common() if len(word) > 1]
        name = "" if self.source is None else self.source.path
        if room < 0 or room > len(words):
            raise InputError(
                f"{name}: has {len(characters)} characters and {len(words)} words, which does not "
                f"yield a vocabulary of size {self.size}; set a size between"
            )
        made = _tokenizer([*sorted(characters), *words[:room]])
        return json.dumps(json.loads(made.to_str()), ensure_ascii=False), name


def _tokenizer(pieces: list[str]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    # Without merges, a word outside the vocabulary falls apart into characters.
    table = {piece: number for number, piece in enumerate([REPLACEMENT, *pieces])}
    made = Tokenizer(models.BPE(vocab=table, merges=[], unk_token=REPLACEMENT, ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore
        [
            pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True),
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
        ]
    )
    made.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")  # pyright: ignore
    return made
