"""A checkpoint is the whole run: what --resume takes from it, compares and refuses."""

import json
import random
import shutil

import numpy as np
import pytest
import torch
from commands import complains, does
from PIL import Image
from toys import ring_task

import multidiff
from multidiff.config.recipe import read_recipe
from multidiff.data.batches import Batches
from multidiff.models.weights import read_tensors, save_tensors
from multidiff.training.checkpoints import CheckpointFolder, check
from multidiff.training.trainer import Trainer
from multidiff.utils.errors import InputError
from multidiff.utils.fingerprint import WHOLE_BYTES, difference, of_dataset, of_files

TRAINER = """
trainer: {use: Trainer, steps: 2, learning_rate: 1e-3, log_every: 2, save_every: 2,
          validate_every: 2, validation_batches: 1}
"""
IMAGES = """
model:
  use: ImageDiffusion
  domain: {use: PixelDomain, size: [8, 8], channels: 1}
  process:
    use: GaussianProcess
    schedule: {use: BetaSchedule.linear, steps: 1000}
    prediction: epsilon
  denoiser: {use: UNet, in_channels: 1, out_channels: 1, channels: [8, 8], layers: 1,
             attention: [none, none], heads: [1, 1], groups: 4}
data:
  use: Batches
  batch_size: 2
  examples: {use: Images, source: {path: FOLDER}, size: [8, 8], channels: 1}
"""
TEXTS = """
model:
  use: MaskedText
  domain:
    use: TokenDomain
    vocabulary: {use: CharacterVocabulary, size: 9, source: {path: FOLDER/a.txt}}
    length: 16
  process: {use: MaskProcess, size: 9, schedule: {use: LogLinearMasks}}
  denoiser: {use: TokenDenoiser, size: 9, width: 8, layers: 1, heads: 1, length: 16}
data:
  use: Batches
  batch_size: 2
  examples: {use: Sentences, source: {path: FOLDER/a.txt}}
"""


def fill(folder):
    """Four images and a text of six characters."""
    folder.mkdir()
    for number in range(4):
        levels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(levels).save(folder / f"{number}.png")
    (folder / "a.txt").write_text("\n".join(["aaaa bbb", "cc dd e", "abcde"]))


def begin(home, recipe):
    fill(home / "data")
    (home / "recipe.yaml").write_text((recipe + TRAINER).replace("FOLDER", str(home / "data")))
    assert multidiff.cli.main.run(words(home)) == 0


