"""The editor's network: what reaches what, and what does not."""

import pytest
import torch
from editors import CPU, SIZE, strong_editor
from torch.testing import assert_close

from multidiff.core.edit.alignment import DELETE, INSERT, KEEP, REPLACE, Span, align
from multidiff.text.data.vocabulary import END, PAD, UNKNOWN
from multidiff.text.diffuser.drafts import DecoderInput, Drafts, edit_tags_of

BEFORE, AFTER = [3, 4, 5, 6], [3, 9, 9, 5, 7]
OTHER = [5] * 12
KINDS = pytest.mark.parametrize("shared", [True, False])
TOLD = pytest.mark.parametrize("sources", [0, 9])


def read(editor, texts, afters, sources=None):
    """Tags, gaps and logits of the streams of some texts that become others."""
    condition = None if sources is None else {"source": torch.tensor(sources)}
    drafts = Drafts.of(texts, condition, CPU)
    scripts = [align(one, other).spans() for one, other in zip(texts, afters, strict=True)]
    marks = edit_tags_of(scripts, drafts.tokens.shape[1], CPU)
    encoding = editor.encode(drafts)
    stream = DecoderInput.of(scripts, CPU)
    return *editor.tags(encoding), editor.write(editor.template(encoding, marks), stream)


@KINDS
@TOLD
def test_padding_changes_nothing(shared, sources):
    editor = strong_editor(shared=shared, sources=sources, source_length=8)
    positions, written = len(BEFORE) + 1, 6
    alone = read(editor, [BEFORE], [AFTER], [[2, 3]] if sources else None)
    cond = [[2, 3, -1, -1, -1], [1, 2, 3, 4, 5]] if sources else None
    beside = read(editor, [BEFORE, OTHER], [AFTER, [3] * 9], cond)
    for one, other, count in zip(alone, beside, (positions, positions, written), strict=True):
        assert_close(one[0], other[0, :count])
    # The neighbour was longer in every respect.
    assert all(one.shape[1] < other.shape[1] for one, other in zip(alone, beside, strict=True))


@KINDS
def test_rows_do_not_hear_each_other(shared):
    editor = strong_editor(shared=shared)
    first = read(editor, [BEFORE, OTHER], [AFTER, [3] * 9])
    second = read(editor, [BEFORE, [*OTHER[:-1], 11]], [AFTER, [4] * 9])
    for one, other in zip(first, second, strict=True):
        assert_close(one[0], other[0])
        assert not torch.allclose(one[1], other[1])


@KINDS
def test_the_writer_does_not_see_what_it_is_yet_to_write(shared):
    editor = strong_editor(shared=shared)
    encoding = editor.encode(Drafts.of([BEFORE], None, CPU))
    script = align(BEFORE, AFTER).spans()
    template = editor.template(encoding, edit_tags_of([script], 5, CPU))
    stream = DecoderInput.of([script], CPU)
    logits = editor.write(template, stream)
    for position in range(1, stream.read.shape[1]):
        read_otherwise = stream.read.clone()
        read_otherwise[0, position] = 10
        changed = editor.write(
            template, DecoderInput(read_otherwise, stream.slots, stream.kinds, stream.real)
        )
        assert_close(changed[:, :position], logits[:, :position])
        assert not torch.allclose(changed[:, position:], logits[:, position:])


def test_a_deleted_token_is_read_by_the_tagger_alone():
    """Where the generator reads the tagger's encoding, that has seen it; here it has its own."""
    editor = strong_editor(shared=False)
    found = []
    for deleted in (5, 8):
        drafts = Drafts.of([[3, deleted, 4]], None, CPU)
        edits = [Span(DELETE, 1, 2), Span(REPLACE, 2, 3), Span(INSERT, 3, 3)]
        marks = edit_tags_of([edits], 4, CPU)
        encoding = editor.encode(drafts)
        stream = DecoderInput.of([[Span(REPLACE, 2, 3, (9,)), Span(INSERT, 3, 3, (7, 6))]], CPU)
        logits = editor.write(editor.template(encoding, marks), stream)
        found.append((editor.tags(encoding)[0], logits))
    assert_close(found[0][1], found[1][1])
    assert not torch.allclose(found[0][0], found[1][0])


@KINDS
def test_marks_reach_the_writer(shared):
    editor = strong_editor(shared=shared)
    encoding = editor.encode(Drafts.of([BEFORE], None, CPU))
    stream = DecoderInput.of([[Span(REPLACE, 1, 2, (9,))]], CPU)
    one, two, first = Span(REPLACE, 1, 2), Span(REPLACE, 1, 3), Span(INSERT, 0, 0)
    found = [
        editor.write(editor.template(encoding, edit_tags_of([edits], 5, CPU)), stream)
        for edits in ([one], [two], [first, one])
    ]
    for number, one in enumerate(found):
        assert not any(torch.allclose(one, other) for other in found[:number])


