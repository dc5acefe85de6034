"""What is said of texts before a model is trained or measured on them, and which it is measured on.

The inputs are those of users: a vocabulary that does not fit the script, texts on both sides of a
split, the corpus that a model was trained on.
"""

import logging
import shutil

import pytest
from commands import complains, does, facts
from program import RECIPES

from multidiff.text.data.chunks import TextChunks
from multidiff.text.data.inspection import Unknown, check_unknown, repeated, warn_of_repeats
from multidiff.text.data.listing import TextSource
from multidiff.text.data.sentences import Sentences
from multidiff.text.data.split import held_out_of, held_out_ratio_of, is_same
from multidiff.text.data.tables import read_table
from multidiff.text.data.vocabulary import CharacterVocabulary, WordVocabulary
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path
from multidiff.utils.report import Report

STARTER = "starter:restaurant/sentences.csv"
CHINESE = [
    "我的奶奶喜欢红色的帽子。",
    "小猫不吃旧书。",
    "那个孩子看见了红色的帽子。",
    "他们去海边。",
]


def source_of(folder, texts, name="texts.txt", **more):
    (folder / name).write_text("\n".join(texts) + "\n", "utf-8")
    return TextSource(str(folder / name), **more)


# ------------------------------------------------------------------------------ unknown tokens


def test_shares_of_what_is_unknown(tmp_path):
    words = WordVocabulary(3 + 2, source_of(tmp_path, ["a a a bb bb c"]))
    found = Unknown.of(words, ["a  bb c", "dddd"])
    assert found == Unknown(2 / 4, 5 / 8)
    assert str(found) == "50.0% of the tokens, 62.5% of the characters"
    assert Unknown.of(words, []) == Unknown(0, 0)


def test_much_that_is_unknown_is_warned_of_and_more_refused(tmp_path, caplog):
    words = WordVocabulary(3 + 2, source_of(tmp_path, ["a b"]))
    check_unknown("x.txt", words, ["a b a b a b a b a b"])
    assert not caplog.records
    check_unknown("x.txt", words, ["a b a b c"])
    assert "x.txt: unknown to the vocabulary: 20.0% of the tokens" in caplog.text
    with pytest.raises(InputError, match=r"x.txt: unknown .* 66.7% .*CharacterVocabulary or Sent"):
        check_unknown("x.txt", words, ["a c c"])
    chinese = WordVocabulary(3 + 2, source_of(tmp_path, CHINESE, "zh.txt"))
    with pytest.raises(InputError):
        check_unknown("zh.txt", chinese, CHINESE[2:])
    check_unknown("zh", CharacterVocabulary(3 + 20, source_of(tmp_path, CHINESE, "z.txt")), CHINESE)


def test_training_states_what_is_unknown_or_refuses(tmp_path, capsys):
    source_of(tmp_path, CHINESE * 3, "zh.txt")
    positions = ("model.domain.vocabulary", "data.examples", "validation.examples")
    words = [
        f"{position}.source={{path: {tmp_path}/zh.txt, held_out_every: 4}}"
        for position in positions
    ]
    words += ["model.domain.meanings=null", "model.denoiser.sources=0"]
    sizes = [f"{part}.size=5" for part in ("model.domain.vocabulary", "model.process",
                                           "model.denoiser")]  # fmt: skip
    recipe = RECIPES / "smoke" / "masked.yaml"
    reported = complains(capsys, "train", recipe, *words, *sizes, "--out", tmp_path / "run")
    assert (
        "zh.txt, training texts: unknown to the vocabulary" in reported and "Sentence" in reported
    )
    assert not (tmp_path / "run" / "model").exists()


def test_measures_state_what_is_unknown(small_masked, tmp_path, capsys):
    words = ["eval", small_masked, "--num", 2, "--steps", 1]
    found = facts(capsys, *words)
    assert 0 < found["unknown"]["tokens"] < found["unknown"]["characters"] < 0.1
    assert "unknown to the vocabulary: " in does(capsys, *words)
    path = source_of(tmp_path, CHINESE * 3).path
    assert "100.0% of the tokens" in complains(capsys, *words[:2], path, *words[2:])


