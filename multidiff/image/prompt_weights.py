"""Weights of words in prompts, and prompts of more tokens than a text encoder reads at once.

The notation is that of stable-diffusion-webui: ``(word)`` counts 1.1 times, ``((word))`` 1.21
times, ``[word]`` 1 / 1.1 times, ``(word:1.3)`` 1.3 times; a bracket after a backslash is text, and
``BREAK`` begins another piece. Long prompts are encoded in pieces, side by side. A weight
multiplies the encoder's output at its tokens, and the piece is scaled back to its mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROUND, SQUARE = 1.1, 1 / 1.1
BREAK = "BREAK"
TOKEN = re.compile(
    r"\\[\\()\[\]]|[(\[\])]|:\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)|\bBREAK\b|[^\\()\[\]:B]+|[\\:B]"
)
# Notations of other programs that are text here.
UNREAD = {
    r"<(lora|lyco|hypernet):[^>]*>": "name the file with --lora",
    r"\[[^\[\]]*:[^\[\]]*:?\s*[\d.]+\s*\]": "prompts that change between steps are not read",
    r"\[[^\[\]]*\|[^\[\]]*\]": "alternating words are not read",
    r"\bAND\b": "composed prompts are not read",
}


@dataclass(frozen=True)
class WeightedPrompt:
    """A prompt's tokens in pieces, each framed and padded to the encoder's length.

    Attributes:
        tokens: token numbers, ``(pieces, length)``.
        weights: weight of each token.
    """

    tokens: Int[Tensor, "pieces length"]
    weights: Float[Tensor, "pieces length"]


def parse_weights(prompt: str) -> list[tuple[str, float]]:
    """Return the parts of a prompt with their weights; ``BREAK`` is a part of its own.

    A bracket that is never closed counts to the end.
    """
    parts: list[tuple[str, float]] = []
    opened: list[tuple[str, int]] = []
    for found in TOKEN.finditer(prompt):
        text = found[0]
        if text in "([":
            opened.append((text, len(parts)))
        elif text == ")" and _is_open(opened, "("):
            _scale(parts, opened.pop()[1], ROUND)
        elif text == "]" and _is_open(opened, "["):
            _scale(parts, opened.pop()[1], SQUARE)
        elif text.startswith(":") and text.endswith(")") and _is_open(opened, "("):
            _scale(parts, opened.pop()[1], float(text[1:-1]))
        else:
            is_escaped = text.startswith("\\") and len(text) > 1
            parts.append((text[1:] if is_escaped else text, 1.0))
    for kind, first in opened:
        _scale(parts, first, ROUND if kind == "(" else SQUARE)
    return _merged(parts)


def _is_open(opened: list[tuple[str, int]], kind: str) -> bool:
    return bool(opened) and opened[-1][0] == kind


def _scale(parts: list[tuple[str, float]], first: int, factor: float) -> None:
    parts[first:] = [(text, weight * factor) for text, weight in parts[first:]]


def _merged(parts: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Join neighbours of one weight, so that words are encoded whole."""
    joined: list[tuple[str, float]] = []
    for text, weight in parts:
        if joined and joined[-1][1] == weight and BREAK not in (text, joined[-1][0]):
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return joined


def weighted_prompt(tokenizer: Any, prompt: str, weighted: bool = True) -> WeightedPrompt:
    """Return a prompt's tokens and weights in as many pieces as it needs.

    Args:
        tokenizer: a :class:`~multidiff.image.tokenizers.ClipTokenizer`.
        prompt: the prompt.
        weighted: whether brackets are weights; otherwise they are text.
    """
    begin, end = tokenizer.ends
    room = tokenizer.length - 2
    pieces: list[list[tuple[int, float]]] = [[]]
    for text, weight in parse_weights(prompt) if weighted else [(prompt, 1.0)]:
        if weighted and text == BREAK:
            pieces.append([])
            continue
        for number in tokenizer.inner(text):
            if len(pieces[-1]) == room:
                pieces.append([])
            pieces[-1].append((number, weight))
    framed = [[(begin, 1.0), *piece, (end, 1.0)] for piece in pieces]
    padded = [one + [(tokenizer.pad, 1.0)] * (tokenizer.length - len(one)) for one in framed]
    return WeightedPrompt(
        torch.tensor([[number for number, _ in row] for row in padded]),
        torch.tensor([[weight for _, weight in row] for row in padded]),
    )


def apply_weights(
    hidden: Float[Tensor, "pieces length width"], weights: Float[Tensor, "pieces length"]
) -> Float[Tensor, "pieces length width"]:
    """Return hidden states times their weights, with the mean of each piece as it was."""
    changed = hidden * weights.to(hidden)[:, :, None]
    ratio = hidden.mean(dim=(1, 2), keepdim=True) / changed.mean(dim=(1, 2), keepdim=True)
    plain = (weights == 1).all(dim=1).to(hidden.device)[:, None, None]
    return torch.where(plain, hidden, changed * ratio)


def unread_notation(prompt: str) -> str | None:
    """Return a line on a notation of other programs that is text here; None without any."""
    for pattern, advice in UNREAD.items():
        found = re.search(pattern, prompt)
        if found:
            return f"{prompt!r}: {found[0]} is read as text: {advice}"
    return None
