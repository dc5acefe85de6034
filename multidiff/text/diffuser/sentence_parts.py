"""Sentences of a text, with the white space between them."""

from __future__ import annotations

import re

# After a full stop and closing quotes, before the beginning of a sentence; or a new line, whose
# white space is matched from its beginning alone: from each space of many it takes quadratic time.
BORDER = re.compile(
    r"(?<=[.!?])(?P<quotes>[\"')\u2019\u201d]*)(?P<gap>\s+)(?=[\"'(\u2018\u201c]*[A-Z\d])"
    r"|(?P<line>(?<!\s)\s*[\n\r]\s*)"
)
ABBREVIATED = re.compile(
    r"(?:^|[\s\"'(])(?:Mr|Mrs|Ms|Messrs|Drs?|Prof|St|Mt|Capt|Col|Gen|Rev|Hon|Sir|Esq|Jr|Sr|No|"
    r"[Vv]ol|[Ff]igs?|pp?|cf|vs|viz|[A-Z])\.$"
)


WRAPPED = 40  # characters of a line from which its sentence may go on in the next
LINE_END = re.compile(r"\r\n|\n|\r")


def sentences(text: str) -> list[tuple[str, str]]:
    """Return the sentences of a text, each with the white space after it.

    They end at full stops, question and exclamation marks before a capital, and at new lines,
    unless a long line was wrapped there; initials and common English titles end none. White space
    before the first follows an empty sentence. Joined, they are the text.
    """
    start = len(text) - len(text.lstrip())
    found = [("", text[:start])] if start else []
    for border in BORDER.finditer(text, start):
        end = border.end("quotes") if border["line"] is None else border.start()
        gap = text[end : border.end()]
        wrapped = _is_wrapped(text, end, border.end())
        if border["line"] is not None and wrapped:
            continue
        if (wrapped or not LINE_END.search(gap)) and ABBREVIATED.search(text[start:end]):
            continue
        found.append((text[start:end], gap))
        start = border.end()
    if start < len(text):
        end = len(text.rstrip())
        found.append((text[start:end], text[end:]))
    return found


def _is_wrapped(text: str, end: int, start: int) -> bool:
    """Return whether a line may go on in the next, which begins with a word or a quote.

    Args:
        text: the text.
        end: end of the line, without white space.
        start: start of what is in the next.
    """
    line, following = line_before(text, end).lstrip(), text[start : start + 1]
    return (
        len(LINE_END.findall(text, end, start)) == 1
        and len(line) >= WRAPPED
        and line[0] not in "#|>"
        and not line.endswith((":", "?", "!"))
        and (following.isalpha() or following in tuple("\"'(\u2018\u201c"))
    )


def line_before(text: str, end: int) -> str:
    """Return what is before a position in its line.

    It is searched from its end: splitting all of the text for each line takes quadratic time.
    """
    first = text.rfind("\n", 0, end) + 1
    return text[max(first, text.rfind("\r", first, end) + 1) : end]
