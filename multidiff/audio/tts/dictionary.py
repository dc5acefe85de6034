"""A user's pronunciations: a word and its phones a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from multidiff.audio.tts.phones import Phone, parse_phones
from multidiff.utils.errors import InputError
from multidiff.utils.readers import read_text, reading

WRITE_ONE = "write WORD PHONE PHONE ..., IPA with spaces between phones"


def read_dictionary(
    path: Path, check: Callable[[str], object] | None = None
) -> dict[str, tuple[Phone, ...]]:
    """Return the phones of words, by word in lower case.

    Lines that begin with ``#`` or are blank are passed over; the later of two lines for a word
    counts.

    Args:
        path: a text file in UTF-8.
        check: raises :class:`~multidiff.utils.errors.InputError` for a phone that the model
            does not know.

    Raises:
        InputError: if a line is no word with phones, or a phone is not known; names the line.
    """
    with reading(path, "is no pronunciation dictionary", WRITE_ONE):
        lines = read_text(path).splitlines()
    found: dict[str, tuple[Phone, ...]] = {}
    for number, line in enumerate(lines, start=1):
        word, _, rest = line.strip().partition(" ") if "\t" not in line else line.partition("\t")
        if not word.strip() or word.startswith("#"):
            continue
        if not rest.strip():
            raise InputError(f"{path}:{number}: {word!r} has no phones; {WRITE_ONE}")
        try:
            phones = parse_phones(rest.replace("#", " "))
            for phone in phones:
                if phone.is_pause:
                    raise InputError(f"{phone.symbol!r} is a pause, not a phone")
                if check is not None:
                    check(phone.symbol)
        except InputError as fault:
            raise InputError(f"{path}:{number}: {fault}") from fault
        first = replace(phones[0], starts_word=True)
        found[word.strip().lower()] = (first, *phones[1:])
    if not found:
        raise InputError(f"{path}: holds no words; {WRITE_ONE}")
    return found
