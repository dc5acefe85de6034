"""Examples of images: bad ones, sizes, splits, mirrors, fingerprints, the starter digits."""

import logging

import pytest
import torch
from images import numbers, rng, write
from PIL import Image

from multidiff.data.batches import Batches
from multidiff.image.data import images as data
from multidiff.image.data.image_files import read_image, resized
from multidiff.image.data.images import Images, ImageSource
from multidiff.image.data.inspection import inspect
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path


@pytest.mark.parametrize("at_once", [True, False])
def test_held_out_pictures_that_training_sees_are_counted(tmp_path, caplog, monkeypatch, at_once):
    """Copies by another name, and within one source across its split."""
    if not at_once:
        monkeypatch.setattr(data, "PIXELS_READ_AT_ONCE", 0)
    for number in range(8):
        write(tmp_path / "a" / f"{number}.png", number)
    for number in (2, 5, 9):
        write(tmp_path / "b" / f"copy-{number}.png", number)
    trained, held_out = (Batches(Images(ImageSource(str(tmp_path / name))), 2) for name in "ab")
    assert trained.examples.in_memory is at_once
    assert inspect(None, trained, held_out) == []
    line = "2 of 3 held-out images are in the training data too"
    assert f"{tmp_path / 'b'}: {line} ({tmp_path / 'a'})" in caplog.text
    caplog.clear()
    write(tmp_path / "a" / "8.png", 1)  # the same as 1.png, on the other side of the split
    parts = [
        Batches(Images(ImageSource(str(tmp_path / "a"), held_out_every=3), held_out=one), 2)
        for one in (False, True)
    ]
    inspect(None, *parts)
    assert "1 of 3 held-out images" in caplog.text
    caplog.clear()
    inspect(None, trained, None)
    write(tmp_path / "b" / "copy-2.png", 20)
    write(tmp_path / "b" / "copy-5.png", 21)
    inspect(None, trained, Batches(Images(ImageSource(str(tmp_path / "b"))), 2))
    assert not caplog.text


def test_files_of_several_frames_are_announced_once(tmp_path, caplog):
    frames = [Image.new("RGB", (6, 4), color) for color in ("black", "white")]
    for number in range(3):
        frames[0].save(tmp_path / f"{number}.gif", save_all=True, append_images=frames[1:])
    found = Images(ImageSource(str(tmp_path)))
    assert int(found.image(2).max()) < 9
    assert caplog.text.count("0.gif: has 2 frames; of all such files the first is used") == 1
    assert caplog.text.count("has 2 frames") == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_bad_pictures_are_named_once(tmp_path, caplog, monkeypatch, at_once):
    if not at_once:
        monkeypatch.setattr(data, "PIXELS_READ_AT_ONCE", 0)
    for name in ("a/0.png", "b/2.png", "b/4.png"):
        write(tmp_path / name, int(name[2]))
    cut = write(tmp_path / "a" / "1.png", 1)
    cut.write_bytes(cut.read_bytes()[:-60])
    (tmp_path / "b" / "5.png").write_text("no image")
    with caplog.at_level(logging.WARNING):
        found = Images(ImageSource(str(tmp_path)))
        seen = [found.example(index, rng()) for index in [*range(len(found))] * 2]
    # An image that stands in comes with its own label, caption and name.
    wanted = [0, 2, 4] if at_once else [0, 2, 2, 4, 0]
    assert numbers(found) == wanted
    for example in seen:
        number = int(example["image"][0, 0, 0])
        label = int(number > 1)
        assert example["name"] == str(tmp_path / "ab"[label] / f"{number}.png")
        assert example["label"] == label and example["caption"] == "ab"[label]
    assert [found.stand_in(i) for i in range(len(found))] == (
        [0, 1, 2] if at_once else [0, 2, 2, 3, 0]
    )
    for name in ("a/1.png", "b/5.png"):
        assert caplog.text.count(f"skipped: {tmp_path / name}") == 1
    with pytest.raises(IndexError):
        found.image(len(found))


