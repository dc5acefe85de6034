"""Texts from files and data sets, with meanings and sources; what is wrong is named."""

import json
import logging

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multidiff.text.data.listing import Texts, TextSource, parse_meaning
from multidiff.utils.errors import InputError

ROWS = [
    {"mr": "name[A], food[Thai]", "ref": "A is Thai, she said.", "mood": "good"},
    {"mr": "name[B]", "ref": 'B has "quotes"\nand two lines.', "mood": ""},
    {"mr": "name[A], food[Thai]", "ref": "Thai food: A.", "mood": "bad"},
]
CSV = """mr,ref,mood
"name[A], food[Thai]","A is Thai, she said.",good
name[B],"B has ""quotes""
and two lines.",

"name[A], food[Thai]",Thai food: A.,bad
"""


@pytest.fixture
def write(tmp_path):
    """Write a file; returns its path."""

    def written(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return written


def by_meaning(path, **more):
    return TextSource(path, "ref", meaning_column="mr", attribute_columns=("mood",), **more)


def refused(source):
    with pytest.raises(InputError) as caught:
        source.listing()
    message = str(caught.value)
    assert "\n" not in message and message.startswith(source.path)
    return message.removeprefix(source.path)


# ---------------------------------------------------------------------------- what is read


def test_lines_of_a_text_file(write):
    path = write("a.txt", "\ufeffone\r\n\r\n  two \u2028\x0c2\n \t\nthree\r四 🙂")
    found = TextSource(path).listing()
    assert found == Texts(
        ["one", "  two \u2028\x0c2", "three", "四 🙂"],
        [f"{path}:{line}" for line in (1, 3, 5, 6)],
    )


def test_the_same_rows_from_every_kind_of_file(write, tmp_path):
    table = datasets.Dataset.from_list(ROWS)
    table.to_parquet(tmp_path / "a.parquet")
    table.save_to_disk(str(tmp_path / "saved"))
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    datasets.DatasetDict({"dev": table}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "folder").mkdir()
    table.to_json(tmp_path / "folder" / "train.jsonl")
    csv, jsonl = write("a.csv", CSV), write("a.jsonl", "\n\n".join(map(json.dumps, ROWS)))
    positions = {
        csv: [f"{csv}:{line}" for line in (2, 3, 6)],
        jsonl: [f"{jsonl}:{line}" for line in (1, 3, 5)],
    }
    for name in ("a.parquet", "saved", str(arrow), "splits", "folder"):
        positions[path] = (
            [f"{path}[{row}]" for row in range(3)] if (path := str(tmp_path / name)) else []
        )
    for path, names in positions.items():
        found = by_meaning(path, split="dev" if path.endswith("splits") else "train").listing()
        assert found.texts == [row["ref"] for row in ROWS]
        assert found.names == names
        assert found.meanings == [
            {"name": "A", "food": "Thai", "mood": "good"},
            {"name": "B"},
            {"name": "A", "food": "Thai", "mood": "bad"},
        ]
        assert found.groups == [row["mr"] for row in ROWS]
        assert found.sources is None


def test_quotes_of_tab_separated_values_are_text(write):
    path = write("a.tsv", "'' so ''\t\"open\nb, c\t'd\n")
    source = TextSource(path, "1", source_column="0", header=False)
    found = source.listing()
    assert found.texts == ['"open', "'d"] and found.sources == ["'' so ''", "b, c"]
    assert found.names == [f"{path}:1", f"{path}:2"] and found.groups is found.meanings is None


def test_rows_without_text_are_passed_over(write, caplog):
    path = write("a.jsonl", '{"text": null}\n{"text": " "}\n{"other": 1}\n{"text": "x"}\n')
    with caplog.at_level(logging.WARNING):
        assert TextSource(path).listing().names == [f"{path}:4"]
    assert "3 rows have no text" in caplog.text


def test_attributes_are_words_whatever_they_were(tmp_path):
    kinds = datasets.Features(
        {
            "text": datasets.Value("string"),
            "mood": datasets.ClassLabel(names=["bad", "good"]),
            "stars": datasets.Value("int64"),
        }
    )
    rows = {"text": ["a", "b", "c"], "mood": [1, 0, -1], "stars": [5, 0, None]}
    path = str(tmp_path / "a.parquet")
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(path)
    found = TextSource(path, attribute_columns=("mood", "stars"), group_by="stars").listing()
    assert found.meanings == [{"mood": "good", "stars": "5"}, {"mood": "bad", "stars": "0"}, {}]
    assert found.groups == ["5", "0", ""]


def test_parts_of_a_nested_column(tmp_path):
    pairs = [{"translation": {"de": "Guten Tag.", "en": "Good day."}}] * 2
    path = str(tmp_path / "pairs.parquet")
    datasets.Dataset.from_list(pairs).to_parquet(path)
    found = TextSource(path, "translation.de", source_column="translation.en").listing()
    assert (found.texts, found.sources) == (["Guten Tag."] * 2, ["Good day."] * 2)
    assert "no column 'translation'" in refused(TextSource(path, "translation"))


# ---------------------------------------------------------------------------- meanings

attributes = st.text("abcé -'", min_size=1).map(str.strip).filter(bool)
values = st.text("abcé £-,:()5", max_size=9).map(str.strip)


@given(st.dictionaries(attributes, values))
def test_a_meaning_that_was_written_is_read_again(meaning):
    written = ", ".join(f"{attribute}[{value}]" for attribute, value in meaning.items())
    assert list(parse_meaning(written).items()) == list(meaning.items())


def test_a_meaning_of_the_e2e_challenge():
    text = "name[The Eagle], customer rating[5 out of 5],near[Café X ] , price[£20, or less]"
    assert list(parse_meaning(text).items()) == [
        ("name", "The Eagle"),
        ("customer rating", "5 out of 5"),
        ("near", "Café X"),
        ("price", "£20, or less"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name", "'name' is not a meaning"),
        ("name[A], food", "'food' is not a meaning"),
        ("name[A] food[B]", r"'name\[A\] food\[B\]' is not a meaning"),
        ("name[[A]]", "is not a meaning"),
        ("name[A", "is not a meaning"),
        ("[A]", "is not a meaning"),
        ("inform(name[A])", "is not a meaning"),
        ("a[1], b[2], a[1]", "has 'a' twice"),
    ],
)
def test_what_is_no_meaning(text, complaint):
    with pytest.raises(InputError, match=complaint):
        parse_meaning(text)


# ---------------------------------------------------------------------------- the split


def letters(count):
    return "\n".join(chr(ord("a") + number) for number in range(count))


def test_the_split_by_row(write):
    source = TextSource(write("a.txt", letters(7)), held_out_every=3)
    texts = source.listing()
    assert source.rows(texts, held_out=True) == [1, 4]
    assert source.rows(texts, held_out=False) == [0, 2, 3, 5, 6]


def test_alike_rows_stay_together(write):
    path = write("a.txt", "a\nb\na\nc\nb\nd\na")
    source = TextSource(path, group_by="text", held_out_every=2)
    texts = source.listing()
    kept = [texts.texts[row] for row in source.rows(texts, held_out=True)]
    assert kept == ["b", "b", "d"]
    rest = [texts.texts[row] for row in source.rows(texts, held_out=False)]
    assert rest == ["a", "a", "c", "a"]


@given(st.lists(st.sampled_from("abcde"), min_size=1), st.integers(2, 6))
def test_the_two_sides_share_no_group(groups, every):
    count = len(groups)
    texts = Texts(["x"] * count, [str(row) for row in range(count)], groups=groups)
    source, sides = TextSource("x.txt", held_out_every=every), []
    for held_out in (False, True):
        try:
            sides.append(source.rows(texts, held_out))
        except InputError:
            sides.append([])
    assert sorted(sides[0] + sides[1]) == list(range(count))
    assert not {groups[row] for row in sides[0]} & {groups[row] for row in sides[1]}


def test_meanings_are_groups_unless_told_otherwise(write):
    path = write("a.csv", CSV)
    assert by_meaning(path).listing().groups == [row["mr"] for row in ROWS]
    assert by_meaning(path, group_by="mood").listing().groups == ["good", "", "bad"]


@pytest.mark.parametrize(
    ("every", "held_out", "complaint"),
    [
        (0, True, "held_out_every is 0, so no texts are held out; set it"),
        (1, False, "of 3 texts in 3 groups none are on this side of the split"),
        (9, True, "of 3 texts in 3 groups none are on this side of the split"),
    ],
)
def test_an_empty_side_of_the_split(write, every, held_out, complaint):
    source = TextSource(write("a.txt", letters(3)), held_out_every=every)
    with pytest.raises(InputError, match=complaint):
        source.rows(source.listing(), held_out)


# ---------------------------------------------------------------------------- faults


@pytest.mark.parametrize("name", ["a.txt", "a.parquet", "far/off/data", "/nowhere", "starter:no"])
def test_no_such_file(name):
    assert "no such file or folder" in refused(TextSource(name))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", b"", ": is empty"),
        ("a.csv", b"\n \n", ": is empty"),
        ("a.jsonl", b'{"text": ""}\n', ": has no texts"),
        ("a.csv", b"text\n", ": has no texts"),
        ("a.json", b"{}", ": '.json' must be .txt, .csv, .tsv, .jsonl, .parquet, .arrow"),
        ("a.txt", b"one\ncaf\xe9\n", ":2: byte 0xe9 is not UTF-8"),
        ("a.csv", "text\nä\n".encode("utf-16"), ": is in UTF-16; convert it to UTF-8"),
        ("a.txt", b"one\ntwo\n\x00\x01", ":3: contains a zero byte"),
        ("a.parquet", b"PAR1 or not", ": is not a whole parquet file"),
        ("a.csv", b"a,b\n1,2\n", ": no column 'text'; it has ['a', 'b']"),
        ("a.jsonl", b'{"a": "x"}\n{"b": "x"}', ": no column 'text'; it has ['a', 'b']"),
        ("a.csv", b"text,b\n1,2\n\n1\n", ":4: has 1 fields, but line 1 has 2"),
        ("a.csv", b'text,b\n"a\nb",2\n1,2,3\n', ":4: has 3 fields, but line 1 has 2"),
        ("a.csv", b"text,text\n1,2\n", ":1: ['text', 'text'] has a name twice"),
        ("a.csv", b'text\nx\n"never\nclosed\n', ":3: the row that begins here cannot be read"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', ":3: is not JSON (Expecting value"),
        ("a.jsonl", b"[" * 100_000, ":1: is not JSON ("),
        ("a.jsonl", b'["text"]', ":1: is not a JSON object"),
        ("a.jsonl", b'{"text": ["a", "b"]}', ":1: 'text' is ['a', 'b'], not a text"),
        ("a.jsonl", b'{"text": "a \\ud83d"}', ":1: '\\ud83d' is half a surrogate pair"),
    ],
)
def test_a_faulty_file(write, name, content, complaint):
    assert complaint in refused(TextSource(write(name, content)))


