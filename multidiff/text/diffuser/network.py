"""The network of DiffusER: a tagger and a generator (Reid et al. 2022, section 3).

    (1) p(x' | x) = p_tag(e | x) p_write(w | x, e)

The tagger predicts for every token whether it is kept, replaced or deleted, and for every gap
whether something is inserted there. The generator reads the text with these edits marked on it,
without deleted tokens, and writes the replaced and inserted spans from left to right. Position 0 is
a slot before the first token: a text may be empty, and an insertion may come first.

The paper trains two transformers. Here the generator may read the tagger's own encoding
instead, with the edits marked: half the computation, and no worse on small data.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.edit.alignment import DELETE
from multidiff.nn.token_denoiser import DecoderContext, SourceEncoder
from multidiff.nn.transformer import KVCache, Transformer
from multidiff.text.data.vocabulary import FIRST, PAD, UNKNOWN
from multidiff.text.diffuser.drafts import DecoderInput, Drafts, EditTags

NUM_TAGS = 3  # KEEP, REPLACE, DELETE


@dataclass(frozen=True)
class Encoding:
    """Drafts encoded by the tagger, and their context."""

    drafts: Drafts
    hidden: Float[Tensor, "batch length width"]
    around: DecoderContext


@dataclass(frozen=True)
class Template:
    """Marked drafts as the generator reads them.

    Attributes:
        hidden: hidden states of the drafts.
        context: sources and these hidden states.
        keys: mask of the context, false at padding.
        positions: indices of the context, for attention.
        ends: the first position behind each draft.
        nearest: see :class:`~multidiff.text.diffuser.drafts.Drafts`.
    """

    hidden: Float[Tensor, "batch length width"]
    context: Float[Tensor, "batch all width"]
    keys: Bool[Tensor, "batch all"]
    positions: Int[Tensor, " all"]
    ends: Int[Tensor, " batch"]
    nearest: Int[Tensor, "batch length words"] | None = None

    def __getitem__(self, rows: Tensor) -> Template:
        """Return some of the rows; a row may repeat."""
        return Template(
            self.hidden[rows],
            self.context[rows],
            self.keys[rows],
            self.positions,
            self.ends[rows],
            None if self.nearest is None else self.nearest[rows],
        )


class Editor(nn.Module):
    """Tags drafts and writes missing tokens.

    The condition is a dict with ``source`` (batch, positions), source tokens, -1 where dropped or
    padding.

    Args:
        size: number of tokens.
        width: width of the transformers.
        layers: number of the tagger's blocks.
        heads: number of attention heads.
        length: length of the longest draft.
        writer_layers: number of the generator's blocks.
        shared: whether the generator reads the tagger's encoding; otherwise one of its own, with
            the same number of blocks.
        sources: number of distinct source tokens; 0 without sources.
        source_layers: number of blocks in the source encoder.
        source_length: length of the longest source.
        expansion: ratio of the MLPs' inner width to that of the blocks.
        dropout: dropout probability of each residual branch.
        both_sides: whether a gap is predicted from the tokens on both sides of it; otherwise from
            the one before, whose encoding knows the other.
        nearest_words: number of words that are read beside each token of a word in characters:
            those of the vocabulary that it may be a misspelling of.
        repeats: whether tokens equal to the one before are marked: attention alone takes long to
            learn to compare neighbours.
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
        both_sides: bool = False,
        nearest_words: int = 0,
        repeats: bool = False,
    ):
        super().__init__()
        self.size, self.length, self.nearest_words = size, length, nearest_words
        self.words = nn.Embedding(size, width)
        self.positions = nn.Embedding(length + 1, width)
        self.tag_marks = nn.Embedding(NUM_TAGS, width)
        self.gap_marks = nn.Embedding(2, width)
        self.kinds = nn.Embedding(2, width)
        for one in (self.words, self.positions, self.tag_marks, self.gap_marks, self.kinds):
            nn.init.normal_(one.weight, std=0.02)
        self.encoder = Transformer(width, layers, heads, 0, expansion, dropout)
        self.tagger = nn.Linear(width, NUM_TAGS)
        self.inserter = nn.Linear(width, 1)
        self.inserter_after = nn.Linear(width, 1, bias=False) if both_sides else None
        if self.inserter_after is not None:
            nn.init.zeros_(self.inserter_after.weight)
        self.near = nn.Linear(nearest_words * width, width, bias=False) if nearest_words else None
        if self.near is not None:
            # The nearest word itself: from zero it takes thousands of steps until it is read.
            # (Not by nn.init.eye_, which imports a compiler where weights are only outlined.)
            nn.init.zeros_(self.near.weight)
            nn.init.ones_(self.near.weight.detach().diagonal())
        self.copier = nn.Linear(width, nearest_words) if nearest_words else None
        self.repeat = nn.Linear(1, width, bias=False) if repeats else None
        if self.repeat is not None:
            nn.init.zeros_(self.repeat.weight)
        self.reader = None if shared else Transformer(width, layers, heads, 0, expansion, dropout)
        self.writer = Transformer(width, writer_layers, heads, 0, expansion, dropout)
        self.bias = nn.Parameter(torch.zeros(size))
        self.source = (
            SourceEncoder(sources, width, source_layers, heads, source_length) if sources else None
        )

    def encode(self, drafts: Drafts) -> Encoding:
        """Encode the drafts for the tagger, and their sources."""
        around = DecoderContext.of(drafts.condition, self.source, drafts.tokens)
        keys = around.keys(drafts.real)
        found = self.encoder(self._read(drafts), None, around.context, keys, around.positions)
        return Encoding(drafts, found, around)

    def _read(self, drafts: Drafts) -> Tensor:
        x = self.words(drafts.tokens) + self.positions.weight[: drafts.tokens.shape[1]]
        if self.repeat is not None:
            after = drafts.tokens[:, 1:]
            same = (after == drafts.tokens[:, :-1]) & (after != UNKNOWN)  # two unknown words differ
            x = x + self.repeat(F.pad(same, (1, 0))[..., None].to(x.dtype))
        if self.near is None:
            return x
        if drafts.nearest is None:
            raise ValueError("this editor reads the words nearest to misspelled ones; give them")
        near = self.words(drafts.nearest) * (drafts.nearest != PAD)[..., None]
        return x + self.near(near.flatten(2))

    def tags(
        self, encoding: Encoding
    ) -> tuple[Float[Tensor, "batch length tags"], Float[Tensor, "batch length"]]:
        """Return the logits of each position's tag, and of an insertion behind it."""
        hidden = encoding.hidden
        gaps = self.inserter(hidden).squeeze(-1)
        if self.inserter_after is not None:
            after = self.inserter_after(hidden).squeeze(-1) * encoding.drafts.real
            gaps = gaps + F.pad(after[:, 1:], (0, 1))
        return self.tagger(hidden), gaps

    def own_tensors(self) -> dict[str, Tensor]:
        """Return what weights of an editor without these options lack."""
        parts = {
            "inserter_after": self.inserter_after, "near": self.near, "copier": self.copier,
            "repeat": self.repeat,
        }  # fmt: skip
        return {
            f"{name}.{key}": tensor
            for name, one in parts.items()
            if one is not None
            for key, tensor in one.state_dict().items()
        }

    def template(self, encoding: Encoding, marks: EditTags) -> Template:
        """Return the drafts as the generator reads them: marked, without deleted tokens."""
        drafts, around = encoding.drafts, encoding.around
        marked = self.tag_marks(marks.tags) + self.gap_marks(marks.gaps.long())
        left = drafts.real & (marks.tags != DELETE)
        keys = around.keys(left)
        if self.reader is None:
            hidden = encoding.hidden + marked
        else:
            read = self._read(drafts) + marked
            hidden = self.reader(read, None, around.context, keys, around.positions)
        context = hidden
        if around.context is not None:
            context = torch.cat([around.context, hidden], dim=1)
        ends = around.first + drafts.real.sum(dim=1)
        return Template(hidden, context, keys, around.positions, ends, drafts.nearest)

    def write(
        self, template: Template, stream: DecoderInput, memory: KVCache | None = None
    ) -> Float[Tensor, "batch new size"]:
        """Return the logits of the token that follows each in the stream; END closes a span.

        Args:
            template: the drafts.
            stream: written tokens.
            memory: KV cache of the drafts and of the streams read before, all of one length; only
                the rest is read now, and has logits.
        """
        found, near = self._written(template, stream, memory)
        return self._logits(found, near)

    def write_real(self, template: Template, stream: DecoderInput) -> Float[Tensor, "real size"]:
        """Return the logits that :meth:`write` does, at the real positions alone.

        Streams of a batch differ in length, and in training the logits are most of the work.
        """
        found, near = self._written(template, stream, None)
        return self._logits(found[stream.real], None if near is None else near[stream.real])

    def _written(
        self, template: Template, stream: DecoderInput, memory: KVCache | None
    ) -> tuple[Float[Tensor, "batch new width"], Int[Tensor, "batch new words"] | None]:
        """Return the generator's output at the new positions, and the nearest words there."""
        known = 0 if memory is None else memory.positions
        first, count = max(0, known - template.context.shape[1]), stream.read.shape[1]
        read, slots, kinds = (x[:, first:] for x in (stream.read, stream.slots, stream.kinds))
        slots = slots[..., None].expand(-1, -1, template.hidden.shape[2])
        x = self.words(read) + self.kinds(kinds) + template.hidden.gather(1, slots)
        before = torch.ones(count, count, dtype=torch.bool, device=x.device).tril()
        own = before & stream.real[:, None]
        # Padding attends to itself, so that no row is without keys.
        own = (own | torch.eye(count, dtype=torch.bool, device=x.device))[:, first:]
        cond = template.keys[:, None].expand(-1, count - first, -1)
        keys = torch.cat([cond, own], dim=2)
        # The stream is right behind its draft, regardless of padding.
        positions = template.ends[:, None] + torch.arange(first, count, device=x.device)
        context = None
        if not known:
            context = template.context
            positions = torch.cat([template.positions.expand(len(x), -1), positions], dim=1)
        found = self.writer(x, None, context, keys, positions, memory)
        if template.nearest is None:
            return found, None
        slots = stream.slots[:, first:, None].expand(-1, -1, self.nearest_words)
        return found, template.nearest.gather(1, slots)

    def _logits(
        self, found: Float[Tensor, "*all width"], near: Int[Tensor, "*all words"] | None
    ) -> Float[Tensor, "*all size"]:
        logits = F.linear(found, self.words.weight, self.bias)
        if self.copier is None or near is None:
            return logits
        # Pointers (See et al. 2017): the nearest words are likelier by as much as this says.
        extra = self.copier(found) * (near >= FIRST)
        return logits.scatter_add(-1, near, extra.to(logits.dtype))
