"""Revising: against editors whose answers are known, against sums by hand, and what it promises."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from distances import naive_distance
from editors import CPU, SIZE, MoodyEditor, strong_editor
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import source_of

from multidiff.core.edit.alignment import DELETE, INSERT, KEEP, REPLACE, Span, align
from multidiff.core.edit.process import EditProcess
from multidiff.core.random import generators
from multidiff.text.data.vocabulary import END, FIRST, WordVocabulary
from multidiff.text.diffuser.drafts import DecoderInput, Drafts, edit_tags_of
from multidiff.text.diffuser.mbr import mbr, settled
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.network import Editor
from multidiff.text.diffuser.reviser import Reviser
from multidiff.text.diffuser.sampling_config import EditSamplingConfig, choose
from multidiff.text.diffuser.span_writer import PartialSpan
from multidiff.text.diffuser.tagging import Odds, Tagging
from multidiff.text.diffuser.task import EditBatch, edit_losses
from multidiff.text.domain import UNWRITTEN, TextDomain
from multidiff.text.request import TextRequest, candidate_seeds
from multidiff.utils.errors import InputError

TEXTS = st.lists(st.integers(FIRST, 9), max_size=12)
SOME = st.lists(st.integers(FIRST, 9), min_size=1, max_size=12)
FAR = 1e4


class Numbers:
    """A vocabulary of numbers alone."""

    size = SIZE


def reviser(editor, **sampling):
    return Reviser(TextDomain(Numbers(), 20), editor, EditSamplingConfig(**sampling))


def revised(editor, draft, seed=0, **sampling):
    """The history of one draft."""
    (history,) = histories(editor, [draft], seed, **sampling)
    return history


def histories(editor, drafts, seed=0, **sampling):
    """Those of several."""
    count = sampling.get("num_candidates", 1)
    rngs = [generators(candidate_seeds(seed + row, count)) for row in range(len(drafts))]
    return reviser(editor, **sampling)(drafts, [TextRequest()] * len(drafts), rngs)


def moody(length=12, **options):
    return strong_editor(kind=MoodyEditor, length=length, **options)


# ----------------------------------------------------------------- editors that know


@dataclass
class Known:
    """What a stand-in's encoding and template hold: the drafts, and the edits marked."""

    drafts: Drafts
    marks: object = None
    rows: torch.Tensor | None = None

    hidden = property(lambda self: self.drafts.tokens)

    def __getitem__(self, rows):
        return Known(self.drafts, self.marks, rows)


class Oracle:
    """Knows what every draft is to become, and is sure of some edits more than of others."""

    length, nearest_words = 40, 0

    def __init__(self, target):
        self.target = target

    def encode(self, drafts):
        return Known(drafts)

    def script(self, known, row=0):
        real = known.drafts.tokens[row][known.drafts.real[row]].tolist()[1:]
        return align(real, self.target).passages()

    def tags(self, known):
        positions = known.drafts.tokens.shape[1]
        sure = torch.rand(1, positions, 3, generator=generators([7])[0])
        tags, gaps = sure.clone(), -10 - sure[:, :, 0]
        tags[0, :, KEEP] += 10
        for span in self.script(known):
            if span.edit == INSERT:
                gaps[0, span.start] *= -1
                continue
            rows = slice(1 + span.start, 1 + span.stop)
            tags[0, rows] = sure[0, rows]
            tags[0, rows, span.edit] += 10
        return tags, gaps

    def template(self, known, marks):
        return Known(known.drafts, marks)

    def write(self, known, stream, memory=None):
        """The next token of the last span that is begun; only that is asked for."""
        logits = torch.full((*stream.read.shape, SIZE), -FAR)
        for row, read in enumerate(stream.read.tolist()):
            last = int(stream.real[row].sum()) - 1
            start = max(position for position in range(last + 1) if read[position] == END)
            wanted = self.span(known, int(stream.slots[row, last]), int(stream.kinds[row, last]))
            logits[row, last, [*wanted, END][last - start]] = 0
        return logits

    def span(self, known, slot, insertion):
        start = slot if insertion else slot - 1
        kind = INSERT if insertion else REPLACE
        (found,) = (s for s in self.script(known) if s.start == start and s.edit == kind)
        return found.tokens


