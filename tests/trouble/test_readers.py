"""Whatever happened to a file, its reader reads it or says in a line what is wrong with it."""

import io
import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from mishaps import cases, read_or_refused, refusal, replaced, spoiled
from PIL import Image
from pipelines import write_tokenizer
from program import RECIPES

from multidiff.audio.data.mel_files import read_mel
from multidiff.audio.data.sound import SoundFile
from multidiff.audio.mel import PRESETS
from multidiff.audio.vocoder.inference_schedule import read_plans
from multidiff.image.data.image_files import read_facts, read_image
from multidiff.image.data.listing import ImageSource
from multidiff.image.stable_diffusion.contents import names_in, tensors_in
from multidiff.image.tokenizers import ClipTokenizer
from multidiff.models.converters import convert_weights
from multidiff.models.loading import check_recipe, load, shipped
from multidiff.models.weights import read_tensors
from multidiff.text.data.listing import TextSource
from multidiff.text.data.subwords import HuggingFaceVocabulary, SentencePieceVocabulary
from multidiff.text.data.vocabulary import WordVocabulary
from multidiff.training.checkpoints import Checkpoint, CheckpointFolder, read

HIFIGAN = PRESETS["hifigan-22k"]


def stored(save, *arguments, **options):
    """What a function writes into a file."""
    file = io.BytesIO()
    save(file, *arguments, **options)
    return file.getvalue()


def tones(ending):
    wave = np.sin(np.arange(2205) / 7).astype(np.float32) / 2
    return stored(soundfile.write, wave, 22050, format=ending)


SOUNDS = {ending: tones(ending) for ending in ("wav", "flac", "ogg", "mp3")}
LEVELS = np.linspace(-11, 1.5, 80 * 30).reshape(80, 30).astype(np.float32)
MELS = {
    "npy": stored(np.save, LEVELS),
    "npz": stored(np.savez, mel=LEVELS, sample_rate_hz=22050),
    "safetensors": safetensors.torch.save({"mel": torch.from_numpy(LEVELS)}),
}
IMAGE = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
IMAGES = {
    ending: stored(IMAGE.save, format=kind)
    for ending, kind in (
        ("png", "png"),
        ("jpg", "jpeg"),
        ("webp", "webp"),
        ("bmp", "bmp"),
        ("gif", "gif"),
        ("tif", "tiff"),
        ("ppm", "ppm"),
    )
}


def after(tmp_path, data, name, content):
    """A file that something happened to."""
    path = tmp_path / name
    path.write_bytes(data.draw(spoiled(content)))
    return path


@given(data=st.data(), ending=st.sampled_from([*SOUNDS]))
@cases(60)
def test_sounds(tmp_path, data, ending):
    path = after(tmp_path, data, f"a.{ending}", SOUNDS[ending])
    read_or_refused(lambda: SoundFile(path).read(16000), path)


@given(data=st.data(), ending=st.sampled_from([*MELS]))
@cases(60)
def test_mels(tmp_path, data, ending):
    path = after(tmp_path, data, f"a.{ending}", MELS[ending])
    read_or_refused(lambda: read_mel(path, HIFIGAN).frames(0, 9), path)


@given(data=st.data(), ending=st.sampled_from([*IMAGES]))
@cases(60)
def test_pictures(tmp_path, data, ending):
    path = after(tmp_path, data, f"a.{ending}", IMAGES[ending])
    read_or_refused(lambda: read_image(path), path)
    read_or_refused(lambda: read_facts(path), path)


ROWS = 'text,meaning,source\nA cat sat.,name[Cat],A cat\n"Two, dogs","name[Dog], food[Fish]",é\n'
TABLES = {
    "csv": ROWS.encode(),
    "tsv": ROWS.replace(",", "\t").encode(),
    "txt": "A cat sat.\nTwo dogs.\n\nÉmile et Zoë.\n".encode(),
    "jsonl": b"".join(
        json.dumps({"text": f"Row {n}", "meaning": "name[Cat]", "source": "é"}).encode() + b"\n"
        for n in range(4)
    ),
}


@given(data=st.data(), ending=st.sampled_from([*TABLES]), held_out_every=st.integers(0, 3))
@cases(60)
def test_texts_and_pairs(tmp_path, data, ending, held_out_every):
    path = after(tmp_path, data, f"a.{ending}", TABLES[ending])
    named = {} if ending == "txt" else {"meaning_column": "meaning", "source_column": "source"}
    source = TextSource(str(path), held_out_every=held_out_every, **named)
    read_or_refused(lambda: source.rows(source.listing(), False), path)


