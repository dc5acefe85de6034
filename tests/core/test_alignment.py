"""Minimal edit scripts: their length, their ties, and what is done with them."""

import dataclasses
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from multidiff.core.edit.alignment import (
    DELETE,
    INSERT,
    KEEP,
    REPLACE,
    Alignment,
    Span,
    align,
    align_many,
    find_spans,
    rewrite,
)

A, B, C, X, Y, Z = range(6)


def sequences(longest, size=4):
    return st.lists(st.integers(0, size - 1), max_size=longest)


def pairs(longest, size=4):
    return st.lists(st.tuples(sequences(longest, size), sequences(longest, size)), max_size=6)


def aligned(pairs):
    return align_many([before for before, _ in pairs], [after for _, after in pairs])


def script(alignment):
    """The edits from the left, one for each unit."""
    edits = []
    for position, inserted in enumerate(alignment.inserts):
        edits += [INSERT] * len(inserted) + list(alignment.tags[position : position + 1])
    return tuple(edits)


def best_script(before, after):
    """The textbook recursion: the shortest script, and of these the first in order."""

    @cache
    def best(i, j):
        ways = []
        if i < len(before) and j < len(after):
            edit = KEEP if before[i] == after[j] else REPLACE
            ways.append((edit, best(i + 1, j + 1)))
        if i < len(before):
            ways.append((DELETE, best(i + 1, j)))
        if j < len(after):
            ways.append((INSERT, best(i, j + 1)))
        scripts = [((edit != KEEP) + cost, (edit, *rest)) for edit, (cost, rest) in ways]
        return min(scripts, default=(0, ()))

    return best(0, 0)[1]


@given(pairs(30, size=6))
@settings(max_examples=60, deadline=None)
def test_as_many_edits_as_levenshteins_distance(pairs):
    counts = [alignment.num_edits for alignment in aligned(pairs)]
    assert counts == [Levenshtein.distance(before, after) for before, after in pairs]


@given(pairs(30))
@settings(max_examples=60, deadline=None)
def test_the_other_sequence_comes_out(pairs):
    for alignment, (before, after) in zip(aligned(pairs), pairs, strict=True):
        assert alignment.apply(before) == tuple(after)
        assert rewrite(before, alignment.spans()) == tuple(after)


@given(pairs(8, size=3))
@settings(max_examples=100, deadline=None)
def test_ties_are_settled_from_the_left(pairs):
    """KEEP before REPLACE before DELETE before INSERT, against a search of all scripts."""
    for alignment, (before, after) in zip(aligned(pairs), pairs, strict=True):
        assert script(alignment) == best_script(before, after)


@given(pairs(20))
@settings(max_examples=60, deadline=None)
def test_between_kept_tokens_replacements_come_first(pairs):
    for alignment in aligned(pairs):
        letters = "".join("KRDI"[edit] for edit in script(alignment))
        for block in letters.split("K"):
            assert block.lstrip("R").strip("D") == "" or block.lstrip("R").strip("I") == ""


@given(sequences(30))
@settings(max_examples=40, deadline=None)
def test_equal_sequences_are_kept(tokens):
    alignment = align(tokens, tokens)
    assert alignment.tags == (KEEP,) * len(tokens)
    assert not any(alignment.gaps) and alignment.spans() == ()


@given(pairs(12))
@settings(max_examples=40, deadline=None)
def test_a_pair_does_not_see_the_batch(pairs):
    assert aligned(pairs) == [align(before, after) for before, after in pairs]


def test_long_sequences():
    rng = torch.Generator().manual_seed(0)
    before, after = (torch.randint(50, (300,), generator=rng).tolist() for _ in range(2))
    alignment = align(before, after[:250])
    assert alignment.num_edits == Levenshtein.distance(before, after[:250])
    assert alignment.apply(before) == tuple(after[:250])


def test_of_two_equal_neighbours_the_first_is_kept():
    assert align([A, A, B], [A, B]).tags == (KEEP, DELETE, KEEP)
    assert align([A, B], [A, A, B]).inserts == ((), (A,), ())


@pytest.mark.parametrize(
    ("before", "after", "tags", "inserts"),
    [
        ([], [], (), ((),)),
        ([], [X, Y], (), ((X, Y),)),
        ([A, B], [], (DELETE, DELETE), ((), (), ())),
        ([A], [X, Y, A], (KEEP,), ((X, Y), ())),
        ([A], [A, X, Y], (KEEP,), ((), (X, Y))),
        ([A, B], [A, X, B], (KEEP, KEEP), ((), (X,), ())),
        ([A, B], [X, Y, Z], (REPLACE, REPLACE), ((), (), (Z,))),
        ([A, B, C], [X, Y], (REPLACE, REPLACE, DELETE), ((), (), (), ())),
        ([A, B], [B, A], (REPLACE, REPLACE), ((), (), ())),
    ],
)
def test_scripts_known_by_heart(before, after, tags, inserts):
    alignment = align(before, after)
    assert alignment.tags == tags
    assert alignment.inserts == inserts


