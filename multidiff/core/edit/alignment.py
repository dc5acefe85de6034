"""Minimal edit scripts: the targets of a tagger and of a span generator.

The tags are those of DiffusER (Reid et al. 2022). The paper leaves open how an insertion
combines with the tag of the token itself, and which of several minimal scripts is
meant. The choices here:

- **Tokens and gaps are tagged separately.** Every token is kept, replaced or deleted; every gap
  (before the first token, between two, after the last: one more than there are tokens) has tokens
  inserted or not. One tag of four for each token could neither keep a token and insert before
  it, nor write at the end, nor write into an empty sequence.
- **Every unit edit costs 1**, a replacement too: the number of edits is Levenshtein's distance,
  and a token is replaced rather than deleted and inserted.
- **Ties are broken from the left: KEEP before REPLACE before DELETE before INSERT**, wherever
  some minimal script continues that way. So a pair of sequences has one script, and one form of
  script: between two kept tokens, replacements come first, then either deletions or
  insertions. ``a a b -> a b`` keeps the first ``a`` and deletes the second. Writing comes
  last because it is the hardest to learn: the generator starts it with the most context.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Edit(IntEnum):
    """Edit at a position; the first three are also the classes of a token's tag."""

    KEEP = 0
    REPLACE = 1
    DELETE = 2
    INSERT = 3


# Enum attribute lookups would cost more than everything else done with a tag.
KEEP, REPLACE, DELETE, INSERT = EDITS = tuple(Edit)
_END = len(EDITS)


@dataclass(frozen=True)
class Span:
    """Neighbouring positions with one edit: ``before[start:stop]`` becomes ``tokens``.

    Attributes:
        edit: REPLACE, DELETE or INSERT.
        start: index of the first token removed.
        stop: index of the first token after ``start`` that stays; ``start`` itself for INSERT.
        tokens: tokens written instead; a replacement may be longer or shorter than the original.
    """

    edit: Edit
    start: int
    stop: int
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Alignment:
    """Edit script from one sequence to another: a tag for each token and a fill for each gap.

    Attributes:
        tags: KEEP, REPLACE or DELETE for each token.
        replacements: for each token its replacement; None where it is not replaced.
        inserts: for each gap the tokens inserted there; gap ``i`` lies before token ``i``, the
            last one after all tokens.

    Raises:
        ValueError: if these do not fit each other.
    """

    tags: tuple[Edit, ...]
    replacements: tuple[int | None, ...]
    inserts: tuple[tuple[int, ...], ...]

    def __post_init__(self):
        if not len(self.tags) == len(self.replacements) == len(self.inserts) - 1:
            raise ValueError(
                f"{len(self.tags)} tags, {len(self.replacements)} replacements and "
                f"{len(self.inserts)} gaps: give one replacement for each tag, and one gap more"
            )
        for tag, token in zip(self.tags, self.replacements, strict=True):
            if tag == INSERT or (tag == REPLACE) != (token is not None):
                raise ValueError(f"tag {tag!r} does not go with replacement {token}")

    @property
    def gaps(self) -> tuple[bool, ...]:
        """Return for each gap whether anything is inserted there."""
        return tuple(map(bool, self.inserts))

    @property
    def num_edits(self) -> int:
        """Return the number of tokens replaced, deleted or inserted."""
        return sum(tag != KEEP for tag in self.tags) + sum(map(len, self.inserts))

    def spans(self) -> tuple[Span, ...]:
        """Return runs of edits from the left; a replacement is as long as what it replaces."""
        return tuple(
            dataclasses.replace(span, tokens=self._written(span))
            for span in find_spans(self.tags, self.gaps)
        )

    def passages(self) -> tuple[Span, ...]:
        """Return all edits between two kept tokens merged into one, from the left.

        Which tokens of a passage are replaced and which deleted follows from the tie-breaking
        rule of minimal scripts and cannot be predicted from the sequence before. What remains to
        be learned is that the passage goes, and what replaces it.
        """
        passages: list[Span] = []
        for span in self.spans():
            if passages and passages[-1].stop == span.start:
                span = _together(passages.pop(), span)
            passages.append(span)
        return tuple(passages)

    def apply(self, before: Sequence[int]) -> tuple[int, ...]:
        """Return the other sequence.

        Raises:
            ValueError: if ``before`` does not have one token for each tag.
        """
        if len(before) != len(self.tags):
            raise ValueError(f"{len(self.tags)} tags for {len(before)} tokens")
        return rewrite(before, self.spans())

    def _written(self, span: Span) -> tuple[int, ...]:
        if span.edit == INSERT:
            return self.inserts[span.start]
        run = self.replacements[span.start : span.stop]
        return tuple(token for token in run if token is not None)


def _together(first: Span, second: Span) -> Span:
    """Merge two adjacent spans."""
    start, stop, tokens = first.start, second.stop, first.tokens + second.tokens
    edit = REPLACE if tokens and stop > start else DELETE if stop > start else INSERT
    return Span(edit, start, stop, tokens)


