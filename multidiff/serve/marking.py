"""Texts as words that are marked, for the page."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

Marked = list[tuple[str, str | None]]
BLANK = re.compile(r"_+")
MASK = "[MASK]"
WORD = re.compile(r"[^\s.,;:!?]+|[.,;:!?]")


def changes(before: str, after: str) -> Marked:
    """Return the words of two texts, in order, marked as inserted, deleted or neither."""
    old, new, found = before.split(), after.split(), []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        kept = kind == "equal"
        if kept:
            found.append((" ".join(old[a:b]) + " ", None))
        if not kept and b > a:
            found.append((" ".join(old[a:b]) + " ", "deleted"))
        if not kept and d > c:
            found.append((" ".join(new[c:d]) + " ", "inserted"))
    return found


def fillings(masked: str, text: str) -> Marked:
    """Return a text's words, marked where the masked one has none of them."""
    found: Marked = []
    old, new = WORD.findall(masked), WORD.findall(text)
    for kind, _, _, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for word in new[c:d]:
            mark = "open" if word == MASK else None if kind == "equal" else "filled"
            found.append((word + " ", mark))
    return found