@given(TEXTS, SOME)
@settings(max_examples=60, deadline=None)
def test_what_the_tagger_and_the_writer_know_comes_in_one_revision(draft, target):
    history = revised(Oracle(target), draft)
    assert [*history[-1].tokens] == target
    assert len(history) == 1 + (draft != target)
    assert [*history[0].tokens] == draft and history[0].spans == ()


@given(TEXTS, SOME, st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_an_even_pace_takes_as_many_revisions_as_there_are(draft, target, steps):
    edits = len(align(draft, target).passages())
    history = revised(Oracle(target), draft, steps=steps, edits_per_step="even")
    assert [*history[-1].tokens] == target
    assert len(history) - 1 == min(edits, steps)


def test_the_surest_edits_come_first():
    draft, target = [3, 4, 5, 4, 6, 4, 8], [7, 4, 7, 4, 7, 4, 7]
    history = revised(Oracle(target), draft, steps=2, edits_per_step="even")
    sure = torch.rand(1, 8, 3, generator=generators([7])[0])[0, 1:]
    sure[:, REPLACE] += 10
    surety = sure[:, [REPLACE, DELETE]].logsumexp(dim=1) - sure[:, KEEP]
    surest = 2 * surety[::2].topk(2).indices
    changed = [position for position in range(7) if history[1].tokens[position] == 7]
    assert changed == sorted(surest.tolist())


class BrokenOracle(Oracle):
    """Returns NaN once the text is of three tokens."""

    def tags(self, known):
        tags, gaps = super().tags(known)
        return (tags * math.nan, gaps) if known.drafts.tokens.shape[1] == 4 else (tags, gaps)


def test_nan_of_the_network_is_named_with_its_revision():
    with pytest.raises(ValueError, match=r"step 2 of 6.*NaN"):
        revised(BrokenOracle([3, 5, 4, 6]), [3, 4], steps=6, edits_per_step="even")


class Book:
    """Answers by the page: edits that a text wants, and how likely each token follows.

    Args:
        tags: for a text the shares of KEEP, REPLACE and DELETE of each token.
        gaps: for a text the share of something being inserted in each gap; 0 elsewhere.
        words: for what is written of the last span, the shares of what follows.
    """

    length, nearest_words = 10, 0

    def __init__(self, words, tags={}, gaps={}):  # noqa: B006
        self.words, self.wanted, self.filled = words, tags, gaps

    def encode(self, drafts):
        return Known(drafts)

    def template(self, known, marks):
        return Known(known.drafts, marks, torch.arange(len(known.drafts.tokens)))

    def texts(self, known):
        pairs = zip(known.drafts.tokens, known.drafts.real, strict=True)
        return [tuple(tokens[real].tolist()[1:]) for tokens, real in pairs]

    def tags(self, known):
        rows, positions = known.drafts.tokens.shape
        tags = torch.tensor([1.0, 0, 0]).expand(rows, positions, 3).clone()
        gaps = torch.zeros(rows, positions)
        for row, text in enumerate(self.texts(known)):
            for position, ratios in enumerate(self.wanted.get(text, ())):
                tags[row, position + 1] = torch.tensor(ratios)
            for position, ratio in enumerate(self.filled.get(text, ())):
                gaps[row, position] = ratio
        return tags.log().clamp(min=-FAR), torch.logit(gaps.double()).clamp(-FAR, FAR)

    def write(self, known, stream, memory=None):
        logits = torch.full((*stream.read.shape, SIZE), -FAR)
        texts = self.texts(known)
        for row, read in enumerate(stream.read.tolist()):
            last = int(stream.real[row].sum()) - 1
            start = max(position for position in range(last + 1) if read[position] == END)
            begun = tuple(read[start + 1 : last + 1])
            pages = self.words.get((texts[int(known.rows[row])], begun), self.words.get(begun, {}))
            for token, ratio in (pages or {END: 1.0}).items():
                logits[row, last, token] = math.log(ratio)
        return logits


GARDEN = {
    (): {3: 0.6, 4: 0.4},
    (3,): {5: 0.4, 6: 0.3, 7: 0.3},
    (4,): {5: 0.99, 6: 0.01},
}


def test_a_beam_sees_past_the_first_word():
    book = Book(GARDEN, gaps={(9,): (0.0, 0.8)})
    greedy, wide = revised(book, [9]), revised(book, [9], beam=2)
    assert greedy[-1].tokens == (9, 3, 5) and wide[-1].tokens == (9, 4, 5)
    assert greedy[-1].score == pytest.approx(math.log(0.8 * 0.6 * 0.4))
    assert wide[-1].score == pytest.approx(math.log(0.8 * 0.4 * 0.99))


FORKED = {
    ((9,), ()): {3: 0.6, 4: 0.4},
    ((3,), ()): {5: 0.4, 6: 0.3, 7: 0.3},
    ((4,), ()): {5: 0.99, 6: 0.01},
}


def test_a_second_beam_sees_past_the_first_revision():
    book = Book(FORKED, tags={(9,): [(0.0, 1.0, 0.0)]}, gaps={(3,): (0.0, 0.9), (4,): (0.0, 0.9)})
    one, two = revised(book, [9], beam=2), revised(book, [9], beam=2, revision_beams=2)
    assert [step.tokens for step in one] == [(9,), (3,), (3, 5)]
    assert [step.tokens for step in two] == [(9,), (4,), (4, 5)]
    assert one[-1].score == pytest.approx(math.log(0.6 * 0.9 * 0.4))
    assert two[-1].score == pytest.approx(math.log(0.4 * 0.9 * 0.99))


def test_ways_to_the_same_text_are_one():
    """Were both ways to 4 kept, the one to 6 would be lost, which is the best in the end."""
    words = {((9,), ()): {3: 0.5, 4: 0.45, 5: 0.05}, ((3,), ()): {4: 0.6, 6: 0.4}}
    replaced = [(0.0, 1.0, 0.0)]
    book = Book(words, {(9,): replaced, (3,): replaced, (4,): [(0.52, 0.48, 0.0)]})
    history = revised(book, [9], beam=3, revision_beams=2, steps=3)
    assert [one.tokens for one in history] == [(9,), (3,), (6,)]
    assert revised(book, [9], beam=3, revision_beams=2, steps=2)[-1].tokens == (4,)


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_a_beam_that_holds_every_way_finds_the_likeliest(seed):
    rng = torch.Generator().manual_seed(seed)

    def page(*following):
        drawn = torch.rand(len(following), generator=rng) ** 3 + 1e-3
        return dict(zip(following, (drawn / drawn.sum()).tolist(), strict=True))

    words = {(): page(3, 4)}
    words |= {(one,): page(END, 3, 4) for one in (3, 4)}
    words |= {(one, two): page(END, 5) for one in (3, 4) for two in (3, 4)}
    every = {}
    for begun, following in words.items():
        before = math.prod(words[begun[:n]][token] for n, token in enumerate(begun))
        every[begun] = before * following.get(END, 0.0)
        every[(*begun, 5)] = before * following.get(5, 0.0)
    best = max(every, key=every.__getitem__)
    book = Book(words, gaps={(9,): (0.0, 0.8)})
    found, greedy = revised(book, [9], beam=30), revised(book, [9])
    assert found[-1].tokens == (9, *best)
    assert found[-1].score == pytest.approx(math.log(0.8 * every[best]))
    assert found[-1].score >= greedy[-1].score - 1e-9


# ------------------------------------------------------------------------- scores by hand


def score_by_hand(editor, history):
    """The log probability of every edit of a history, from each text and its spans alone."""
    total = 0.0
    for before, after in pairwise(history):
        text = before.tokens
        drafts = Drafts.of([text], None, CPU)
        encoding = editor.encode(drafts)
        tags, gaps = (one[0].double() for one in editor.tags(encoding))
        kinds, filled = [KEEP] * len(text), [False] * (len(text) + 1)
        for span in after.spans:
            assert not any(other is not span and other.stop == span.start for other in after.spans)
            if span.edit == INSERT:
                filled[span.start] = True
            kinds[span.start : span.stop] = [span.edit] * (span.stop - span.start)
        for position, kind in enumerate(kinds):
            total += float(tags[position + 1].log_softmax(0)[kind])
        for position, one in enumerate(filled):
            ratio = torch.sigmoid(gaps[position])
            total += float(torch.log(ratio if one else 1 - ratio))
        marks = edit_tags_of([after.spans], len(text) + 1, CPU)
        stream = DecoderInput.of([after.spans], CPU)
        logits = editor.write(editor.template(encoding, marks), stream)[0].double()
        total += sum(written_by_hand(logits, text, after.spans, editor.length))
    return total


def written_by_hand(logits, text, spans, length):
    room = length - len(text) + sum(span.stop - span.start for span in spans)
    written = [span for span in spans if span.edit != DELETE]
    found, position, used = [], 0, 0
    for number, span in enumerate(written):
        total = 0.0
        for count, token in enumerate((*span.tokens, END)):
            allowed = [n for n in range(SIZE) if n not in UNWRITTEN or (n == END and count)]
            if count and used + len(written) - number - 1 >= room:
                allowed = [END]
            assert token in allowed
            total += float(logits[position, token] - logits[position, allowed].logsumexp(0))
            position, used = position + 1, used + (token != END)
        found.append(total)
    return found


@pytest.mark.parametrize(
    "sampling",
    [
        {}, {"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.6}, {"beam": 3},
        {"beam": 3, "revision_beams": 2}, {"edits_per_step": "even"}, {"edit_margin": 1.0},
    ],
)  # fmt: skip
def test_scores_are_the_log_probabilities_of_all_edits(sampling):
    editor = moody(shared=False)
    drafts = [[3, 4, 5], [9, 8, 7, 6], [], [4] * 8, [5, 11]]
    found = histories(editor, drafts, steps=3, **sampling)
    assert sum(len(one) for one in found) > 9
    for history in found:
        # Where a text that is empty is written into whatever the tagger says, no odds are 0.
        assert history[-1].score == pytest.approx(score_by_hand(editor, history), abs=1e-4)
        assert history[0].score == 0


@pytest.mark.parametrize("limit", [0.05, 0.2, 0.4])
def test_edits_without_confidence_are_left_out(limit):
    editor = moody(shared=False)
    drafts = [[3, 4, 5], [9, 8, 7, 6], [4] * 8, [5, 11]]
    every, some = (histories(editor, drafts, steps=1, min_confidence=one) for one in (0.0, limit))
    left = 0
    for draft, before, after in zip(drafts, every, some, strict=True):
        encoding = editor.encode(Drafts.of([draft], None, CPU))
        tags, gaps = (one[0].double() for one in editor.tags(encoding))
        marks = edit_tags_of([before[-1].spans], len(draft) + 1, CPU)
        logits = editor.write(
            editor.template(encoding, marks), DecoderInput.of([before[-1].spans], CPU)
        )[0].double()
        written = iter(written_by_hand(logits, draft, before[-1].spans, editor.length))
        confident = []
        for span in before[-1].spans:
            edited = torch.sigmoid(gaps[span.start])
            if span.edit != INSERT:
                run = tags[1 + span.start : 1 + span.stop]
                edited = torch.sigmoid((run[:, 1:].logsumexp(1) - run[:, KEEP]).mean())
            tokens = 0.0 if span.edit == DELETE else next(written)
            if float(edited) * math.exp(tokens) >= limit:
                confident.append(span)
        assert [*after[-1].spans] == confident
        left += len(before[-1].spans) - len(confident)
    assert left > 0


def test_without_the_deletion_that_made_room_the_least_confident_insertions_wait():
    editor = moody(length=6)
    likes, fills = torch.tensor([9.0, 0.0, 0.0]).repeat(SIZE, 7, 1), torch.full((SIZE, 7), -9.0)
    likes[8] = torch.tensor([0.0, -9.0, 0.5])  # is deleted, but not surely
    fills[4], fills[6] = 4.0, 9.0  # tokens after which something surely comes
    editor.likes, editor.fills = likes, fills
    made = reviser(editor, steps=3, min_confidence=0.0)
    tagging = made.choices([[4, 6, 8, 8]], made.read([[4, 6, 8, 8]], [TextRequest()]), 1)[0].tagging
    spans = (Span(INSERT, 1, 1, (5, 5)), Span(INSERT, 2, 2, (7, 7)), Span(DELETE, 2, 4))
    written = PartialSpan(spans, 6, written=(-0.1, -0.1, 0.0), current=3)
    assert made._confident(0.0, tagging, written).spans == spans
    sure = reviser(editor, steps=3, min_confidence=0.7)
    left = sure._confident(0.0, tagging, written)
    assert left.spans == (spans[1],)
    assert left.score == pytest.approx(tagging.score([spans[1]]) - 0.1)


@given(st.lists(st.lists(st.integers(FIRST, 9), max_size=6), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_texts_of_confident_edits_alone_are_never_too_long(drafts):
    editor = moody(length=6)
    editor.fills = editor.fills + 3
    for history in histories(editor, drafts, steps=4, min_confidence=0.6):
        assert all(len(one.tokens) <= 6 for one in history)


# ------------------------------------------------------------------------------ promises


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 1.0},
        {"beam": 2, "revision_beams": 2},
        {"temperature": 1.0, "num_candidates": 5},
    ],
)
def test_a_draft_alone_is_that_draft_in_a_batch(sampling):
    editor = moody()
    drafts = [[3, 4, 5], [9, 8, 7, 6, 3, 3, 4], [], [4] * 8]
    together = histories(editor, drafts, steps=4, **sampling)
    for seed, draft in enumerate(drafts):
        alone = revised(editor, draft, seed, steps=4, **sampling)
        assert [one.tokens for one in alone] == [one.tokens for one in together[seed]]
        assert alone[-1].score == pytest.approx(together[seed][-1].score, abs=1e-4)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(0, 99), st.booleans())
