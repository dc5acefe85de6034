"""Hints for names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LISTED = 24


def suggestion(name: object, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """Return a hint for an unknown name: ``did you mean NAME?``, or what is expected.

    Args:
        name: name that is not known.
        known: names that are.
        most: largest number of near names.
        cutoff: similarity of a near name, from 0 to 1, by difflib.
    """
    names = list(known)
    lower = {one.lower(): one for one in reversed(names)}
    near = difflib.get_close_matches(str(name).lower(), lower, most, cutoff)
    if near:
        return f"did you mean {' or '.join(lower[one] for one in near)}?"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"expected one of {', '.join(names[:LISTED])}{more}" if names else "nothing is expected"
