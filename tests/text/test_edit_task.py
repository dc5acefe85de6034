"""What an editor learns from: its drafts, their edits, and the losses, against plain loops."""

import pytest
import torch
from editors import CPU, SIZE, strong_editor
from torch.testing import assert_close
from vocabularies import source_of

from multidiff.core.edit.alignment import DELETE, INSERT, KEEP, REPLACE, Span, align, rewrite
from multidiff.core.edit.process import EditProcess
from multidiff.core.random import generators
from multidiff.text.data.attributes import MeaningTable
from multidiff.text.data.vocabulary import END, FIRST, WordVocabulary
from multidiff.text.diffuser.drafts import Drafts, Stream, marks_of
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.task import EditTask, Lesson, own_drafts
from multidiff.text.domain import UNWRITTEN, TextDomain

WORDS = "a b c d e f g h i"
TEXTS = ["a b c d e", "f g", "h", "a c e g i b", "d d d d", "i h g f e d c b a"]
SOURCES = ["a b", "g f e", "h h", "b", "d", "c b a"]


@pytest.fixture
def vocabulary(tmp_path):
    return WordVocabulary(SIZE, source_of(tmp_path, [WORDS]))


def task_of(vocabulary, steps=2, source_length=0, meanings=None, **options):
    domain = TextDomain(vocabulary, 20, meanings, source_length=source_length)
    editor = strong_editor(sources=domain.sources, source_length=8)
    noise = [0.0] * FIRST + [1.0] * (SIZE - FIRST)
    process = EditProcess(SIZE, noise, steps=steps, span=2)
    return EditTask(domain, process, editor, **options)


def lesson_of(task, seed=0, **more):
    batch = {"text": TEXTS, **more}
    return task.lesson(batch, generators(range(seed, seed + len(TEXTS))))


def drafts_in(lesson):
    """The drafts, without slot and padding."""
    rows = zip(lesson.drafts.tokens, lesson.drafts.real, strict=True)
    return [tokens[real].tolist()[1:] for tokens, real in rows]


def losses_by_hand(editor, draft, script, condition):
    """Each term of one sample, word by word, nothing padded."""
    drafts = Drafts.of([draft], condition, CPU)
    encoding = editor.encode(drafts)
    tags, gaps = editor.tags(encoding)
    kinds, filled = [KEEP] * len(draft), [False] * (len(draft) + 1)
    for span in script:
        kinds[span.start : span.stop] = [span.edit] * (span.stop - span.start)
        filled[span.start] |= span.edit == INSERT
    tag = [-tags[0, 1 + i].log_softmax(0)[kind] for i, kind in enumerate(kinds)]
    gap = [
        -torch.nn.functional.logsigmoid(gaps[0, i] if one else -gaps[0, i])
        for i, one in enumerate(filled)
    ]
    template = editor.template(encoding, marks_of([script], len(draft) + 1, CPU))
    write, done = [], []
    for span in (one for one in script if one.edit != DELETE):
        for count, token in enumerate((*span.tokens, END)):
            begun = type(span)(span.edit, span.start, span.stop, span.tokens[:count])
            logits = editor.write(template, Stream.of([[*done, begun]], CPU))[0, -1]
            write.append(-logits.log_softmax(0)[token])
        done.append(span)
    return {
        name: sum(terms, torch.tensor(0.0)) / max(1, len(terms))
        for name, terms in (("tag", tag), ("gap", gap), ("write", write))
    }


@pytest.mark.parametrize("told", [False, True])
def test_losses_are_those_of_a_plain_loop(vocabulary, told):
    task = task_of(vocabulary, source_length=8 if told else 0, from_nothing=0.2)
    more = {"source": SOURCES} if told else {}
    lesson = lesson_of(task, **more)
    losses = task.losses({"text": TEXTS, **more}, generators(range(len(TEXTS))))
    found = drafts_in(lesson)
    assert any(not draft for draft in found) and any(map(len, found))
    for row, (draft, script) in enumerate(zip(found, lesson.spans, strict=True)):
        source = None
        if told:
            numbers = [*vocabulary.numbers(SOURCES[row]), END]
            source = {"source": torch.tensor([numbers])}
        for name, value in losses_by_hand(task.editor, draft, script, source).items():
            assert_close(losses[name][row], value, rtol=1e-4, atol=1e-5)


def test_a_sample_alone_is_that_sample_in_a_batch(vocabulary):
    task = task_of(vocabulary)
    together = task.losses({"text": TEXTS}, generators(range(len(TEXTS))))
    assert set(together) == {"tag", "gap", "write", "length"}
    for row, text in enumerate(TEXTS):
        alone = task.losses({"text": [text]}, generators([row]))
        for name, value in alone.items():
            assert_close(together[name][row], value[0], rtol=1e-4, atol=1e-5)


def test_aiming_at_the_clean_text(vocabulary):
    lesson = lesson_of(task_of(vocabulary))
    for draft, script, text in zip(drafts_in(lesson), lesson.spans, TEXTS, strict=True):
        assert [*rewrite(draft, script)] == vocabulary.numbers(text)