@pytest.mark.parametrize("num_candidates", [1, 4])
@settings(max_examples=25, deadline=None)
def test_spans_are_never_empty_and_texts_never_too_long(num_candidates, drafts, seed, even):
    editor = moody(length=12)
    sampling = {"steps": 5, "temperature": 1.5, "edits_per_step": "even" if even else "all"}
    for history in histories(editor, drafts, seed, num_candidates=num_candidates, **sampling):
        assert history[0].tokens or history[1].tokens
        assert len(history) <= 6
        for before, after in pairwise(history):
            assert after.spans and len(after.tokens) <= 12
            assert not set(after.tokens) & set(UNWRITTEN)
            positions = [(span.start, span.stop) for span in after.spans]
            assert positions == sorted(positions) and positions[-1][1] <= len(before.tokens)
            for span in after.spans:
                assert bool(span.tokens) == (span.edit != DELETE)
                assert (span.start == span.stop) == (span.edit == INSERT)


def test_editing_ends_where_nothing_is_wanted():
    calls = []

    class Content(Oracle):
        def encode(self, drafts):
            calls.append(len(drafts.tokens))
            return super().encode(drafts)

    history = revised(Content([3, 4]), [3, 5], steps=9)
    assert len(history) == 2 and len(calls) == 2
    assert len(revised(Content([3, 4]), [3, 4], steps=9)) == 1