def test_no_pairs():
    assert align_many([], []) == []


def test_tags_are_classes_of_a_network():
    tags = align([A, B, C], [A, X]).tags
    assert torch.tensor(tags).tolist() == [0, 1, 2]


def test_runs_become_spans():
    alignment = align([A, B, C, A, B], [Z, A, X, Y, A])
    assert alignment.tags == (KEEP, REPLACE, REPLACE, KEEP, DELETE)
    assert alignment.spans() == (
        Span(INSERT, 0, 0, (Z,)),
        Span(REPLACE, 1, 3, (X, Y)),
        Span(DELETE, 4, 5),
    )


@given(sequences(12), sequences(12))
@settings(max_examples=200, deadline=None)
def test_passages_are_all_that_happens_between_kept_tokens(before, after):
    script = align(before, after)
    passages = script.passages()
    assert rewrite(before, passages) == tuple(after)
    assert all(one.stop < other.start for one, other in pairwise(passages))
    for span in passages:
        goes, comes = span.stop > span.start, bool(span.tokens)
        assert span.edit == {(1, 1): REPLACE, (1, 0): DELETE, (0, 1): INSERT}[goes, comes]
    gone = {position for span in passages for position in range(span.start, span.stop)}
    assert gone == {position for position, tag in enumerate(script.tags) if tag != KEEP}


def test_a_written_gap_parts_a_run():
    tags = [REPLACE, REPLACE, DELETE, DELETE]
    assert find_spans(tags, [False, True, False, True, True]) == (
        Span(REPLACE, 0, 1),
        Span(INSERT, 1, 1),
        Span(REPLACE, 1, 2),
        Span(DELETE, 2, 3),
        Span(INSERT, 3, 3),
        Span(DELETE, 3, 4),
        Span(INSERT, 4, 4),
    )


def test_predicted_tags_are_filled_by_a_generator():
    """A replacement may then be longer or shorter than what it replaces."""
    spans = find_spans([KEEP, REPLACE, REPLACE, DELETE], [False, False, False, False, True])
    written = {REPLACE: (X, Y, Z), DELETE: (), INSERT: (C,)}
    filled = [dataclasses.replace(span, tokens=written[span.edit]) for span in spans]
    assert rewrite([A, B, B, C], filled) == (A, X, Y, Z, C)


@given(sequences(12), st.data())
@settings(max_examples=60, deadline=None)
def test_spans_are_written_over_slices(before, data):
    edges = sorted(data.draw(st.lists(st.integers(0, len(before)), max_size=6)))
    spans = [
        Span(REPLACE, start, stop, tuple(data.draw(sequences(3))))
        for start, stop in zip(edges[::2], edges[1::2], strict=False)
    ]
    wanted = list(before)
    for span in reversed(spans):
        wanted[span.start : span.stop] = span.tokens
    assert rewrite(before, spans) == tuple(wanted)


@pytest.mark.parametrize(
    "spans",
    [
        [Span(DELETE, 1, 3), Span(DELETE, 2, 4)],
        [Span(DELETE, 2, 3), Span(INSERT, 1, 1, (X,))],
        [Span(DELETE, 3, 5)],
        [Span(DELETE, 2, 1)],
    ],
)
def test_spans_that_do_not_fit_are_refused(spans):
    with pytest.raises(ValueError, match="without overlap"):
        rewrite([A, B, C, A], spans)


@pytest.mark.parametrize(
    ("tags", "replacements", "inserts", "message"),
    [
        ((KEEP,), (None,), ((),), "one gap more"),
        ((KEEP,), (), ((), ()), "one replacement for each tag"),
        ((REPLACE,), (None,), ((), ()), "does not go with"),
        ((KEEP,), (X,), ((), ()), "does not go with"),
        ((INSERT,), (None,), ((), ()), "does not go with"),
    ],
)
def test_alignments_that_contradict_themselves_are_refused(tags, replacements, inserts, message):
    with pytest.raises(ValueError, match=message):
        Alignment(tags, replacements, inserts)


def test_other_lengths_are_refused():
    with pytest.raises(ValueError, match="give pairs"):
        align_many([[A]], [])
    with pytest.raises(ValueError, match="2 tags for 1 tokens"):
        align([A, B], [A]).apply([A])
    with pytest.raises(ValueError, match="need 2 gaps"):
        find_spans([KEEP], [True])
