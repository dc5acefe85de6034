"""What a small file declares is refused before it is inflated, resampled or allocated."""

import base64
import io
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from PIL import Image

from multidiff.audio.data.mel_files import read_mel
from multidiff.audio.data.sound import SoundFile
from multidiff.audio.mel import PRESETS
from multidiff.config.recipe import read_recipe
from multidiff.image.data.image_files import read_image
from multidiff.image.stable_diffusion.contents import weights_in
from multidiff.text.data.listing import TextSource
from multidiff.text.data.subwords import HuggingFaceVocabulary, SentencePieceVocabulary
from multidiff.text.data.tables import read_table
from multidiff.utils.budgets import check_npz
from multidiff.utils.errors import InputError

HIFIGAN = PRESETS["hifigan-22k"]


def refused(call, most_bytes=40 << 20):
    """The line with which a file is refused, for little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            call()
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()
    line = str(caught.value)
    assert "\n" not in line
    return line


def header(shape):
    file = io.BytesIO()
    declared = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, declared)
    return file.getvalue()


def test_an_npz_file_that_inflates(tmp_path):
    path = tmp_path / "a.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("mel.npy", "w") as array,
    ):
        array.write(header((80, 230_400)))
        for _ in range(9):
            array.write(bytes(8 << 20))
    assert path.stat().st_size < 100_000
    assert "as decompression bombs do" in refused(lambda: read_mel(path, HIFIGAN))
    # A header may declare more than the zip file knows of.
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mel.npy", header((80, 10**9)) + bytes(64))
    assert "declares 320,000,000,000 bytes" in refused(lambda: check_npz(path))


def test_a_mel_beside_a_note_and_one_in_bfloat16(tmp_path):
    levels = np.linspace(-11, 1.5, 80 * 30, dtype=np.float32).reshape(80, 30)
    path = tmp_path / "a.npz"
    np.savez(path, spectrum=levels, words=np.array(["a", "b"]), preset="hifigan-22k")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("note", "not an array")
    assert read_mel(path, HIFIGAN).num_frames == 30
    path = tmp_path / "a.safetensors"
    mel = torch.from_numpy(levels).to(torch.bfloat16)
    safetensors.torch.save_file({"mel": mel}, path, {"preset": "hifigan-22k"})
    assert read_mel(path, HIFIGAN).num_frames == 30


@pytest.mark.parametrize(("rate", "channels"), [(1, 1), (10_000_000, 1), (22050, 900), (0, 1)])
def test_a_sound_that_no_recorder_writes(tmp_path, rate, channels):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(900, np.float32), 22050, format="WAV", subtype="PCM_16")
    content = bytearray(file.getvalue())
    content[22:24] = struct.pack("<H", channels)
    content[24:28] = struct.pack("<I", rate)
    content[32:34] = struct.pack("<H", 2 * channels)
    (tmp_path / "a.wav").write_bytes(content)
    assert str(tmp_path) in refused(lambda: SoundFile(tmp_path / "a.wav").read(22050))


def test_a_picture_of_a_hundred_million_pixels(tmp_path):
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, format="PNG")
    assert "declares 12000 x 12000 pixels" in refused(lambda: read_image(file.getvalue(), "a"))


def test_a_parquet_file_that_inflates(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": pyarrow.array([b"x" * (8 << 20)] * 9)})
    pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=False)
    del table
    assert path.stat().st_size < 1_000_000
    line = refused(lambda: read_table(str(path), ["text"], True, "train", None))
    assert "bytes in a file of" in line


@pytest.mark.parametrize(
    "text",
    [
        "a: [" + "1," * 100_000 + "]",
        "a: " + "[" * 60_000,
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]\n" for n in range(1, 9)),
    ],
    ids=["long", "deep", "aliases"],
)
def test_recipes_that_expand(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    assert "a.yaml" in refused(lambda: read_recipe(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    "listed", [{"a": 3}, {"a": "../b"}, {"a": "/b"}, {"a": "x/b"}, {"a": ".."}, {"a": ""}, [1], {}]
)
def test_an_index_stays_in_its_folder(tmp_path, listed):
    folder = tmp_path / "inner"
    folder.mkdir()
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "b")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    assert str(index) in refused(lambda: weights_in(folder))


def test_an_index_may_name_links(tmp_path):
    """Caches of the hub keep files elsewhere and link to them."""
    folder = tmp_path / "inner"
    folder.mkdir()
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "blob")
    (folder / "part.safetensors").symlink_to(tmp_path / "blob")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    assert set(weights_in(folder)) == {"a"}


@pytest.mark.parametrize(
    ("pre_tokenizer", "unknown"),
    [({"type": "FixedLength", "length": 0}, "a"), ({"type": "Whitespace"}, "[NOPE]")],
)
def test_a_tokenizer_that_panics(tmp_path, capfd, pre_tokenizer, unknown):
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": unknown}
    content = {"version": "1.0", "pre_tokenizer": pre_tokenizer, "model": model}
    absent = ("truncation", "padding", "normalizer", "post_processor", "decoder")
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**dict.fromkeys(absent), "added_tokens": [], **content}))
    vocabulary = HuggingFaceVocabulary(4, str(tmp_path))
    line = refused(lambda: vocabulary.numbers("a zebra"))
    assert line.startswith(f"{path}: is not a tokenizer (")
    assert "panicked" not in capfd.readouterr().err


def test_a_table_whose_text_is_not_utf_8(tmp_path):
    """The library finds out only when the row is read."""
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a cat", "a dog sat"]}), path)
    path.write_bytes(path.read_bytes().replace(b"a dog sat", b"a d\xffg sat"))
    source = TextSource(str(path))
    assert str(path) in refused(lambda: source.rows(source.listing(), False))


def test_pieces_that_are_not_utf_8(tmp_path):
    """The library reads such a model and fails of some texts later."""
    (tmp_path / "a.txt").write_text("\n".join(f"row {n} of many small ones" for n in range(40)))
    made = SentencePieceVocabulary(30, TextSource(str(tmp_path / "a.txt")))
    content = base64.b64decode(made.assets()["sentencepiece.txt"])
    assert content.count(b"\n\x03\xe2\x96\x81") == 1  # the piece that is a space
    spoiled = content.replace(b"\n\x03\xe2\x96\x81", b"\n\x03\xe2\xff\x81")
    (tmp_path / "sentencepiece.txt").write_bytes(base64.b64encode(spoiled))
    line = refused(lambda: SentencePieceVocabulary(30).load_assets(tmp_path))
    assert "sentencepiece.txt: is not a SentencePiece model" in line