def test_caution():
    editor, draft = moody(keep=0.0), [3, 4, 5, 6]
    assert len(revised(editor, draft, edit_margin=math.inf)) == 1
    (_, after) = revised(editor, draft, edit_margin=-math.inf, steps=1)
    assert [(span.start, span.stop) for span in after.spans] == [(0, 4)]


def test_seeds_draw_and_a_nucleus_narrows():
    editor = moody()
    drawn = {revised(editor, [], seed, temperature=1.0, steps=1)[-1].tokens for seed in range(12)}
    assert len(drawn) > 6
    narrow = {
        revised(editor, [], seed, temperature=1.0, top_p=1e-6, steps=1)[-1].tokens
        for seed in range(4)
    }
    assert narrow == {revised(editor, [], steps=1)[-1].tokens}


# -------------------------------------------------------------------------------- choosing


def ratios(rows):
    return torch.tensor(rows, dtype=torch.float64).log()


def edges(choice):
    return [(span.edit, span.start, span.stop) for span in choice.spans]


def risk_by_hand(one, old, fillings, odds):
    """The mean distance to what may be true, each possibility by itself."""
    total = odds.stays * naive_distance(one, old) + odds.leaves * len(one)
    return total + sum(odds.comes * naive_distance(one, f) for f in fillings) / len(fillings)


