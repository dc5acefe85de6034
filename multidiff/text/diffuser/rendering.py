"""Readable edits: ``the pub is[- is-] near{+ by+} the river``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from multidiff.core.edit.alignment import INSERT, Span
from multidiff.text.diffuser.reviser import History
from multidiff.text.diffuser.spelling import Spelling, origins_of


class Chunk(NamedTuple):
    """A part of two texts: kept text, or removed and written text."""

    kept: str = ""
    removed: str = ""
    written: str = ""


class EditMarkers(NamedTuple):
    """Markers before and after removed and written text."""

    removed: tuple[str, str]
    written: tuple[str, str]


# As git marks words, and in terminal colours: struck through in red, underlined in green.
PLAIN = EditMarkers(("[-", "-]"), ("{+", "+}"))
COLORED = EditMarkers(("\x1b[9;31m", "\x1b[0m"), ("\x1b[4;32m", "\x1b[0m"))


def lines_of(spelling: Spelling, history: History, marks: EditMarkers) -> list[str]:
    """Return a numbered line for each revision, its edits marked, the draft first.

    Without the text marked as removed, a line is the text of the revision; without the text
    marked as written, that of the revision before.
    """
    texts = spelling.texts(history)
    lines = [f"0: {texts[0]}"]
    origins = origins_of(history)
    for number in range(1, len(history)):
        before, after = (
            spelling.pieces(history[one].tokens, origins[one]) for one in (number - 1, number)
        )
        if before is None or after is None:
            chunks = [Chunk(removed=texts[number - 1], written=texts[number])]
        else:
            chunks = list(_chunks(before, after, history[number].spans))
        lines.append(f"{number}: {_marked(chunks, marks)}")
    return lines


def facts_of(spelling: Spelling, history: History) -> list[dict[str, Any]]:
    """Return text, score and edits of each revision, with positions counted in tokens."""
    texts, origins = spelling.texts(history), origins_of(history)
    facts = []
    for number in range(1, len(history)):
        before, own = history[number - 1].tokens, origins[number - 1]
        edits = [
            {
                "edit": span.edit.name.lower(),
                "start": span.start,
                "stop": span.stop,
                "removed": spelling.text(
                    before[span.start : span.stop], own[span.start : span.stop]
                ),
                "written": spelling.vocabulary.text(span.tokens),
            }
            for span in history[number].spans
        ]
        score = round(history[number].score, 4)
        facts.append({"text": texts[number], "score": score, "edits": edits})
    return facts


def wants_colour(stream: Any) -> bool:
    """Return whether a stream is a terminal whose user has not disabled colours (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _chunks(before: Sequence[str], after: Sequence[str], spans: Sequence[Span]) -> Iterator[Chunk]:
    """Yield the parts of two texts, from the text that each token adds."""
    position = other = 0
    for span in (*spans, Span(INSERT, len(before), len(before))):
        while position < span.start:
            yield from _kept(before[position], after[other])
            position, other = position + 1, other + 1
        written = other + len(span.tokens)
        yield Chunk("", "".join(before[position : span.stop]), "".join(after[other:written]))
        position, other = span.stop, written


def _kept(before: str, after: str) -> Iterator[Chunk]:
    """Yield a kept token, and a changed space before it, if its neighbour changes it."""
    shared = 0
    while shared < min(len(before), len(after)) and before[-1 - shared] == after[-1 - shared]:
        shared += 1
    cut, end = len(before) - shared, len(after) - shared
    yield Chunk("", before[:cut], after[:end])
    yield Chunk(before[cut:])


def _marked(chunks: Sequence[Chunk], marks: EditMarkers) -> str:
    """Return the chunks as a line, neighbouring edits merged."""
    line, removed, written = "", "", ""
    for chunk in (*chunks, Chunk(" ")):
        removed, written = removed + chunk.removed, written + chunk.written
        if chunk.kept:
            line += _between(removed, marks.removed) + _between(written, marks.written)
            line, removed, written = line + chunk.kept, "", ""
    return line[:-1]


def _between(text: str, marks: tuple[str, str]) -> str:
    return marks[0] + text + marks[1] if text else ""
