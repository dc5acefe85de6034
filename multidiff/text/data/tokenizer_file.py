"""Reading a ``tokenizer.json``."""

from __future__ import annotations

from typing import Any, NamedTuple

from multidiff.utils.errors import InputError
from multidiff.utils.packages import needs
from multidiff.utils.readers import parse_json, reading, without_panic_report

TOKENIZER, CHAT_TEMPLATE = "tokenizer.json", "chat_template.jinja"
# Texts that a tokenizer is tried with when it is loaded.
TRIALS = ("A small trial, with 42 words and more.", "", " ", "\u6f22\u5b57 \u00e9\n\t\U0001f642")


class TokenizerFile(NamedTuple):
    """A tokenizer of the tokenizers library.

    Attributes:
        tokenizer: the tokenizer.
        pieces: ids of the pieces that are numbered, in their order.
        special: ids of its special pieces.
        unknown: id of the unknown piece.
        end: id of the piece that is END.
    """

    tokenizer: Any
    pieces: list[int]
    special: set[int]
    unknown: int | None
    end: int | None


def read_tokenizer_file(content: str, name: str, end_token: str | None) -> TokenizerFile:
    """Return the tokenizer of a ``tokenizer.json``, tried on some texts.

    Args:
        content: the file's content.
        name: its name, for messages.
        end_token: special piece that is END, if the other special ones are numbered.

    Raises:
        InputError: if it is not a tokenizer, or has no such piece.
    """
    with needs("tokenizers", "a Hugging Face vocabulary"):
        from tokenizers import Tokenizer

    model = parse_json(content, name)
    with reading(name, "is not a tokenizer"), without_panic_report():
        model = model["model"]
        tokenizer = Tokenizer.from_str(content)
        # The file stores settings of the tokenizer's last use: truncation and padding
        # lengths.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        unknown = model.get("unk_id")
        if model.get("unk_token") is not None:
            unknown = tokenizer.token_to_id(model["unk_token"])
        added = tokenizer.get_added_tokens_decoder()
        special = {piece for piece, token in added.items() if token.special}
        end = None if end_token is None else tokenizer.token_to_id(end_token)
        dropped = special if end_token is None else {end}
        pieces = sorted({*tokenizer.get_vocab().values()} - dropped - {unknown})
        # Some faults only appear, even as panics, when a text is encoded.
        for text in TRIALS:
            tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids)
    if end_token is not None and end is None:
        raise InputError(f"{name}: has no token {end_token!r}; use the tokenizer of the same model")
    return TokenizerFile(tokenizer, pieces, special, unknown, end)