# ------------------------------------------------------------------------------ both sides


def test_texts_on_both_sides_are_counted(tmp_path, caplog):
    texts = ["one", "two", "three", "four", "two ", "six"] * 2  # every third is held out
    source = source_of(tmp_path, texts, held_out_every=3)
    trained, held_out = Sentences(source), Sentences(source, held_out=True)
    assert held_out.texts == ["two", "two "] * 2
    warn_of_repeats(trained, held_out)
    assert not caplog.records
    other = source_of(tmp_path, ["two", "seven"], "other.txt")
    warn_of_repeats(Sentences(other), held_out)
    assert "4 of 4 held-out texts are in the training texts too" in caplog.text
    assert repeated("abca", "cxa") == (3, 4)


def test_pairs_are_the_same_where_both_sides_are(tmp_path, caplog):
    lines = ["src,tgt", "a,x", "b,x", "a,x"]
    source = source_of(tmp_path, lines, "p.csv", column="tgt", source_column="src",
                       held_out_every=3)  # fmt: skip
    warn_of_repeats(Sentences(source), Sentences(source, held_out=True))
    assert not caplog.records  # b,x is held out
    swapped = source_of(tmp_path, ["src,tgt", "b,x"], "q.csv", column="tgt", source_column="src")
    warn_of_repeats(Sentences(swapped), Sentences(source, held_out=True))
    assert "1 of 1 held-out texts" in caplog.text


def test_lines_of_running_text_on_both_sides_are_counted(tmp_path, caplog):
    line = "a line of more than twenty characters"
    source = source_of(tmp_path, ["ROMEO:", line] * 4 + [f"{n} {line}" for n in range(4)] + [line],
                       running=True)  # fmt: skip
    both = [TextChunks(source, 8, held_out=held_out, held_out_ratio=0.3) for held_out in (0, 1)]
    warn_of_repeats(*both)
    assert "1 of 3 held-out lines of 20 characters or more are in the training" in caplog.text


def test_texts_that_are_cut_are_counted(tmp_path, capsys, caplog):
    recipe = RECIPES / "smoke" / "masked.yaml"
    words = ["trainer.steps=1", "trainer.save_every=1", "model.domain.length=20",
             "trainer.validate_every=1", "model.denoiser.length=20"]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        does(capsys, "train", recipe, *words, "--out", tmp_path / "run")
    assert "have more tokens than length 20 and are truncated; raise it" in caplog.text


# ------------------------------------------------------------------------------ the recipe's split


def recipe_of(folder, source, **examples):
    """The folder of a model that was trained on a source."""
    import json

    folder.mkdir()
    examples = {"source": source, **examples}
    (folder / "recipe.yaml").write_text(json.dumps({"data": {"examples": examples}}))
    return folder


def test_the_training_corpus_is_measured_by_the_recipes_split(tmp_path, caplog):
    texts = [f"text {number}" for number in range(10)]
    source = source_of(tmp_path, texts)
    split = recipe_of(tmp_path / "a", {"path": source.path, "held_out_every": 5})
    report = Report()
    found = held_out_of(source, split, None, report)
    assert found.held_out_every == report.facts["held_out_every"] == 5
    assert report.lines == ["held-out texts: every 5th group, as the model's recipe says"]
    rows = found.rows(found.listing(), held_out=True)
    assert [texts[row] for row in rows] == ["text 2", "text 7"]
    # A copy is the same; what is asked for goes before the recipe.
    (tmp_path / "copy").mkdir()
    copy = source_of(tmp_path / "copy", texts)
    assert held_out_of(copy, split, None, Report()).held_out_every == 5
    assert held_out_of(source, split, 2, Report()).held_out_every == 2
    assert held_out_of(source, split, 0, Report()).held_out_every == 0
    whole = recipe_of(tmp_path / "b", {"path": source.path, "held_out_every": 0})
    with pytest.raises(InputError, match=r"was trained on all of it.*--held-out-every 0"):
        held_out_of(source, whole, None, Report())
    assert held_out_of(source, whole, 0, Report()).held_out_every == 0
    assert not caplog.records


