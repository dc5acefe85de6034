"""Words that a misspelled one may stand for, and editors that read them."""

import pickle
from itertools import groupby, product

import pytest
import torch
from editors import strong_editor
from vocabularies import kept, source_of

from multidiff.core.edit.alignment import REPLACE, Span
from multidiff.core.edit.process import EditProcess
from multidiff.models.init_weights import InitFrom
from multidiff.text.data.hybrid import HybridVocabulary
from multidiff.text.data.nearest_words import NearestWords, slips
from multidiff.text.data.vocabulary import PAD, UNKNOWN, WordVocabulary
from multidiff.text.diffuser.drafts import DecoderInput, Drafts, edit_tags_of, nearest_words
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.network import Editor
from multidiff.text.domain import TextDomain

CPU = torch.device("cpu")
LINES = ['"The cat is here," he said.', "The dog's bed is there.", "I see the cat; it is red."] * 5
SIZE = 39


@pytest.fixture
def vocabulary(tmp_path):
    return HybridVocabulary(SIZE, source_of(tmp_path, LINES))


def one_slip(word, other):
    """Whether a letter was left out, added, exchanged, or swapped with the next."""
    without = {word[:n] + word[n + 1 :] for n in range(len(word))}
    swapped = {word[:n] + word[n : n + 2][::-1] + word[n + 2 :] for n in range(len(word) - 1)}
    exchanged = len(word) == len(other) and sum(map(str.__ne__, word, other)) == 1
    fewer = {other[:n] + other[n + 1 :] for n in range(len(other))}
    return other in without or word in fewer or other in swapped or exchanged


def test_every_word_at_one_slip_is_found_and_nearer_ones_come_first():
    words = ["".join(letters) for letters in product("abc", repeat=4)]
    near = NearestWords(words)
    for word in ["abca", "bbb", "aabcc", "cab"]:
        found = near.of(word)
        assert {one for one in words if one_slip(word, one)} <= {*found}
        for one in words:
            assert (slips(word, one) <= 1) == (one == word or one_slip(word, one))
    assert near.of("abca")[0] == "abca"
    frequent = NearestWords(["form", "from", "then", "the", "because", "separate"])
    assert frequent.of("frmo")[:2] == ("from", "form") and frequent.of("teh")[0] == "the"
    assert frequent.of("becuase") == ("because",) and frequent.of("seperete") == ("separate",)
    assert frequent.of("xx") == () and frequent.of("fromage") == ()
    assert pickle.loads(pickle.dumps(frequent)).of("frmo") == frequent.of("frmo")


def test_the_words_near_spelled_ones_stand_beside_their_letters(vocabulary):
    numbers = vocabulary.numbers("The catt sees teh Teh, is hree")
    found = [
        (vocabulary.text([n]), [vocabulary.text([one]) for one in near if one != PAD])
        for n, near in zip(numbers, vocabulary.nearest(numbers, 2), strict=True)
    ]
    spelled = [
        ("".join(letter for letter, _ in some), near)
        for near, some in groupby(found, key=lambda one: one[1])
    ]
    assert spelled == [
        ("The", []), ("catt", ["cat"]), ("sees", ["see"]), ("teh", ["the"]), ("Teh", ["The"]),
        (",is", []), ("hree", ["here"]),
    ]  # fmt: skip
    assert vocabulary.nearest([], 2) == []


def test_a_new_editor_adds_the_nearest_word_to_each_letter(vocabulary):
    editor = strong_editor(size=SIZE, length=30, nearest_words=2)
    torch.nn.init.eye_(editor.near.weight)
    texts = [vocabulary.numbers(text) for text in ("The teh cat", "a")]
    near = nearest_words(vocabulary, 2)
    drafts = Drafts.of(texts, None, CPU, near)
    plain = editor.words(drafts.tokens) + editor.positions.weight[: drafts.tokens.shape[1]]
    the = editor.words.weight[vocabulary.numbers("the")]
    spelled = drafts.nearest[..., 0] != PAD
    assert spelled.sum() == 4
    torch.testing.assert_close(editor._read(drafts), plain + spelled[..., None] * the)
    both = editor.tags(editor.encode(drafts))[0]
    alone = editor.tags(editor.encode(Drafts.of(texts[1:], None, CPU, near)))[0]
    torch.testing.assert_close(both[1, : alone.shape[1]], alone[0])
    with pytest.raises(ValueError, match="reads the words nearest to misspelled ones"):
        editor.encode(Drafts.of(texts, None, CPU))


def test_weights_of_an_editor_without_them_are_taken(vocabulary):
    old, new = (Editor(SIZE, 16, 1, 2, 30, 1, nearest_words=count) for count in (0, 2))
    domain, process = TextDomain(vocabulary, 30), EditProcess(SIZE)
    one, other = (EditedText(domain, process, editor) for editor in (old, new))
    InitFrom("old").put_into(other, one)
    assert torch.equal(new.words.weight, old.words.weight)
    assert torch.equal(new.near.weight[:, :16], torch.eye(16))


