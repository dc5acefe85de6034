"""Images from folders, lists and data sets; captions and labels; what is wrong is named."""

import csv
import json
import logging

import pytest
import torch
from images import numbers, rng, rows_of, write

from multidiff.data.batches import Examples
from multidiff.image.data.image_files import read_image
from multidiff.image.data.images import Images, ImageSource
from multidiff.utils.errors import InputError

# ---------------------------------------------------------------------------- folders


def test_a_folder_with_folders(tmp_path):
    write(tmp_path / "b.png", 1)
    write(tmp_path / "a" / "c.PNG", 0)
    write(tmp_path / "d.bmp", 2)
    for hidden in (".cache/x.png", "._b.png", "__MACOSX/b.png"):
        write(tmp_path / hidden, 9)
    (tmp_path / "notes.txt").write_text("no caption of any image")
    found = Images(ImageSource(str(tmp_path)))
    assert isinstance(found, Examples)
    assert len(found) == 3 and numbers(found) == [0, 1, 2]
    assert found.size == (8, 6) and found.labels is None
    example = found.example(1, rng())
    assert torch.equal(example.pop("image"), read_image(tmp_path / "b.png"))
    assert example == {"caption": "", "name": str(tmp_path / "b.png")}


def test_one_picture_is_a_source(tmp_path):
    assert numbers(Images(ImageSource(str(write(tmp_path / "a.png", 7))))) == [7]


def test_class_folders_are_labels(tmp_path):
    for number, name in enumerate(["cat/x.png", "dog/deep/y.png", "cat/z.png", "ant/a.png"]):
        write(tmp_path / name, number)
    found = Images(ImageSource(str(tmp_path), templates=("a {}", "one {}")))
    assert numbers(found) == [3, 0, 2, 1]
    assert found.labels.tolist() == [0, 1, 1, 2] and found.labels.dtype == torch.int64
    assert [found.example(i, rng())["label"] for i in range(4)] == [0, 1, 1, 2]
    drawn = {found.caption_of(3, rng(seed)) for seed in range(20)}
    assert drawn == {"a dog", "one dog"}
    named = Images(ImageSource(str(tmp_path), names=("formica", "felis", "canis")))
    assert [named.caption_of(i, rng()) for i in (0, 1, 3)] == ["formica", "felis", "canis"]
    with pytest.raises(InputError, match="label 2 is not one of the names: a, b"):
        Images(ImageSource(str(tmp_path), names=("a", "b")))


def test_folders_that_are_splits_are_no_classes(tmp_path):
    for number, name in enumerate(["train/x/a.png", "train/y/b.png", "test/x/c.png"]):
        write(tmp_path / name, number)
    found = Images(ImageSource(str(tmp_path)))
    assert numbers(found) == [0, 1] and found.labels.tolist() == [0, 1]
    assert numbers(Images(ImageSource(str(tmp_path), split="test"))) == [2]
    with pytest.raises(InputError, match=r"no split 'val'; it has \['test', 'train'\]"):
        Images(ImageSource(str(tmp_path), split="val"))