LISTS = {
    "metadata.csv": b"file_name,text,label\na.png,a cat,cat\nb.png,a dog,dog\n",
    "metadata.jsonl": b'{"file_name": "a.png", "text": "a cat", "label": 0}\n' * 2,
}


@given(data=st.data(), name=st.sampled_from([*LISTS]))
@cases(40)
def test_lists_of_pictures(tmp_path, data, name):
    for old in LISTS:
        (tmp_path / old).unlink(missing_ok=True)
    after(tmp_path, data, name, LISTS[name])
    source = ImageSource(str(tmp_path), label_column="label", caption_column="text")
    read_or_refused(source.listing, tmp_path)


RECIPE = (RECIPES / "smoke" / "speech.yaml").read_bytes()


@given(data=st.data())
@cases(60)
def test_recipes(tmp_path, data):
    path = after(tmp_path, data, "a.yaml", RECIPE)
    for line in refusal(lambda: check_recipe(path)).splitlines():
        assert line.startswith(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "model: " + "[" * 5000,
        "model: " + "{a: " * 3000,
        "model:\n" + "".join(" " * n + "a:\n" for n in range(1, 2000)),
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{two}: &{two} [{', '.join([f'*{one}'] * 9)}]\n"
            for one, two in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "model: &a {b: *a}",
        "model: &a [*a]",
        "? [a, b]\n: 1",
        "model: {<<: {use: Vocoder}}",
        "model: !!python/object/apply:os.system [ls]",
        "model: !!binary x",
        "model: 2024-13-45",
        "model: !!int x",
        "model: !!float x",
        "model: !!timestamp x",
        "model: !!set {a}",
        "trainer: {use: Trainer, steps: " + "9" * 5000 + "}",
        "trainer: {use: Trainer, steps: 1, learning_rate: 1e999}",
        "trainer: {use: Trainer, steps: 1, learning_rate: .nan}",
        "trainer: {use: [Trainer]}",
        "trainer: {use: {}}",
        "trainer: {use: }",
        "trainer: {use: Trainer, 1: 2}",
        "- a",
        "a",
        "",
        "---\na: 1\n---\nb: 2\n",
        "%YAML 9.9\n---\na: 1",
        "a: b: c",
        "\t",
        "a: \0",
        "a: *b",
        "a: 'x",
    ],
)
def test_recipes_that_are_strange(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    for line in refusal(lambda: check_recipe(path)).splitlines():
        assert line.startswith(str(path)) and len(line) < 2000


WEIGHTS = safetensors.torch.save({"a": torch.zeros(4), "b": torch.ones(2, 3)}, {"format": "pt"})
PICKLES = [
    stored(
        lambda file, zipped=zipped: torch.save(
            {"state_dict": {"a": torch.zeros(3)}, "step": 1},
            file,
            _use_new_zipfile_serialization=zipped,
        )
    )
    for zipped in (True, False)
]


@given(
    data=st.data(),
    content=st.sampled_from([WEIGHTS, *PICKLES]),
    ending=st.sampled_from(["safetensors", "ckpt"]),
)
@cases(60)
def test_weights(tmp_path, data, content, ending):
    path = after(tmp_path, data, f"a.{ending}", content)
    read_or_refused(lambda: read_tensors(path), path)
    read_or_refused(lambda: names_in(path), path)
    read_or_refused(lambda: tensors_in(path), path)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A model's folder that may be spoiled."""
    folder = tmp_path_factory.mktemp("models") / "copied"
    return shutil.copytree(shipped()["restaurant-control"], folder)


@given(
    data=st.data(), name=st.sampled_from(["vocabulary.json", "recipe.yaml", "model.safetensors"])
)
@cases(40)
def test_folders_of_models(copied, data, name):
    good = (copied / name).read_bytes()
    if len(good) > 10_000:  # what is behind the header is only numbers
        good, rest = good[:10_000], good[10_000:]
    else:
        rest = b""
    with replaced(copied / name, data.draw(spoiled(good)) + rest):
        for line in refusal(lambda: load(copied)).splitlines():  # a recipe may have many faults
            assert str(copied / name) in line


@given(data=st.data())
@cases(30)
def test_plans(tmp_path, data):
    after(tmp_path, data, "plans.json", (shipped()["speech"] / "plans.json").read_bytes())
    read_or_refused(lambda: read_plans(tmp_path), tmp_path / "plans.json")


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = CheckpointFolder(tmp_path_factory.mktemp("checkpoints"))
    parts = ("model", "ema", "optimizer")
    for step in (1, 2):
        tensors = {part: {"a": torch.full((3,), float(step))} for part in parts}
        folder.save(Checkpoint(step, tensors, {"ema_updates": 1}, {"recipe.yaml": "a: 1\n"}))
    return folder


@given(data=st.data(), name=st.sampled_from(["state.json", "model.safetensors", "recipe.yaml"]))
@cases(40)
def test_checkpoints(two_checkpoints, data, name):
    newest = two_checkpoints.paths()[-1]
    with replaced(newest / name, data.draw(spoiled((newest / name).read_bytes()))):
        line = read_or_refused(lambda: read(newest), newest)
        assert two_checkpoints.newest().step == (1 if line else 2)


def nested(opening, closing=""):
    return opening * 100_000 + closing


@pytest.mark.parametrize(
    "text",
    [
        nested("["),
        nested('{"a":'),
        "1",
        "[]",
        "null",
        '{"step": "x", "numbers": {}, "sha256": {}}',
        '{"step": 1, "numbers": 1, "sha256": {}}',
        '{"step": 1, "numbers": {}, "sha256": [1]}',
        '{"8": 1}',
        '{"pieces": [[]], "counts": []}',
        '{"pieces": 1}',
        "9" * 5000,
    ],
    ids=range(12),
)
def test_json_that_is_strange(copied, two_checkpoints, tmp_path, text):
    newest = two_checkpoints.paths()[-1]
    with replaced(newest / "state.json", text.encode()):
        assert read_or_refused(lambda: read(newest), newest)
    with replaced(copied / "vocabulary.json", text.encode()):
        assert read_or_refused(lambda: load(copied), copied)
    for name in ("plans.json", "vocab.json", "merges.txt", "metadata.jsonl", "model_index.json"):
        (tmp_path / name).write_text(text)
    assert read_or_refused(lambda: read_plans(tmp_path), tmp_path) or text == "[]"
    assert read_or_refused(lambda: ClipTokenizer(str(tmp_path))(["a cat"]), "vocab.json")
    assert read_or_refused(ImageSource(str(tmp_path)).listing, tmp_path)
    assert read_or_refused(lambda: convert_weights(tmp_path), tmp_path)
    (tmp_path / "a.jsonl").write_text(text)
    assert read_or_refused(TextSource(str(tmp_path / "a.jsonl")).listing, tmp_path)


TEXTS = [f"A cat number {n} sat on the mat, and {n} dogs barked." for n in range(40)]


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """Vocabularies of each kind, and the files that they keep."""
    folder = tmp_path_factory.mktemp("vocabularies")
    (folder / "a.txt").write_text("\n".join(TEXTS))
    source = TextSource(str(folder / "a.txt"))
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=60, special_tokens=["[UNK]"])
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    kinds = {
        "words": (WordVocabulary, {"size": 12}, WordVocabulary(12, source)),
        "pieces": (SentencePieceVocabulary, {"size": 36}, SentencePieceVocabulary(36, source)),
        "tokens": (HuggingFaceVocabulary, {"size": tokenizer.get_vocab_size() - 1 + 3}, None),
    }
    texts = {
        name: made.assets() if made else {"tokenizer.json": (folder / "tokenizer.json").read_text()}
        for name, (_, _, made) in kinds.items()
    }
    return {
        name: (kind, options, *next(iter(texts[name].items())))
        for name, (kind, options, _) in kinds.items()
    }


@given(data=st.data(), kind=st.sampled_from(["words", "pieces", "tokens"]))
@cases(60)
def test_vocabularies(tmp_path, vocabularies, data, kind):
    make, options, name, content = vocabularies[kind]
    path = after(tmp_path, data, name, content.encode())
    vocabulary = make(**options)
    if not read_or_refused(lambda: vocabulary.load_assets(tmp_path), path):
        vocabulary.text(vocabulary.numbers("A cat. 漢字"))


@given(data=st.data(), name=st.sampled_from(["vocab.json", "merges.txt"]))
@cases(30)
def test_the_tokenizer_of_pictures(tmp_path, data, name):
    write_tokenizer(tmp_path)
    path = after(tmp_path, data, name, (tmp_path / name).read_bytes())

    def read_and_use():
        tokenizer = ClipTokenizer(str(tmp_path))
        tokenizer(["a cat"])

    read_or_refused(read_and_use, path.name)
