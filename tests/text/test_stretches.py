"""Stretches of running text: where they begin, and that nothing of the text is lost."""

import numpy as np
import pytest

from multidiff.data.batches import Batches
from multidiff.text.data.chunks import TextChunks
from multidiff.text.data.listing import TextSource
from multidiff.text.data.vocabulary import FIRST, CharacterVocabulary
from multidiff.utils.errors import InputError

VERSE = "".join(f"{number:03d} of it,\n{'' if number % 3 else chr(10)}" for number in range(90))


@pytest.fixture
def running(tmp_path):
    """A source of a file as it was written."""

    def source(content=VERSE, name="verse.txt", **more):
        path = tmp_path / name
        path.write_bytes(content.encode())
        return TextSource(str(path), running=True, **more)

    return source


def test_running_text_keeps_its_newlines_and_blank_lines(running):
    assert running("\ufeffone\r\n\r\n two\n\n\nthree").listing().texts == ["one\n\n two\n\n\nthree"]
    found = running("text,x\na b,1\n,2\nc,3\n", "a.csv").listing()
    assert found.texts == ["a b\nc"] and len(found.names) == 1


def test_its_vocabulary_has_the_newline(running):
    source = running("ab\n\nba")
    vocabulary = CharacterVocabulary(3 + FIRST, source)
    numbers = vocabulary.numbers("a\n\nb")
    assert vocabulary.text(numbers) == "a\n\nb" and vocabulary.unknown("\n") == []


def test_stretches_to_train_on_begin_anywhere_and_never_reach_what_is_held_out(running):
    stretches = TextChunks(running(), 20)
    cut = int(len(VERSE) * 0.9)
    assert stretches.text == VERSE[:cut] and len(stretches) == cut // 20
    rng = np.random.default_rng(0)
    found = [stretches.example(0, rng) for _ in range(2000)]
    starts = {int(one["name"].rpartition("[")[2].partition(":")[0]) for one in found}
    assert min(starts) == 0 and max(starts) == cut - 20 and len(starts) > 500
    for one in found[:50]:
        start = int(one["name"].rpartition("[")[2].partition(":")[0])
        assert one["text"] == VERSE[start : start + 20]


def test_stretches_held_out_follow_each_other(running):
    stretches = TextChunks(running(), 20, held_out=True, held_out_ratio=0.25)
    cut = int(len(VERSE) * 0.75)
    assert stretches.before == VERSE[:cut] and stretches.text == VERSE[cut:]
    found = [stretches.example(row, np.random.default_rng(row)) for row in range(len(stretches))]
    joined = "".join(one["text"] for one in found)
    assert VERSE[cut:].startswith(joined) and len(VERSE) - cut - len(joined) < 20
    assert found[1]["name"].endswith(f"verse.txt[{cut + 20}:{cut + 40}]")


def test_batches_are_of_stretches_and_an_epoch_covers_the_text(running):
    batches = Batches(TextChunks(running(), 16), batch_size=4)
    assert batches.batches_per_epoch == -(-int(len(VERSE) * 0.9) // 16 // 4)
    first, again, other = batches.batch(0), batches.batch(0), batches.batch(1)
    assert first == again != other
    assert {len(text) for text in first["text"]} == {16}


def test_what_is_no_running_text(running, tmp_path):
    source = TextSource(running().path)
    with pytest.raises(InputError, match=r"verse\.txt: chunks are taken from running text; set"):
        TextChunks(source, 20)
    for wrong in ({"meaning_column": "mr"}, {"held_out_every": 5}, {"attribute_columns": ("x",)}):
        with pytest.raises(InputError, match=r"verse\.txt: running text is one text without"):
            running(**wrong)


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"length": 5, "held_out_ratio": 1.0}, r"held_out_ratio in \[0, 1\), got 1"),
        ({"length": 500, "held_out": True}, "characters are held out, less than one chunk"),
        ({"length": 5000}, "to train on, less than one chunk of 5000"),
        ({"length": 5, "held_out": True, "held_out_ratio": 0.0}, ": 0 of "),
    ],
)
def test_stretches_that_cannot_be(running, options, reported):
    with pytest.raises(InputError, match=reported):
        TextChunks(running(), **options)
