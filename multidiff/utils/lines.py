"""Texts that a command reads from a file or from standard input, one per line."""

from __future__ import annotations

import codecs
import io
import sys
from pathlib import Path

from multidiff.utils.errors import InputError
from multidiff.utils.readers import reading

STANDARD_INPUT = "-"
MARK = "\ufeff"  # byte order mark
# The longer marks first: that of UTF-32 begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_lines(name: str, option: str) -> list[str]:
    """Return the lines of a UTF-8 file, or of standard input if the name is ``-``.

    Line ends of any system are accepted; blank lines at the end do not count.

    Args:
        name: path of the file, or ``-``.
        option: option that it was passed to, for messages.

    Raises:
        InputError: if it cannot be read, is not UTF-8, is empty, or has a blank line between
            others, whose output could not be matched to its input by number.
    """
    where = "standard input" if name == STANDARD_INPUT else name
    text = decoded(where, _content(name, option))
    lines = [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        again = " or was read by another option" if name == STANDARD_INPUT else ""
        raise InputError(f"{option} {name}: {where} is empty{again}; write one text per line")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f"{where}:{number}: is blank; remove the line, or write a text there")
    return lines


def _content(name: str, option: str) -> bytes:
    if name == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    # A pipe is accepted like a file.
    with reading(f"{option} {name}", fix="check the path"):
        return Path(name).read_bytes()


def decoded(where: str, content: bytes) -> str:
    """Decode UTF-8, removing byte order marks at the beginning of lines.

    Marks inside a text come from concatenated files.

    Args:
        where: name of the content in messages.
        content: its bytes.

    Raises:
        InputError: if it has another encoding, or contains zero bytes.
    """
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            raise InputError(
                f"{where}: is in {encoding}; convert it to UTF-8 "
                f"(iconv -f {encoding} -t UTF-8 OLD > NEW)"
            )
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise InputError(
            f"{where}:{line}: contains a zero byte, so it is not UTF-8 (UTF-16 without a mark, or "
            "not a text); name a text file in UTF-8"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{where}:{line}: byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error
    return text.replace(f"\n{MARK}", "\n") if MARK in text else text
