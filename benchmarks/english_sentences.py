"""Sentences of English prose, one a line: the data of `recipes/text/english_edits.yaml`.

    python -m benchmarks.english_sentences data/english.txt FILE [FILE ...]

Reads books as plain text, whose paragraphs blank lines separate, and stories in ``.jsonl`` with
their ``pages``. Headings, tables, footnotes and sentences outside 4 to 32 words are left out, and
so are repetitions, and the sentences by which `benchmarks.english_edits` judges. One in five has
the quotes and dashes of printed text, which these files lack; none of every twentieth.

``--training FILE MORE ...`` writes what the published model was trained on: the sentences that are
not held out, and further ones, of books or of WikiSplit's ``.tsv``, whose tokens are joined again.
Of the further ones those with a word in lower case that occurs once are left out: it may be a slip.

With ``--known-words runs/english/model`` the words of the whole files are added to those that this
trained model knows, except for words that only the sentences left out for judging have. In training
a word that occurs once counts as unknown, so that the network meets unknown words that are right;
with more known ones afterwards, fewer right words of the texts to be revised are taken for slips.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from benchmarks.english_edits import by_hand
from multidiff.text.data.hybrid import KNOWN_WORDS, SPACE, word_list
from multidiff.text.data.words import PIECE
from multidiff.text.diffuser.sentence_parts import sentences
from multidiff.utils.files import atomic_write

SHORTEST, LONGEST = 4, 32  # words
EVERY = 20  # held-out sentences: every twentieth
MISPRINTS = {"realy", "thier"}  # of these books
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
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
    elif path.suffix == ".tsv":
        pairs = [line.partition("\t")[2] for line in text.splitlines()]
        parts = [joined(one) for pair in pairs for one in pair.split("<::::>")]
    else:
        parts = re.split(r"\n\s*\n", text)
    for part in parts:
        # A compound that is broken at its hyphen, as "window-" and "seat".
        yield " ".join(re.sub(r"(?<=\w)-\s*\n\s*(?=\w)", "-", part).split())


def joined(tokens: str) -> str:
    """Return a sentence of WikiSplit as it is written, without spaces round punctuation."""
    text = re.sub(r"(^|\s)''\s+(.*?)\s*''(?=\s|$)", r'\1"\2"', tokens.strip())
    text = re.sub(r"\s+([,.;:!?%)]|'s?(?=\s)|n't\b)", r"\1", text)
    return re.sub(r"([($])\s+", r"\1", re.sub(r"(\w) - (?=\w)", r"\1-", text))


def without_rare(found: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the sentences whose words in lower case all occur twice, here or in others."""
    found = [*found]
    counts = Counter(word for text in (*found, *others) for word in WORD.findall(text.lower()))
    lower = re.compile(r"(?<!\w)[a-z]+")
    return [one for one in found if all(counts[word] > 1 for word in lower.findall(one))]


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


def words_of(texts: Iterable[str], left_out: Iterable[str]) -> set[str]:
    """Return the lower-cased words that texts have besides those of sentences left out of them."""
    counts = Counter(word for text in texts for word in WORD.findall(text.lower()))
    counts.subtract(word for text in left_out for word in WORD.findall(text.lower()))
    found = {word for word, count in counts.items() if count > 0 and len(word) > 1}
    return found - MISPRINTS


def add_known_words(folder: Path, words: Set[str]) -> int:
    """Add words to those that a model's vocabulary knows, and return their number."""
    pieces = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    path = folder / KNOWN_WORDS
    known = {*path.read_text("utf-8").split(), *words}
    known -= {piece.removeprefix(SPACE).lower() for piece in pieces}
    with atomic_write(path) as partial:
        partial.write_text(word_list(known), "utf-8")
    return len(known)


def main() -> None:
    """Write the sentences, and a model's known words."""
    reader = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    reader.add_argument("out", type=Path)
    reader.add_argument("files", type=Path, nargs="+")
    reader.add_argument("--known-words", type=Path, metavar="MODEL", help="add all words to these")
    reader.add_argument(
        "--training", type=Path, nargs="+", metavar="FILE", help="file to write; further texts"
    )
    given = reader.parse_args()
    texts = [one for path in given.files for one in paragraphs(path)]
    found = dict.fromkeys(one for text in texts for one, _ in sentences(text) if is_prose(one))
    judged = [clean for _, clean in by_hand()]
    for clean in judged:
        found.pop(clean, None)
    lines = [typographic(one) if n % 5 == 3 else one for n, one in enumerate(found)]
    _write_lines(given.out, lines)
    print(f"{given.out}: {len(found)} sentences")
    if given.training:
        out, *more = given.training
        own = [line for n, line in enumerate(lines) if n % EVERY != EVERY // 2]
        added = [one for path in more for one in paragraphs(path)]
        further = dict.fromkeys(one for text in added for one, _ in sentences(text))
        more = without_rare(filter(is_prose, further), own)
        _write_lines(out, [*own, *more])
        print(f"{out}: {len(own)} and {len(more)} sentences")
    if given.known_words is not None:
        left_out = [*[*found][EVERY // 2 :: EVERY], *judged]
        count = add_known_words(given.known_words, words_of(texts, left_out))
        print(f"{given.known_words / KNOWN_WORDS}: {count} words")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as partial:
        partial.write_text("".join(f"{one}\n" for one in lines), "utf-8")


if __name__ == "__main__":
    main()
