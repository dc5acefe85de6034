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
from multidiff.text.diffuser.drafts import DecoderInput, Drafts, edit_tags_of
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.task import EditBatch, EditTask, own_drafts
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


def edit_batch_of(task, seed=0, **more):
    batch = {"text": TEXTS, **more}
    return task.edit_batch(batch, generators(range(seed, seed + len(TEXTS))))


def drafts_in(edit_batch):
    """The drafts, without slot and padding."""
    rows = zip(edit_batch.drafts.tokens, edit_batch.drafts.real, strict=True)
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
    template = editor.template(encoding, edit_tags_of([script], len(draft) + 1, CPU))
    write, done = [], []
    for span in (one for one in script if one.edit != DELETE):
        for count, token in enumerate((*span.tokens, END)):
            begun = type(span)(span.edit, span.start, span.stop, span.tokens[:count])
            logits = editor.write(template, DecoderInput.of([[*done, begun]], CPU))[0, -1]
            write.append(-logits.log_softmax(0)[token])
        done.append(span)
    return {
        name: sum(terms, torch.tensor(0.0)) / max(1, len(terms))
        for name, terms in (("tag", tag), ("gap", gap), ("write", write))
    }


@pytest.mark.parametrize("cond", [False, True])
def test_losses_are_those_of_a_plain_loop(vocabulary, cond):
    task = task_of(vocabulary, source_length=8 if cond else 0, from_nothing=0.2)
    more = {"source": SOURCES} if cond else {}
    edit_batch = edit_batch_of(task, **more)
    losses = task.losses({"text": TEXTS, **more}, generators(range(len(TEXTS))))
    found = drafts_in(edit_batch)
    assert any(not draft for draft in found) and any(map(len, found))
    for row, (draft, script) in enumerate(zip(found, edit_batch.spans, strict=True)):
        source = None
        if cond:
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
    edit_batch = edit_batch_of(task_of(vocabulary))
    for draft, script, text in zip(drafts_in(edit_batch), edit_batch.spans, TEXTS, strict=True):
        assert [*rewrite(draft, script)] == vocabulary.numbers(text)


def test_aiming_at_the_state_before(vocabulary):
    task = task_of(vocabulary, steps=4, target="before")
    edit_batch = edit_batch_of(task)
    rngs = generators(range(len(TEXTS)))
    levels = task.process.draw_level(len(TEXTS), rngs)
    texts = [vocabulary.numbers(text) for text in TEXTS]
    chains = task.process.corrupt_many(texts, levels, rngs)
    assert int(levels.max()) > 1
    for draft, script, chain in zip(drafts_in(edit_batch), edit_batch.spans, chains, strict=True):
        assert draft == [*chain[-1].tokens]
        assert rewrite(draft, script) == (chain[-2] if len(chain) > 1 else chain[0]).tokens


def test_sources_as_drafts(vocabulary):
    edit_batch = edit_batch_of(task_of(vocabulary, from_source=1.0), source=SOURCES)
    assert drafts_in(edit_batch) == [vocabulary.numbers(text) for text in SOURCES]
    for draft, script, text in zip(drafts_in(edit_batch), edit_batch.spans, TEXTS, strict=True):
        assert [*rewrite(draft, script)] == vocabulary.numbers(text)


def test_nothing_as_drafts(vocabulary):
    task = task_of(vocabulary, from_nothing=1.0)
    edit_batch = edit_batch_of(task)
    assert drafts_in(edit_batch) == [[]] * len(TEXTS)
    (first, *_), numbers = edit_batch.spans, vocabulary.numbers(TEXTS[0])
    assert first == (Span(INSERT, 0, 0, tuple(numbers)),)
    assert bool((task.losses({"text": TEXTS}, None)["tag"] == 0).all())


