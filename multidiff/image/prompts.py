"""Prompts of the form ``NAME, STYLE style``: their grammar, vocabulary and condition.

A style is named at the end, after a comma: ``spouting whale, twemoji style``. What is before it is
read word by word. Names that the training captions have (``cat face``) are tokens too, after their
words: a network learns a name faster by its own embedding, and a new combination by its words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff.core.random import Rng, uniform
from multidiff.image.data.listing import ImageSource
from multidiff.image.tokenizers import words_of
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import Fingerprint
from multidiff.utils.readers import parse_json, read_text, reading

PROMPTS = "prompts.json"
# White space is matched once and from its beginning, so that many spaces take no cubic time.
STYLE = re.compile(r"(?<!\s)\s*+,?\s*+([^\s,]++)\s++style\s*$", re.IGNORECASE)
EMPTY = -1


def split_style(prompt: str) -> tuple[str, str | None]:
    """Return a prompt's text and its style in lower case; None if it names no style."""
    found = STYLE.search(prompt)
    if found is None:
        return prompt.strip(), None
    return prompt[: found.start()].strip(), found[1].lower()


class PromptTokenizer:
    """Words, names and a style as numbers, with the vocabulary of the training captions.

    The vocabulary is read from the captions when training begins, and kept in the model's folder
    (``prompts.json``).

    Args:
        source: images whose captions have the names and styles; None for a model with its
            own ``prompts.json``.
        words: further words, such as those of augmented captions.
        vocabulary: number of tokens that the network has embeddings for.
        styles: number of styles that the network has embeddings for.
        length: number of tokens of a prompt; more are cut off, with a warning.
        drop_names: fraction of the training captions that lose their name tokens, so that the
            words alone must describe the image.

    Raises:
        ValueError: if a number is less than 1, or the fraction is not in [0, 1].
    """

    def __init__(
        self,
        source: ImageSource | None = None,
        words: tuple[str, ...] = (),
        vocabulary: int = 4096,
        styles: int = 8,
        length: int = 24,
        drop_names: float = 0.5,
    ):
        if min(vocabulary, styles, length) < 1 or not 0 <= drop_names <= 1:
            raise ValueError(
                f"vocabulary {vocabulary}, styles {styles}, length {length}: must be at least 1; "
                f"drop_names {drop_names:g}: must be in [0, 1]"
            )
        self.source, self.words = source, words
        self.vocabulary, self.max_styles, self.length = vocabulary, styles, length
        self.drop_names = drop_names
        self._tokens: dict[tuple[str, ...] | str, int] | None = None
        self._styles: list[str] = []

    @classmethod
    def synthetic(cls, source: ImageSource | None = None, **options: Any) -> PromptTokenizer:
        """Return a tokenizer that knows no word, for dry runs without the captions."""
        made = cls(None, **options)
        made._take([], [], [])
        return made

    @property
    def styles(self) -> list[str]:
        """Styles that a prompt may name."""
        self._ready()
        return self._styles

    @property
    def names(self) -> list[str]:
        """Names of the training captions."""
        return [" ".join(one) for one in self._ready() if isinstance(one, tuple)]

    def tokens(self, text: str, with_names: bool = True) -> list[int]:
        """Return the numbers of a text's known words, and of each known name after its words."""
        known, words, found, ends = self._ready(), words_of(text), [], {}
        if with_names:
            ends = {stop - 1: known[tuple(words[at:stop])] for at, stop in self._spans(words)}
        for position, word in enumerate(words):
            found += [known[word]] if word in known else []
            found += [ends[position]] if position in ends else []
        return found

    def _spans(self, words: list[str]) -> list[tuple[int, int]]:
        """Return where known names are: from the left, the longest first."""
        known, spans, at = self._ready(), [], 0
        while at < len(words):
            stops = range(min(len(words), at + self._longest), at, -1)
            stop = next((stop for stop in stops if tuple(words[at:stop]) in known), None)
            if stop is not None:
                spans.append((at, stop))
            at = at + 1 if stop is None else stop
        return spans

    def __call__(self, prompts: Sequence[str], rng: Rng | None = None) -> dict[str, Tensor]:
        """Return the condition of prompts: token numbers and style numbers, -1 where empty.

        Args:
            prompts: prompts; one without a style may become any.
            rng: source of the draws that drop names in training; None drops none.

        Raises:
            InputError: if a style is unknown, or named twice.
        """
        drop = [False] * len(prompts)
        if rng is not None and self.drop_names:
            drop = (uniform((len(prompts),), rng) < self.drop_names).tolist()
        rows, styles = [], []
        for prompt, without in zip(prompts, drop, strict=True):
            text, style = split_style(prompt)
            rows.append(self._padded(self.tokens(text, not without)))
            styles.append(EMPTY if style is None else self._style_number(prompt, style))
        return {"words": torch.tensor(rows), "style": torch.tensor(styles)}

    def _padded(self, tokens: list[int]) -> list[int]:
        return (tokens + [EMPTY] * self.length)[: self.length]

    def _style_number(self, prompt: str, style: str) -> int:
        known = self.styles
        if style not in known:
            raise InputError(f"{prompt!r}: no style {style!r}; one of {', '.join(known)}")
        earlier = [one for one in re.findall(r"(\S+) style\b", prompt.lower())[:-1] if one in known]
        if earlier:
            raise InputError(f"{prompt!r}: names two styles, {earlier[0]} and {style}; name one")
        return known.index(style)

    def check_prompt(self, prompt: str) -> None:
        """Reject a prompt that describes nothing.

        Raises:
            InputError: if it is empty, no word is known, or its style is wrong.
        """
        text, style = split_style(prompt)
        if style is not None:
            self._style_number(prompt, style)
        if not words_of(text):
            raise InputError(f"{prompt!r}: is empty; name what to draw, such as {self._examples()}")
        if not self.tokens(text):
            raise InputError(
                f"{prompt!r}: the model knows none of these words; it knows names such as "
                f"{self._examples()}"
            )

    def _examples(self) -> str:
        return ", ".join(self.names[:: max(1, len(self.names) // 3)][:3])

    def complaint(self, caption: str) -> str | None:
        """See :class:`~multidiff.image.tokenizers.Tokenizer`."""
        text, _ = split_style(caption)
        known = self._ready()
        unknown = [word for word in words_of(text) if word not in known]
        if unknown:
            return f"{caption!r}: the model does not know {', '.join(unknown)}, which is ignored"
        count = len(self.tokens(text))
        if count > self.length:
            return f"{caption!r}: has {count} tokens of words and names; {self.length} are read"
        return None

    def assets(self) -> dict[str, str]:
        """See :class:`~multidiff.image.tokenizers.Tokenizer`."""
        self._ready()
        words = [one for one in self._ready() if isinstance(one, str)]
        return {PROMPTS: json.dumps({"words": words, "names": self.names, "styles": self.styles})}

    def load_assets(self, folder: Path) -> None:
        """Load the vocabulary; a missing file is only reported when it is needed.

        Raises:
            InputError: if the file is not a vocabulary, or has more entries than the network.
        """
        path = folder / PROMPTS
        if not path.is_file():
            return
        with reading(str(path), "is not a vocabulary of prompts", "copy the model's own file"):
            found = parse_json(read_text(path), str(path))
            parts = [[str(one) for one in found[key]] for key in ("words", "names", "styles")]
        self._take(*parts)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of the captions' source; empty without one."""
        return {} if self.source is None else {"prompts": self.source.fingerprint()}

    def _ready(self) -> dict[tuple[str, ...] | str, int]:
        if self._tokens is None:
            if self.source is None:
                raise InputError(f"the model's folder has no {PROMPTS}: put its own file there")
            captions = self.source.listing().captions
            if captions is None:
                raise InputError(f"{self.source.path}: has no captions; add a column of texts")
            pairs = [split_style(text) for texts in captions for text in texts]
            names = sorted({" ".join(words_of(text)) for text, _ in pairs} - {""})
            words = {word for name in names for word in name.split()} | {*self.words}
            self._take(sorted(words), names, sorted({s for _, s in pairs if s is not None}))
        assert self._tokens is not None
        return self._tokens

    def _take(self, words: list[str], names: list[str], styles: list[str]) -> None:
        entries: list[tuple[str, ...] | str] = [*words, *(tuple(name.split()) for name in names)]
        for found, most, what in (
            (len(entries), self.vocabulary, "vocabulary"),
            (len(styles), self.max_styles, "styles"),
        ):
            if found > most:
                raise InputError(
                    f"the captions have {len(entries)} words and names and {len(styles)} styles, "
                    f"the network's {what} is {most}: set {what}: {found} in the recipe, for the "
                    "tokenizer and for the denoiser"
                )
        self._tokens = {one: number for number, one in enumerate(entries)}
        self._longest = max((len(one) for one in entries if isinstance(one, tuple)), default=0)
        self._styles = styles