@pytest.mark.parametrize("at_once", [True, False])
def test_differing_sizes_are_named(tmp_path, monkeypatch, at_once):
    if not at_once:
        monkeypatch.setattr(data, "PIXELS_READ_AT_ONCE", 0)
    write(tmp_path / "a.png", 1)
    write(tmp_path / "b.png", 2, width=6, height=8)
    with pytest.raises(InputError, match=r"b\.png: is 6x8, but others are 8x6; give a size"):
        numbers(Images(ImageSource(str(tmp_path))))
    found = Images(ImageSource(str(tmp_path)), size=(4, 4))
    wanted = resized(read_image(tmp_path / "b.png"), 4, 4)
    assert torch.equal(found.image(1), wanted) and found.size == (4, 4)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        Images(ImageSource(str(tmp_path)), size=(0, 4))


# ---------------------------------------------------------------------------- examples


def test_held_out_pictures_are_never_trained_on(tmp_path):
    for number in range(10):
        write(tmp_path / f"{number}.png", number)
    source = ImageSource(str(tmp_path), held_out_every=4)
    assert numbers(Images(source, held_out=True)) == [2, 6]
    assert numbers(Images(source)) == [0, 1, 3, 4, 5, 7, 8, 9]
    with pytest.raises(InputError, match="no images are held out"):
        Images(ImageSource(str(tmp_path)), held_out=True)
    with pytest.raises(InputError, match="none are on this side"):
        Images(ImageSource(str(tmp_path), held_out_every=1))


def test_every_other_picture_is_mirrored(tmp_path):
    write(tmp_path / "a.png", 1)
    found, plain = Images(ImageSource(str(tmp_path)), flip=True), read_image(tmp_path / "a.png")
    seen = [found.example(0, rng(seed))["image"] for seed in range(200)]
    mirrored = sum(torch.equal(image, plain.flip(-1)) for image in seen)
    assert 70 < mirrored < 130
    assert mirrored + sum(torch.equal(image, plain) for image in seen) == 200
    assert all(torch.equal(found.image(0), plain) for _ in range(9))


def test_examples_are_no_views_of_the_set(tmp_path):
    write(tmp_path / "a.png", 1)
    found = Images(ImageSource(str(tmp_path)))
    before = found.image(0).clone()
    found.example(0, rng())["image"].zero_()
    found.image(0).zero_()
    assert torch.equal(found.image(0), before)


def test_a_fingerprint_changes_with_the_pictures(tmp_path):
    for number in range(6):
        write(tmp_path / f"{number}.png", number)
    source = ImageSource(str(tmp_path), held_out_every=3)
    first = Images(source).fingerprint()
    assert first == Images(source, flip=True).fingerprint()
    others = [
        Images(source, held_out=True),
        Images(source, channels=1),
        Images(source, size=(4, 4)),
        Images(ImageSource(str(tmp_path))),
    ]
    write(tmp_path / "2.png", 77)
    others.append(Images(source))
    (tmp_path / "2.png").rename(tmp_path / "2b.png")
    others.append(Images(source))
    assert len({first, *(one.fingerprint() for one in others)}) == 7


def test_the_starter_digits():
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    source = ImageSource(
        "starter:digits", label_column="label", names=names, templates=("digit {}",)
    )
    found = Images(source, channels=1)
    assert len(found) == 200 and found.size == (28, 28)
    assert torch.bincount(found.labels).tolist() == [20] * 10
    label = int(found.labels[5])
    assert found.caption_of(5, rng()) == f"digit {names[label]}"
    # White ink on black, as in MNIST, whose mean level is 0.13.
    mean = torch.stack([found.image(i) for i in range(200)]).float().mean() / 255
    assert float(mean) == pytest.approx(0.13, abs=0.02)
    batch = Batches(found, 16).batch(0)
    assert batch["image"].shape == (16, 1, 28, 28) and batch["image"].dtype == torch.uint8
    assert batch["label"].shape == (16,) and len(batch["caption"]) == 16
    assert (resolve_path("starter:digits") / "README.md").is_file()