def test_a_text_beside_a_picture_is_its_caption(tmp_path, caplog):
    for number in range(3):
        write(tmp_path / f"{number}.png", number)
    (tmp_path / "0.txt").write_text(" a red barn\n")
    (tmp_path / "2.txt").write_text("\ufeffübermorgen", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        found = Images(ImageSource(str(tmp_path)))
    assert [found.example(i, rng())["caption"] for i in range(3)] == [
        "a red barn", "", "übermorgen",
    ]  # fmt: skip
    assert "1 of 3 images have no caption" in caplog.text
    (tmp_path / "1.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"1\.txt: is not UTF-8 text"):
        Images(ImageSource(str(tmp_path)))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_folder_with_a_list(tmp_path, kind, caplog):
    rows = [
        {"file_name": "x/1.png", "text": 'said "no", twice', "kind": "dog", "more": "one"},
        {"file_name": "2.png", "text": None, "kind": "cat", "more": "two"},
        {"file_name": "gone.png", "text": "a", "kind": "cat", "more": "three"},
    ]
    write(tmp_path / "x" / "1.png", 1), write(tmp_path / "2.png", 2), write(tmp_path / "3.png", 3)
    path = tmp_path / f"metadata.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader(), writer.writerows(rows)
    with caplog.at_level(logging.WARNING):
        found = Images(ImageSource(str(tmp_path), label_column="kind"))
    assert numbers(found) == [1, 2] and found.labels.tolist() == [1, 0]
    assert [found.caption_of(i, rng()) for i in (0, 1)] == ['said "no", twice', ""]
    assert "1 of 3 images have no caption" in caplog.text
    assert f"skipped: {tmp_path / 'gone.png'}: no such image" in caplog.text
    other = Images(ImageSource(str(tmp_path), caption_column="more"))
    assert [other.caption_of(i, rng()) for i in (0, 1)] == ["one", "two"] and other.labels is None
    with pytest.raises(InputError, match=r"no column 'words'; it has \['file_name', 'text'"):
        Images(ImageSource(str(tmp_path), caption_column="words"))


def test_lists_that_cannot_be_read(tmp_path):
    write(tmp_path / "1.png", 1)
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"file_name": "1.png"}\n{"file_name": \n')
    with pytest.raises(InputError, match=r"metadata\.jsonl: row 2"):
        Images(ImageSource(str(tmp_path)))
    path.write_text('{"name": "1.png"}\n')
    with pytest.raises(InputError, match=r"no column 'file_name'; it has \['name'\]"):
        Images(ImageSource(str(tmp_path)))


# --------------------------------------------------------------------------- data sets


@pytest.mark.parametrize("kind", ["parquet", "plain-parquet", "file", "arrow", "disk", "splits"])
def test_data_sets_of_every_kind(tmp_path, kind):
    datasets = pytest.importorskip("datasets")
    rows = {"image": rows_of(tmp_path / "made"), "digit": [1, 0, 2, 1], "says": list("abcd")}
    features = {"digit": datasets.ClassLabel(names=["nought", "one", "two"])}
    features |= {"image": datasets.Image(), "says": datasets.Value("string")}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    position = tmp_path / "set"
    position.mkdir()
    if kind == "plain-parquet":  # as other writers make it, which say nothing of images
        table = datasets.Dataset.from_dict(rows)
    if "parquet" in kind:
        table.to_parquet(position / "train-0.parquet")
        table.select([0]).to_parquet(position / "test-0.parquet")
    elif kind == "file":
        position = position / "some.parquet"
        table.to_parquet(position)
    elif kind == "splits":
        test = table.select([0])
        datasets.DatasetDict({"train": table, "test": test}).save_to_disk(str(position))
    else:
        table.save_to_disk(str(position))
        if kind == "arrow":
            for note in position.glob("*.json"):
                note.unlink()
    found = Images(ImageSource(str(position), label_column="digit", templates=("a {}",)))
    assert numbers(found) == [0, 1, 2, 3] and found.labels.tolist() == [1, 0, 2, 1]
    assert torch.equal(found.image(2), read_image(tmp_path / "made" / "2.png"))
    wanted = ["", ""] if kind == "plain-parquet" else ["a one", "a nought"]
    assert [found.caption_of(i, rng()) for i in (0, 1)] == wanted
    assert found.example(3, rng())["name"] == f"{position}[3]"
    said = Images(ImageSource(str(position), caption_column="says"))
    assert [said.caption_of(i, rng()) for i in range(4)] == list("abcd") and said.labels is None
    with pytest.raises(InputError, match=r"no column 'photo'; it has \["):
        Images(ImageSource(str(position), column="photo"))
    with pytest.raises(InputError, match="column 'digit' has no images"):
        Images(ImageSource(str(position), column="digit"))
    if kind in ("parquet", "plain-parquet", "splits"):
        assert numbers(Images(ImageSource(str(position), split="test"))) == [0]
        with pytest.raises(InputError, match="a data set that can be loaded"):
            Images(ImageSource(str(position), split="nowhere"))


def test_rows_without_picture_caption_or_label(tmp_path, caplog):
    datasets = pytest.importorskip("datasets")
    images = rows_of(tmp_path)
    images[1], images[2] = None, {"bytes": b"broken", "path": "2.png"}
    images.append({"bytes": None, "path": str(tmp_path / "3.png")})
    rows = {"image": images, "says": ["a", "b", "c", None, " "], "kind": [0, 1, 2, None, 3]}
    features = {"image": datasets.Image(), "says": datasets.Value("string")}
    features |= {"kind": datasets.Value("int64")}
    path = tmp_path / "set.parquet"
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(path)
    with caplog.at_level(logging.WARNING):
        found = Images(ImageSource(str(path), caption_column="says", label_column="kind"))
    assert numbers(found) == [0, 3, 3] and found.labels is None
    assert "label" not in found.example(0, rng())
    assert [found.caption_of(i, rng()) for i in range(3)] == ["a", "", ""]
    for reported in ("2 of 5 images have no caption", "1 of 5 images have no label"):
        assert caplog.text.count(reported) == 1
    assert f"skipped: {path}[1]: is empty" in caplog.text
    assert f"skipped: {path}[2]: is not an image" in caplog.text


def test_several_captions_of_a_picture(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"image": rows_of(tmp_path, 2), "says": [["a", "b", ""], ["c"]]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "set.parquet")
    found = Images(ImageSource(str(tmp_path / "set.parquet"), caption_column="says"))
    assert {found.caption_of(0, rng(seed)) for seed in range(20)} == {"a", "b"}
    assert found.caption_of(1, rng()) == "c"


@pytest.mark.parametrize("labels", [[0, -1], [0.5, 1.0], [[0], [1]]])
def test_labels_that_are_none(tmp_path, labels):
    datasets = pytest.importorskip("datasets")
    rows = {"image": rows_of(tmp_path, 2), "kind": labels}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "set.parquet")
    with pytest.raises(InputError, match=r"label .* is not one of the numbers from 0"):
        Images(ImageSource(str(tmp_path / "set.parquet"), label_column="kind"))
    with pytest.raises(InputError, match="is not a caption; name a column of texts"):
        Images(ImageSource(str(tmp_path / "set.parquet"), caption_column="kind"))


def test_words_as_labels_follow_the_names(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.png", number)
    rows = "file_name,kind\n0.png,dog\n1.png,cat\n2.png,1\n"
    (tmp_path / "metadata.csv").write_text(rows)
    found = Images(ImageSource(str(tmp_path), label_column="kind", names=("dog", "cat")))
    assert found.labels.tolist() == [0, 1, 1]
    with pytest.raises(InputError, match="label 'cat' is not one of the names: dog, cow"):
        Images(ImageSource(str(tmp_path), label_column="kind", names=("dog", "cow")))


# ------------------------------------------------------------------------ what is wrong


def test_sources_that_are_nothing(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        Images(ImageSource(str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match="has no images"):
        Images(ImageSource(str(tmp_path)))
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(InputError, match="no readable images"):
        Images(ImageSource(str(tmp_path)))


@pytest.mark.parametrize("name", ["a.TAR.GZ", "a.png.7z", "a.mp4", "a"])
def test_files_that_are_refused_without_asking_the_hub(tmp_path, monkeypatch, name):
    """What lies here is never looked for elsewhere: retries took half a minute."""
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **b: pytest.fail("asked the hub"))
    (tmp_path / name).write_bytes(b"PK\3\4")
    reason = "not a file of images" if name in ("a.mp4", "a") else "a compressed archive.*unpack it"
    with pytest.raises(InputError, match=reason):
        Images(ImageSource(str(tmp_path / name)))
    with pytest.raises(InputError, match=reason):  # as `check` asks
        ImageSource(str(tmp_path / name)).check_path()
    for lost in ("lost.zip", "lost/lost/lost", "../lost"):
        with pytest.raises(InputError, match="no such file or folder of images"):
            Images(ImageSource(lost))


def test_what_a_folder_cannot_tell(tmp_path):
    write(tmp_path / "a.png", 1)
    with pytest.raises(InputError, match=r"no column 'text'.*metadata\.csv"):
        Images(ImageSource(str(tmp_path), caption_column="text"))
    with pytest.raises(InputError, match="names are given, but no labels"):
        Images(ImageSource(str(tmp_path), names=("a",)))


@pytest.mark.parametrize("template", ["{} {}", "{name}", "{", "{.x}"])
def test_templates_that_cannot_be_filled_in(template):
    with pytest.raises(InputError, match="cannot be filled in"):
        ImageSource("starter:digits", templates=(template,))
    with pytest.raises(InputError, match="templates are empty"):
        ImageSource("starter:digits", templates=())
