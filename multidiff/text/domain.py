"""Base domain of texts: rows of tokens, their conditions, and their lengths."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.devices import moved
from multidiff.core.protocols import Domain, Encoded
from multidiff.core.random import Rng, uniform
from multidiff.text.data.attributes import UNSPECIFIED, MeaningTable
from multidiff.text.data.vocabulary import END, PAD, UNKNOWN, Vocabulary
from multidiff.utils.fingerprint import Fingerprint

logger = logging.getLogger(__name__)

# Tokens never written inside a text; END is put where the text's length says.
UNWRITTEN = (PAD, END, UNKNOWN)


@dataclass(frozen=True)
class EncodedText(Encoded):
    """A text as a state, with its tokens.

    Attributes:
        tokens: token numbers, padded with PAD.
        embedding: embeddings of the tokens, for states that are noisy embeddings.
    """

    tokens: Int[Tensor, "batch length"] | None = None
    embedding: Float[Tensor, "batch length width"] | None = None

    @property
    def real(self) -> Bool[Tensor, "batch length"]:
        """Return where there is a token rather than padding."""
        assert self.tokens is not None
        return self.tokens != PAD


class TextDomain(nn.Module, Domain):
    """Shared part of every domain of texts.

    END is the last token of every text, and its position is its length. Padding is not part of a
    state: it is masked in attention and in every loss, and the length of a text is drawn
    from a distribution that is learned alongside.

    Args:
        vocabulary: vocabulary of the tokens.
        length: number of tokens of the longest text, including END.
        meanings: attributes whose values are the condition.
        drop_values: fraction of the meanings of which training drops half of the values, at
            random, so that the model can be conditioned on a part.
        source_length: number of tokens of the longest source text, including END, if sources
            are the condition; 0 if not. Longer ones are truncated.
        ends: whether texts end. Chunks of running text do not.

    Raises:
        ValueError: if a length is too small, or there are two kinds of conditions.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        length: int,
        meanings: MeaningTable | None = None,
        drop_values: float = 0.0,
        source_length: int = 0,
        ends: bool = True,
    ):
        if length < 2 or source_length < 0:
            raise ValueError(f"length {length} or source_length {source_length}: too small")
        if meanings is not None and source_length:
            raise ValueError("texts have meanings or sources as condition, not both; give one")
        super().__init__()
        self.vocabulary, self.meanings = vocabulary, meanings
        self.length, self.drop_values = length, drop_values
        self.source_length, self.ends = source_length, ends
        self.lengths = nn.Parameter(torch.zeros(length + 1))
        # By a meaning's values, or by the difference in length from the source.
        shape = (0 if meanings is None else meanings.size, length + 1)
        if source_length:
            shape = (1, length + 1 + source_length)
        self.lengths_by_source = nn.Parameter(torch.zeros(shape))
        # Parameters that are never trained have no optimizer state and could not be resumed.
        self.lengths.requires_grad_(ends)
        self.lengths_by_source.requires_grad_(ends and self.sources > 0)

    @property
    def device(self) -> torch.device:
        """Device that it computes on."""
        return self.lengths.device

    @property
    def sources(self) -> int:
        """Number of distinct condition tokens; 0 without a condition."""
        if self.meanings is not None:
            return self.meanings.size
        return self.vocabulary.size if self.source_length else 0

    def check_reader(self, denoiser: nn.Module) -> None:
        """Check that a network reads the conditions of this domain.

        Raises:
            ValueError: if it does not.
        """
        reader = getattr(denoiser, "source", None)
        size = 0 if reader is None else reader.size
        if size != self.sources:
            raise ValueError(
                f"the denoiser's sources are {size}, the domain's conditions have "
                f"{self.sources} numbers; set sources: {self.sources}"
            )
        longest = self.source_length if self.meanings is None else len(self.meanings.attributes)
        if reader is not None and reader.length < longest:
            raise ValueError(
                f"the denoiser's source_length is {reader.length}, the domain's conditions have "
                f"up to {longest} numbers; set source_length: {longest}"
            )

    def encoded(self, batch: Any, rng: Rng | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return tokens and condition. A batch has ``text``, and ``meaning`` or ``source``.

        It may have their tokens too, prepared: ``text_tokens``, ``source_tokens``.
        """
        tokens = self.tokens(batch["text"], batch.get("text_tokens"))
        condition: dict[str, Tensor] = {"real": tokens != PAD}
        if self.meanings is not None:
            source = self._rows([self.meanings.whole(one) for one in batch["meaning"]])
            condition["source"] = self._partly_open(source, rng)
        if self.source_length:
            prepared = batch.get("source_tokens")
            condition["source"] = self.source_tokens(batch["source"], prepared)
        return tokens, condition

    def tokens(
        self, texts: Sequence[str], prepared: Sequence[np.ndarray] | None = None
    ) -> Int[Tensor, "batch longest"]:
        """Return numbers, END after each text; a text that is too long is cut, without END.

        Args:
            texts: the texts.
            prepared: numbers of the texts, if they are known.
        """
        end = [END] if self.ends else []
        rows = [[*row, *end] for row in self._numbers(texts, prepared)]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > self.length:
                logger.warning("cut to %d tokens: %r", self.length, text)
        return self._padded(rows, self.length, PAD)

    def source_tokens(
        self, texts: Sequence[str], prepared: Sequence[np.ndarray] | None = None
    ) -> Int[Tensor, "batch longest"]:
        """Return numbers of source texts, END after each, UNSPECIFIED after it.

        Args:
            texts: the texts.
            prepared: numbers of the texts, if they are known.
        """
        rows = [[*row, END] for row in self._numbers(texts, prepared)]
        return self._padded(rows, self.source_length, UNSPECIFIED)

    def _numbers(
        self, texts: Sequence[str], prepared: Sequence[np.ndarray] | None
    ) -> list[list[int]]:
        if prepared is not None:
            return [row.tolist() for row in prepared]
        return [self.vocabulary.numbers(text) for text in texts]

    def _padded(self, rows: list[list[int]], most: int, filler: int) -> Tensor:
        longest = min(max(map(len, rows)), most)
        return self._rows([(row + [filler] * longest)[:longest] for row in rows])

    def _rows(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, device=self.device)

    def _partly_open(self, source: Tensor, rng: Rng | None) -> Tensor:
        if self.drop_values == 0:
            return source
        chance = moved(uniform((len(source), 1 + source.shape[1]), rng), source.device)
        opened = (chance[:, :1] < self.drop_values) & (chance[:, 1:] < 0.5)
        return torch.where(opened, UNSPECIFIED, source)

    def condition(
        self,
        meanings: Sequence[Mapping[str, str]],
        real: Bool[Tensor, "batch length"],
        sources: Sequence[str] = (),
    ) -> dict[str, Tensor]:
        """Return the denoiser's condition; missing attributes are unspecified.

        Args:
            meanings: meaning of each text.
            real: mask that is false at padding.
            sources: source of each text, if the domain has sources.
        """
        described = {"real": real}
        if self.meanings is not None:
            described["source"] = self._rows([self.meanings.partial(one) for one in meanings])
        if self.source_length:
            described["source"] = self.source_tokens(sources)
        return described

    # ----------------------------------------------------------------- lengths

    def length_loss(self, encoded: Encoded) -> Float[Tensor, " batch"]:
        """Return the cross-entropy of the lengths in nats, marginal plus conditional."""
        lengths = encoded.condition["real"].sum(dim=1)
        source = encoded.condition.get("source")
        loss = F.cross_entropy(self.length_logits(len(lengths), None), lengths, reduction="none")
        if source is None:
            return loss
        described = F.cross_entropy(
            self.length_logits(len(lengths), source), lengths, reduction="none"
        )
        return loss + described

    def length_logits(self, batch: int, source: Tensor | None) -> Float[Tensor, "batch lengths"]:
        """Return logits of each length from 0: the marginal ones plus the condition's."""
        if source is None:
            return self.lengths.expand(batch, -1)
        if self.source_length:
            longer = torch.arange(self.length + 1, device=source.device) + self.source_length
            return self.lengths_by_source[0, longer - (source >= 0).sum(dim=1, keepdim=True)]
        described = self.lengths_by_source[source.clamp(min=0)]
        return self.lengths.detach() + (described * (source != UNSPECIFIED)[..., None]).sum(dim=1)

    @torch.no_grad()
    def count_lengths(self, texts: Sequence[str], sources: Sequence[str] | None = None) -> None:
        """Set the distribution of lengths to that of some texts, each length counted 1/2 more.

        Args:
            texts: texts as they are trained on.
            sources: their sources; the lengths are then counted as differences from them, too.
        """
        lengths = [min(len(row) + 1, self.length) for row in self._numbers(texts, None)]
        self.lengths.copy_(_log_counts(lengths, self.lengths))
        if self.source_length and sources is not None:
            own = [min(len(row) + 1, self.source_length) for row in self._numbers(sources, None)]
            longer = [a - b + self.source_length for a, b in zip(lengths, own, strict=True)]
            self.lengths_by_source[0].copy_(_log_counts(longer, self.lengths_by_source[0]))

    def length_nats(self, lengths: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the cost in nats of encoding each text's length, without a condition."""
        if not self.ends:
            return torch.zeros(len(lengths), device=lengths.device)
        logits = self.length_logits(len(lengths), None)
        return F.cross_entropy(logits, lengths, reduction="none")

    def written(self, numbers: Int[Tensor, "batch length"]) -> list[str]:
        """Return the texts of tokens, each up to its END."""
        return [self.vocabulary.text(row) for row in numbers.tolist()]

    def assets(self) -> dict[str, str]:
        """Return the assets by file name."""
        return self.vocabulary.assets()

    def load_assets(self, folder: Path) -> None:
        """Load the assets from a folder."""
        self.vocabulary.load_assets(folder)

    def data_fingerprint(self) -> dict[str, Fingerprint]:
        """Return the fingerprint of the vocabulary's source."""
        return getattr(self.vocabulary, "data_fingerprint", dict)()


def _log_counts(numbers: Sequence[int], like: Tensor) -> Tensor:
    """Return the logarithms of the frequencies of numbers from 0, each counted 1/2 more."""
    counts = torch.bincount(torch.tensor(numbers), minlength=len(like)).to(like) + 0.5
    return (counts / counts.sum()).log()
