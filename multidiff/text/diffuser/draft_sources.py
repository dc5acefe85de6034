"""Starting points of editing: given drafts, noise, an empty text, or another model's drafts."""

from __future__ import annotations

import itertools
import logging
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.sentence_parts import sentences
from multidiff.text.diffuser.typed_sentence import TypedSentence
from multidiff.text.model import TextModel
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError
from multidiff.utils.lines import decoded
from multidiff.utils.readers import read_bytes

Start = Literal["nothing", "noise"]
SHOWN = 40
FENCE = "```"  # around lines of code
LETTERS = (".txt", ".md")  # endings of files that a source may name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draft:
    """Starting point of a text.

    Attributes:
        tokens: tokens of the draft.
        request: request for the text.
        seed: random seed of its draws.
        typed: the draft as typed, if it was a text.
        sentence: how it is read, if it is a sentence of a text that is revised by sentence.
        gap: white space after a sentence.
        line: number of the line in which a sentence begins, from 1.
        last: whether its text ends with it.
        unread: the reason for which it stays as typed, if there is one: it is code or a few words
            without an end mark, in another language, or longer than the model reads.
    """

    tokens: Sequence[int]
    request: TextRequest
    seed: int
    typed: str = ""
    sentence: TypedSentence | None = None
    gap: str = ""
    line: int = 1
    last: bool = True
    unread: Literal["", "fragment", "foreign", "long"] = ""


@dataclass(frozen=True)
class DraftSource:
    """Source of drafts, as set by options.

    Attributes:
        sources: drafts or, for a model with sources, source texts.
        start: whether to start from an empty text or from noise.
        bootstrap: a model that drafts.
        length: number of tokens of noise, or of the other model's drafts.
    """

    sources: Sequence[str] = ()
    start: Start | None = None
    bootstrap: TextModel | None = None
    length: int | None = None

    @property
    def texts(self) -> list[str]:
        """Return the sources; a blank one is dropped if texts start from nothing."""
        return [one for one in self.sources if one.strip() or self.start != "nothing"]

    def kind(self, model: EditedText) -> Literal["typed", "nothing", "noise", "drafted"]:
        """Return the kind of starting point.

        A model with sources edits them only if it was trained to.

        Raises:
            InputError: if options contradict each other.
        """
        reads, given = model.domain.source_length > 0, bool(self.texts)
        if reads and not given:
            raise InputError("--source: is missing; this model makes texts from source texts")
        if self.bootstrap is not None:
            if self.start is not None or (given and not reads):
                other = "--source" if self.start is None else f"--start {self.start}"
                raise InputError(f"--bootstrap: its texts are the drafts; remove {other}")
            return "drafted"
        if self.start is not None and given and not reads:
            raise InputError(f"--start {self.start}: --source is the draft; remove one of them")
        if self.start is None and given and (model.from_source > 0 or not reads):
            return self._without_length("typed")
        if self.start == "nothing" or (self.start is None and model.from_nothing == 1):
            return self._without_length("nothing")
        return "noise"

    def _without_length(self, kind: Literal["typed", "nothing"]) -> Literal["typed", "nothing"]:
        if self.length is not None:
            raise InputError(
                f"--length {self.length}: is for noise, or for what --bootstrap drafts; remove it"
            )
        return kind


def drafts_of(
    model: EditedText,
    requests: Sequence[TextRequest],
    seeds: Sequence[range],
    beginning: DraftSource,
) -> list[Draft]:
    """Return a draft for each request and source, with each of their seeds.

    Raises:
        InputError: if the model cannot read a source, or options contradict each other.
    """
    kind, reads = beginning.kind(model), model.domain.source_length > 0
    for text in beginning.texts:
        check_typed(text)
        if reads:
            count = len(model.domain.vocabulary.numbers(text))
            _check_length("--source", text, count, model.domain.source_length - 1)
    pairs = list(itertools.product(requests, beginning.texts or [""]))
    every = [
        (replace(request, source=text if reads else ""), text, seed)
        for (request, text), own in zip(pairs, seeds, strict=True)
        for seed in own
    ]
    asked, typed, numbers = (list(column) for column in zip(*every, strict=True))
    if kind == "noise":
        lengths = [replace(request, length=beginning.length) for request in asked]
        tokens = model.noise_drafts(lengths, seed=numbers)
    elif kind == "nothing":
        tokens = [()] * len(every)
    else:
        option = "--source"
        if beginning.bootstrap is not None:
            option = "--bootstrap"
            typed = _bootstrapped(beginning.bootstrap, asked, numbers, beginning.length)
        return _read(model, asked, numbers, typed, option)
    return [Draft(*one) for one in zip(tokens, asked, numbers, strict=True)]