def words(home, *more):
    return ["train", str(home / "recipe.yaml"), *more, "--out", str(home / "run")]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Runs of two steps, by the kind of their data."""

    homes = {}
    for kind, recipe in {"images": IMAGES, "texts": TEXTS}.items():
        homes[kind] = tmp_path_factory.mktemp(kind)
        begin(homes[kind], recipe)
    return homes


@pytest.fixture
def home(request, begun, tmp_path):
    """A copy of one of them, so that the next test has it as it was; its data are moved."""
    copy = tmp_path / "home"
    shutil.copytree(begun[getattr(request, "param", "images")], copy)
    text = (copy / "recipe.yaml").read_text()
    old = str(begun[getattr(request, "param", "images")] / "data")
    (copy / "recipe.yaml").write_text(text.replace(old, str(copy / "data")))
    return copy


def changed_file(home):
    path = home / "data" / "1.png"
    path.write_bytes((home / "data" / "2.png").read_bytes())


def changed_text(home):
    """Another order of frequencies: another vocabulary under the same embeddings."""
    (home / "data" / "a.txt").write_text("\n".join(["eeee ddd", "cc bb a", "edcba"]))


RECIPE_CHANGES = {
    "prediction": ("model.process.prediction=x0", "model.process.prediction was epsilon, is x0"),
    "schedule": ("model.process.schedule.steps=500", "schedule.steps was 1000, is 500"),
    "seed": ("trainer.seed=1", "trainer.seed was 0, is 1"),
    "batch size": ("data.batch_size=4", "data.batch_size was 2, is 4"),
    "network": ("model.denoiser.channels=[8,16]", "model.denoiser.channels.1 was 8, is 16"),
    "optimizer": ("trainer.learning_rate=0.1", "trainer.learning_rate was 0.001, is 0.1"),
    "accumulation": (
        "trainer.gradient_accumulation_steps=2",
        "trainer.gradient_accumulation_steps was 1, is 2",
    ),
}
DATA_CHANGES = {
    "file changed": (changed_file, "data.examples.source: 1.png changed"),
    "file added": (
        lambda home: shutil.copy(home / "data" / "1.png", home / "data" / "9.png"),
        "data.examples.source: 9.png added",
    ),
    "file removed": (
        lambda home: (home / "data" / "3.png").unlink(),
        "data.examples.source: 3.png removed",
    ),
}
HARMLESS = {
    "moved folder": (),  # the fixture moves it
    "workers": ("trainer.workers=1",),
    "threads": ("trainer.threads=1",),
    "more steps": (),  # the test asks for them
    "what is written": (
        "trainer.save_every=1",
        "trainer.log_every=1",
        "trainer.keep_checkpoints=2",
    ),
}  # and the number of processes: test_interruptions.py


@pytest.mark.parametrize("change", RECIPE_CHANGES)
def test_a_changed_recipe_is_refused_by_name(home, capsys, change):
    override, reported = RECIPE_CHANGES[change]
    line = complains(capsys, *words(home, override, "--resume"))
    assert f"recipe: {reported}" in line or f"recipe: model.process.{reported}" in line
    assert "--allow-changed recipe" in line and "--allow-changed data" not in line


@pytest.mark.parametrize("change", DATA_CHANGES)
def test_changed_data_are_refused_by_name(home, capsys, change):
    happens, reported = DATA_CHANGES[change]
    happens(home)
    line = complains(capsys, *words(home, "--resume"))
    assert f"data: {reported}" in line and "--allow-changed data" in line


@pytest.mark.parametrize("change", HARMLESS)
def test_harmless_changes_are_accepted(home, capsys, change):
    capsys.readouterr()
    assert (
        multidiff.cli.main.run(words(home, "trainer.steps=3", *HARMLESS[change], "--resume")) == 0
    )
    assert "changed" not in capsys.readouterr().err
    assert CheckpointFolder(home / "run").newest().record.history == ()


@pytest.mark.parametrize("home", ["texts"], indirect=True)
def test_a_changed_vocabulary_is_refused(home, capsys):
    locations = ("domain.vocabulary", "process", "denoiser")
    sizes = [f"model.{where}.size=8" for where in locations]
    line = complains(capsys, *words(home, *sizes, "--resume"))
    assert "recipe: model.domain.vocabulary.size was 9, is 8" in line
    changed_text(home)
    line = complains(capsys, *words(home, "--resume"))
    assert "a.txt changed" in line and "model.vocabulary.json" in line


@pytest.mark.parametrize("home", ["texts"], indirect=True)
def test_the_vocabulary_is_the_checkpoints_whatever_became_of_its_source(home, capsys):
    before = (home / "run" / "model" / "vocabulary.json").read_text()
    changed_text(home)
    allowed = ["--resume", "--allow-changed", "data"]
    does(capsys, *words(home, "trainer.steps=3", *allowed))
    checkpoint = CheckpointFolder(home / "run").paths()[-1]
    assert checkpoint.name == "00000003"
    for folder in (home / "run" / "model", checkpoint):
        assert (folder / "vocabulary.json").read_text() == before
        assert "at step 2: data: data.examples.source: a.txt changed" in (
            (folder / "recipe.yaml").read_text()
        )
    shutil.rmtree(home / "data")  # a checkpoint needs nothing beside it
    numbers = multidiff.load(checkpoint).domain.vocabulary.numbers("abcde")
    assert numbers == multidiff.load(home / "run").domain.vocabulary.numbers("abcde")


def test_a_change_that_is_meant_goes_on_and_is_written_down(home, capsys):
    change = ["trainer.seed=1", "trainer.steps=3"]
    does(capsys, *words(home, *change, "--resume", "--allow-changed", "recipe"))
    text = (home / "run" / "model" / "recipe.yaml").read_text()
    assert text.startswith("# Changed at step 2: recipe: trainer.seed was 0, is 1\n")
    assert read_recipe(home / "run" / "model" / "recipe.yaml").value["trainer"].value["seed"].value
    (entry,) = CheckpointFolder(home / "run").newest().record.history
    assert entry == {"step": 2, "changes": ["recipe: trainer.seed was 0, is 1"]}
    does(capsys, *words(home, "trainer.seed=1", "trainer.steps=4", "--resume"))
    assert (home / "run" / "model" / "recipe.yaml").read_text().startswith("# Changed at step 2")
    assert "was 1, is 0" in complains(capsys, *words(home, "trainer.steps=4", "--resume"))


def test_a_change_of_both_kinds_needs_both_allowed(home, capsys):
    changed_file(home)
    both = ["trainer.seed=1", "trainer.steps=3", "--resume"]
    assert "recipe: trainer.seed" in complains(capsys, *words(home, *both))
    both += ["--allow-changed", "recipe"]
    assert "data: data.examples.source" in complains(capsys, *words(home, *both))
    does(capsys, *words(home, *both, "--allow-changed", "data"))
    (entry,) = CheckpointFolder(home / "run").newest().record.history
    assert [change.partition(":")[0] for change in entry["changes"]] == ["recipe", "data"]


def test_wrong_ways_to_resume(home, capsys):
    assert "2 steps are done" in complains(capsys, *words(home, "trainer.steps=1", "--resume"))
    nonsense = words(home, "--resume", "--allow-changed", "weights")
    assert "--allow-changed weights: expected recipe or data" in complains(capsys, *nonsense)
    alone = words(home, "--allow-changed", "data")
    assert "requires --resume" in complains(capsys, *alone)


def test_a_longer_decay_is_said(home, capsys):
    decays = ["trainer.decay=linear", "trainer.steps=3", "--resume", "--allow-changed", "recipe"]
    does(capsys, *words(home, *decays))
    capsys.readouterr()
    assert (
        multidiff.cli.main.run(words(home, "trainer.decay=linear", "trainer.steps=4", "--resume"))
        == 0
    )
    assert "decays over 4 steps instead of 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "batch_size", "offset", "reported"),
    [
        ({"seed": 1}, 2, 0.0, "recipe: trainer.seed was 0, is 1"),
        ({}, 4, 0.0, "data: data.batches: is different data"),
        ({}, 2, 1e-6, "data: data.batches: is different data"),
        ({"log_every": 3}, 2, 0.0, None),
    ],
)
def test_in_python_too(tmp_path, options, batch_size, offset, reported):
    def fit(steps, size, extra, resume=False, **settings):
        points = torch.linspace(0, 1, 32).view(-1, size, 2) + extra
        trainer = Trainer(steps=steps, **settings)
        batches = [{"points": one} for one in points]
        trainer.fit(ring_task(), batches, out=tmp_path, resume=resume)

    fit(1, 2, 0.0)
    if reported is None:
        fit(2, batch_size, offset, resume=True, **options)
        return
    with pytest.raises(InputError, match=reported):
        fit(2, batch_size, offset, resume=True, **options)


# --------------------------------------------------------------------------- one digest


def test_any_flipped_bit_of_any_file_is_found_and_named(home):
    newest = CheckpointFolder(home / "run").paths()[-1]
    found = sorted(path.name for path in newest.iterdir())
    assert found == ["ema.safetensors", "manifest.json", "model.safetensors",
                     "optimizer.safetensors", "recipe.yaml", "run.json", "state.json"]  # fmt: skip
    locations = random.Random(0)
    for path in newest.iterdir():
        content = path.read_bytes()
        for _ in range(40):
            where, bit = locations.randrange(len(content)), 1 << locations.randrange(8)
            spoiled = bytearray(content)
            spoiled[where] ^= bit
            path.write_bytes(spoiled)
            with pytest.raises(InputError) as refused:
                check(newest)
            assert str(path) in str(refused.value) and "\n" not in str(refused.value)
        with pytest.raises(InputError, match=path.name):  # as a model too
            multidiff.load(newest)
        path.write_bytes(content)
    check(newest)


def test_a_run_of_an_older_layout(home, capsys):
    newest = CheckpointFolder(home / "run").paths()[-1]
    state = json.loads((newest / "state.json").read_text())
    (newest / "state.json").write_text(json.dumps({**state, "sha256": {}}))
    (newest / "manifest.json").unlink()
    line = complains(capsys, *words(home, "--resume"))
    assert f"{newest}: was written by an older version of multidiff" in line


@pytest.mark.parametrize("home", ["images", "texts"], indirect=True)
def test_two_identical_runs_write_identical_bytes(home, begun, request):
    """Of checkpoints and models all, but for where the data lie."""
    kind = request.node.callspec.params["home"]
    shutil.rmtree(home / "run")
    (home / "recipe.yaml").write_text((begun[kind] / "recipe.yaml").read_text())
    assert multidiff.cli.main.run(words(home)) == 0
    runs = [
        {
            str(path.relative_to(one / "run")): path.read_bytes()
            for part in ("model", "checkpoints")
            for path in (one / "run" / part).rglob("*")
            if path.is_file()
        }
        for one in (home, begun[kind])
    ]
    assert len(runs[0]) > 8 and runs[0] == runs[1]


def test_metadata_of_weights_stand_in_one_order(tmp_path):
    """The library draws an order for each process, and for each file."""
    facts = {f"{name}é\n": str(number) for number, name in enumerate("qwertzuiop")}
    for number in range(4):
        path = tmp_path / f"{number}.safetensors"
        save_tensors({"a": torch.arange(3.0), "b": torch.ones(2, 2)}, path, facts)
        assert path.read_bytes() == (tmp_path / "0.safetensors").read_bytes()
    assert read_tensors(path)[1] == facts


# --------------------------------------------------------------------------- fingerprints


def test_fingerprints_of_files(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "a").write_text("one")
        (tmp_path / name / "in" / "b").write_text("two")
    prints = [of_files((tmp_path / name).rglob("*"), tmp_path / name) for name in ("x", "y")]
    assert prints[0] == prints[1] and prints[0]["files"] == 2 and not prints[0]["sampled"]
    (tmp_path / "y" / "in" / "b").write_text("TWO")
    (tmp_path / "y" / "a").rename(tmp_path / "y" / "c")
    now = of_files((tmp_path / "y").rglob("*"), tmp_path / "y")
    assert difference(prints[0], now) == "in/b changed, c added, a removed"
    assert difference(prints[0], dict(prints[1])) == ""


def test_fingerprints_of_large_files_are_sampled(tmp_path, monkeypatch):
    """Past the limit even blocks are read: the first and the last, across files."""
    assert WHOLE_BYTES == 64 << 20
    monkeypatch.setattr("multidiff.utils.fingerprint.WHOLE_BYTES", 32)
    monkeypatch.setattr("multidiff.utils.fingerprint.BLOCK_BYTES", 4)
    content = bytearray(200)
    paths = [tmp_path / "a", tmp_path / "b"]

    def taken():
        paths[0].write_bytes(content[:60])
        paths[1].write_bytes(content[60:])
        return of_files(paths, tmp_path)["content"]

    before, found = taken(), []
    for where in range(200):
        content[where] = 1
        found.append(taken() != before)
        content[where] = 0
    # A block that begins in one file ends with it.
    assert 28 < sum(found) <= 32 and found[0] and found[-1]


def test_fingerprints_of_data_sets():
    """Those of the hub are known by what the library reports, local ones by their files."""

    class Table(list):
        info = type("Info", (), {"version": "1.2.0"})
        _fingerprint = "abc"

    before = of_dataset(Table("xy"), "owner/name", None, "train")
    assert difference(before, of_dataset(Table("xy"), "owner/name", None, "train")) == ""
    Table._fingerprint = "def"
    now = of_dataset(Table("xy"), "owner/name", None, "train")
    assert difference(before, now) == "revision was 'abc', is 'def'"


class Lines:
    """Examples of two lengths."""

    lengths = (1, 2)

    def __len__(self):
        return 2

    def example(self, index, rng):
        return {"x": index}


def test_a_record_has_every_setting_that_decides_a_batch():
    plan = Trainer(steps=1)
    one, two = (
        plan._record(Batches(Lines(), 1, group_by_length=number), None).recipe["data"]
        for number in (1, 2)
    )
    assert one["group_by_length"] == 1 and two["group_by_length"] == 2
    assert {name for name in one if one[name] != two[name]} == {"group_by_length"}
