"""Killed at random moments, stopped politely, out of disk, and spread over processes."""

import contextlib
import io
import json
import os
import random
import resource
import signal
import time

import pytest
import torch
from program import LAUNCH, RECIPES, here, refused, run, start, with_overrides

from multidiff.models.loading import load
from multidiff.models.weights import read_tensors
from multidiff.training.checkpoints import CheckpointFolder
from multidiff.training.logging import TrainingLog
from multidiff.utils import signals
from multidiff.utils.errors import InputError
from multidiff.utils.files import atomic_write, atomic_write_dir

STEPS = 40
SMALL = [
    RECIPES / "smoke" / "speech.yaml",
    f"trainer.steps={STEPS}",
    "trainer.save_every=3",
    "trainer.log_every=1",
    "trainer.validate_every=20",
    "model.denoiser.width=16",
]


def same_weights(one, other):
    here, there = (read_tensors(f / "model" / "model.safetensors")[0] for f in (one, other))
    return here.keys() == there.keys() and all(torch.equal(here[k], there[k]) for k in here)


def losses(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if '"train"' in line]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    here("train", *SMALL, "--out", folder)
    return folder


def checkpoints(folder):
    inside = folder / "checkpoints"
    return sorted(p.name for p in inside.iterdir() if p.name.isdigit()) if inside.exists() else []


def wait_for_checkpoints(process, folder, count):
    while len(checkpoints(folder)) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.long)])
def test_killed_at_random_moments_it_ends_the_same(tmp_path, uninterrupted, kills):
    moments = random.Random(5)
    for attempt in range(kills):
        resume = ["--resume"] if checkpoints(tmp_path) else []
        process = start("train", *SMALL, "--out", tmp_path, *resume)
        wait_for_checkpoints(process, tmp_path, 1 if attempt == 0 else 2)
        time.sleep(moments.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert "Traceback" not in errors
        newest = CheckpointFolder(tmp_path).newest()
        assert newest is not None and f"{newest.step:08d}" == checkpoints(tmp_path)[-1]
        load(CheckpointFolder(tmp_path).paths()[-1])
    here("train", *SMALL, "--out", tmp_path, "--resume")
    assert same_weights(tmp_path, uninterrupted)
    assert losses(tmp_path) == losses(uninterrupted)
    assert not list((tmp_path / "model").glob("*.tmp*"))


@pytest.mark.parametrize(
    ("number", "status", "resumed"),
    [
        (signal.SIGTERM, 143, True),
        pytest.param(signal.SIGHUP, 129, False, marks=pytest.mark.long),
    ],
)
def test_a_polite_stop_saves_first(tmp_path, uninterrupted, number, status, resumed):
    """The signal goes to the whole group, as a terminal and a scheduler send it."""
    words = with_overrides(SMALL, "trainer.save_every=1000", "trainer.workers=2")
    process = start("train", *words, "--out", tmp_path, start_new_session=True)
    while not (tmp_path / "log.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    time.sleep(0.2)
    os.killpg(process.pid, number)
    _, errors = process.communicate()
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    (saved,) = checkpoints(tmp_path)
    assert 1 <= int(saved) < STEPS
    if not resumed:  # once is enough: what is saved does not depend on the signal
        return
    here("train", *SMALL, "--out", tmp_path, "--resume")
    assert same_weights(tmp_path, uninterrupted)


def test_a_second_signal_is_obeyed_unless_it_is_the_first_passed_on(monkeypatch):
    """A launcher sends its children on what the group got; Ctrl-C twice means now."""
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    # A shell's background jobs begin with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), signals.interruptions() as found:
            signal.raise_signal(signal.SIGINT)
            now[0] += 0.5
            signal.raise_signal(signal.SIGINT)
            assert found.number == signal.SIGINT
            now[0] += 1
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it was obeyed")
    finally:
        signal.signal(signal.SIGINT, before)


def test_under_nohup_a_hang_up_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.interruptions() as found:
            signal.raise_signal(signal.SIGHUP)
            assert not found.raised
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_went_away_stops_no_training(tmp_path):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    with contextlib.redirect_stderr(Gone()), TrainingLog(3, 0, tmp_path) as log:
        log.log_metrics(1, "train", {"loss": 1.0})
    assert "loss" in (tmp_path / "log.jsonl").read_text()


@pytest.mark.long
def test_the_launcher_starts_two_processes():
    assert run("models", program=LAUNCH).stdout.count("digit-features") == 2


def test_two_processes_train_like_one_with_the_double_batch(tmp_path, uninterrupted):
    done = run("train", *SMALL, "--out", tmp_path, program=LAUNCH)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(f"trained for {STEPS} steps") == 1
    together, alone = losses(tmp_path), losses(uninterrupted)
    # Sums of two processes are rounded in another way than those of one.
    assert len(together) == STEPS and together != alone
    for both, one in zip(together, alone, strict=True):
        assert both["denoising"] == pytest.approx(one["denoising"], rel=1e-4)
    more = with_overrides(SMALL, f"trainer.steps={STEPS + 2}")
    here("train", *more, "--out", tmp_path, "--resume")  # one process goes on where two stopped


def too_large_for_the_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_is_told_and_spoils_nothing(tmp_path):
    here("train", *with_overrides(SMALL, "trainer.steps=3"), "--out", tmp_path)
    line = refused(
        "train",
        *SMALL,
        "--resume",
        "--out",
        tmp_path,
        preexec_fn=too_large_for_the_disk,
    )
    assert "cannot be written" in line
    assert "larger than allowed" in line
    assert checkpoints(tmp_path) == ["00000003"]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["00000003"]


@pytest.mark.parametrize("writer", [atomic_write, atomic_write_dir])
def test_an_unfinished_write_leaves_what_was_there(tmp_path, writer):
    target = tmp_path / "thing"
    with writer(target) as partial:
        (partial / "a" if writer is atomic_write_dir else partial).write_text("old")
    with pytest.raises(InputError, match="the disk is full"), writer(target) as partial:
        (partial / "a" if writer is atomic_write_dir else partial).write_text("new")
        raise OSError(28, "No space left on device")
    kept = target / "a" if writer is atomic_write_dir else target
    assert kept.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]
