"""Texts on disk: the same batches as from memory, whatever the kind of file."""

import csv
import io
import json
import logging
import tarfile
import zipfile
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from multidiff.data.batches import Batches, stream
from multidiff.data.cache import ENVIRONMENT
from multidiff.text.data import sample, stored, streams, tokens, vocabulary_assets
from multidiff.text.data.chunks import TextChunks
from multidiff.text.data.hybrid import HybridVocabulary
from multidiff.text.data.inspection import warn_of_repeats
from multidiff.text.data.listing import TextSource
from multidiff.text.data.sentences import Sentences
from multidiff.text.data.vocabulary import WordVocabulary
from multidiff.text.domain import TextDomain
from multidiff.utils.errors import InputError

WORDS = ["river", "stone", "bird", "the", "a", "of", "under", "slowly", "äther", "Ω", "don't"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "cache"))
    monkeypatch.setattr(streams, "PIECE_BYTES", 2000)
    monkeypatch.setattr(streams, "BLOCK_BYTES", 300)
    monkeypatch.setattr(streams, "PIECE_ROWS", 50)
    monkeypatch.setattr(stored, "ROWS_OF_A_PART", 64)
    monkeypatch.setattr(stored, "CHARACTERS", 100)
    monkeypatch.setattr(tokens, "PIECE_BYTES", 1500)
    monkeypatch.setattr("multidiff.data.prepare.available_cores", lambda: 1)
    return tmp_path / "cache"


@pytest.fixture
def on_disk(monkeypatch):
    """Let sources of any size stay on disk from now on."""
    return lambda: monkeypatch.setattr(stored, "MOST_IN_MEMORY", -1)


def rows_of(count=150):
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        text, origin = (" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(2))
        meaning = f"name[{rng.integers(9)}]"
        rows.append({"text": text, "origin": origin, "mr": meaning, "mood": "good"})
    rows[20]["text"] = " "
    return rows


def write(tmp_path, ending, rows):
    path = tmp_path / f"texts{ending}"
    if ending == ".txt":
        path.write_bytes("\ufeff".encode() + "\r\n".join(r["text"] for r in rows).encode())
    elif ending == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif ending in (".zip", "shards"):
        path.mkdir() if ending == "shards" else None
        for part in range(2) if ending == "shards" else (None,):
            some = range(len(rows)) if part is None else range(75 * part, 75 * part + 75)
            pack(path if part is None else path / f"{part}.tar", [(n, rows[n]) for n in some])
    else:
        with path.open("w", newline="") as file:
            delimiter = "\t" if ending == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            if ending == ".csv":
                rows[3]["text"] = 'with "quotes"\nand two lines'
            writer.writerows(rows)
    return str(path)


def pack(path, rows):
    """Texts as WebDataset has them, beside other columns and files that are no texts."""
    files = {}
    for number, row in rows:
        files[f"{number:04d}.txt"] = row["text"].encode()
        files[f"{number:04d}.origin.txt"] = row["origin"].encode()
        files[f"{number:04d}.json"] = json.dumps({"mr": row["mr"], "mood": row["mood"]}).encode()
    files[".hidden.txt"], files["notes.md"] = b"no text", b"no text"
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def options_of(ending) -> dict[str, Any]:
    if ending == ".txt":
        return {"held_out_every": 7}
    return {"source_column": "origin", "meaning_column": "mr", "held_out_every": 4}


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[key])
        else:
            assert list(map(str, value)) == list(map(str, other[key]))


KINDS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet", ".zip", "shards")