def find_spans(tags: Sequence[Edit], gaps: Sequence[bool]) -> tuple[Span, ...]:
    """Return runs of equal edits from the left, still without tokens.

    A gap with an insertion comes before the token to its right, and splits a run there.

    Args:
        tags: KEEP, REPLACE or DELETE for each token.
        gaps: for each gap whether anything is inserted there, one more than there are tags.

    Raises:
        ValueError: if there is not exactly one gap more than there are tags.
    """
    if len(gaps) != len(tags) + 1:
        raise ValueError(f"{len(tags)} tags need {len(tags) + 1} gaps, not {len(gaps)}")
    spans: list[Span] = []
    for position, written in enumerate(gaps):
        if written:
            spans.append(Span(INSERT, position, position))
        if position == len(tags) or tags[position] == KEEP:
            continue
        start = position
        if spans and spans[-1].edit == tags[position] and spans[-1].stop == position:
            start = spans.pop().start
        spans.append(Span(tags[position], start, position + 1))
    return tuple(spans)


def rewrite(before: Sequence[int], spans: Iterable[Span]) -> tuple[int, ...]:
    """Return a sequence with every span replaced by the span's tokens.

    Raises:
        ValueError: if the spans overlap, are not in order or reach past the sequence.
    """
    after: list[int] = []
    position = 0
    for span in spans:
        if not position <= span.start <= span.stop <= len(before):
            raise ValueError(
                f"a span from {span.start} to {span.stop} after one up to {position}, in "
                f"{len(before)} tokens: give spans from the left, without overlap"
            )
        after += [*before[position : span.start], *span.tokens]
        position = span.stop
    return (*after, *before[position:])


def align(before: Sequence[int], after: Sequence[int]) -> Alignment:
    """Return the minimal script from one sequence to another; see the module for ties."""
    return align_many([before], [after])[0]


def align_many(
    befores: Sequence[Sequence[int]], afters: Sequence[Sequence[int]]
) -> list[Alignment]:
    """Return the minimal script of each pair, computed for all pairs together.

    Memory grows with ``pairs * longest before * longest after``.

    Raises:
        ValueError: if the numbers of sequences before and after differ.
    """
    if len(befores) != len(afters):
        raise ValueError(f"{len(befores)} sequences before, {len(afters)} after: give pairs")
    if not befores:
        return []
    rows, columns = _reversed(befores), _reversed(afters)
    choices = _choices(rows[:, :, None] == columns[:, None, :])
    scripts = _walk(choices, [len(one) for one in befores], [len(one) for one in afters])
    return [_read(script, after) for script, after in zip(scripts, afters, strict=True)]


def _reversed(sequences: Sequence[Sequence[int]]) -> Int[Tensor, "batch longest"]:
    """Reverse sequences, so that tracing back from the table's end breaks ties from the left."""
    longest = max(map(len, sequences))
    rows = [[*reversed(one), *[0] * (longest - len(one))] for one in sequences]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), longest)


def _choices(equal: Bool[Tensor, "batch n m"]) -> Int[Tensor, "n+1 batch m+1"]:
    """Return the first edit of the minimal script of every pair of prefixes of rows and columns.

    The table holds ``distance - j``. There, inserting a token costs nothing and its effect
    along a row is a running minimum: one row is one step, for all pairs together.
    """
    batch, n, m = equal.shape
    equal = equal.movedim(1, 0)
    table = torch.zeros(n + 1, batch, m + 1, dtype=torch.int32)
    rows = table.unbind()
    for above, row, agree in zip(rows, rows[1:], equal.int().unbind(), strict=False):
        row.copy_(above).add_(1)
        row[:, 1:] = torch.minimum(row[:, 1:], above[:, :-1] - agree)
        row.copy_(row.cummin(dim=1).values)
    choices = torch.full(table.shape, INSERT, dtype=torch.int8)
    choices[0, :, 0] = _END
    choices[1:].masked_fill_(table[1:] == table[:-1] + 1, DELETE)
    choices[1:, :, 1:].masked_fill_(table[1:, :, 1:] == table[:-1, :, :-1], REPLACE)
    choices[1:, :, 1:].masked_fill_(equal, KEEP)
    return choices


def _walk(
    choices: Int[Tensor, "rows batch columns"], rows: Sequence[int], columns: Sequence[int]
) -> list[list[int]]:
    """Trace each pair's edits from the full lengths to (0, 0), padded with ``_END``."""
    _, batch, width = choices.shape
    row, column = batch * width, 1
    moves = torch.tensor([row + column, row + column, row, column, 0])
    position = torch.tensor(rows) * row + torch.arange(batch) * width + torch.tensor(columns)
    flat, met = choices.flatten(), []
    while True:
        choice = flat[position].long()
        met.append(choice)
        if bool((choice == _END).all()):
            return torch.stack(met, dim=1).tolist()
        position = position - moves[choice]


def _read(script: Iterable[int], after: Sequence[int]) -> Alignment:
    tags: list[Edit] = []
    replacements: list[int | None] = []
    inserts: list[tuple[int, ...]] = [()]
    position = 0
    for edit in script:
        if edit == _END:
            break
        if edit == INSERT:
            inserts[-1] += (after[position],)
        else:
            tags.append(EDITS[edit])
            replacements.append(after[position] if edit == REPLACE else None)
            inserts.append(())
        if edit != DELETE:
            position += 1
    return Alignment(tuple(tags), tuple(replacements), tuple(inserts))
