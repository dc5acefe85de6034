"""Mistakes of people, which an editor learns to repair: what each kind does to a text."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from editors import SIZE, strong_editor
from vocabularies import source_of

from multidiff.core.edit.process import EditProcess
from multidiff.core.random import generators
from multidiff.text.data.sentences import Sentences
from multidiff.text.data.vocabulary import FIRST, UNKNOWN, WordVocabulary
from multidiff.text.diffuser.drafts import Drafts
from multidiff.text.diffuser.mistakes import LearnMistakes, Mistakes, spelled_alike, used_alike
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.task import EditTask
from multidiff.text.diffuser.writing_mistakes import WritingMistakes
from multidiff.text.domain import TextDomain
from multidiff.utils.errors import InputError

TEXT = [3, 4, 5, 6, 7, 8]
OTHERS = [[9, 10, 11], [10, 9], [11]]
WORDS = ["", "", "", "a", "the", "then", "them", "red", "blue", "car", "cat", "boat"]


def only(kind, mean=1.0):
    mistakes = Mistakes(1.0, mean, {kind: 1.0})
    mistakes.learn(OTHERS, SIZE, WORDS)
    return mistakes


def drawn(kind, count=60):
    return [only(kind)(TEXT, rng) for rng in generators(range(count))]


def test_a_word_is_doubled_or_two_are():
    doubled = {(n, tuple(TEXT[:at] + TEXT[at : at + n] + TEXT[at:]))
               for n in (1, 2) for at in range(len(TEXT))}  # fmt: skip
    found = drawn("double", 200)
    assert {tuple(one) for one in found} == {text for _, text in doubled}


def test_a_word_is_dropped():
    assert {tuple(one) for one in drawn("drop")} == {
        tuple(TEXT[:at] + TEXT[at + 1 :]) for at in range(len(TEXT))
    }


def test_two_neighbours_are_swapped():
    for one in drawn("swap"):
        moved = [n for n, (a, b) in enumerate(zip(one, TEXT, strict=True)) if a != b]
        assert Counter(one) == Counter(TEXT)
        assert moved in ([], [moved[0], moved[0] + 1] if moved else [])


@pytest.mark.parametrize("kind", ["replace", "insert"])
def test_words_come_as_often_as_in_the_texts(kind):
    """9 and 10 are twice in the texts, 11 too: of six words a third each."""
    counts = Counter()
    for one in drawn(kind, 600):
        assert len(one) == len(TEXT) + (kind == "insert")
        counts.update(n for n in one if n not in TEXT)
    assert set(counts) == {9, 10, 11} and sum(counts.values()) == 600
    assert all(abs(n - 200) < 60 for n in counts.values())


def test_a_word_is_unknown_or_an_unknown_one_is_inserted():
    for one in drawn("unknown"):
        at = one.index(UNKNOWN)
        assert [*one[:at], *one[at + 1 :]] in (TEXT, [*TEXT[:at], *TEXT[at + 1 :]])


def test_a_span_of_another_text_is_written_over():
    for one in drawn("splice"):
        new = [n for n in one if n not in TEXT]
        assert any(new == other[i : i + len(new)] for other in OTHERS for i in range(len(other)))
        assert new


def test_mistakes_follow_a_geometric_distribution():
    long = [3] * 200
    mistakes = only("drop", mean=2.5)
    gone = [len(long) - len(mistakes(long, rng)) for rng in generators(range(800))]
    assert min(gone) == 1
    assert abs(sum(gone) / len(gone) - 2.5) < 0.25  # the standard error is 0.07


def test_words_spelled_alike_differ_by_a_letter():
    alike = spelled_alike(WORDS)
    assert alike[4] == [5, 6]  # the: then, them
    assert alike[5] == [4, 6]
    assert alike[9] == [10] and alike[8] == alike[0] == []  # car: cat


def test_words_used_alike_stand_beside_the_same_words():
    texts = [[4, 7, 9, 3], [4, 8, 9, 3], [5, 7, 10], [5, 8, 10], [6, 6, 11], [3, 11, 6]]
    counts = torch.bincount(torch.tensor([n for one in texts for n in one]), minlength=SIZE)
    near = used_alike(texts, counts.float())
    assert near[7][0] == 8 and near[8][0] == 7  # red and blue
    assert all(word not in others for word, others in enumerate(near))
    assert near[0] == []


def test_kinds_that_are_not_known_and_mistakes_without_texts_are_refused():
    with pytest.raises(ValueError, match="'typo' of mistakes: choose among double"):
        Mistakes(kinds={"typo": 1.0})
    with pytest.raises(InputError, match="LearnMistakes"):
        Mistakes()(TEXT, None)
    with pytest.raises(InputError, match="no known words"):
        Mistakes().learn([[], [2]], SIZE, WORDS)


@pytest.fixture
def source(tmp_path):
    return source_of(tmp_path, ["a b c d e", "f g h i", "a c e g i b", "d d d d"])


def test_a_model_learns_mistakes_from_its_training_texts(source):
    """And the drafts of training have them where a random edit would have been."""
    vocabulary = WordVocabulary(SIZE, source)
    process = EditProcess(SIZE, steps=1, span=1, probabilities=(0.0, 0.0, 0.0, 1.0))
    mistakes = Mistakes(probability=1.0, mean=1.0, kinds={"double": 1.0})
    model = EditedText(TextDomain(vocabulary, 20), process, strong_editor(), mistakes=mistakes)

    class Data:
        examples = Sentences(source)

    assert LearnMistakes()(model, Data()) is not None
    with pytest.raises(InputError, match="WritingMistakes learn nothing; remove precompute"):
        LearnMistakes()(SimpleNamespace(mistakes=WritingMistakes()), Data())
    texts = ["a b c d e", "f g h i"] * 20
    task = model.task()
    batch = task.edit_batch({"text": texts}, generators(range(len(texts))))
    lengths = (batch.drafts.real.sum(1) - 1).tolist()
    grown = [n - len(text.split()) for n, text in zip(lengths, texts, strict=True)]
    assert set(grown) <= {0, 1, 2} and 0 in grown and 1 in grown  # clean, or doubled
    alone = task.edit_batch({"text": texts[3:4]}, generators([3]))
    row = batch.drafts.tokens[3][batch.drafts.real[3]]
    assert torch.equal(row, alone.drafts.tokens[0])


def test_without_mistakes_the_drafts_are_those_of_before(source):
    """No draw is made for them."""
    domain = TextDomain(WordVocabulary(SIZE, source), 20)
    noise = [0.0] * FIRST + [1.0] * (SIZE - FIRST)
    process = EditProcess(SIZE, noise, steps=2, span=2)
    batch = {"text": ["a b c d e", "f g h i"]}
    plain = EditTask(domain, process, strong_editor()).edit_batch(batch, generators([0, 1]))
    levels = process.draw_level(2, rngs := generators([0, 1]))
    chains = process.corrupt_many([[*map(int, r)] for r in _numbers(domain, batch)], levels, rngs)
    for row, chain in enumerate(chains):
        assert plain.drafts.tokens[row][plain.drafts.real[row]].tolist()[1:] == [*chain[-1].tokens]


def _numbers(domain, batch):
    return [domain.vocabulary.numbers(text) for text in batch["text"]]


def test_a_gap_may_be_read_from_both_sides():
    """At first as from one side; then the token after it matters, and padding never does."""
    editor = strong_editor(both_sides=True)
    one_sided = strong_editor()
    assert editor.inserter_after is not None
    one_sided.load_state_dict(
        {k: v for k, v in editor.state_dict().items() if k != "inserter_after.weight"}
    )
    drafts = Drafts.of([[3, 4, 5], [6]], None, torch.device("cpu"))
    encoding = editor.encode(drafts)
    after = torch.nn.functional.linear(encoding.hidden, editor.inserter_after.weight)[..., 0]
    gaps, plain = editor.tags(encoding)[1], one_sided.tags(encoding)[1]
    torch.testing.assert_close((gaps - plain)[0], torch.tensor([*after[0, 1:].tolist(), 0.0]))
    alone = editor.tags(editor.encode(Drafts.of([[6]], None, torch.device("cpu"))))[1]
    torch.testing.assert_close(gaps[1, :2], alone[0])
    assert editor.own_tensors().keys() == {"inserter_after.weight"}
