"""Frequent words whole, all others in characters (Luong and Manning 2016)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Any

from multidiff.text.data.listing import TextSource
from multidiff.text.data.nearest_words import NearestWords
from multidiff.text.data.subwords import HuggingFaceVocabulary
from multidiff.text.data.vocabulary import FIRST, PAD, REPLACEMENT, UNKNOWN
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_text

SPACE = "\u2581"  # as SentencePiece writes it
PRINTED = "\u2019"  # apostrophe
WORDS = rf"{SPACE}?\w+(?:['{PRINTED}]\w+)*|{SPACE}?[^\w{SPACE}]|{SPACE}"
LEAST_COUNT = 20  # of a character that is not ASCII; rarer ones are UNKNOWN
LEAST_KNOWN = 2  # occurrences of a word from which it counts as known; once may be a slip
KNOWN_WORDS = "known_words.txt"


class HybridVocabulary(HuggingFaceVocabulary):
    """The most frequent words, with the space before them, and characters for all other words.

    A misspelled word is one in characters, and any word can be written. Upper and lower case,
    punctuation and white space stay as they are, except for a space before the text.

    Args:
        size: size of the vocabulary, including ``PAD``, ``END`` and ``UNKNOWN``.
        source: source of the words and characters: its texts that are not held out.
        known: source of the words that are known without a token; by default the same.

    Raises:
        InputError: if the size is under 4; at the first use, if the source cannot be read or has
            too few words, or more characters than fit.
    """

    def __init__(
        self, size: int, source: TextSource | None = None, known: TextSource | None = None
    ):
        super().__init__(size)
        self.source, self.known = source, known
        self._rare: frozenset[str] | None = None

    def assets(self) -> dict[str, str]:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`; with the rare known words."""
        return super().assets() | {KNOWN_WORDS: word_list(self._known_words())}

    def load_assets(self, folder: Path) -> None:
        """See :class:`multidiff.text.data.vocabulary.Vocabulary`."""
        super().load_assets(folder)
        for made in ("_pieces", "_near"):  # of what was loaded before
            vars(self).pop(made, None)
        path = folder / KNOWN_WORDS
        if path.is_file():
            self._rare = frozenset(read_text(path).split())
        elif self._content is not None:
            self._rare = frozenset()

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

    def nearest(self, numbers: Sequence[int], count: int) -> list[tuple[int, ...]]:
        """Return, for each token of a text, the words near the word in characters that it is in.

        Beside a word that occurs in the training texts, but is too rare for a token, stands
        UNKNOWN alone: it need not be a slip.

        Args:
            numbers: tokens of the text.
            count: number of words for each token; PAD fills up, and stands for none elsewhere.
        """
        self._ready()
        found = [(PAD,) * count] * len(numbers)
        for start, stop, word in self._spelled(numbers):
            near = self._words_near(word)[:count]
            found[start:stop] = [(*near, *[PAD] * (count - len(near)))] * (stop - start)
        return found

    def _spelled(self, numbers: Sequence[int]) -> Iterator[tuple[int, int, str]]:
        """Yield the words of a text that are in characters, and where they begin and end."""
        pieces = [*(self._pieces.get(number, "") for number in numbers), ""]
        start = 0
        for at, piece in enumerate(pieces):
            if _is_letter(piece) or piece == "'":
                continue
            # As a closing quote it is no part of the word.
            if piece == PRINTED and all(map(_is_letter, (pieces[max(0, at - 1)], pieces[at + 1]))):
                continue
            if at > start:
                yield start, at, "".join(pieces[start:at])
            start = at if piece == SPACE else at + 1

    def _words_near(self, word: str) -> list[int]:
        """Return the tokens near a word, in lower case or with a capital as it is."""
        spaced, letters = word.startswith(SPACE), word.removeprefix(SPACE)
        if not letters:
            return []
        capital, letters = letters[0].isupper(), letters.lower()
        plain = letters.replace(PRINTED, "'")
        if {letters, plain} & self._known_words():
            return [UNKNOWN]
        near, tokens = self._near[spaced]
        found = [tokens[one] for one in near.of(letters) or near.of(plain)]
        return [forms.get(capital, next(iter(forms.values()))) for forms in found]

    def _known_words(self) -> frozenset[str]:
        """Return the lower-cased words of the training texts that have no token."""
        if self._rare is None:
            self._ready()
            source = self.source
            listed = "" if source is None else self._kept("known-words", source, self._counted)
            self._rare = frozenset(listed.split())
        return self._rare

    def _counted(self) -> str:
        """Return the known words that have no token, each in a line."""
        splitter, counts = _tokenizer([]).pre_tokenizer, Counter[str]()
        for text in self._training_texts(self.known):
            words = (word for word, _ in splitter.pre_tokenize_str(text))
            counts.update(word.removeprefix(SPACE).lower() for word in words)
        tokens = {piece.removeprefix(SPACE).lower() for piece in self._pieces.values()}
        known = (
            word
            for word, count in counts.items()
            if count >= LEAST_KNOWN and len(word) > 1 and word[0].isalpha()
        )
        return word_list({*known} - tokens)

    @cached_property
    def _pieces(self) -> dict[int, str]:
        return {n: self._tokenizer.id_to_token(one) for n, one in self._ids.items() if n >= FIRST}

    @cached_property
    def _near(self) -> dict[bool, tuple[NearestWords, dict[str, dict[bool, int]]]]:
        """Return words with a space before them and without, and the tokens of their forms."""
        tokens: dict[bool, dict[str, dict[bool, int]]] = {True: {}, False: {}}
        for number, piece in self._pieces.items():
            word = piece.removeprefix(SPACE)
            if len(word) > 1 and word[0].isalpha():
                forms = tokens[piece != word].setdefault(word.lower(), {})
                forms.setdefault(word[0].isupper(), number)
        return {spaced: (NearestWords(words), words) for spaced, words in tokens.items()}


def _is_letter(piece: str) -> bool:
    return len(piece) == 1 and piece.isalpha()


def word_list(words: Set[str]) -> str:
    """Return the content of a file of words, one a line."""
    return "".join(f"{word}\n" for word in sorted(words))


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
