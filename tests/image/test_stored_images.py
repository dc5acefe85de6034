"""Listings on disk: the same images, captions and labels as from memory, and those in archives."""

import io
import json
import pickle
import tarfile
import zipfile
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from multidiff.data import archives
from multidiff.data.batches import Batches, stream
from multidiff.data.cache import ENVIRONMENT
from multidiff.image.data import large
from multidiff.image.data.images import Images
from multidiff.image.data.listing import ImageSource
from multidiff.utils.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "cache"))
    monkeypatch.setattr(large, "FILES_OF_A_PART", 5)
    monkeypatch.setattr(large, "ROWS_OF_A_PART", 6)
    monkeypatch.setattr(large, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr("multidiff.data.prepare.available_cores", lambda: 1)
    return tmp_path / "cache"


@pytest.fixture
def on_disk(monkeypatch):
    """Let listings of any length stay on disk from now on."""
    return lambda: monkeypatch.setattr(large, "MOST_LISTED", 0)


def png(number):
    content = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (4, 6), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def folder_of(path, count=13, captions=True):
    for number in range(count):
        place = path / f"class {number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02d}.png").write_bytes(png(number))
        if captions and number % 4:
            (place / f"{number:02d}.txt").write_text(f"image {number} ä\n")
    return path


def metadata_of(path, ending):
    folder_of(path, captions=False)
    files = sorted(path.rglob("*.png"))
    rows = [
        {"file_name": str(file.relative_to(path)), "text": f"number {n}", "kind": "ab"[n % 2]}
        for n, file in enumerate(files)
    ]
    if ending == "csv":
        lines = ["file_name,text,kind", *(",".join(row.values()) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    (path / f"metadata.{ending}").write_text("\n".join(lines))
    return path


def table_of(path):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Sequence(datasets.Value("string")),
            "label": datasets.ClassLabel(names=["cat", "dog", "owl"]),
        }
    )
    rows = [
        {"image": {"bytes": png(n), "path": None}, "text": [f"a {n}", " "][: n % 3], "label": n % 3}
        for n in range(25)
    ]
    path.mkdir()
    for number, part in enumerate((rows[:11], rows[11:])):
        table = datasets.Dataset.from_list(part, features=features)
        table.to_parquet(path / f"train-{number:05d}-of-00002.parquet", batch_size=3)
    return path


def same(found, expected):
    assert len(found) == len(expected)
    for number in range(3):
        one, other = (Batches(e, 4, seed=1).batch(number) for e in (found, expected))
        assert one.keys() == other.keys()
        assert torch.equal(one.pop("image"), other.pop("image"))
        for key, value in one.items():
            assert torch.equal(value, other[key]) if key == "label" else value == other[key]


def source_of(path, kind):
    if kind == "folder":
        return ImageSource(str(folder_of(path)), held_out_every=3)
    if kind == "table":
        more: Any = {"caption_column": "text", "label_column": "label"}
        return ImageSource(str(table_of(path)), held_out_every=5, **more)
    return ImageSource(str(metadata_of(path, kind)), label_column="kind", held_out_every=4)


@pytest.mark.parametrize("kind", ["folder", "csv", "jsonl", "table"])
def test_images_are_those_from_memory(tmp_path, on_disk, kind, monkeypatch, caplog):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    source = source_of(tmp_path / "images", kind)
    expected = [Images(source, held_out=side) for side in (False, True)]
    messages = sorted(caplog.messages)
    caplog.clear()
    on_disk()
    found = [Images(source, held_out=side) for side in (False, True)]
    assert list((tmp_path / "cache").glob("images-*"))
    for one, other in zip(found, expected, strict=True):
        same(one, other)
        assert one._listing.words == other._listing.words
        assert one.labels is not None and other.labels is not None
        assert torch.equal(one.labels, other.labels)
    assert sorted(set(caplog.messages)) == sorted(set(messages))
    copy = pickle.loads(pickle.dumps(found[0]._listing))
    assert list(copy.contents) == list(expected[0]._listing.contents)


def packed(folder, path):
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
    else:
        kind = tarfile.USTAR_FORMAT if "plain" in path.name else tarfile.PAX_FORMAT
        with tarfile.open(path, "w", format=kind) as archive:
            archive.add(folder, ".")
    return path


@pytest.mark.parametrize("name", ["plain.tar", "pax.tar", "images.zip"])
def test_archives_are_read_without_unpacking(tmp_path, name):
    folder = folder_of(tmp_path / "images")
    if name == "pax.tar":
        (folder / "class 0" / ("long name " * 15 + ".png")).write_bytes(png(99))
    expected = Images(ImageSource(str(folder)), (5, 4))
    found = Images(ImageSource(str(packed(folder, tmp_path / name))), (5, 4))
    order = np.argsort([one.rpartition(":")[2].removeprefix("./") for one in found._listing.names])
    assert len(found) == len(expected)
    rng = np.random.default_rng(0)
    for number, row in enumerate(order.tolist()):
        one, other = found.example(row, rng), expected.example(number, rng)
        assert torch.equal(one["image"], other["image"]) and one["caption"] == other["caption"]
        assert one["label"] == other["label"]


def webdataset(path, first, count):
    with tarfile.open(path, "w") as archive:
        for number in range(first, first + count):
            described = json.dumps({"title": f"title {number}"}).encode()
            files = {"png": png(number), "cls": str(number % 2).encode(), "json": described}
            for ending, content in files.items():
                info = tarfile.TarInfo(f"{number:06d}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_shards_of_a_webdataset(tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(3):
        webdataset(shards / f"{number:04d}.tar", 4 * number, 4)
    source = ImageSource(str(shards), caption_column="title", held_out_every=4)
    found = Images(source)
    batches = Batches(found, 4, shuffle=False)
    batch = batches.batch(0)
    assert batch["caption"] == ["title 0", "title 1", "title 3", "title 4"]
    assert batch["label"].tolist() == [0, 1, 1, 0]
    assert batch["name"][3] == f"{shards / '0001.tar'}:000004.png"
    for workers in (0, 1, 3):
        (again,) = stream(batches, range(1), 0, 1, workers, pin=False)
        assert torch.equal(again["image"], batch["image"])
    assert source.fingerprint()["files"] == 3


def test_damaged_archives_are_named(tmp_path):
    path = tmp_path / "images.tar"
    webdataset(path, 0, 3)
    whole = path.read_bytes()
    for count in (1300, 1536):
        path.write_bytes(whole[:count])
        with pytest.raises(InputError, match=r"images.tar: is no archive, or was cut short"):
            Images(ImageSource(str(path)))
    path.write_bytes(b"\1" * 1024 + bytes(1024))
    with pytest.raises(InputError, match="byte 0 begins no file"):
        Images(ImageSource(str(path)))
    path.write_bytes(whole)
    listing = ImageSource(str(path)).listing()
    path.write_bytes(whole[:600])
    with pytest.raises(InputError, match=r"000002.png was cut short"):
        listing.contents[2]
    other = tmp_path / "images.zip"
    other.write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match=r"images.zip: is not an archive that can be read"):
        Images(ImageSource(str(other)))


def test_walked_headers_are_those_of_the_library(tmp_path):
    folder = folder_of(tmp_path / "images")
    path = packed(folder, tmp_path / "plain.tar")
    assert list(archives.members_of(path)) == list(archives._by_library(path))