@pytest.mark.parametrize("ending", KINDS)
def test_batches_are_those_from_memory(tmp_path, on_disk, ending, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    source = TextSource(write(tmp_path, ending, rows_of()), **options_of(ending))
    there = {side: Sentences(source, 9, held_out=side) for side in (False, True)}
    on_disk()
    for side, expected in there.items():
        found = Sentences(source, 9, held_out=side)
        assert found.selection is not None and expected.selection is None
        assert list(found.rows) == list(expected.rows)
        assert list(found.texts) == list(expected.texts)
        own, listed = (Batches(one, 8, seed=3, group_by_length=3) for one in (found, expected))
        for number in (0, 1, 17, 40):
            same(own.batch(number), listed.batch(number))


def test_parts_and_workers_see_the_same_batches(tmp_path, on_disk):
    on_disk()
    batches = Batches(Sentences(TextSource(write(tmp_path, ".txt", rows_of()))), 8)
    whole = [batches.batch(number) for number in range(3)]
    for parts in (2, 4):
        for number, expected in enumerate(whole):
            names = [name for p in range(parts) for name in batches.batch(number, p, parts)["name"]]
            assert names == expected["name"]
    for workers in (0, 1, 3):
        for found, expected in zip(
            stream(batches, range(3), 0, 1, workers, pin=False), whole, strict=True
        ):
            same(found, expected)


@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".zip"])
@pytest.mark.parametrize("side", [False, True])
def test_chunks_are_those_from_memory(tmp_path, on_disk, ending, side):
    source = TextSource(write(tmp_path, ending, rows_of()), running=True)
    expected = TextChunks(source, 37, side, 0.3)
    on_disk()
    found = TextChunks(source, 37, side, 0.3)
    assert not isinstance(found.text, str)
    assert (len(found), str(found.text), str(found.before)) == (
        len(expected),
        expected.text,
        expected.before,
    )
    for number in range(5):
        same(Batches(found, 6).batch(number), Batches(expected, 6).batch(number))


def test_prepared_tokens_are_those_of_the_texts(tmp_path, on_disk):
    source = TextSource(write(tmp_path, ".jsonl", rows_of()), source_column="origin")
    vocabulary = WordVocabulary(12, source)
    domain = TextDomain(vocabulary, length=8, source_length=6)
    expected = Batches(Sentences(source), 16)
    before, condition = domain.encoded(expected.batch(2), None)
    on_disk()
    examples = Sentences(source)
    tokens.prepare(type("Model", (), {"domain": domain}), Batches(examples, 16))
    batch = Batches(examples, 16).batch(2)
    assert all(row.dtype == np.uint16 for row in batch["text_tokens"] + batch["source_tokens"])
    vocabulary.numbers = lambda text: pytest.fail("encoded again")
    after, prepared = domain.encoded(batch, None)
    assert torch.equal(before, after) and torch.equal(condition["source"], prepared["source"])


def test_vocabularies_are_made_once_of_a_sample(tmp_path, on_disk, monkeypatch, caplog):
    source = TextSource(write(tmp_path, ".txt", rows_of()), held_out_every=5)
    expected = WordVocabulary(10, source).assets()
    on_disk()
    assert WordVocabulary(10, source).assets() == expected
    monkeypatch.setattr(vocabulary_assets, "SAMPLE_BYTES", 2000)
    found = WordVocabulary(10, source)
    assert found.assets() != expected and "texts, evenly spread" in caplog.text
    size = 3 + len({*"".join(row["text"] for row in rows_of())}) + 2
    words = HybridVocabulary(size, source).assets()
    assert words["known_words.txt"]
    for kind, made in ((WordVocabulary, "_make"), (HybridVocabulary, "_training_texts")):
        monkeypatch.setattr(kind, made, None)
    assert WordVocabulary(10, source).assets() == found.assets()
    assert HybridVocabulary(size, source).assets() == words


