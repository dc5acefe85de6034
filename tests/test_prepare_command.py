"""``multidiff prepare``: what a run prepares at its start, beforehand, alone or in slices."""

import errno
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
from commands import complains, does, facts
from program import RECIPES
from sounds import STARTER

from multidiff.audio.data import store as sound_store
from multidiff.audio.data.segments import sound_plans
from multidiff.audio.data.sources import AudioSource
from multidiff.audio.mel import PRESETS
from multidiff.data.prepare import missing_parts, prepared
from multidiff.data.table_writer import _Sink

RECIPE = RECIPES / "smoke" / "speech.yaml"
ON_DISK = "data.examples.store=disk"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and parts of a recording each."""
    monkeypatch.setenv("MULTIDIFF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("multidiff.data.prepare.available_cores", lambda: 1)
    monkeypatch.setattr(sound_store, "PART_SECONDS", 1)
    return tmp_path / "cache"


def test_a_run_finds_all_that_was_prepared(capsys, cache, monkeypatch, tmp_path):
    said = facts(capsys, "prepare", RECIPE, ON_DISK, "--dry-run")
    (estimate,) = said["tables"]
    assert estimate["parts"] == estimate["missing"] == 4 and estimate["rows"] == pytest.approx(4, 1)
    assert not cache.exists()
    made = facts(capsys, "prepare", RECIPE, ON_DISK)
    assert made["complete"] and made["tables"][0]["rows"] == 4
    assert made["tables"][0]["bytes"] == pytest.approx(estimate["bytes"], rel=0.5)
    assert "was there" in does(capsys, "prepare", RECIPE, ON_DISK)
    assert "prepared already" in does(capsys, "prepare", RECIPE, ON_DISK, "--dry-run")
    monkeypatch.setattr("multidiff.data.prepare.written_part", None)
    out = tmp_path / "run"
    does(capsys, "train", RECIPE, ON_DISK, "trainer.steps=1", "--out", out)
    assert (out / "model" / "model.safetensors").is_file()


def test_slices_are_joined_by_the_last(capsys, cache):
    assert "2 are left to the other slices" in does(
        capsys, "prepare", RECIPE, ON_DISK, "--slice", "1/2"
    )
    assert "2 of 4 parts are missing" in complains(capsys, "prepare", RECIPE, ON_DISK, "--join")
    assert facts(capsys, "prepare", RECIPE, ON_DISK, "--slice", "2/2")["complete"]
    whole = {file.name: file.read_bytes() for file in next(cache.glob("sound-*")).glob("*")
             if file.is_file()}  # fmt: skip
    shutil.rmtree(cache)
    does(capsys, "prepare", RECIPE, ON_DISK)
    folder = next(cache.glob("sound-*[0-9a-f]"))
    assert all((folder / name).read_bytes() == content for name, content in whole.items())


def test_a_damaged_part_is_not_joined(capsys, cache, tmp_path):
    other = tmp_path / "other"
    for number, (made, missing) in ((2, (2, 2)), (1, (2, 1))):
        words = ("prepare", RECIPE, ON_DISK, "--slice", f"{number}/2", "--cache-dir", other)
        (table,) = facts(capsys, *words)["tables"]
        assert (table["made"], table["missing"]) == (made, missing)
        for samples in other.glob("sound-*.partial/000001/samples"):
            os.truncate(samples, 100)
    assert not cache.exists()
    assert "1 of 4 parts are missing or damaged, such as 000001" in complains(
        capsys, "prepare", RECIPE, ON_DISK, "--join", "--cache-dir", other
    )


def test_ranks_wait_for_each_other(capsys, monkeypatch):
    """Where the other rank is done already, this one joins and goes on."""
    does(capsys, "prepare", RECIPE, ON_DISK, "--slice", "2/2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("multidiff.models.prepare.missing_parts", lambda *_: [3])
    monkeypatch.setattr("multidiff.models.prepare.time.sleep", lambda _: monkeypatch.setattr(
        "multidiff.models.prepare.missing_parts", missing_parts))  # fmt: skip
    assert facts(capsys, "prepare", RECIPE, ON_DISK)["complete"]


def test_small_data_need_no_table(capsys, cache):
    assert "read" in does(capsys, "prepare", RECIPE, "--dry-run")
    assert facts(capsys, "prepare", RECIPE) == {"tables": [], "complete": True, "faults": []}
    assert not cache.exists()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b"])
def test_a_slice_that_is_none_is_one_line(capsys, text):
    assert "write I/N" in complains(capsys, "prepare", RECIPE, "--slice", text)


def test_a_recipe_without_data_is_one_line(capsys, tmp_path):
    (tmp_path / "a.yaml").write_text("trainer: {use: Trainer, steps: 1, learning_rate: 1e-3}\n")
    assert "no section 'model'" in complains(capsys, "prepare", tmp_path / "a.yaml")


def test_a_full_disk_is_named_and_leaves_nothing_half_written(capsys, cache, monkeypatch):
    written = _Sink._flush
    left = [300_000]

    def flush(self, content):
        left[0] -= len(content)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(self, content)

    monkeypatch.setattr(_Sink, "_flush", flush)
    assert "cannot be written: the disk is full" in complains(capsys, "prepare", RECIPE, ON_DISK)
    (partial,) = cache.glob("sound-*.partial")
    assert not list(cache.glob("sound-*/columns.json"))
    names = {path.name for path in partial.iterdir()}
    assert names < {f"{number:06d}" for number in range(4)}
    monkeypatch.setattr(_Sink, "_flush", written)
    assert facts(capsys, "prepare", RECIPE, ON_DISK)["tables"][0]["rows"] == 4


def killed_passes(tmp_path, kills):
    """Prepare a store in processes that are killed; return it and that of one pass."""
    folder = tmp_path / "voice"
    for number in range(3):
        (folder / str(number)).mkdir(parents=True)
        for path in STARTER.glob("*.flac"):
            shutil.copy(path, folder / str(number))
    (plan,) = sound_plans([AudioSource(str(folder))], PRESETS["hifigan-22k"], "disk")
    draw = random.Random(0)
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            prepared(plan, workers=1)
            os._exit(0)
        time.sleep(draw.uniform(0.02, 0.4))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if plan.is_prepared:
            prepared(plan).verify()
    return prepared(plan, workers=1), plan


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_killed_store_is_taken_up_and_is_that_of_one_pass(tmp_path, monkeypatch, kills):
    found, plan = killed_passes(tmp_path, kills)
    found.verify()
    assert found.fixed("number")[:].tolist() == list(range(12))
    before = {name: found.variable(name)[7] for name in ("samples", "name")}
    shutil.rmtree(plan.folder)
    again = prepared(plan, workers=1)
    assert again.variable("name")[7] == before["name"]
    assert np.array_equal(again.variable("samples")[7], before["samples"])