def test_shares_of_drafts(vocabulary):
    task = task_of(vocabulary, from_source=0.5, from_nothing=0.25)
    task.process.steps = 0  # what is not replaced is clean
    batch = {"text": ["a b c"] * 400, "source": ["d e"] * 400}
    found = drafts_in(task.edit_batch(batch, torch.Generator().manual_seed(0)))
    ratios = [found.count(vocabulary.numbers(text)) / 400 for text in ("", "d e", "a b c")]
    assert ratios == pytest.approx([0.25, 0.5, 0.25], abs=0.07)
    for wrong in ({"from_source": -0.1}, {"from_source": 0.6, "from_nothing": 0.6}):
        with pytest.raises(ValueError, match="add up to at most 1"):
            task_of(vocabulary, **wrong)


def test_clean_drafts_teach_to_leave_alone(vocabulary):
    task = task_of(vocabulary)
    task.process.steps = 0
    for script in edit_batch_of(task).spans:
        assert script == ()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_long_drafts_are_cut_where_the_editor_ends(vocabulary, ratio):
    task = task_of(vocabulary, steps=20, from_own=ratio)
    task.editor.length = 6
    edit_batch = edit_batch_of(task)
    assert max(map(len, drafts_in(edit_batch))) == 6
    for draft, script, text in zip(drafts_in(edit_batch), edit_batch.spans, TEXTS, strict=True):
        assert [*rewrite(draft, script)] == vocabulary.numbers(text)


def test_conditions_are_left_out(vocabulary):
    table = MeaningTable({"kind": ("x", "y"), "position": ("z",)})
    cond = [{"kind": "x", "position": "z"}] * len(TEXTS)
    kept = edit_batch_of(task_of(vocabulary, meanings=table), meaning=cond).drafts.condition
    assert kept["source"].tolist() == [table.whole(cond[0])] * len(TEXTS)
    gone = edit_batch_of(task_of(vocabulary, meanings=table, drop_condition=1.0), meaning=cond)
    assert bool((gone.drafts.condition["source"] == -1).all())


# ----------------------------------------------------------------------- mistakes of its own


def own_of(task, befores, afters, seed):
    edit_batch = EditBatch.of(befores, afters, None, CPU)
    return own_drafts(
        task.editor, edit_batch, befores, generators(range(seed, seed + len(befores)))
    )


def unsure(task):
    """The task with an editor to whom several words are likely: strong weights see but one."""
    task.editor.words.weight.mul_(0.3)
    return task


def written_positions(script):
    """Where a text that was edited holds words that were written."""
    positions, shift = set(), 0
    for span in script:
        positions |= {span.start + shift + position for position in range(len(span.tokens))}
        shift += len(span.tokens) - (span.stop - span.start)
    return positions


def test_own_drafts_keep_what_is_kept_and_draw_what_is_written(vocabulary):
    task = task_of(vocabulary, steps=3)
    # What must not be written is what it would most like to write.
    task.editor.bias[list(UNWRITTEN)] = 50.0
    befores = [*drafts_in(edit_batch_of(task)), [3, 4, 5, 6], [7, 8], []]
    afters = [*map(vocabulary.numbers, TEXTS), [3, 9, 10, 6, 11], [7], [5, 5]]
    different = 0
    for before, after, own in zip(
        befores, afters, own_of(task, befores, afters, seed=0), strict=True
    ):
        changed = {position for position, token in enumerate(own) if token != after[position]}
        assert len(own) == len(after) and not set(own) & set(UNWRITTEN)
        assert changed <= written_positions(align(before, after).passages())
        different += len(changed)
    assert different > 10
    drawn = {tuple(own_of(task, befores, afters, seed)[-3]) for seed in range(9)}
    assert len(drawn) > 5