def letter(source: str) -> str:
    """Return the text of a file, without its last line end, if a source names one; else the source.

    Raises:
        InputError: if the file is missing, blank or cannot be read.
    """
    if not source.endswith(LETTERS) or "\n" in source:
        return source
    found = False
    with suppress(OSError, ValueError):  # a text that no file can be named
        found = Path(source).is_file()
    if found:
        text = decoded(source, read_bytes(Path(source))).removesuffix("\n")
        if not text.strip():
            raise InputError(f"{source}: is blank; write a text into it")
        return text
    if len(source.split()) == 1:
        raise InputError(f"--source {source}: no such file")
    return source


def check_typed(text: str) -> None:
    """Check that a text can be a draft.

    Raises:
        InputError: if it is blank or has characters that no text has.
    """
    if not text.strip():
        raise InputError(f"--source {text!r}: is blank; write one, or --start nothing")
    for character in text:
        kind = unicodedata.category(character)
        if kind == "Cs" or (kind == "Cc" and not character.isspace()):
            what = "half a surrogate pair" if kind == "Cs" else "a control character"
            raise InputError(
                f"--source {_short(text)}: U+{ord(character):04X} is {what}; remove it"
            )


def _read(
    model: EditedText,
    requests: Sequence[TextRequest],
    seeds: Sequence[int],
    texts: Sequence[str],
    option: str,
) -> list[Draft]:
    """Return drafts from texts, or from their sentences."""
    drafts = []
    for request, seed, text in zip(requests, seeds, texts, strict=True):
        if model.by_sentence:
            drafts += _sentences(model, Draft((), request, seed, text), option)
        else:
            tokens = model.domain.vocabulary.numbers(text)
            _check_length(option, text, len(tokens), model.editor.length)
            drafts.append(Draft(tokens, request, seed, text))
    return drafts


def _sentences(model: EditedText, draft: Draft, option: str) -> Iterator[Draft]:
    """Yield the drafts of a text's sentences; warn of those that are too long for the model."""
    line, most, fenced = 1, model.editor.length, False
    parts = sentences(draft.typed) or [("", "")]
    for number, (part, gap) in enumerate(parts, 1):
        sentence = TypedSentence(model.domain.vocabulary, part)
        tokens, reason = sentence.tokens, ""
        fenced ^= part.startswith(FENCE) and part.count(FENCE) == 1
        if fenced or (sentence.is_fragment() and (len(parts) > 1 or not sentence.words)):
            reason = "fragment"
        elif sentence.is_foreign():
            reason = "foreign"
        elif len(tokens) > most:
            reason = "long"
            logger.warning(
                "%s, line %d: %s has %d tokens, but this model reads at most %d in a sentence; it "
                "stays as it is", option, line, _short(part), len(tokens), most,
            )  # fmt: skip
        yield replace(
            draft, tokens=tokens, typed=part, sentence=sentence, gap=gap, line=line,
            last=number == len(parts), unread=reason,
        )  # fmt: skip
        line += part.count("\n") + gap.count("\n")


def _bootstrapped(
    drafter: TextModel, requests: Sequence[TextRequest], seeds: Sequence[int], length: int | None
) -> list[str]:
    """Return another model's drafts, conditioned as far as it can be."""
    cond = drafter.domain
    asked = [
        TextRequest(
            request.meaning if cond.meanings is not None else {},
            length=length,
            source=request.source if cond.source_length else "",
        )
        for request in requests
    ]
    return drafter.generate(asked, seed=seeds)


def _check_length(option: str, text: str, count: int, most: int) -> None:
    if count > most:
        raise InputError(
            f"{option} {_short(text)}: has {count} tokens, but this model reads at most {most}; "
            "shorten it"
        )


def _short(text: str) -> str:
    """Return the beginning of a text on one line."""
    return repr(text[:SHOWN]) + ("..." if len(text) > SHOWN else "")