def test_groups_stay_together_as_in_training(tmp_path):
    lines = ["meaning,text", "food[x],one", "food[x],two", "food[y],three"]
    source = source_of(tmp_path, lines, "t.csv")
    trained = {"path": source.path, "held_out_every": 2, "meaning_column": "meaning"}
    found = held_out_of(source, recipe_of(tmp_path / "a", trained), None, Report())
    assert found.group_by == "meaning"
    assert found.rows(found.listing(), held_out=True) == [2]


def test_other_texts_are_measured_whole_and_repeats_counted(tmp_path, caplog):
    source = source_of(tmp_path, ["one", "two", "three"])
    folder = recipe_of(tmp_path / "a", {"path": source.path, "held_out_every": 3})
    other = source_of(tmp_path, ["two", "four"], "other.txt")
    assert held_out_of(other, folder, None, Report()) == other and not is_same(other.path, "x")
    assert "other.txt: 1 of 2 texts are in the model's training data too" in caplog.text
    caplog.clear()
    (tmp_path / "gone").mkdir()
    moved = recipe_of(tmp_path / "b", {"path": "gone/other.txt", "held_out_every": 3})
    held_out_of(other, moved, None, Report())
    assert "trained on a file of this name" in caplog.text
    assert held_out_of(other, tmp_path, None, Report()) == other


def test_running_text_is_held_out_as_the_recipe_says(tmp_path):
    source = source_of(tmp_path, ["a", "b"], running=True)
    folder = recipe_of(tmp_path / "a", {"path": source.path}, held_out_ratio=0.3)
    report = Report()
    assert held_out_ratio_of(source, folder, None, report) == 0.3
    assert report.lines == ["held out: the last 30%, as the model's recipe says"]
    assert held_out_ratio_of(source, folder, 0.2, Report()) == 0.2
    whole = recipe_of(tmp_path / "b", {"path": source.path}, held_out_ratio=0)
    with pytest.raises(InputError, match="trained on all of it"):
        held_out_ratio_of(source, whole, None, Report())
    assert held_out_ratio_of(source, tmp_path, None, Report()) == 0.1


def test_the_command_measures_what_training_did_not_see(small_masked, tmp_path, capsys):
    words = ["--meaning-column", "meaning", "--num", 2, "--steps", 1]
    copy = shutil.copy(resolve_path(STARTER), tmp_path / "copy.csv")
    asked = facts(capsys, "eval", small_masked, copy, *words, "--held-out-every", 10)
    found = facts(capsys, "eval", small_masked, copy, *words)
    assert found["held_out_every"] == 10 and found["real"] == asked["real"]
    whole = facts(capsys, "eval", small_masked, copy, *words, "--held-out-every", 0)
    assert whole["real"] != found["real"] and whole["held_out_every"] == 0


# ------------------------------------------------------------------------------ encodings


@pytest.mark.parametrize("name", ["t.txt", "t.csv", "t.jsonl"])
def test_sources_in_other_encodings_are_right_or_one_line(tmp_path, name):
    text = {"t.txt": "é one\ntwo\n", "t.csv": "text\né one\ntwo\n",
            "t.jsonl": '{"text": "é one"}\n{"text": "two"}\n'}[name]  # fmt: skip
    path = tmp_path / name

    def read(content):
        path.write_bytes(content)
        table = read_table(str(path), ["text"], header=True, split="train", config=None)
        return [row["text"] for row in table.rows]

    wanted = ["é one", "two"]
    assert read(text.encode()) == read(text.encode("utf-8-sig")) == wanted
    assert read(text.replace("\n", "\r\n").encode("utf-8-sig")) == wanted
    if name != "t.csv":  # files that were joined
        assert read((text + "\ufeff" + text).encode("utf-8-sig")) == wanted * 2
    for encoding, reported in (
        ("utf-16", "is in UTF-16; convert it to UTF-8"),
        ("utf-32", "is in UTF-32"),
        ("utf-16-le", "zero byte, so it is not UTF-8"),
        ("latin-1", "byte 0xe9 is not UTF-8"),
    ):
        with pytest.raises(InputError, match=reported):
            read(text.encode(encoding))