@given(
    TEXTS.map(tuple), st.lists(SOME.map(tuple), min_size=1, max_size=6),
    st.tuples(*[st.floats(0.01, 1.0)] * 3), st.integers(12, 14),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_what_is_settled_on_is_nearest_to_what_may_be_true(old, fillings, parts, room):
    odds = Odds(*(part / sum(parts) for part in parts))
    risks = [risk_by_hand(one, old, fillings, odds) for one in (old, (), *fillings)]
    found = mbr(old, fillings, odds, room)
    assert risk_by_hand(found, old, fillings, odds) == pytest.approx(min(risks))
    assert len(mbr(old, fillings, odds, len(old))) <= len(old)


def test_a_sure_tagger_is_followed_and_an_unsure_writer_is_not():
    words, apart = [(4,), (4,), (5,)], [(4, 5), (6, 7), (8, 9)]
    assert mbr((3,), words, Odds(0.1, 0.1, 0.8), 9) == (4,)
    assert mbr((3,), words, Odds(0.6, 0.0, 0.4), 9) == (3,)
    assert mbr((3,), apart, Odds(0.1, 0.3, 0.6), 9) == ()
    assert mbr((3,), [], Odds(0.1, 0.6, 0.3), 9) == ()
    # Nothing is no text: where it is not possible, something is taken.
    assert mbr((), apart, Odds(0.0, 0.0, 1.0), 9) == (4, 5)


def test_candidates_are_settled_edit_by_edit():
    """The best of each place, which need not stand together in any draw."""
    going, staying, nothing = (0.1, 0.8, 0.1), (0.98, 0.01, 0.01), [(0.99, 0.01)] * 4

    def edit(position, token):
        return Span(REPLACE, position, position + 1, (token,))

    ways = [[edit(0, 4), edit(2, 5)], [edit(0, 4), edit(2, 6)], [edit(0, 7), edit(2, 6)]]
    sure = Tagging(ratios([going, staying, going]), ratios(nothing))
    assert settled((3, 9, 3), ways, sure, 9) == (edit(0, 4), edit(2, 6))
    assert settled((3, 9, 3), ways, Tagging(ratios([staying] * 3), ratios(nothing)), 9) == ()


def test_what_is_settled_on_has_room():
    """Each draw has, but not the longest of several together."""
    tagging = Tagging(ratios([(0.01, 0.98, 0.01)] * 3), ratios([(0.99, 0.01)] * 4))
    long, short = (4, 5, 6), (7,)
    ways = [[Span(REPLACE, 0, 1, one), Span(REPLACE, 2, 3, two)] for one, two in
            ((long, short), (long, short), (short, long), (long, long), (short, long))]  # fmt: skip
    first, second = settled((3, 9, 3), ways, tagging, 5)
    assert first.tokens == long and len(second.tokens) <= 1


@given(TEXTS, st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_odds_add_up(text, seed):
    rng = torch.Generator().manual_seed(seed)
    tags = torch.rand(len(text), 3, generator=rng).log_softmax(dim=1)
    tagging = Tagging(tags, torch.rand(len(text) + 1, 2, generator=rng).log_softmax(dim=1))
    for span in tagging.edits(-math.inf):
        odds = tagging.odds(span)
        assert odds.stays + odds.leaves + odds.comes == pytest.approx(1)


def test_where_there_is_no_room_the_least_sure_insertions_wait():
    tags = ratios([(0.9, 0.05, 0.05), (0.9, 0.05, 0.05), (0.9, 0.05, 0.05), (0.1, 0.1, 0.8)])
    gaps = ratios([(0.2, 0.8), (0.1, 0.9), (0.4, 0.6), (0.7, 0.3), (0.7, 0.3)])
    full = choose(Tagging(tags, gaps), EditSamplingConfig(), left=1, longest=4)
    assert edges(full) == [(INSERT, 1, 1), (DELETE, 3, 4)]
    assert full.score == pytest.approx(math.log(0.9**3 * 0.8 * 0.2 * 0.9 * 0.4 * 0.7 * 0.7))
    roomy = choose(Tagging(tags, gaps), EditSamplingConfig(), left=1, longest=6)
    assert edges(roomy) == [(INSERT, n, n) for n in range(3)] + [(DELETE, 3, 4)]


def test_neighbours_that_go_decide_together_what_comes():
    """The first alone would be replaced and the second deleted; the surer of them wins."""
    keeps, nothing = (0.9, 0.05, 0.05), [(0.9, 0.1)] * 4
    for second, kind in (((0.1, 0.2, 0.7), DELETE), ((0.1, 0.4, 0.5), REPLACE)):
        run = [(0.1, 0.6, 0.3), second]
        found = choose(
            Tagging(ratios([keeps, *run]), ratios(nothing)), EditSamplingConfig(), left=1, longest=9
        )
        assert edges(found) == [(kind, 1, 3)]
        own = math.prod(ratios_of[kind] for ratios_of in run)
        assert found.score == pytest.approx(math.log(0.9 * own * 0.9**4))


def test_a_gap_beside_what_goes_says_that_something_comes():
    tags = ratios([(0.9, 0.05, 0.05), (0.1, 0.1, 0.8), (0.1, 0.1, 0.8), (0.9, 0.05, 0.05)])
    nothing, something = (0.9, 0.1), (0.1, 0.9)
    for position in range(5):
        gaps = [something if position == gap else nothing for gap in range(5)]
        found = edges(choose(Tagging(tags, ratios(gaps)), EditSamplingConfig(), left=1, longest=9))
        apart = [(INSERT, position, position)]
        wanted = {0: [*apart, (DELETE, 1, 3)], 4: [(DELETE, 1, 3), *apart]}
        assert found == wanted.get(position, [(REPLACE, 1, 3)])


def test_a_token_goes_where_going_either_way_is_likelier_than_staying():
    nothing = ratios([(0.9, 0.1)] * 2)
    unsure, sure = ratios([(0.4, 0.35, 0.25)]), ratios([(0.51, 0.29, 0.2)])
    assert edges(choose(Tagging(unsure, nothing), EditSamplingConfig(), 1, 9)) == [(REPLACE, 0, 1)]
    assert not choose(Tagging(sure, nothing), EditSamplingConfig(), 1, 9).spans
    for edit_margin, spans in ((-0.01, 1), (0.01, 0)):
        cautious = EditSamplingConfig(edit_margin=math.log(0.6 / 0.4) + edit_margin)
        assert len(choose(Tagging(unsure, nothing), cautious, 1, 9).spans) == spans


def test_nothing_is_written_into_whatever_the_tagger_says():
    found = choose(
        Tagging(ratios([]).reshape(0, 3), ratios([(0.99, 0.01)])), EditSamplingConfig(), 1, 9
    )
    assert edges(found) == [(INSERT, 0, 0)] and found.score == pytest.approx(math.log(0.01))


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ({"steps": 0}, "--steps 0: from 1 to 10000"),
        ({"beam": 0}, "--beam 0: from 1 to 10000"),
        ({"revision_beams": 0}, "--revision-beams 0: from 1 to 10000"),
        ({"beam": 2, "revision_beams": 3}, "--revision-beams 3: no more than --beam 2"),
        ({"temperature": -0.5}, "--temperature -0.5: 0"),
        ({"temperature": math.nan}, "--temperature nan"),
        ({"top_p": 0.0}, "--top-p 0: above 0, up to 1"),
        ({"top_p": 1.1}, "--top-p 1.1"),
        ({"edit_margin": math.nan}, "--edit-margin nan"),
        ({"beam": 2, "temperature": 1.0}, "a beam keeps the likeliest"),
        ({"num_candidates": 0}, "--num-candidates 0: from 1 to 1000"),
        (
            {"num_candidates": 1001, "temperature": 1.0},
            "--num-candidates 1001: from 1 to 1000",
        ),
        ({"num_candidates": 2}, "--num-candidates 2: without a --temperature"),
        ({"min_confidence": 1.5}, "--min-confidence 1.5: from 0 to 1"),
        (
            {"min_confidence": 0.5, "temperature": 1.0, "num_candidates": 2},
            "--min-confidence 0.5: of several candidates those of least risk",
        ),
    ],
)
def test_walks_that_cannot_be(options, reported):
    with pytest.raises(InputError, match=reported):
        EditSamplingConfig(**options)


