"""The network of DiffusER: a tagger and a generator (Reid et al. 2022, section 3).

    (1) p(x' | x) = p_tag(e | x) p_write(w | x, e)

The tagger says of every token whether it is kept, replaced or deleted, and of every gap whether
something is inserted there. The generator reads the text with these edits marked on it, deleted
tokens left out, and writes the replaced and inserted spans from left to right. Place 0 is a slot
before the first token: a text may be empty, and an insertion may come first.

The paper trains two transformers. Here the generator may read the tagger's own encoding
instead, marked: half the work, and on small data no worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.alignment import DELETE, INSERT, KEEP, Edit, Span
from multidiff.core.protocols import Condition
from multidiff.nn.transformer import Transformer
from multidiff.text.denoiser import SourceEncoder
from multidiff.text.vocabulary import END, PAD

NUM_TAGS = 3  # KEEP, REPLACE, DELETE


@dataclass(frozen=True)
class Drafts:
    """Texts to be edited, a slot before each.

    Attributes:
        tokens: numbers, END in the slot, PAD behind.
        real: where there is a token or the slot.
        condition: what the network is told of them.
    """

    tokens: Int[Tensor, "batch places"]
    real: Bool[Tensor, "batch places"]
    condition: Condition = None

    @classmethod
    def of(
        cls, texts: Sequence[Sequence[int]], condition: Condition, device: torch.device
    ) -> Drafts:
        """Drafts of some texts."""
        longest = 1 + max(map(len, texts))
        rows = [[END, *text] + [PAD] * (longest - 1 - len(text)) for text in texts]
        tokens = torch.tensor(rows, device=device)
        return cls(tokens, tokens != PAD, condition)


@dataclass(frozen=True)
class Marks:
    """Edits of drafts.

    Attributes:
        tags: KEEP, REPLACE or DELETE at each place; KEEP in the slot and in padding.
        gaps: whether something is inserted behind each place.
    """

    tags: Int[Tensor, "batch places"]
    gaps: Bool[Tensor, "batch places"]


@dataclass(frozen=True)
class Stream:
    """What the generator has written, span after span, each closed by END.

    Attributes:
        read: the token before each that is written; END where a span begins.
        slots: place of the draft at which the span is written.
        kinds: 1 where that is an insertion, 0 where it is a replacement.
        real: where there is anything.
    """

    read: Int[Tensor, "batch written"]
    slots: Int[Tensor, "batch written"]
    kinds: Int[Tensor, "batch written"]
    real: Bool[Tensor, "batch written"]

    @classmethod
    def of(cls, spans: Sequence[Sequence[Span]], device: torch.device) -> Stream:
        """The stream of spans that are written, or begun; deletions are passed over."""
        rows = [
            [
                (token, span.start + (span.edit != INSERT), int(span.edit == INSERT), True)
                for span in some
                if span.edit != DELETE
                for token in (END, *span.tokens)
            ]
            for some in spans
        ]
        longest = max(1, *map(len, rows))
        padded = [row + [(PAD, 0, 0, False)] * (longest - len(row)) for row in rows]
        read, slots, kinds, real = torch.tensor(padded, device=device).unbind(dim=-1)
        return cls(read, slots, kinds, real.bool())


@dataclass(frozen=True)
class Encoding:
    """Drafts as the tagger reads them, and what they are made from."""

    drafts: Drafts
    places: Float[Tensor, "batch places width"]
    context: Float[Tensor, "batch more width"] | None
    there: Bool[Tensor, "batch more"] | None


@dataclass(frozen=True)
class Template:
    """Marked drafts as the generator reads them; ``keys`` belong to ``context``."""

    places: Float[Tensor, "batch places width"]
    context: Float[Tensor, "batch all width"]
    keys: Bool[Tensor, "batch all"]

    def __getitem__(self, rows: Tensor) -> Template:
        """Some of the rows, or some of them several times."""
        return Template(self.places[rows], self.context[rows], self.keys[rows])


class Editor(nn.Module):
    """Tags drafts and writes what is missing.

    The condition is a dict with ``source`` (batch, places), numbers of what a text is made
    from, -1 where that is left out.

    Args:
        size: how many tokens there are.
        width: of the transformers.
        layers: of the tagger's.
        heads: of their attention.
        length: the longest draft.
        writer_layers: of the generator's.
        shared: the generator reads the tagger's encoding; else one of its own, of as many
            layers.
        sources: how many numbers a source is made of; 0 without sources.
        source_layers: of the source's encoder.
        source_length: the longest source.
        expansion: inner width of the perceptrons over that of the blocks.
        dropout: share of each branch that training drops.
    """

    def __init__(
        self,
        size: int,
        width: int = 512,
        layers: int = 6,
        heads: int = 8,
        length: int = 128,
        writer_layers: int = 6,
        shared: bool = True,
        sources: int = 0,
        source_layers: int = 1,
        source_length: int = 64,
        expansion: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.size, self.length = size, length
        self.words = nn.Embedding(size, width)
        self.places = nn.Embedding(length + 1, width)
        self.tag_marks = nn.Embedding(NUM_TAGS, width)
        self.gap_marks = nn.Embedding(2, width)
        self.kinds = nn.Embedding(2, width)
        for one in (self.words, self.places, self.tag_marks, self.gap_marks, self.kinds):
            nn.init.normal_(one.weight, std=0.02)
        self.encoder = Transformer(width, layers, heads, 0, expansion, dropout)
        self.tagger = nn.Linear(width, NUM_TAGS)
        self.inserter = nn.Linear(width, 1)
        self.reader = None if shared else Transformer(width, layers, heads, 0, expansion, dropout)
        self.writer = Transformer(width, writer_layers, heads, 0, expansion, dropout)
        self.bias = nn.Parameter(torch.zeros(size))
        self.source = (
            SourceEncoder(sources, width, source_layers, heads, source_length) if sources else None
        )

    def encode(self, drafts: Drafts) -> Encoding:
        """The drafts as the tagger reads them, and their sources."""
        context, there = None, None
        told = cast("dict[str, Tensor]", drafts.condition or {})
        if self.source is not None and "source" in told:
            context, there = self.source(told["source"])
        found = self.encoder(self._read(drafts), None, context, _joined(there, drafts.real))
        return Encoding(drafts, found, context, there)

    def _read(self, drafts: Drafts) -> Tensor:
        return self.words(drafts.tokens) + self.places.weight[: drafts.tokens.shape[1]]

    def tags(
        self, encoding: Encoding
    ) -> tuple[Float[Tensor, "batch places tags"], Float[Tensor, "batch places"]]:
        """Logits of the tag of each place, and that something is inserted behind it."""
        return self.tagger(encoding.places), self.inserter(encoding.places).squeeze(-1)

    def template(self, encoding: Encoding, marks: Marks) -> Template:
        """The drafts as the generator reads them: marked, without what is deleted."""
        drafts = encoding.drafts
        marked = self.tag_marks(marks.tags) + self.gap_marks(marks.gaps.long())
        left = drafts.real & (marks.tags != DELETE)
        if self.reader is None:
            places = encoding.places + marked
        else:
            keys = _joined(encoding.there, left)
            places = self.reader(self._read(drafts) + marked, None, encoding.context, keys)
        if encoding.context is None:
            return Template(places, places, left)
        context = torch.cat([encoding.context, places], dim=1)
        return Template(places, context, _joined(encoding.there, left))

    def write(self, template: Template, stream: Stream) -> Float[Tensor, "batch written size"]:
        """Logits of the token that follows each of the stream; END closes a span."""
        written = stream.read.shape[1]
        slots = stream.slots[..., None].expand(-1, -1, template.places.shape[2])
        x = self.words(stream.read) + self.kinds(stream.kinds) + template.places.gather(1, slots)
        before = torch.ones(written, written, dtype=torch.bool, device=x.device).tril()
        own = before & stream.real[:, None]
        # Padding reads itself, so that no row is without keys.
        own = own | torch.eye(written, dtype=torch.bool, device=x.device)
        told = template.keys[:, None].expand(-1, written, -1)
        found = self.writer(x, None, template.context, torch.cat([told, own], dim=2))
        return F.linear(found, self.words.weight, self.bias)


def _joined(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else torch.cat([first, second], dim=1)


def marks_of(
    tags: Sequence[Sequence[Edit]], gaps: Sequence[Sequence[bool]], places: int,
    device: torch.device,
) -> Marks:  # fmt: skip
    """Marks of drafts with so many places, the slot counted."""
    rows = [[KEEP, *some] + [KEEP] * (places - 1 - len(some)) for some in tags]
    filled = [[*some] + [False] * (places - len(some)) for some in gaps]
    return Marks(torch.tensor(rows, device=device), torch.tensor(filled, device=device))
