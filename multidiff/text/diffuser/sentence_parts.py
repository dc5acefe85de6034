"""Sentences of a text, with the white space between them."""

from __future__ import annotations

import re

# After a full stop and closing quotes, before the beginning of a sentence; or a new line.
BORDER = re.compile(
    r"(?<=[.!?])(?P<quotes>[\"')\u2019\u201d]*)(?P<gap>\s+)(?=[\"'(\u2018\u201c]*[A-Z\d])"
    r"|(?P<line>\s*[\n\r]\s*)"
)
ABBREVIATED = re.compile(
    r"(?:^|[\s\"'(])(?:Mr|Mrs|Ms|Messrs|Drs?|Prof|St|Mt|Capt|Col|Gen|Rev|Hon|Sir|Esq|Jr|Sr|No|"
    r"[Vv]ol|[Ff]igs?|pp?|cf|vs|viz|[A-Z])\.$"
)


def sentences(text: str) -> list[tuple[str, str]]:
    """Return the sentences of a text, each with the white space after it.

    They end at full stops, question and exclamation marks before a capital, and at new lines;
    initials and common English titles end none. White space before the first follows an empty
    sentence. Joined, they are the text.
    """
    start = len(text) - len(text.lstrip())
    found = [("", text[:start])] if start else []
    for border in BORDER.finditer(text, start):
        if border["line"] is not None:
            end, gap = border.start(), border["line"]
        else:
            end, gap = border.end("quotes"), border["gap"]
            if "\n" not in gap and ABBREVIATED.search(text[start:end]):
                continue
        found.append((text[start:end], gap))
        start = border.end()
    if start < len(text):
        end = len(text.rstrip())
        found.append((text[start:end], text[end:]))
    return found
