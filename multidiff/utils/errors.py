"""Exceptions that end a command: an error that the user can fix, and a signal."""

import unicodedata

LONGEST = 2000
# Categories of characters that move the cursor, end a line, or are unpaired surrogates.
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
# These reorder adjacent text, so that a line shows another name than it holds.
REORDERING = {chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F))} | {
    chr(code) for code in range(0x2066, 0x206A)
}


def printable(text: str, keep: str = "") -> str:
    r"""Return a text without anything that a terminal would interpret.

    Control characters, escape sequences, line separators, characters that reorder text, and
    unpaired surrogates are escaped as in Python (``\x1b``); everything else stays.

    Args:
        text: text from a file, its name, or a library.
        keep: characters that are not escaped, such as line breaks.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one in keep or _is_printable(one) else _escaped(one) for one in text)


def _is_printable(character: str) -> bool:
    return unicodedata.category(character) not in UNPRINTABLE and character not in REORDERING


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _shortened(line: str) -> str:
    """Cut the middle out of an overlong line; the fix at its end stays."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 500]} ... {line[-500:]}"


class InputError(ValueError):
    """An input that cannot be used.

    The message is one line that names the file or the option, the value, and the fix. The
    command line prints it and ends with status 2.

    Args:
        faults: messages, a line each; line breaks and control characters in them, as in names of
            files and values, are escaped (:func:`printable`).
    """

    def __init__(self, *faults: str):
        lines = [printable(str(fault).rstrip("\n")) for fault in faults]
        super().__init__("\n".join(map(_shortened, lines)))


class Interrupted(Exception):
    """Work stopped on a signal, after saving.

    Attributes:
        number: number of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by signal {number}, after saving")
        self.number = number