def test_what_is_not_given_stays_and_a_beam_draws_nothing():
    sampling = EditSamplingConfig(steps=5, temperature=0.8, top_p=0.9)
    assert sampling.replace(steps=None, edit_margin=1.0) == EditSamplingConfig(
        5, "all", 1.0, 0.8, 0.9
    )
    assert sampling.replace(beam=4) == EditSamplingConfig(5, beam=4)
    assert sampling.replace(top_p=0.5).temperature == 0.8
    assert EditSamplingConfig().replace(top_p=0.5) == EditSamplingConfig(temperature=1.0, top_p=0.5)
    assert EditSamplingConfig().replace(top_p=0.5, temperature=0.3).temperature == 0.3
    assert EditSamplingConfig(beam=5, revision_beams=3).replace(beam=2) == EditSamplingConfig(
        beam=2, revision_beams=2
    )
    with pytest.raises(InputError, match="a beam keeps"):
        sampling.replace(beam=4, temperature=0.8)


def test_several_candidates_are_drawn():
    several = EditSamplingConfig(
        beam=5, revision_beams=3, edit_margin=0.5, min_confidence=0.4
    ).replace(num_candidates=8)
    assert several == EditSamplingConfig(temperature=1.0, num_candidates=8)
    assert several.replace(beam=2) == EditSamplingConfig(beam=2)
    cautious = EditSamplingConfig(min_confidence=0.6)
    assert cautious.for_new_texts(cautious).min_confidence == 0
    given = cautious.replace(min_confidence=0.2)
    assert given.for_new_texts(cautious).min_confidence == 0.2
    for drawn in ({"temperature": 0.7}, {"beam": 2}):
        assert cautious.replace(**drawn).for_new_texts(cautious).min_confidence == 0
        assert given.replace(**drawn).for_new_texts(cautious).min_confidence == 0.2
    assert EditSamplingConfig().replace(num_candidates=1) == EditSamplingConfig()
    assert EditSamplingConfig().replace(num_candidates=4, top_p=0.9).temperature == 1.0
    with pytest.raises(InputError, match="--num-candidates 4: without a --temperature"):
        EditSamplingConfig().replace(num_candidates=4, beam=2)