def test_a_source_that_is_left_out_is_none_however_long():
    editor = strong_editor(sources=9, source_length=8)
    short, long = (read(editor, [BEFORE], [AFTER], [[-1] * count]) for count in (1, 6))
    cond = read(editor, [BEFORE], [AFTER], [[2]])
    for one, other, third in zip(short, long, cond, strict=True):
        assert_close(one, other)
        assert not torch.allclose(one, third)


def test_rows_of_a_template_may_be_taken_several_times():
    editor = strong_editor()
    encoding = editor.encode(Drafts.of([BEFORE, OTHER], None, CPU))
    marks = edit_tags_of([[Span(REPLACE, 0, 4)], [Span(REPLACE, 0, 12)]], 13, CPU)
    template = editor.template(encoding, marks)
    stream = DecoderInput.of([[Span(REPLACE, 0, 4, (9,))], [Span(REPLACE, 0, 12, (8,))]], CPU)
    once = editor.write(template, stream)
    rows = torch.tensor([1, 0, 1])
    several = DecoderInput(
        stream.read[rows], stream.slots[rows], stream.kinds[rows], stream.real[rows]
    )
    assert_close(editor.write(template[rows], several), once[rows])


@KINDS
def test_real_positions_alone_have_the_same_logits(shared):
    editor = strong_editor(shared=shared)
    drafts = Drafts.of([BEFORE, OTHER, BEFORE], None, CPU)
    scripts = [
        align(*pair).spans() for pair in ((BEFORE, AFTER), (OTHER, [3] * 9), (BEFORE, BEFORE))
    ]
    template = editor.template(editor.encode(drafts), edit_tags_of(scripts, 13, CPU))
    stream = DecoderInput.of(scripts, CPU)
    assert not stream.real[2].any() and not stream.real.all()
    assert_close(editor.write_real(template, stream), editor.write(template, stream)[stream.real])


def test_a_repeated_token_is_marked_and_two_unknown_ones_are_not():
    editor = strong_editor(repeats=True)
    texts = [[3, 4, 4, 5], [3, 4, 6, 5], [3, UNKNOWN, UNKNOWN, 5]]
    marked = editor.encode(Drafts.of(texts, None, CPU)).hidden
    torch.nn.init.zeros_(editor.repeat.weight)
    plain = editor.encode(Drafts.of(texts, None, CPU)).hidden
    assert not torch.allclose(marked[0], plain[0])
    assert torch.equal(marked[1:], plain[1:])


# ------------------------------------------------------------------------------- layout


def test_drafts_have_a_slot_before_them_and_may_be_empty():
    drafts = Drafts.of([[], [3, 4]], None, CPU)
    assert drafts.tokens.tolist() == [[END, PAD, PAD], [END, 3, 4]]
    assert drafts.real.tolist() == [[True, False, False], [True, True, True]]


def test_marks_stand_behind_the_slot():
    edits = [Span(INSERT, 0, 0), Span(DELETE, 0, 1), Span(INSERT, 2, 2)]
    marks = edit_tags_of([[Span(INSERT, 0, 0)], edits], 3, CPU)
    assert marks.tags.tolist() == [[KEEP] * 3, [KEEP, DELETE, KEEP]]
    assert marks.gaps.tolist() == [[True, False, False], [True, False, True]]


def test_the_stream_of_spans():
    spans = [
        Span(INSERT, 0, 0, (7,)), Span(DELETE, 0, 1), Span(REPLACE, 2, 4, (8, 9)),
    ]  # fmt: skip
    stream = DecoderInput.of([spans, [Span(DELETE, 0, 3)]], CPU)
    assert stream.read.tolist() == [[END, 7, END, 8, 9], [PAD] * 5]
    # Behind the slot before the first token, and at the third token.
    assert stream.slots[0].tolist() == [0, 0, 3, 3, 3]
    assert stream.kinds[0].tolist() == [1, 1, 0, 0, 0]
    assert stream.real.tolist() == [[True] * 5, [False] * 5]


def test_a_batch_in_which_nothing_is_written():
    tags, gaps, logits = read(strong_editor(), [[], []], [[], []])
    assert tags.shape == (2, 1, 3) and gaps.shape == (2, 1)
    assert logits.shape == (2, 1, SIZE) and bool(logits.isfinite().all())