def test_own_drafts_are_written_told_what_their_own_text_is_told(vocabulary, monkeypatch):
    table = MeaningTable({"kind": ("x", "y"), "position": ("z",)})
    cond = [
        {"kind": "x"},
        {"kind": "y"},
        {"position": "z"},
        {},
        {"kind": "y", "position": "z"},
        {"kind": "x"},
    ]
    seen = []

    def spied(editor, edit_batch, befores, rng):
        for row, script in enumerate(edit_batch.spans):
            text = vocabulary.text([*rewrite(befores[row], script)])
            seen.append((text, edit_batch.drafts.condition["source"][row].tolist()))
        return [list(before) for before in befores]

    monkeypatch.setattr("multidiff.text.diffuser.task.own_drafts", spied)
    edit_batch_of(task_of(vocabulary, meanings=table, from_own=0.5), meaning=cond)
    assert 0 < len(seen) < len(TEXTS) and seen[0][0] != TEXTS[0]
    for text, source in seen:
        assert source == table.whole(cond[TEXTS.index(text)])


def test_own_words_are_drawn_as_the_editor_thinks_of_them(vocabulary):
    task, count = unsure(task_of(vocabulary)), 4000
    befores, afters = [[3, 4, 5]], [[3, 9, 5]]
    edit_batch = EditBatch.of(befores, afters, None, CPU)
    encoding = task.editor.encode(edit_batch.drafts)
    template = task.editor.template(encoding, edit_tags_of(edit_batch.spans, 4, CPU))
    logits = task.editor.write(template, DecoderInput.of([[Span(REPLACE, 1, 2)]], CPU))[0, 0]
    ratios = logits[FIRST:].softmax(0)
    found = own_of(task, befores * count, afters * count, seed=0)
    counts = torch.bincount(torch.tensor([one[1] for one in found]), minlength=SIZE)[FIRST:]
    assert counts.sum() == count
    spread = 3.5 * (count * ratios * (1 - ratios)).sqrt() + 1
    assert bool(((counts - count * ratios).abs() < spread).all())


def test_some_learn_from_mistakes_of_their_own(vocabulary):
    plain = drafts_in(edit_batch_of(task_of(vocabulary)))
    for ratio in (0.5, 1.0):
        edit_batch = edit_batch_of(task_of(vocabulary, from_own=ratio))
        for draft, script, text in zip(drafts_in(edit_batch), edit_batch.spans, TEXTS, strict=True):
            assert [*rewrite(draft, script)] == vocabulary.numbers(text)
        same = [one == other for one, other in zip(drafts_in(edit_batch), plain, strict=True)]
        assert not all(same) and (any(same) or ratio == 1)


@pytest.mark.parametrize("seed", [0, 10])
def test_mistakes_of_a_sample_alone_are_those_in_a_batch(vocabulary, seed):
    table = MeaningTable({"kind": ("x", "y"), "position": ("z",)})
    # Where nothing is the draft, all words are its own.
    task = unsure(task_of(vocabulary, meanings=table, from_own=0.5, from_nothing=0.7))
    cond = [{"kind": "xy"[row % 2], "position": "z"} for row in range(len(TEXTS))]
    seeds = range(seed, seed + len(TEXTS))
    together = edit_batch_of(task, seed, meaning=cond)
    losses = task.losses({"text": TEXTS, "meaning": cond}, generators(seeds))
    lengths = {len(draft) for draft in drafts_in(together)}
    assert 0 in lengths and len(lengths) > 2
    for row, text in enumerate(TEXTS):
        batch = {"text": [text], "meaning": [cond[row]]}
        alone = task.edit_batch(batch, generators([seeds[row]]))
        assert drafts_in(alone) == [drafts_in(together)[row]]
        for name, value in task.losses(batch, generators([seeds[row]])).items():
            assert_close(losses[name][row], value[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ratio", [-0.1, 1.5])
def test_shares_of_mistakes_that_cannot_be(vocabulary, ratio):
    with pytest.raises(ValueError, match=f"from_own {ratio}: must be in"):
        task_of(vocabulary, from_own=ratio)


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
    ratios = [drafts.count(number) / 3000 for number in range(6)]
    wanted = [1 / 3] * 3 if noise == "uniform" else [0.6, 0.3, 0.1]
    assert ratios == pytest.approx([0, 0, 0, *wanted], abs=0.03)
