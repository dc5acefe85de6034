"""Letters as people type them: what no edit is about stays as it was typed."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import source_of

from multidiff.core.edit.alignment import align, rewrite
from multidiff.text.data.hybrid import HybridVocabulary
from multidiff.text.diffuser.reviser import Revision
from multidiff.text.diffuser.sentence_parts import LINE_END, line_before, sentences
from multidiff.text.diffuser.typed_sentence import TypedSentence, stand_in

LINES = ["The cat is here, in London.", "12 dogs sat there; the red bed is old.", "I see a cat!"]
ODD = ["https://x.org/a?b=1", "4,711.50", "\U0001f600", "**bed**", "-", "GitHub", "NASA", "#"]
WORDS = [*ODD, "the", "teh", "I", "caf\u00e9", "cafe\u0301", "\u201cI", "see\u201d", "..."]
GAPS = [" ", "  ", "\n", "\r\n  ", "\t", "\u00a0", ". ", ".\n\n", "\n- "]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return HybridVocabulary(44, source_of(tmp_path_factory.mktemp("texts"), LINES * 3))


def edited(vocabulary, typed, wanted):
    """What becomes of a sentence if an editor makes another of what it reads."""
    sentence = TypedSentence(vocabulary, typed)
    tokens = vocabulary.numbers(wanted)
    spans = align(sentence.tokens, tokens).passages()
    history = [Revision(tuple(sentence.tokens)), Revision(rewrite(sentence.tokens, spans), spans)]
    return sentence.texts(sentence.kept(history))[-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(GAPS), st.sampled_from(WORDS)), max_size=12))
def test_what_is_not_edited_is_as_typed(vocabulary, pieces):
    text = "".join(gap + word for gap, word in pieces)
    parts = sentences(text)
    assert "".join(part + gap for part, gap in parts) == text
    for part, _ in parts:
        sentence = TypedSentence(vocabulary, part)
        places = range(len(sentence.tokens))
        assert not sentence.tokens or sentence.text(sentence.tokens, places) == part


def test_a_line_is_found_from_its_end_whatever_ends_the_ones_before():
    rng = random.Random(0)
    pieces = ["the cat sat", "so be it.", "", "NASA", " ", "\x0b", "\u2028"]
    ends = ["\n", "\r\n", "\r", "\n\r", "\n\n", " \r\n "]
    for _ in range(200):
        text = "".join(rng.choice(pieces) + rng.choice(ends) for _ in range(6)) + rng.choice(pieces)
        for end in range(len(text) + 1):
            if not text[:end].endswith("\r") or not text.startswith("\n", end):  # inside a line end
                assert line_before(text, end) == LINE_END.split(text[:end])[-1], (text, end)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_long_text_is_divided(end):
    """Of 20000 lines; searching all lines before each of them took minutes."""
    text = f"The cat sat on the red bed, and so did the dog.{end}" * 20000
    assert len(sentences(text)) == 20000


@pytest.mark.parametrize(
    ("typed", "wanted", "found"),
    [
        ("I sea  a\n  cta \U0001f600 at https://x.org/a?b.", "I see a cat at London.",
         "I see  a\n  cat \U0001f600 at https://x.org/a?b."),
        ("I see the\nthe old  cat.", "I see the old cat.", "I see the\nold  cat."),
        ("- Teh old cat", "The old cat", "- The old cat"),
        ("* old cat", "The old cat", "* The old cat"),
        ("# the the cat", "the cat", "# the cat"),
        ("I see **cat** 12,5 tims.", "I see London 12 times.", "I see **cat** 12,5 times."),
        ("Teh\tcat", "The cat", "The\tcat"),
        ("I sat to day \u2014 there", "I sat today \u2014 there", "I sat today \u2014 there"),
        ("I sat https://x.org/a there", "I sat there", "I sat https://x.org/a there"),
        ("I sat anna@x.org ther", "I sat Londons there", "I sat anna@x.org ther"),
        ("I see 3 cats", "I see 2 cats", "I see 3 cats"),
        ("I sea the https://x.org/a cat", "I see the cat", "I see the https://x.org/a cat"),
        ("a cafe\u0301 cta", "a caf\u00e9 cat", "a cafe\u0301 cat"),
    ],
)  # fmt: skip
def test_an_edit_changes_its_words_alone(vocabulary, typed, wanted, found):
    assert edited(vocabulary, typed, wanted) == found


def test_a_new_word_beside_letters_of_the_old_one_is_not_written(vocabulary):
    sentence = TypedSentence(vocabulary, "I sea the teh cat")
    before = sentence.tokens
    space, see, there = (vocabulary.numbers(f"a {word}")[1] for word in ("sea", "see", "there"))
    first, second = (at for at, token in enumerate(before) if token == space)
    after = [*before[:first], see, *before[first + 4 : second], there, *before[second + 1 :]]
    spans = align(before, after).passages()
    history = [Revision(tuple(before)), Revision(tuple(after), spans)]
    assert sentence.texts(history)[-1] == "I see the thereteh cat"
    assert sentence.texts(sentence.kept(history))[-1] == "I see the teh cat"


def test_what_a_word_is_read_as():
    for word in (
        "cat",
        "don't",
        "well-known",
        "p.m",
        "e.g",
        "I",
        "cat,dog",
        "word\u2014word",
        "1859",
    ):
        assert stand_in(word) == "", word
    for word in ("a@b.org", "www.x.org", "GitHub", "NASA", "a_b", "x/y", "B2", "[link](a"):
        assert stand_in(word) == "London", word
    for word in ("\u00a324.99", "47110815", "5%", "1,000"):
        assert stand_in(word) == "12", word


def test_a_wrapped_line_goes_on():
    long, by = "The old cat sat there, and saw all of the dogs", "by Mr."
    for begun, rest, count in (
        (long, "\nand birds. I see.", 2), (long, "\r\n  Tom sat.", 1), ("Dogs", "\nand birds.", 2),
        (long, "\n\nand birds.", 2), (long, "\n- and birds.", 2), (f"# {long}", "\nand birds.", 2),
        (f"{long} {by}", "\nHill.", 1), (f"{long}.", "\nI see.", 2), (long, "\n", 1),
    ):  # fmt: skip
        parts = sentences(begun + rest)
        assert len(parts) == count and "".join(map("".join, parts)) == begun + rest, rest


def test_a_few_words_are_no_sentence(vocabulary):
    for typed in ("Dear Mr. Hill,", "- two red beds", "# A cat", "1."):
        assert TypedSentence(vocabulary, typed).is_fragment(), typed
    for typed in ("I sea it.", "\u201cDid he?\u201d", "I see that the cta is in the bed"):
        assert not TypedSentence(vocabulary, typed).is_fragment(), typed


def test_another_language_is_foreign(vocabulary):
    def is_foreign(text):
        return TypedSentence(vocabulary, text).is_foreign()

    assert is_foreign("Wir haben das Paket nie bekommen.")
    assert not is_foreign("The cta is heere, in teh bed.") and not is_foreign("Yours, Anna")
    assert not is_foreign("The addres is Kreuzberger Weg, Berlin, Germany.")
