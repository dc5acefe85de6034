"""Images of every kind come in as the same bytes, and go out as they were."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from multidiff.image.data import image_files as images
from multidiff.image.data.image_files import read_facts, read_image, write_image
from multidiff.utils.errors import InputError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind, content):
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def levels(tensor):
    return tensor.permute(1, 2, 0).numpy()


# ---------------------------------------------------------------------------- reading


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "webp"])
def test_colour_comes_in_as_it_is(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(COLOR).save(path, **({"lossless": True} if ending == "webp" else {}))
    for source in (path, str(path), path.read_bytes()):
        found = read_image(source)
        assert found.dtype == torch.uint8 and found.is_contiguous()
        np.testing.assert_array_equal(levels(found), COLOR)


def test_grey_is_the_luminance_of_colour():
    found = read_image(png(Image.fromarray(COLOR)), channels=1)
    wanted = COLOR @ np.array([0.299, 0.587, 0.114])
    assert found.shape == (1, 5, 7)
    assert np.abs(found[0].numpy() - wanted).max() <= 0.51


def test_grey_as_colour_is_grey():
    found = read_image(png(Image.fromarray(GREY)), channels=3)
    np.testing.assert_array_equal(found.numpy(), np.stack([GREY] * 3))


def test_black_and_white_and_palettes():
    line = Image.fromarray(GREY).point(lambda level: 255 * (level > 99), mode="1")
    found = read_image(png(line), channels=1)[0]
    np.testing.assert_array_equal(found.numpy(), 255 * (GREY > 99))
    few = Image.fromarray(COLOR).quantize(8)
    assert few.mode == "P"
    np.testing.assert_array_equal(levels(read_image(png(few))), np.array(few.convert("RGB")))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_lies_on_white(channels):
    alpha = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
    image = Image.fromarray(np.dstack([COLOR, alpha]))
    ratio = alpha[..., None] / 255
    wanted = ratio * COLOR + (1 - ratio) * 255
    if channels == 1:
        wanted = (wanted @ np.array([0.299, 0.587, 0.114]))[..., None]
    found = levels(read_image(png(image), channels=channels))
    assert np.abs(found - wanted).max() <= 2
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    wanted = ratio[..., 0] * GREY + (1 - ratio[..., 0]) * 255
    assert np.abs(read_image(png(grey), channels=1)[0].numpy() - wanted).max() <= 1


def test_a_transparent_colour_of_a_palette_lies_on_white():
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    found = read_image(png(image, transparency=0))
    assert levels(found).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_what_shows_through_can_be_black():
    """As in masks that editors export: white where to repaint, transparent elsewhere."""
    levels_ = np.full((5, 7, 4), 255, np.uint8)
    levels_[:, 3:, 3] = 0
    found = read_image(png(Image.fromarray(levels_)), channels=1, background="black")
    assert (found[0, :, :3] == 255).all() and (found[0, :, 3:] == 0).all()


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_of_several_frames_the_first_is_taken_and_that_is_announced(tmp_path, caplog, ending):
    first, second = (Image.new("RGB", (6, 4), color) for color in ("black", "white"))
    path = tmp_path / f"a.{ending}"
    first.save(path, save_all=True, append_images=[second])
    assert int(read_image(path).max()) < 9
    assert f"{path}: has 2 frames; the first is used" in caplog.text
    caplog.clear()
    first.save(path)
    read_image(path)
    assert not caplog.text


def test_sixteen_bits_are_brought_to_eight(tmp_path):
    deep = (np.arange(65536, dtype=np.uint32).astype(np.uint16)).reshape(256, 256)
    wanted = np.round(deep / 65535 * 255)
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "a.tiff")
    (tmp_path / "a.pgm").write_bytes(b"P5\n256 256\n65535\n" + deep.byteswap().tobytes())
    for name in ("a.png", "a.tiff", "a.pgm"):
        np.testing.assert_array_equal(read_image(tmp_path / name, channels=1)[0], wanted)


def test_sixteen_bits_of_colour():
    rows = np.concatenate([np.zeros((5, 1, 1)), np.repeat(COLOR, 2, axis=2).reshape(5, 1, 42)], 2)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0))
    content += chunk(b"IDAT", zlib.compress(rows.astype(np.uint8).tobytes())) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(levels(read_image(content)), COLOR)


@pytest.mark.parametrize("ending", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(tmp_path, orientation, ending):
    # Quadrants of one colour, so that a lossy format changes little.
    corners = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 250]]], np.uint8)
    image = Image.fromarray(corners.repeat(16, 0).repeat(32, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{ending}", exif=exif)
    with Image.open(tmp_path / f"a.{ending}") as file:
        wanted = np.array(ImageOps.exif_transpose(file).convert("RGB"))
    assert wanted.shape == ((32, 64, 3) if orientation < 5 else (64, 32, 3))
    np.testing.assert_array_equal(levels(read_image(tmp_path / f"a.{ending}")), wanted)


def test_transparent_and_turned_at_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.dstack([COLOR, np.full((5, 7), 255, np.uint8)]))
    found = read_image(png(image, exif=exif))
    np.testing.assert_array_equal(levels(found), np.rot90(COLOR, -1))


def test_a_bad_camera_note_loses_no_picture():
    found = read_image(png(Image.fromarray(COLOR), exif=b"Exif\0\0II*\0\xff\xff"))
    np.testing.assert_array_equal(levels(found), COLOR)


def test_inks_of_print(tmp_path):
    inks = Image.fromarray(COLOR.repeat(8, 0).repeat(8, 1)).convert("CMYK")
    inks.save(tmp_path / "a.jpg", quality=95)
    found = levels(read_image(tmp_path / "a.jpg"))
    with Image.open(tmp_path / "a.jpg") as file:
        np.testing.assert_array_equal(found, np.array(file.convert("RGB")))


def _photo(path):
    Image.fromarray(COLOR.repeat(20, 0).repeat(20, 1)).save(path)
    return path.read_bytes()


def _cut(path):
    path.write_bytes(_photo(path)[:-400])


def _flipped_bit(path):
    content = bytearray(png(Image.fromarray(COLOR)))
    content[60] ^= 4
    path.write_bytes(content)


BAD = {
    "empty": ("a.png", lambda path: path.write_bytes(b""), "is empty"),
    "text": ("a.png", lambda path: path.write_text("no image" * 50), "is not an image"),
    "missing": ("a.png", lambda path: None, "no such image"),
    "folder": ("a.png", lambda path: path.mkdir(), "is a folder; name one image"),
    "cut-png": ("a.png", _cut, "truncated or damaged"),
    "cut-jpeg": ("a.jpg", _cut, "truncated or damaged"),
    "flipped-bit": ("a.png", _flipped_bit, "truncated or damaged"),
    "header-only": ("a.png", lambda path: path.write_bytes(_photo(path)[:30]), "is not an image"),
    "floats": (
        "a.tiff", lambda path: Image.fromarray(GREY.astype(np.float32)).save(path),
        "unknown range",
    ),
    "deep": (
        "a.tiff", lambda path: Image.fromarray(GREY.astype(np.int32) << 20).save(path),
        "beyond 16 bits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_picture_is_named(tmp_path, kind):
    name, make, reason = BAD[kind]
    make(tmp_path / name)
    with pytest.raises(InputError, match=reason) as reported:
        read_image(tmp_path / name)
    assert str(tmp_path / name) in str(reported.value) and "\n" not in str(reported.value)
    if kind not in ("missing", "folder"):
        with pytest.raises(InputError, match=rf"row 3: .*{reason}"):
            read_image((tmp_path / name).read_bytes(), "row 3")


def test_a_picture_that_would_fill_the_memory(tmp_path):
    content = b"\x89PNG\r\n\x1a\n"
    content += chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(content + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b""))
    with warnings.catch_warnings(), pytest.raises(InputError, match=r"bomb.*too large"):
        read_image(path)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="1 \\(grey\\) or 3"):
        read_image(png(Image.fromarray(COLOR)), channels=4)


# ---------------------------------------------------------------------------- writing

FACTS = {
    "parameters": "a cat, steps: 20\nseed: 7",
    "prompt": "Grüße, 猫と🐈",
    "umlaut": "ü",
    "nul": "a\0b",
    "": "",
}


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_and_their_facts_go_out_and_come_back(tmp_path, channels):
    image = torch.randint(0, 256, (channels, 6, 9), dtype=torch.uint8)
    facts = {key: value for key, value in FACTS.items() if key}
    write_image(image, tmp_path / "new" / "a.png", facts)
    assert torch.equal(read_image(tmp_path / "new" / "a.png", channels=channels), image)
    assert read_facts(tmp_path / "new" / "a.png") == facts
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    with Image.open(tmp_path / "new" / "a.png") as file:
        assert file.mode == {1: "L", 3: "RGB"}[channels]


def test_words_that_are_no_unicode_do_not_lose_the_picture(tmp_path):
    image = torch.zeros(1, 2, 2, dtype=torch.uint8)
    write_image(image, tmp_path / "a.png", {"prompt": "caf\udce9"})
    assert read_facts(tmp_path / "a.png") == {"prompt": "caf?"}


def test_pictures_without_facts(tmp_path):
    Image.fromarray(COLOR).save(tmp_path / "a.jpg")
    assert read_facts(tmp_path / "a.jpg") == {}
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(InputError, match=r"b\.png: is not an image"):
        read_facts(tmp_path / "b.png")


def test_what_cannot_be_written(tmp_path, unchecked_signatures):
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"written as \.png"):
        write_image(image, tmp_path / "a.jpg")
    for key in ("", "k" * 80, "schlüssel", "a\nb"):
        with pytest.raises(ValueError, match="not a PNG keyword"):
            write_image(image, tmp_path / "a.png", {key: "x"})
    for wrong in (image.float(), image[0], torch.zeros(2, 4, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="not an image of bytes"):
            write_image(wrong, tmp_path / "a.png")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file, not a folder"):
        write_image(image, tmp_path / "file" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_endings_are_those_that_pillow_reads():
    Image.init()
    assert set(images.EXTENSIONS) <= {k for k, v in Image.EXTENSION.items() if v in Image.OPEN}
