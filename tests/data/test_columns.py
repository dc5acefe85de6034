"""Tables of columns on disk: what is read is what was written, or the damage is named."""

import pickle
import shutil
from multiprocessing import get_context

import numpy as np
import pytest

from multidiff.data import checked_files, columns
from multidiff.data.columns import Columns
from multidiff.data.table_writer import join_parts, written_part
from multidiff.utils.errors import InputError

KINDS = {"length": "int32", "caption": "text", "content": "bytes", "tokens": "uint16[]"}


def rows_of(seed, count):
    """Random rows; some values are empty, some longer than a block of checksums."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 40, count)
    sizes[rng.integers(0, count, 2)] = 50_000
    return [
        {
            "length": int(size),
            "caption": "äöü"[: size % 4] * int(size),
            "content": rng.bytes(int(size)),
            "tokens": rng.integers(0, 2**16, size).astype(np.uint16),
        }
        for size in sizes
    ]


@pytest.fixture
def table(tmp_path):
    parts = [rows_of(seed, count) for seed, count in ((0, 30), (1, 1), (2, 44))]
    for number, rows in enumerate(parts):
        with written_part(tmp_path / str(number), KINDS) as writer:
            for row in rows:
                writer.append(**row)
    join_parts(tmp_path, ["0", "1", "2"], KINDS, {"made": "here"})
    return tmp_path, [row for part in parts for row in part]


def test_rows_are_read_as_they_were_written(table):
    folder, rows = table
    found = Columns(folder)
    assert len(found) == len(rows) == 75 and found.info == {"made": "here"}
    for number in (30, 0, 74, 31, 29):
        for name in ("caption", "content"):
            assert found.variable(name)[number] == rows[number][name]
        assert np.array_equal(found.variable("tokens")[number], rows[number]["tokens"])
        assert found.fixed("length")[number] == rows[number]["length"]
    for part in (slice(20, 40), slice(3, 3), slice(70, 99), slice(60, 10, -7)):
        texts = [row["caption"] for row in rows[part]]
        assert found.variable("caption")[part] == texts
    some = np.array([74, 3, 3, 40])
    lengths = np.array([row["length"] for row in rows])
    assert np.array_equal(found.fixed("length")[some], lengths[some])
    assert np.array_equal(found.fixed("length")[5:50], lengths[5:50])
    assert np.array_equal(found.variable("tokens").lengths(some), lengths[some])
    assert np.array_equal(found.variable("tokens").lengths(slice(None)), lengths)
    found.verify()


def test_values_are_one_array_over_all_parts(table):
    folder, rows = table
    whole = np.concatenate([row["tokens"] for row in rows])
    tokens = Columns(folder).variable("tokens")
    assert tokens.total == len(whole)
    for start, stop in ((0, len(whole)), (5, 5), (49_990, len(whole) - 3)):
        assert np.array_equal(tokens.values(start, stop), whole[start:stop])
    row = int(np.argmax([row["length"] for row in rows]))
    assert np.array_equal(tokens.part(row, -40_000, 45_000), rows[row]["tokens"][-40_000:45_000])


def test_many_rows_at_once_are_the_same_table(table, tmp_path):
    folder, rows = table
    with written_part(tmp_path / "all", KINDS) as writer:
        for some in (rows[:7], rows[7:]):
            writer.extend(
                {
                    "caption": [len(row["caption"].encode()) for row in some],
                    "content": [len(row["content"]) for row in some],
                    "tokens": [len(row["tokens"]) for row in some],
                },
                length=[row["length"] for row in some],
                caption="".join(row["caption"] for row in some),
                content=b"".join(row["content"] for row in some),
                tokens=np.concatenate([row["tokens"] for row in some]),
            )
    join_parts(tmp_path, ["all"], KINDS, {}, {"double": 2 * np.arange(75)})
    one, other = Columns(folder), Columns(tmp_path)
    for name in ("caption", "content", "tokens"):
        assert all(map(np.array_equal, one.variable(name), other.variable(name)))
    assert np.array_equal(one.fixed("length")[:], other.fixed("length")[:])
    assert other.fixed("double")[3] == 6


def test_few_files_are_open_at_once(table, monkeypatch):
    monkeypatch.setattr(checked_files, "MOST_OPEN_FILES", 1)
    folder, rows = table
    found = Columns(folder)
    for number in (0, 70, 30, 2, 71):
        assert found.variable("caption")[number] == rows[number]["caption"]
    assert len(found._files._open) == 1


def read_in_process(table, numbers, results):
    results.put([table.variable("caption")[number] for number in numbers])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_table_is_read_in_other_processes(table, method):
    folder, rows = table
    found = Columns(folder)
    assert len(pickle.dumps(found)) < 500
    assert found.variable("caption")[0] == rows[0]["caption"]
    context = get_context(method)
    results = context.SimpleQueue()
    process = context.Process(target=read_in_process, args=(found, [1, 74], results))
    process.start()
    assert results.get() == [rows[1]["caption"], rows[74]["caption"]]
    process.join()


@pytest.mark.parametrize("name", ["length", "tokens.offsets", "2/tokens", "checksums"])
def test_damage_is_named(table, name):
    """A flipped byte, a file cut short, and a missing one."""
    folder, rows = table
    whole = (folder / name).read_bytes()
    damaged = bytearray(whole)
    damaged[-2] ^= 16
    (folder / name).write_bytes(damaged)
    found = Columns(folder)
    named = r"/\d/\w+: bytes" if name == "checksums" else f"{name}: bytes"
    with pytest.raises(InputError, match=named):
        found.verify()
    if name == "2/tokens":
        last = max(n for n, row in enumerate(rows) if row["length"])
        with pytest.raises(InputError, match=r"2/tokens: bytes .* differ from what was written"):
            found.variable("tokens")[last]
        assert np.array_equal(found.variable("tokens")[0], rows[0]["tokens"])
    (folder / name).write_bytes(whole[:-1])
    with pytest.raises(InputError, match=f"{name}: has .* bytes"):
        Columns(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name}: is missing"):
        Columns(folder)


def test_other_formats_and_unfinished_tables_are_refused(table):
    folder, _ = table
    header = folder / columns.HEADER
    text = header.read_text()
    header.write_text(text.replace('"rows": 75', '"rows": 74'))
    with pytest.raises(InputError, match="differs from what was written"):
        Columns(folder)
    header.write_text(text.replace('"format": 1', '"format": 9'))
    with pytest.raises(InputError, match="has format 9, this version reads 1"):
        Columns(folder)
    header.unlink()
    with pytest.raises(InputError, match="was not finished"):
        Columns(folder)


def test_columns_of_different_length_are_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="different length"),
        written_part(tmp_path / "part", {"one": "int64", "two": "int64"}) as writer,
    ):
        writer.extend(one=[1, 2], two=[3])
    assert list(tmp_path.iterdir()) == []
    with written_part(tmp_path / "part", {"one": "int64"}) as writer:
        writer.append(one=1)
    with pytest.raises(ValueError, match="2 rows for a table of 1"):
        join_parts(tmp_path, ["part"], {"one": "int64"}, {}, {"two": np.arange(2)})
    shutil.rmtree(tmp_path / "part")