def test_samples_of_running_text_are_spread(tmp_path, on_disk, monkeypatch):
    monkeypatch.setattr(sample, "CHARACTERS", 50)
    source = TextSource(write(tmp_path, ".txt", rows_of()), running=True)
    (whole,) = source.listing().texts
    on_disk()
    found = list(sample.TextSample(source, source.listing(), len(whole) // 3 + 1))
    assert found[:2] == [whole[:50], whole[150:200]] and len(found) == -(-len(whole) // 150)


def test_repeats_are_counted_on_disk(tmp_path, on_disk, caplog):
    rows = rows_of()
    rows[3 * 7 + 3]["text"] = f"{rows[0]['text']} "  # held out; white space does not count
    source = TextSource(write(tmp_path, ".txt", rows), held_out_every=7)
    sides = {side: Sentences(source, held_out=side) for side in (False, True)}
    caplog.clear()
    warn_of_repeats(sides[False], sides[True])
    (expected,) = caplog.messages
    assert "held-out texts are in the training texts too" in expected
    on_disk()
    large = Sentences(source)
    for held_out in (Sentences(source, held_out=True), sides[True]):
        caplog.clear()
        warn_of_repeats(large, held_out)
        assert caplog.messages == [expected]


def test_damaged_rows_are_named_and_many_stop(tmp_path, on_disk, caplog):
    on_disk()
    path = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": f"text {n}"}).encode() for n in range(300)]
    lines[100], lines[201] = b"{broken", b'{"text": "\xff"}'
    path.write_bytes(b"\n".join(lines))
    with caplog.at_level(logging.WARNING):
        found = Sentences(TextSource(str(path)))
    assert len(found) == 298 and "2 of 300 items" in caplog.text
    (report,) = (tmp_path / "cache").glob("*.faults.txt")
    named = report.read_text().splitlines()
    assert [line.split("\t")[0] for line in named] == [f"{path}:101", f"{path}:202"]
    lines[7:9] = [b"", b"[1]"]
    lines[10] = b'{"text": 5}'
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match="4 of 299 items cannot be read, more than 1%"):
        Sentences(TextSource(str(path)))


def test_changed_texts_are_prepared_again(tmp_path, on_disk):
    on_disk()
    path = write(tmp_path, ".txt", rows_of())
    assert len(Sentences(TextSource(path))) == 149
    with open(path, "a") as file:
        file.write("\nanother text")
    found = Sentences(TextSource(path))
    assert len(found) == 150 and found.texts[149] == "another text"
    with pytest.raises(InputError, match="no column 'moods'"):
        TextSource(write(tmp_path, ".csv", rows_of()), column="moods").listing()


def test_archives_hold_the_rows_of_their_files(tmp_path, on_disk, caplog):
    rows = rows_of()[:4]
    pack(tmp_path / "a.zip", list(enumerate(rows)))
    source = TextSource(str(tmp_path / "a.zip"), source_column="origin", meaning_column="mr")
    with pytest.raises(InputError, match="no column 'gone'"):
        TextSource(source.path, column="text", source_column="gone").listing()
    for _ in range(2):
        found = source.listing()
        assert list(found.texts) == [row["text"] for row in rows]
        assert list(found.sources) == [row["origin"] for row in rows]
        assert list(map(dict, found.meanings)) == [{"name": row["mr"][5:-1]} for row in rows]
        assert list(found.names) == [f"{source.path}[{n}]" for n in range(1, 5)]
        on_disk()
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.png", b"")
    with pytest.raises(InputError, match="has no texts"):
        TextSource(str(tmp_path / "b.zip")).listing()


def test_a_damaged_text_in_an_archive_is_named(tmp_path, monkeypatch, on_disk, caplog):
    rows = rows_of()[:20]
    rows[7]["text"] = "long " * 20
    pack(tmp_path / "a.zip", list(enumerate(rows)))
    monkeypatch.setattr("multidiff.text.data.archived.MOST_TEXT_BYTES", 90)
    source = TextSource(str(tmp_path / "a.zip"))
    with pytest.raises(InputError, match=r"0007.txt: has 100 bytes; a file in an archive is one"):
        source.listing()
    on_disk()
    with caplog.at_level(logging.WARNING):
        assert len(source.listing().texts) == 19
    assert "1 of 20 items cannot be read" in caplog.text and "a.zip[8]" in caplog.text