def test_aiming_at_the_state_before(vocabulary):
    task = task_of(vocabulary, steps=4, aim="before")
    lesson = lesson_of(task)
    rngs = generators(range(len(TEXTS)))
    levels = task.process.draw_level(len(TEXTS), rngs)
    texts = [vocabulary.numbers(text) for text in TEXTS]
    walks = task.process.corrupt_many(texts, levels, rngs)
    assert int(levels.max()) > 1
    for draft, script, walk in zip(drafts_in(lesson), lesson.spans, walks, strict=True):
        assert draft == [*walk[-1].tokens]
        assert rewrite(draft, script) == (walk[-2] if len(walk) > 1 else walk[0]).tokens


def test_sources_as_drafts(vocabulary):
    lesson = lesson_of(task_of(vocabulary, from_source=1.0), source=SOURCES)
    assert drafts_in(lesson) == [vocabulary.numbers(text) for text in SOURCES]
    for draft, script, text in zip(drafts_in(lesson), lesson.spans, TEXTS, strict=True):
        assert [*rewrite(draft, script)] == vocabulary.numbers(text)


def test_nothing_as_drafts(vocabulary):
    task = task_of(vocabulary, from_nothing=1.0)
    lesson = lesson_of(task)
    assert drafts_in(lesson) == [[]] * len(TEXTS)
    (first, *_), numbers = lesson.spans, vocabulary.numbers(TEXTS[0])
    assert first == (Span(INSERT, 0, 0, tuple(numbers)),)
    assert bool((task.losses({"text": TEXTS}, None)["tag"] == 0).all())


def test_shares_of_drafts(vocabulary):
    task = task_of(vocabulary, from_source=0.5, from_nothing=0.25)
    task.process.steps = 0  # what is not replaced is clean
    batch = {"text": ["a b c"] * 400, "source": ["d e"] * 400}
    found = drafts_in(task.lesson(batch, torch.Generator().manual_seed(0)))
    shares = [found.count(vocabulary.numbers(text)) / 400 for text in ("", "d e", "a b c")]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.07)
    for wrong in ({"from_source": -0.1}, {"from_source": 0.6, "from_nothing": 0.6}):
        with pytest.raises(ValueError, match="shares of one"):
            task_of(vocabulary, **wrong)


def test_clean_drafts_teach_to_leave_alone(vocabulary):
    task = task_of(vocabulary)
    task.process.steps = 0
    for script in lesson_of(task).spans:
        assert script == ()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_long_drafts_are_cut_where_the_editor_ends(vocabulary, share):
    task = task_of(vocabulary, steps=20, from_own=share)
    task.editor.length = 6
    lesson = lesson_of(task)
    assert max(map(len, drafts_in(lesson))) == 6
    for draft, script, text in zip(drafts_in(lesson), lesson.spans, TEXTS, strict=True):
        assert [*rewrite(draft, script)] == vocabulary.numbers(text)


def test_conditions_are_left_out(vocabulary):
    table = MeaningTable({"kind": ("x", "y"), "place": ("z",)})
    told = [{"kind": "x", "place": "z"}] * len(TEXTS)
    kept = lesson_of(task_of(vocabulary, meanings=table), meaning=told).drafts.condition
    assert kept["source"].tolist() == [table.whole(told[0])] * len(TEXTS)
    gone = lesson_of(task_of(vocabulary, meanings=table, drop_condition=1.0), meaning=told)
    assert bool((gone.drafts.condition["source"] == -1).all())


# ----------------------------------------------------------------------- mistakes of its own


def own_of(task, befores, afters, seed):
    lesson = Lesson.of(befores, afters, None, CPU)
    return own_drafts(task.editor, lesson, befores, generators(range(seed, seed + len(befores))))


def unsure(task):
    """The task with an editor to whom several words are likely: strong weights see but one."""
    task.editor.words.weight.mul_(0.3)
    return task


def written_places(script):
    """Where a text that was edited holds words that were written."""
    places, shift = set(), 0
    for span in script:
        places |= {span.start + shift + place for place in range(len(span.tokens))}
        shift += len(span.tokens) - (span.stop - span.start)
    return places


def test_own_drafts_keep_what_is_kept_and_draw_what_is_written(vocabulary):
    task = task_of(vocabulary, steps=3)
    # What must not be written is what it would most like to write.
    task.editor.bias[list(UNWRITTEN)] = 50.0
    befores = [*drafts_in(lesson_of(task)), [3, 4, 5, 6], [7, 8], []]
    afters = [*map(vocabulary.numbers, TEXTS), [3, 9, 10, 6, 11], [7], [5, 5]]
    different = 0
    for before, after, own in zip(
        befores, afters, own_of(task, befores, afters, seed=0), strict=True
    ):
        changed = {place for place, token in enumerate(own) if token != after[place]}
        assert len(own) == len(after) and not set(own) & set(UNWRITTEN)
        assert changed <= written_places(align(before, after).passages())
        different += len(changed)
    assert different > 10
    drawn = {tuple(own_of(task, befores, afters, seed)[-3]) for seed in range(9)}
    assert len(drawn) > 5