def test_training_and_revising_read_them(vocabulary):
    editor = strong_editor(size=SIZE, length=30, nearest_words=2)
    torch.nn.init.normal_(editor.near.weight)
    model = EditedText(TextDomain(vocabulary, 30), EditProcess(SIZE, steps=1), editor)
    batch = model.task().edit_batch({"text": LINES[:3]}, torch.Generator().manual_seed(0))
    assert batch.drafts.nearest.shape == (*batch.drafts.tokens.shape, 2)
    draft = vocabulary.numbers("The teh cat")
    (read,) = model.revise([draft], steps=1)
    torch.nn.init.zeros_(editor.near.weight)
    torch.nn.init.constant_(editor.copier.bias, -100)
    (unread,) = model.revise([draft], steps=1)
    assert read[0].tokens == unread[0].tokens == tuple(draft)
    assert read[-1].score != unread[-1].score


def test_a_vocabulary_without_spelled_words_is_refused(tmp_path):
    vocabulary = WordVocabulary(12, source_of(tmp_path, LINES))
    editor = Editor(12, 16, 1, 2, 30, 1, nearest_words=2)
    with pytest.raises(ValueError, match="WordVocabulary has no words in characters"):
        EditedText(TextDomain(vocabulary, 30), EditProcess(12), editor)


def test_rare_words_of_the_training_texts_are_known(tmp_path):
    lines = [*LINES, "The bead is red.", "A bead, a bde."]
    vocabulary = HybridVocabulary(SIZE, source_of(tmp_path, lines))
    bead, slip = (vocabulary.numbers(word) for word in ("bead", "bde"))
    assert len(bead) > 1 and {*vocabulary.nearest(bead, 2)} == {(UNKNOWN, PAD)}
    bed = vocabulary.numbers("bed")[0]  # a slip occurs once
    assert {*vocabulary.nearest(slip, 2)} == {(bed, PAD)}
    folder = kept(vocabulary, tmp_path / "kept")
    again = HybridVocabulary(SIZE)
    again.load_assets(folder)
    assert again.nearest(bead, 2) == vocabulary.nearest(bead, 2)
    (tmp_path / "other").mkdir()
    other = HybridVocabulary(SIZE, source_of(tmp_path / "other", LINES[::-1]))
    assert other.nearest(slip, 2) != vocabulary.nearest(slip, 2)
    other.load_assets(folder)
    assert other.nearest(slip, 2) == vocabulary.nearest(slip, 2)
    (folder / "known_words.txt").unlink()  # as models saved without them
    older = HybridVocabulary(SIZE)
    older.load_assets(folder)
    assert {*older.nearest(bead, 2)} == {(bed, PAD)}


def test_known_words_may_be_those_of_other_texts(tmp_path):
    (tmp_path / "more").mkdir()
    more = source_of(tmp_path / "more", [*LINES, "A bead.", "No bead.", "One barn."])
    vocabulary = HybridVocabulary(SIZE, source_of(tmp_path, LINES), more)
    assert vocabulary.text(vocabulary.numbers("bead")) == "bead"
    near = {one: vocabulary.nearest(vocabulary.numbers(one), 1)[0] for one in ("bead", "barn")}
    assert near["bead"] == (UNKNOWN,) and near["barn"] != (UNKNOWN,)


def test_a_printed_apostrophe_is_looked_up_like_a_typed_one(tmp_path):
    quotes = " ".join(["\u2019"] * 20)
    lines = [*LINES, "The bead's red.", "A bead's red, my bead's.", quotes]
    vocabulary = HybridVocabulary(SIZE + 3, source_of(tmp_path, lines))
    known, slip, quoted = (
        vocabulary.numbers(one) for one in ("bead\u2019s", "dgo\u2019s", "beb\u2019")
    )
    assert vocabulary.text(known) == "bead\u2019s"
    assert {*vocabulary.nearest(known, 1)} == {(UNKNOWN,)}
    dogs, bed = (vocabulary.numbers(one)[0] for one in ("dog's", "bed"))
    assert {*vocabulary.nearest(slip, 1)} == {(dogs,)}
    # Behind a word it is a closing quote.
    assert vocabulary.nearest(quoted, 1) == [(bed,)] * 4 + [(PAD,)]


def test_a_near_word_is_copied_as_much_as_the_network_says(vocabulary):
    editor = strong_editor(size=SIZE, length=30, nearest_words=2)
    texts = [vocabulary.numbers("The teh cat"), vocabulary.numbers("The dog")]
    drafts = Drafts.of(texts, None, CPU, nearest_words(vocabulary, 2))
    spans = [(Span(REPLACE, 1, 5, (5, 6)),), (Span(REPLACE, 0, 1, (7,)),)]
    marks, stream = edit_tags_of(spans, drafts.tokens.shape[1], CPU), DecoderInput.of(spans, CPU)
    encoding = editor.encode(drafts)

    def written(bias):
        torch.nn.init.zeros_(editor.copier.weight)
        editor.copier.bias.copy_(torch.tensor(bias))
        return editor.write(editor.template(encoding, marks), stream)

    plain, copied = written([0.0, 0.0]), written([4.0, 2.0])
    more = torch.zeros_like(plain)
    more[0, :3, vocabulary.numbers("the")[0]] = 4.0
    torch.testing.assert_close((copied - plain)[stream.real], more[stream.real])
