"""Words and characters: round trips, frequencies, what is kept beside the weights."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import TEXTS, kept, source_of

from multidiff.text.data.listing import TextSource
from multidiff.text.data.vocabulary import (
    BLANK,
    END,
    FIRST,
    PAD,
    UNKNOWN,
    CharacterVocabulary,
    Vocabulary,
    WordVocabulary,
    with_blanks,
)
from multidiff.utils.errors import InputError

PIECES = ["the", "cat", "sat", *".,;:!?'()%£-\"&", "5", "straße", "漢字", "🙂", "\u200d", "\u0301"]


@pytest.fixture
def make(tmp_path):
    """A vocabulary of all pieces of some texts."""

    def made(kind, *texts, **more):
        source = source_of(tmp_path, texts)
        pieces = {piece for text in texts for piece in kind(4, **more).split(text)}
        return kind(len(pieces) + FIRST, source, **more)

    return made


# ---------------------------------------------------------------------------- words


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    return WordVocabulary(len(PIECES) + FIRST, source_of(folder, PIECES))


@given(st.data())
def test_what_is_written_is_read_again(words, data):
    numbers = data.draw(st.lists(st.integers(UNKNOWN, words.size - 1)))
    assert words.numbers(words.text(numbers)) == numbers


@given(st.text())
def test_any_text_is_read(words, text):
    numbers = words.numbers(text)
    assert all(UNKNOWN <= number < words.size for number in numbers)
    assert words.numbers(words.text(numbers)) == numbers
    assert len(words.unknown(text)) == numbers.count(UNKNOWN)


@pytest.mark.parametrize(
    "text",
    [
        "it's the (very) end-of-line, £5; so: 10%!",
        "a family-friendly pub, isn't it?",
        "no punctuation at all",
        "",
    ],
)
def test_a_sentence_is_written_as_people_write(make, text):
    vocabulary = make(WordVocabulary, text or "x")
    assert vocabulary.text(vocabulary.numbers(text)) == text


def test_the_most_frequent_words_of_the_training_rows(tmp_path):
    texts = ["b b b a a", "held out", "c a", "The c", "out of it", "THE d, d"]
    source = source_of(tmp_path, texts, held_out_every=3)
    vocabulary = WordVocabulary(8, source, least_count=2)
    assert vocabulary.counts == {"a": 3, "b": 3, "c": 2, "d": 2, "the": 2}
    assert vocabulary.numbers("a b c d the held") == [3, 4, 5, 6, 7, UNKNOWN]
    assert vocabulary.unknown("the out-of a of") == ["out", "-", "of", "of"]
    fewer = WordVocabulary(6, source)
    assert list(fewer.counts) == ["a", "b", "c"]


def test_words_in_both_cases(make):
    vocabulary = make(WordVocabulary, "The the THE", lower=False)
    assert vocabulary.size == 6
    assert vocabulary.text(vocabulary.numbers("THE The the")) == "THE The the"


def test_too_few_words(tmp_path):
    source = source_of(tmp_path, ["a a b", "c c"])
    with pytest.raises(InputError) as caught:
        WordVocabulary(9, source, least_count=2).numbers("a")
    assert str(caught.value) == (
        f"{source.path}: has 2 words seen 2 times or more, too few for a vocabulary of size 9; "
        "set size to 5"
    )
    with pytest.raises(InputError, match=r"has 0 words seen 9 times or more.* lower least_count"):
        WordVocabulary(4, source, least_count=9).numbers("a")


def test_what_texts_are_made_from_counts_too(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("in out\tout\nout\tin\n")
    source = TextSource(str(path), "1", source_column="0", header=False)
    assert WordVocabulary(5, source).counts == {"out": 3, "in": 2}


def test_an_accent_is_a_part_of_its_letter(make):
    vocabulary = make(WordVocabulary, "Café")
    assert vocabulary.numbers(unicodedata.normalize("NFD", "CAFÉ")) == [3]


def test_splitting_again_changes_no_character():
    """Round trips rest on it: lower case and composition are done once and for all."""
    split = WordVocabulary(4).split
    for number in range(sys.maxunicode + 1):
        pieces = split(chr(number))
        assert [again for piece in pieces for again in split(piece)] == pieces


# ---------------------------------------------------------------------------- characters


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("characters")
    content = {"pieces": ["a", " ", "\n", "🙂"], "counts": [4, 3, 2, 1]}
    (folder / "vocabulary.json").write_text(json.dumps(content))
    vocabulary = CharacterVocabulary(7)
    vocabulary.load_assets(folder)
    return vocabulary


@given(st.text("a \n🙂"))
def test_characters_keep_everything(characters, text):
    assert characters.text(characters.numbers(text)) == text


def test_characters_of_many_scripts(make):
    vocabulary = make(CharacterVocabulary, *TEXTS)
    for text in TEXTS:
        assert vocabulary.text(vocabulary.numbers(text)) == text
    assert vocabulary.unknown("a\x00é q") == ["\x00", "é", "q"]


# ---------------------------------------------------------------------------- the policy


@pytest.mark.parametrize("kind", [WordVocabulary, CharacterVocabulary])
def test_end_closes_and_padding_is_passed_over(make, kind):
    vocabulary = make(kind, "abc")
    assert isinstance(vocabulary, Vocabulary)
    (first, *_) = vocabulary.numbers("abc")
    assert (PAD, END, UNKNOWN) == (0, 1, 2) and first >= FIRST
    once = vocabulary.text([first])
    assert vocabulary.text([PAD, first, PAD, END, first, UNKNOWN]) == once
    assert vocabulary.text([END]) == vocabulary.text([]) == ""
    assert vocabulary.text([UNKNOWN]) == "\ufffd"
    assert not {PAD, END} & {*vocabulary.numbers("a \ufffd [PAD] </s>")}
    for wrong in (-1, vocabulary.size):
        with pytest.raises(ValueError, match=f"number {wrong} is outside a vocabulary of"):
            vocabulary.text([wrong])


def test_what_cannot_be_read_is_no_word(tmp_path):
    vocabulary = WordVocabulary(4, source_of(tmp_path, ["\ufffd \ufffd a"]))
    assert vocabulary.counts == {"a": 1} and vocabulary.numbers("\ufffd") == [UNKNOWN]


def test_blanks_among_words(make):
    vocabulary = make(WordVocabulary, "the cat sat.")
    the, cat, sat, stop = vocabulary.numbers("the cat sat.")
    assert with_blanks(vocabulary, f"{BLANK} cat {BLANK}{BLANK}.") == [None, cat, None, None, stop]
    assert with_blanks(vocabulary, "the sat") == [the, sat]
    assert with_blanks(vocabulary, BLANK) == [None]


def test_blanks_among_characters(make):
    vocabulary = make(CharacterVocabulary, "a b")
    a, space, b = vocabulary.numbers("a b")
    assert with_blanks(vocabulary, f"a {BLANK}b") == [a, space, None, b]


# ---------------------------------------------------------------------------- what is kept


def test_nothing_is_read_before_it_is_needed(tmp_path):
    there = WordVocabulary(4, source_of(tmp_path, ["word"]))
    gone = WordVocabulary(4, TextSource(str(tmp_path / "gone.txt")))
    assert gone.size == 4
    gone.load_assets(tmp_path)  # holds no vocabulary either
    with pytest.raises(InputError, match=r"gone\.txt: no such file"):
        gone.numbers("word")
    gone.load_assets(kept(there, tmp_path / "model"))
    assert gone.numbers("Word") == [3] and gone.counts == {"word": 1}
    assert gone.assets() == there.assets()


@pytest.mark.parametrize("kind", [WordVocabulary, CharacterVocabulary])
def test_a_model_brings_its_own(make, tmp_path, kind):
    trained = make(kind, *TEXTS)
    (text,) = trained.assets().values()
    assert text.isascii()
    again = kind(trained.size)
    again.load_assets(kept(trained, tmp_path / "model"))
    for text in TEXTS:
        assert again.numbers(text) == trained.numbers(text)
        assert UNKNOWN not in again.numbers(text)
    assert again.counts == trained.counts


@pytest.mark.parametrize("kind", [WordVocabulary, CharacterVocabulary])
def test_no_source_and_no_file(kind):
    for use in (lambda v: v.numbers("a"), lambda v: v.text([]), lambda v: v.assets()):
        with pytest.raises(InputError, match=r"vocabulary\.json: is not in the model's folder"):
            use(kind(9))


@pytest.mark.parametrize("size", [-1, 0, 3])
def test_a_size_without_tokens(size):
    with pytest.raises(InputError, match=f"size {size} leaves no tokens; set 4"):
        WordVocabulary(size)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"pieces": ["a"], "counts": [1]}', "a vocabulary of size 4, but the model's is 5"),
        (b'{"pieces": ["a", "a"], "counts": [1, 1]}', "is not a vocabulary .*twice"),
        (b'{"pieces": ["a", ["b"]], "counts": [1, 1]}', "is not a vocabulary"),
        (b'{"pieces": ["a", "b"], "counts": [1]}', "is not a vocabulary"),
        (b'{"pieces": ["a", "b"]}', "is not a vocabulary"),
        (b"[]", "is not a vocabulary"),
        (b"{", "is not JSON"),
        (b"\xff", "is not UTF-8 text"),
    ],
)
def test_a_faulty_file(tmp_path, content, complaint):
    (tmp_path / "vocabulary.json").write_bytes(content)
    with pytest.raises(InputError, match=complaint) as caught:
        WordVocabulary(5).load_assets(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "vocabulary.json"))
