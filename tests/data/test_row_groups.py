"""Parquet files in an S3 server: batches, traffic, the bounded cache, faults named."""

import io
import os
import threading
from dataclasses import asdict
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from benchmarks.s3_server import S3Server
from multidiff.audio.data.segments import SpeechSegments
from multidiff.audio.data.sources import AudioSource
from multidiff.data.batches import Batches, stream
from multidiff.data.group_cache import GroupCache
from multidiff.data.object_store import ObjectStore
from multidiff.data.row_groups import GroupedTable, RowGroups
from multidiff.image.data import large
from multidiff.image.data.images import Images, ImageSource
from multidiff.text.data.listing import TextSource
from multidiff.text.data.sentences import Sentences
from multidiff.text.data.vocabulary import WordVocabulary
from multidiff.training.record import recipe_changes
from multidiff.utils.errors import InputError

FILES, ROWS, GROUP = 3, 45, 10  # the last group of each file has five rows


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("MULTIDIFF_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "store" / "bucket" / "data"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for file in range(FILES):
        rows = [row_of(file * ROWS + n, random) for n in range(ROWS)]
        table = pa.Table.from_pylist(rows)
        path = folder / f"{file}.parquet"
        pq.write_table(table, path, row_group_size=GROUP, write_page_checksum=True)
    with S3Server(tmp_path / "store", private=True) as one:
        yield one


def row_of(number, random):
    content = io.BytesIO()
    pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return {
        "image": {"bytes": content.getvalue(), "path": None},
        "text": f"number {number} " + "and more " * (number % 4),
        "label": number % 3,
    }


def reading(server, cache_gb=0.1, patience_s=60.0):
    store = ObjectStore(server.endpoint, patience_s=patience_s)
    return RowGroups(streams=4, window=2, cache_gb=cache_gb, store=store)


def images(server, path="s3://bucket/data", held_out=False, **options):
    row_groups = options.pop("row_groups", reading(server))
    source = ImageSource(
        path, 4, caption_column="text", label_column="label", row_groups=row_groups, **options
    )
    return Images(source, (4, 4), flip=True, held_out=held_out)


def same(one, other):
    assert one.keys() == other.keys()
    for key in one.keys() - {"name"}:
        equal = one[key] == other[key]
        assert equal if isinstance(equal, bool) else equal.all(), key


def test_batches_are_the_same_for_any_processes_and_workers_and_from_memory(server, monkeypatch):
    batches = Batches(images(server), 8, seed=3)
    found = [batches.batch(number) for number in range(30)]  # two epochs and a half
    for workers in (1, 3):
        read = stream(batches, range(6, 12), 0, 1, workers, False)
        for one, other in zip(read, found[6:12], strict=True):
            same(one, other)
    for parts in (2, 4):
        for number in (0, 13):
            shares = [batches.batch(number, part, parts) for part in range(parts)]
            assert [*chain(*(share["caption"] for share in shares))] == found[number]["caption"]
            assert all(
                (share["image"] == whole).all()
                for share, whole in zip(shares, found[number]["image"].chunk(parts), strict=True)
            )
    folder = str(server.folder / "bucket" / "data")
    local = Batches(images(server, folder), 8, seed=3)
    for number in (0, 29):
        same(local.batch(number), found[number])
    for stored in (False, True):  # the same examples by their rows, in memory and in tables on disk
        monkeypatch.setattr(large, "MOST_LISTED", -1 if stored else 1000)
        plain = Images(
            ImageSource(folder, caption_column="text", label_column="label"), (4, 4), flip=True
        )
        for index, row in ((0, 0), (20, 30), (99, 129)):
            draws = [np.random.default_rng(index) for _ in range(2)]
            example = batches.examples.example(index, draws[0])
            assert example["name"] == f"s3://bucket/data[{row}]"
            same(example, plain.example(row, draws[1]))


def test_a_run_reads_no_more_than_it_visits(server):
    examples = images(server)
    started = server.sent
    batches = Batches(examples, 8)
    batches.batch(700)  # resuming in the middle reads the windows of the streams alone
    groups = 4 * 2 * 2
    largest = max(path.stat().st_size for path in (server.folder / "bucket" / "data").iterdir())
    assert server.sent - started < groups * largest / 4
    before = server.sent
    for number in range(700, 713):
        batches.batch(number)
    total = sum(path.stat().st_size for path in (server.folder / "bucket" / "data").iterdir())
    assert server.sent - before < 1.3 * total
    sent = server.sent
    same(Batches(images(server), 8).batch(700), batches.batch(700))  # from the cache
    assert server.sent == sent


def test_the_cache_keeps_its_limit_and_repairs_itself(tmp_path, caplog):
    fetched = []

    def fetch(number):
        fetched.append(number)
        return pa.table({"n": np.full(1000, number)})

    cache = GroupCache(tmp_path / "c", 40_000, fetch, 2, "here")
    for number in (0, 1, 2, 0, 3, 4, 0, 5):  # 0 stays, being used; four entries fit
        assert cache.group(number).column("n")[7].as_py() == number
        sizes = [path.stat().st_size for path in (tmp_path / "c").glob("*.arrow")]
        assert sum(sizes) <= 40_000
    assert fetched == [0, 1, 2, 3, 4, 5]
    path = tmp_path / "c" / "00000005.arrow"
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    (tmp_path / "c" / "00000009.part").write_bytes(b"x" * 50_000)  # of a process that was killed
    other = GroupCache(tmp_path / "c", 40_000, fetch, 2, "here")
    assert other.group(5).column("n").to_pylist() == [5] * 1000
    assert fetched[6:] == [5] and "is damaged; it is fetched again" in caplog.text
    assert not list((tmp_path / "c").glob("*.part"))
    with pytest.raises(InputError, match=r"^here: a row group takes .* raise row_groups.cache_gb"):
        GroupCache(tmp_path / "d", 100, fetch, 2, "here").group(0)


def test_damage_is_named(server):
    path = server.folder / "bucket" / "data" / "1.parquet"
    content = path.read_bytes()
    metadata = pq.read_metadata(path)
    pages = metadata.row_group(2).column(0)
    batches = Batches(images(server), 8)

    def fails(pattern):
        with pytest.raises(InputError, match=pattern) as reported:
            for number in range(13):
                batches.batch(number)
        assert "\n" not in str(reported.value)

    spoilt = bytearray(content)
    spoilt[pages.dictionary_page_offset + pages.total_compressed_size // 2] ^= 1
    path.write_bytes(spoilt)
    fails(r"^s3://bucket/data/1.parquet: row group 2 is damaged \(.*CRC")
    path.write_bytes(content[:-100])
    fails(r"^s3://bucket/data/1.parquet: has [\d,]+ bytes, but had .* when it was listed")
    with pytest.raises(InputError, match=r"1.parquet: is no parquet file, or was cut short"):
        images(server)
    path.unlink()
    fails(r"^s3://bucket/data/1.parquet: no such file or folder")


def test_a_server_that_is_away_is_waited_for(server, caplog):
    batches = Batches(images(server), 8)
    server.stop()
    threading.Timer(1.0, server.start).start()
    same(batches.batch(3), batches.batch(3))
    assert "its server is away" in caplog.text and len(caplog.records) < 9
    hasty = images(server, row_groups=reading(server, patience_s=0.5))
    os.system(f"rm -r {os.environ['MULTIDIFF_CACHE_DIR']}/*.cache")
    server.stop()
    with pytest.raises(InputError, match=r"its server was away for \d s .*--resume$"):
        Batches(hasty, 8).batch(40)
    server.start()


def test_what_cannot_be_opened_is_told_in_one_line(server, monkeypatch):
    with pytest.raises(InputError, match=r"^s3://bucket/data: no column 'text2'; it has"):
        Sentences(TextSource("s3://bucket/data", "text2", row_groups=reading(server)))
    with pytest.raises(InputError, match=r"^s3://bucket/gone: no such file or folder"):
        images(server, "s3://bucket/gone")
    with pytest.raises(InputError, match=r"^s3://: names no bucket; write s3://BUCKET/PATH"):
        images(server, "s3://")
    with pytest.raises(InputError, match=r"take about .* raise row_groups.cache_gb"):
        images(server, row_groups=reading(server, cache_gb=1e-6))
    with pytest.raises(InputError, match=r"running text is not read by row groups"):
        TextSource("s3://bucket/data", running=True)
    with pytest.raises(InputError, match=r"group_by_length 4: .* texts in an object store"):
        source = TextSource("s3://bucket/data", row_groups=reading(server))
        Batches(Sentences(source), 8, group_by_length=4)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(InputError, match=r"^s3://bucket/data: access denied .*AWS_ACCESS_KEY_ID"):
        images(server)


def test_texts_are_those_of_the_file(server):
    source = TextSource("s3://bucket/data", held_out_every=3, row_groups=reading(server))
    sentences, draws = Sentences(source), np.random.default_rng(0)
    plain = Sentences(TextSource(str(server.folder / "bucket" / "data")))
    for index in (0, 33, len(sentences) - 1):
        row = sentences.rows[index]
        assert sentences.example(index, draws)["text"] == plain.example(row, draws)["text"]
    short = Sentences(source, longest=4)
    assert short.example(3, draws)["text"].split()[:2] == ["number", "4"]  # 3 has eight words
    assert {len(Sentences(source, held_out=True)), len(sentences)} == {45, 90}
    assert {"number", "more"} <= WordVocabulary(20, source).counts.keys()


def test_recordings_are_those_of_the_files(server, tmp_path):
    rows, plain = [], tmp_path / "plain"
    plain.mkdir()
    for number in range(6):
        wave = 0.3 * np.random.default_rng(number).standard_normal(22050)
        content = io.BytesIO()
        soundfile.write(content, wave, 22050, format="FLAC")
        (plain / f"{number}.flac").write_bytes(content.getvalue())
        rows.append({"audio": {"bytes": content.getvalue(), "path": f"{number}.flac"}})
    rows[4]["audio"]["bytes"] = b"no sound"
    path = server.folder / "bucket" / "sound.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    source = AudioSource("s3://bucket/sound.parquet", repeat=2, row_groups=reading(server))
    segments = SpeechSegments([source], segment_frames=16)
    memory = SpeechSegments([AudioSource(str(plain))], segment_frames=16, store="memory")
    per = len(memory) // 6
    assert len(segments) == 12
    for index, other in ((0, 0), (1, 0), (7, 3), (8, 5)):  # the one that is no sound is replaced
        draws = [np.random.default_rng(1) for _ in range(2)]
        one = segments.example(index, draws[0])
        two = memory.example(other * per, draws[1])
        assert (one["wave"] == two["wave"]).all() and (one["mel"] == two["mel"]).all()
    Batches(segments, 4).batch(0)
    copied = SpeechSegments([source], segment_frames=16, store="disk")
    assert len(copied.recordings[0]) == 5 and copied.grouping is None


def test_the_fingerprint_is_that_of_the_files(server):
    here = GroupedTable("s3://bucket/data", ["text"], reading(server)).fingerprint()
    folder = server.folder / "bucket" / "data"
    assert GroupedTable(str(folder), ["text"], RowGroups()).fingerprint() == here
    one, other = (
        {"source": {"row_groups": asdict(reading(server, patience_s=number))}} for number in (1, 2)
    )
    assert recipe_changes(one, other) == []  # another server may have the same data
    (folder / "1.parquet").rename(folder / "9.parquet")
    assert GroupedTable("s3://bucket/data", ["text"], reading(server)).fingerprint() != here