def test_one_candidate_where_the_options_have_several():
    """What goes with one candidate alone asks for one; new texts are drawn once each."""
    several = EditSamplingConfig(temperature=1.0, num_candidates=8, edit_margin=0.7)
    one = EditSamplingConfig(edit_margin=0.7)
    assert several.replace(num_candidates=1) == several.replace(temperature=0.0) == one
    assert several.replace(min_confidence=0.4) == replace(one, min_confidence=0.4)
    assert several.replace(num_candidates=1, temperature=0.6) == replace(one, temperature=0.6)
    assert several.replace(temperature=0.6) == replace(several, temperature=0.6)
    with pytest.raises(InputError, match="--num-candidates 4: without a --temperature"):
        several.replace(num_candidates=4, temperature=0.0)
    for drawn in ({}, {"temperature": 0.7}, {"top_p": 0.6}, {"beam": 2}):
        assert several.replace(**drawn).for_new_texts(several).num_candidates == 1
    for usual in (several, one):  # words are drawn, however the model's own options take them
        fresh = usual.replace(edit_margin=-2.0).for_new_texts(usual)
        assert (fresh.temperature, fresh.top_p, fresh.edit_margin) == (1.0, 0.95, -2.0)
    asked = several.replace(num_candidates=4)
    assert asked.for_new_texts(several).num_candidates == 4


