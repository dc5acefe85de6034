"""Words of a text, and the form in which texts are compared."""

import re

# A word, or a punctuation mark.
PIECE = re.compile(r"\w+|[^\w\s]")


def plain(text: str) -> str:
    """Return a text in the form in which texts are compared, white space removed."""
    return " ".join(text.split())