def test_columns_of_lines_are_one(write):
    source = TextSource(write("a.txt", "x"), source_column="from")
    assert "no column 'from'; it has ['text']" in refused(source)


def test_a_missing_source_is_named(write):
    path = write("a.jsonl", '{"text": "a", "from": "b"}\n{"text": "a"}')
    assert ":2: 'from' is None, not a text" in refused(TextSource(path, source_column="from"))


def test_a_faulty_meaning_is_named(write):
    path = write("a.csv", "mr,ref,mood\nname[A],a,\nname(B),b,\n")
    assert ":3: 'name(B)' is not a meaning" in refused(by_meaning(path))
    path = write("b.csv", "mr,ref,mood\nmood[A],a,good\n")
    assert ":2: 'mood' is in 'mr' and is a column too" in refused(by_meaning(path))


def test_a_split_that_is_not_there(tmp_path):
    path = str(tmp_path / "splits")
    datasets.DatasetDict({"dev": datasets.Dataset.from_list(ROWS)}).save_to_disk(path)
    assert "has no split 'train'; it has ['dev']" in refused(TextSource(path))


def test_a_file_that_may_not_be_read(write, monkeypatch):
    def no_right(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", no_right)
    assert "cannot be read (permission denied)" in refused(TextSource(write("a.txt", "x")))