def test_own_drafts_are_written_told_what_their_own_text_is_told(vocabulary, monkeypatch):
    table = MeaningTable({"kind": ("x", "y"), "place": ("z",)})
    told = [
        {"kind": "x"},
        {"kind": "y"},
        {"place": "z"},
        {},
        {"kind": "y", "place": "z"},
        {"kind": "x"},
    ]
    seen = []

    def spied(editor, lesson, befores, rng):
        for row, script in enumerate(lesson.spans):
            text = vocabulary.text([*rewrite(befores[row], script)])
            seen.append((text, lesson.drafts.condition["source"][row].tolist()))
        return [list(before) for before in befores]

    monkeypatch.setattr("multidiff.text.diffuser.task.own_drafts", spied)
    lesson_of(task_of(vocabulary, meanings=table, from_own=0.5), meaning=told)
    assert 0 < len(seen) < len(TEXTS) and seen[0][0] != TEXTS[0]
    for text, source in seen:
        assert source == table.whole(told[TEXTS.index(text)])


def test_own_words_are_drawn_as_the_editor_thinks_of_them(vocabulary):
    task, count = unsure(task_of(vocabulary)), 4000
    befores, afters = [[3, 4, 5]], [[3, 9, 5]]
    lesson = Lesson.of(befores, afters, None, CPU)
    encoding = task.editor.encode(lesson.drafts)
    template = task.editor.template(encoding, marks_of(lesson.spans, 4, CPU))
    logits = task.editor.write(template, Stream.of([[Span(REPLACE, 1, 2)]], CPU))[0, 0]
    shares = logits[FIRST:].softmax(0)
    found = own_of(task, befores * count, afters * count, seed=0)
    counts = torch.bincount(torch.tensor([one[1] for one in found]), minlength=SIZE)[FIRST:]
    assert counts.sum() == count
    spread = 3.5 * (count * shares * (1 - shares)).sqrt() + 1
    assert bool(((counts - count * shares).abs() < spread).all())


def test_some_learn_from_mistakes_of_their_own(vocabulary):
    plain = drafts_in(lesson_of(task_of(vocabulary)))
    for share in (0.5, 1.0):
        lesson = lesson_of(task_of(vocabulary, from_own=share))
        for draft, script, text in zip(drafts_in(lesson), lesson.spans, TEXTS, strict=True):
            assert [*rewrite(draft, script)] == vocabulary.numbers(text)
        same = [one == other for one, other in zip(drafts_in(lesson), plain, strict=True)]
        assert not all(same) and (any(same) or share == 1)


@pytest.mark.parametrize("seed", [0, 10])
def test_mistakes_of_a_sample_alone_are_those_in_a_batch(vocabulary, seed):
    table = MeaningTable({"kind": ("x", "y"), "place": ("z",)})
    # Where nothing is the draft, all words are its own.
    task = unsure(task_of(vocabulary, meanings=table, from_own=0.5, from_nothing=0.7))
    told = [{"kind": "xy"[row % 2], "place": "z"} for row in range(len(TEXTS))]
    seeds = range(seed, seed + len(TEXTS))
    together = lesson_of(task, seed, meaning=told)
    losses = task.losses({"text": TEXTS, "meaning": told}, generators(seeds))
    lengths = {len(draft) for draft in drafts_in(together)}
    assert 0 in lengths and len(lengths) > 2
    for row, text in enumerate(TEXTS):
        batch = {"text": [text], "meaning": [told[row]]}
        alone = task.lesson(batch, generators([seeds[row]]))
        assert drafts_in(alone) == [drafts_in(together)[row]]
        for name, value in task.losses(batch, generators([seeds[row]])).items():
            assert_close(losses[name][row], value[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_of_mistakes_that_cannot_be(vocabulary, share):
    with pytest.raises(ValueError, match=f"from_own {share}: a share of one"):
        task_of(vocabulary, from_own=share)


# ------------------------------------------------------------------------------- the model


def test_parts_that_do_not_fit_each_other(vocabulary):
    domain = TextDomain(vocabulary, 20)
    editor = strong_editor()
    with pytest.raises(ValueError, match="process of size 11 and an editor of size 12"):
        EditedText(domain, EditProcess(11), editor)
    with pytest.raises(ValueError, match="set sources: 0"):
        EditedText(domain, EditProcess(SIZE), strong_editor(sources=3))


@pytest.mark.parametrize("noise", ["uniform", "frequency"])
def test_noise_is_words(vocabulary, noise, tmp_path):
    counted = WordVocabulary(6, source_of(tmp_path, ["x x x x x x y y y z"]))
    model = EditedText(TextDomain(counted, 20), EditProcess(6), strong_editor(size=6), noise=noise)
    drafts = model.corruption().prior([3000], generators([0]))[0]
    shares = [drafts.count(number) / 3000 for number in range(6)]
    wanted = [1 / 3] * 3 if noise == "uniform" else [0.6, 0.3, 0.1]
    assert shares == pytest.approx([0, 0, 0, *wanted], abs=0.03)
