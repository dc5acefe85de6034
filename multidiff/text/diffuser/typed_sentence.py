"""A sentence of a letter as it was typed, and as an editor of prose reads it.

The editor reads words with one space between them, as in its training. Line ends, several spaces
and symbols between words are read as a space; an address or a number is read as a word that fits in
its place, whatever its characters. All of these stay as typed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate, pairwise

from multidiff.core.edit.alignment import REPLACE, Span, align, rewrite
from multidiff.text.data.vocabulary import Vocabulary
from multidiff.text.diffuser.reviser import History, Revision
from multidiff.text.diffuser.spelling import WRITTEN, Spelling

PUNCTUATION = ".,;:!?'\"()\u2018\u2019\u201c\u201d\u2026\u2014"
CHARACTER = re.compile(r".[\u0300-\u036f]*", re.DOTALL)  # with accents of their own
LETTER = r"[^\W\d_]"
# Words, also several without a space between them, and abbreviations.
BETWEEN = r"(?:[-,;:!?'\"()\u2013-\u201d\u2026]+|\.\.+)"
WORDS = re.compile(rf"{LETTER}+(?:{BETWEEN}{LETTER}+)*")
ABBREVIATION = re.compile(rf"{LETTER}(?:\.{LETTER})+")
NUMBER = re.compile(r"\W?\d[\d.,:]*\W?")
INNER_CAPITAL = re.compile(r"[a-z][A-Z]")
# What is read in place of an address or a code, and of a number: common in any English prose.
ADDRESS_AS, NUMBER_AS = "London", "12"
LONG_NUMBER = 5  # digits
END = re.compile(rf"[.!?\u2026][{re.escape(PUNCTUATION)}]*\s*$")
SENTENCE_WORDS = 8  # from which a sentence needs no end mark
FOREIGN_WORDS, FOREIGN_SHARE = 4, 0.6


class TypedSentence(Spelling):
    """The spelling of a sentence's tokens: tokens that stay are as typed.

    Args:
        vocabulary: vocabulary that reads the sentence.
        typed: the sentence as it was typed.

    Attributes:
        typed: the sentence.
        fixed: its addresses, numbers and symbols, which no edit may change.
        words: its other words.
    """

    def __init__(self, vocabulary: Vocabulary, typed: str):
        self.fixed: list[str] = []
        self.words: list[str] = []
        self.typed = typed
        parts = self._parts(typed)
        reading = "".join(read for read, _ in parts)
        super().__init__(vocabulary, reading[1:])
        # All that stands for several characters ends with the last of them.
        steps = [n for read, own in parts for n in (*[0] * (len(read) - 1), len(own))]
        places = [0, *accumulate(steps)]
        ends = [0, *_ends(vocabulary, reading, self.tokens)]
        self._gaps, self._bodies = [], []
        for start, end in pairwise(ends):
            inner = start + (reading[start:end][:1] == " ")
            self._gaps.append(typed[places[start] : places[inner]])
            self._bodies.append(typed[places[inner] : places[end]])

    def _parts(self, typed: str) -> list[tuple[str, str]]:
        """Return the parts of a sentence, as read and as typed, a gap first."""
        parts, gap = list[tuple[str, str]](), ""
        for piece in re.findall(r"\s+|\S+", typed):
            before, core, after = _core(piece)
            read = unicodedata.normalize("NFC", core)
            if piece.isspace() or is_symbol(piece):
                self.fixed += [core] if core.strip() else []
                gap += piece
                continue
            parts.append((" ", gap))
            stands = stand_in(read)
            if stands or core.isdigit():
                self.fixed.append(core)
            elif core:
                self.words.append(read)
            parts += _characters(before)
            parts += [(stands, core)] if stands else _characters(core)
            parts += _characters(after)
            gap = ""
        *parts, (read, own) = parts or [(" ", "")]
        return [*parts, (read, own + gap)]

    def is_fragment(self) -> bool:
        """Return whether it is no sentence, as an address of a letter or a point of a list is."""
        few = len(self.words) < SENTENCE_WORDS
        return not self.words or (few and not END.search(self.typed))

    def is_foreign(self) -> bool:
        """Return whether it is in another language: most words but names have to be spelled."""
        words = [one for one in self.words if one.isalpha()]
        spelled = [one for one in words if len(self.vocabulary.numbers(one)) >= max(3, len(one))]
        lower, others = (sum(map(str.islower, some)) for some in (spelled, words))
        return len(spelled) >= FOREIGN_WORDS and lower >= FOREIGN_SHARE * max(1, others)

    def kept(self, history: History) -> History:
        """Return the revisions, or one without those edits that break something.

        An edit breaks something that none may change, or leaves letters of an old word at a new
        one: the tokens are not those of their text.
        """
        if len(history) == 1 or self._is_sound(history):
            return history
        draft, last = history[0], history[-1]

        def revised(spans: Sequence[Span]) -> History:
            found = Revision(rewrite(draft.tokens, spans), tuple(spans), last.score)
            return [draft, found] if spans else [draft]

        spans = self._by_word(align(draft.tokens, last.tokens).passages())
        return revised([one for one in spans if self._is_sound(revised([one]))])

    def _is_sound(self, history: History) -> bool:
        tokens = [*history[-1].tokens]
        cores = iter([_core(one)[1] for one in self.texts(history)[-1].split()])
        whole = self.vocabulary.numbers(self.vocabulary.text(tokens)) == tokens
        return whole and all(one in cores for one in self.fixed)

    def _by_word(self, spans: Sequence[Span]) -> list[Span]:
        """Return edits, those in one word merged."""
        found: list[Span] = []
        for span in spans:
            between = slice(found[-1].stop, span.start) if found else slice(0, 0)
            if found and not any(self._gaps[between.start : span.start + 1]):
                last = found.pop()
                tokens = (*last.tokens, *self.tokens[between], *span.tokens)
                span = Span(REPLACE, last.start, span.stop, tokens)
            found.append(span)
        return found

    def text(self, tokens: Sequence[int], origins: Sequence[int]) -> str:
        """See :class:`~multidiff.text.diffuser.spelling.Spelling`; other tokens are as typed."""
        pieces = self.pieces(tokens, origins)
        return super().text(tokens, origins) if pieces is None else "".join(pieces)

    def pieces(self, tokens: Sequence[int], origins: Sequence[int]) -> list[str] | None:
        """See :class:`~multidiff.text.diffuser.spelling.Spelling`.

        The gaps before words that are removed go to those that are written in their place.
        """
        read = super().text
        texts = [read(tokens[:end], origins[:end]) for end in range(len(tokens) + 1)]
        if not all(after.startswith(before) for before, after in pairwise(texts)):
            return None
        found: list[str] = []
        last, gaps, beside = -1, list[str](), True
        for at, (before, after) in enumerate(pairwise(texts)):
            word = after[len(before) :]
            spaced, word = word.startswith(" "), word.removeprefix(" ")
            following = next((one for one in origins[at:] if one != WRITTEN), len(self.tokens))
            if beside:
                gaps = [gap for gap in self._gaps[max(1, last + 1) : following] if gap]
            if origins[at] == WRITTEN:
                gap = gaps.pop(0) if spaced and gaps else " " * spaced
                beside = False
            else:
                word, own = self._bodies[following], self._gaps[following]
                beside = beside and following == last + 1
                gap = own if beside else _merged(gaps, own if following else "", spaced)
                last, beside = following, True
            found.append(gap + word)
        if found and origins[0] != 0:
            found[0] = "".join(self._gaps[:1]) + found[0]
        return found


def _merged(gaps: Sequence[str], own: str, spaced: bool) -> str:
    """Return the gap before a word, with what must stay of those before removed ones.

    Args:
        gaps: those before removed words, and not before words written in their place.
        own: that before the word.
        spaced: whether the word is read with a space before it.
    """
    left = "".join(gap for gap in gaps if gap != " " and (spaced or not gap.isspace()))
    if left and (own.isspace() or not own):
        return left
    return left + (own or " " if spaced else own.strip())


def is_symbol(piece: str) -> bool:
    """Return whether a piece without white space is neither a word nor punctuation."""
    return not any(one.isalnum() or one in PUNCTUATION for one in piece)


def stand_in(core: str) -> str:
    """Return what is read in place of a word without punctuation around it; empty for itself."""
    if core.isdigit() and len(core) < LONG_NUMBER:
        return ""
    if NUMBER.fullmatch(core):
        return NUMBER_AS
    plain = WORDS.fullmatch(core) and not INNER_CAPITAL.search(core)
    shouted = len(core) > 1 and core.isupper()
    if not core or (plain and not shouted) or ABBREVIATION.fullmatch(core):
        return ""
    return ADDRESS_AS


def _core(piece: str) -> tuple[str, str, str]:
    """Return a piece's punctuation before its core, the core, and the punctuation after it."""
    rest = piece.lstrip(PUNCTUATION)
    core = rest.rstrip(PUNCTUATION)
    return piece[: len(piece) - len(rest)], core, rest[len(core) :]


def _characters(text: str) -> list[tuple[str, str]]:
    """Return the characters of a text as they are read, composed, and as they were typed."""
    return [(unicodedata.normalize("NFC", one), one) for one in CHARACTER.findall(text)]


def _ends(vocabulary: Vocabulary, reading: str, tokens: Sequence[int]) -> list[int]:
    """Return where each token ends in a text that begins with a space, which may be its own."""
    if vocabulary.numbers(reading) == [*tokens]:
        return vocabulary.token_ends(reading)
    return [1 + end for end in vocabulary.token_ends(reading[1:])]
