"""Text as people read it aloud: what a phonemiser gets wrong, written out before it."""

from __future__ import annotations

import logging
import unicodedata

from multidiff.audio.tts import english, german
from multidiff.utils.errors import InputError

logger = logging.getLogger(__name__)

# Typographic signs as those of a keyboard; dashes and brackets as the pauses they are read as.
PLAIN = {
    0x2018: "'", 0x2019: "'", 0x201A: "'", 0x201C: '"', 0x201D: '"', 0x201E: '"', 0xAB: '"',
    0xBB: '"', 0x2014: ", ", 0x2026: "... ", 0xA0: " ", 0x2009: " ", 0x202F: " ", 0x2010: "-",
    0x2011: "-", 0x2012: "-", 0xAD: "", 0x200B: "", 0xFEFF: "",
}  # fmt: skip
PAUSES = str.maketrans({"(": ", ", ")": ", ", "[": ", ", "]": ", ", "{": ", ", "}": ", "})
KEPT = set(" .,;:!?'\"-\n")
LONGEST_WORD = 60
SHOWN = 10


def normalized(text: str, language: str) -> str:
    """Return a text whose numbers, abbreviations and signs are words.

    What the language cannot read, such as emoji and other scripts, is reported and left out.

    Args:
        text: as it was written.
        language: language of the words, ``en-us`` or ``de-de``.

    Raises:
        InputError: if nothing is left to read, or a word is too long for one.
    """
    plain = unicodedata.normalize("NFC", text).translate(PLAIN).replace("\u2013", "-")
    if language.startswith("en"):
        plain = without_accents(plain)
    rules = english if language.startswith("en") else german
    written = rules.written_out(" ".join(plain.replace(" - ", ", ").split())).translate(PAUSES)
    letters = "äöüß" if language.startswith("de") else ""
    kept = _readable(written, letters)
    words = kept.split()
    if not any(one.isalpha() for one in kept):
        raise InputError(
            f"text {text.strip()[:40]!r}: has no words that {language} can read; give a sentence"
        )
    longest = max(words, key=len)
    if len(longest) > LONGEST_WORD:
        raise InputError(
            f"text {longest[:20]!r}...: a word of {len(longest)} letters cannot be spoken "
            f"(at most {LONGEST_WORD}); put spaces into it"
        )
    return " ".join(words)


def without_accents(text: str) -> str:
    """Return a text with plain letters, as an English dictionary lists loan words."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(one for one in parts if not unicodedata.combining(one))


def _readable(text: str, letters: str) -> str:
    """Return a text without the characters that the language does not read, which are logged."""
    skipped: dict[str, None] = {}
    found = []
    for one in text:
        if (one.isascii() and one.isalpha()) or one.lower() in letters or one in KEPT:
            found.append(one)
            continue
        found.append(" ")
        if not one.isspace() and not unicodedata.category(one).startswith(("M", "C")):
            skipped[one] = None
    if skipped:
        names = " ".join(list(skipped)[:SHOWN])
        more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
        logger.warning("skipped characters that are not read: %s%s", names, more)
    return "".join(found)