# ----------------------------------------------------------------------------- one learned

SENTENCES = [
    "the eagle is a cheap pub", "come to the mill", "it serves french food by the river",
    "aromi is not family friendly", "prices are high", "a coffee shop near avalon",
    "they rate it five of five", "cocum has a low rating",
]  # fmt: skip


def test_one_batch_by_heart(tmp_path):
    """Corrupted sentences are repaired, clean ones left alone, and nothing becomes one of them."""
    words = WordVocabulary(FIRST + 34, source_of(tmp_path, SENTENCES))
    texts = [words.numbers(text) for text in SENTENCES]
    process = EditProcess(words.size, [0.0] * FIRST + [1.0] * 34, span=1.5, intensity=0.6)
    drafts = [
        [*process.corrupt(text, 1, rng)[-1].tokens]
        for text, rng in zip(texts * 3, generators(range(24)), strict=True)
    ]
    befores, afters = [*drafts, *texts, []], [*texts * 4, texts[0]]
    assert sum(one != other for one, other in zip(befores, afters, strict=True)) > 15
    torch.manual_seed(0)
    editor = Editor(words.size, width=48, layers=2, heads=4, length=16, writer_layers=1)
    edit_batch = EditBatch.of(befores, afters, None, CPU)
    optimizer = torch.optim.Adam(editor.parameters(), lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        sum(loss.mean() for loss in edit_losses(editor, edit_batch).values()).backward()
        optimizer.step()
    model = EditedText(TextDomain(words, 16), process, editor.eval())
    histories = model.revise(befores)
    assert [[*one[-1].tokens] for one in histories] == afters
    assert all(len(one) == 1 for one in histories[24:-1])
    assert model.texts(histories[24:]) == [*SENTENCES, SENTENCES[0]]
