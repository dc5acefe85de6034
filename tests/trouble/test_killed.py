"""Runs that are killed, run out of disk, or meet in one folder."""

import errno
import random
import signal
import time

import pytest
from commands import complains
from mishaps import ended, left_behind
from program import RECIPES, here, start

import multidiff
from multidiff.training import checkpoints as checkpoint_files
from multidiff.training import logging as log
from multidiff.training.checkpoints import CheckpointFolder
from multidiff.utils.files import lock_dir

QUICK = ["trainer.steps=40", "trainer.save_every=2", "trainer.log_every=1",
         "trainer.validate_every=20"]  # fmt: skip


def saved(folder):
    return [path.name for path in CheckpointFolder(folder).paths()]


@pytest.mark.long  # tests/training/test_interruptions.py kills one
@pytest.mark.parametrize(
    ("package", "times"),
    [
        ("speech", 1),
        ("digits_pixels", 1),
        ("masked", 2),
    ],
)
def test_killed_at_random_moments_a_checkpoint_always_loads(package, times, tmp_path):
    moments = random.Random(package)
    words = ["train", RECIPES / "smoke" / f"{package}.yaml", *QUICK, "--out", tmp_path]
    for _ in range(times):
        before = saved(tmp_path)
        process = start(*words, *(["--resume"] if before else []))
        while saved(tmp_path) in ([], before) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert "Traceback" not in errors
        newest = CheckpointFolder(tmp_path).newest()
        assert f"{newest.step:08d}" == saved(tmp_path)[-1], "the last one is not whole"
        multidiff.load(CheckpointFolder(tmp_path).paths()[-1])
    here(*words, "--resume")
    assert saved(tmp_path)[-1] == "00000040" and not list((tmp_path / "model").glob("*.tmp*"))


def test_a_disk_that_fills_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    words = ["train", RECIPES / "smoke" / "masked.yaml", "trainer.validate_every=9",
             "trainer.save_every=1", "--out", tmp_path / "run"]  # fmt: skip
    writes = iter(range(100))
    real = checkpoint_files.save_tensors

    def fills(tensors, path, metadata=None):
        real(tensors, path, metadata)
        if next(writes) == 4:  # three files to a checkpoint: amid the second
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_files, "save_tensors", fills)
    _, reported = ended(*words, "trainer.steps=3")
    assert "the disk is full" in reported
    assert saved(tmp_path / "run") == ["00000001"] and not left_behind(tmp_path)
    assert CheckpointFolder(tmp_path / "run").newest().step == 1


def test_a_log_that_cannot_be_written(tmp_path, monkeypatch):
    words = ["train", RECIPES / "smoke" / "masked.yaml", "trainer.steps=1", "trainer.log_every=1"]
    (tmp_path / "log.jsonl").mkdir()
    _, reported = ended(*words, "--out", tmp_path)
    assert f"{tmp_path / 'log.jsonl'}: it is a folder" in reported
    monkeypatch.setattr(log, "LINES", "/dev/full")
    monkeypatch.setattr(log, "_drop_lines_beyond", lambda path, step: None)  # it never ends
    _, reported = ended(*words, "--out", tmp_path)
    assert "/dev/full: cannot be written: the disk is full" in reported


def test_a_run_in_a_folder_where_another_is(tmp_path, capsys):
    recipe = RECIPES / "smoke" / "masked.yaml"
    with lock_dir(tmp_path / "run"):
        for resume in ([], ["--resume"]):
            reported = complains(capsys, "train", recipe, "--out", tmp_path / "run", *resume)
            assert str(tmp_path / "run") in reported and "another run" in reported
    assert not (tmp_path / "run").exists()


@pytest.mark.long  # above within one process
def test_two_runs_at_once_in_one_folder(tmp_path, capsys):
    words = ["train", RECIPES / "smoke" / "masked.yaml", *QUICK, "--out", tmp_path]
    first = start(*words)
    while not saved(tmp_path):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # it is still there
    assert "another run" in complains(capsys, *words, "--resume")
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate()
    assert first.returncode == 0, errors
    assert saved(tmp_path)[-1] == "00000040"
