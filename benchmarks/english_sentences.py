"""Sentences of English prose, one a line: the data of `recipes/text/english_edits.yaml`.

    python -m benchmarks.english_sentences data/english.txt FILE [FILE ...]

Reads books as plain text, whose paragraphs blank lines separate, and stories in ``.jsonl`` with
their ``pages``. Headings, tables, footnotes and sentences outside 4 to 32 words are left out, and
so are repetitions, and the sentences by which `benchmarks.english_edits` judges. One in five has
the quotes and dashes of printed text, which these files lack; none of every twentieth.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.english_edits import by_hand
from multidiff.text.data.words import PIECE
from multidiff.text.diffuser.sentence_parts import sentences
from multidiff.utils.files import atomic_write

SHORTEST, LONGEST = 4, 32  # words
BEGINS = re.compile(r"[\"'(]*[A-Z]")
ENDS = re.compile(r"(?<!\b(?:of|in|by|on))[.!?][\"')]*$")  # not as in an index
UNUSUAL = re.compile(
    r"[\[\]{}<>|=*_#@\\/~^+]|\.\.\.\.|[A-Z]{4}|\d{5}|\bpp?\. ?\d|\b(?:vol|tom)\.|\betc\.,"
    r"|[,.] \d{1,3}[.,]|' ?\(?\d|\d, [a-z]\.|\d\.$"
)


def paragraphs(path: Path) -> Iterator[str]:
    """Yield the paragraphs of a file, each on one line."""
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        parts = [page for line in text.splitlines() for page in json.loads(line)["pages"]]
    else:
        parts = re.split(r"\n\s*\n", text)
    for part in parts:
        # A compound that is broken at its hyphen, as "window-" and "seat".
        yield " ".join(re.sub(r"(?<=\w)-\s*\n\s*(?=\w)", "-", part).split())


def is_prose(sentence: str) -> bool:
    """Return whether a text is one whole sentence of ordinary words."""
    count = sum(word[0].isalpha() for word in PIECE.findall(sentence))
    return (
        SHORTEST <= count <= LONGEST
        and bool(BEGINS.match(sentence) and ENDS.search(sentence))
        and sentence.count("(") == sentence.count(")")
        and not UNUSUAL.search(sentence)
    )


def typographic(sentence: str) -> str:
    """Return a sentence with the quotes and dashes of printed text."""
    for quote, (opening, closing) in {'"': "\u201c\u201d", "'": "\u2018\u2019"}.items():
        sentence = re.sub(rf"(^|[\s(\u2014\u201c-]){quote}(?=\S)", rf"\1{opening}", sentence)
        sentence = sentence.replace(quote, closing)
    return sentence.replace("--", "\u2014")


def main() -> None:
    """Write the sentences."""
    reader = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    reader.add_argument("out", type=Path)
    reader.add_argument("files", type=Path, nargs="+")
    given = reader.parse_args()
    found: dict[str, None] = {}
    for path in given.files:
        for paragraph in paragraphs(path):
            found.update((one, None) for one, _ in sentences(paragraph) if is_prose(one))
    for _, clean in by_hand():
        found.pop(clean, None)
    lines = [typographic(one) if n % 5 == 3 else one for n, one in enumerate(found)]
    with atomic_write(given.out) as partial:
        partial.write_text("".join(f"{one}\n" for one in lines), "utf-8")
    print(f"{given.out}: {len(found)} sentences")


if __name__ == "__main__":
    main()
