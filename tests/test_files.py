"""Folders that are replaced, whoever is killed meanwhile, and what is left and cleared away."""

import os
import random
import signal
import subprocess
import sys
import time
import zlib

import pytest

from multidiff.utils import exchange, files, leftovers
from multidiff.utils.errors import InputError
from multidiff.utils.exchange import exchange_paths
from multidiff.utils.files import atomic_write, atomic_write_dir, lock_dir, recovered
from multidiff.utils.leftovers import HOST, aside_of, sweep, visible_files

COMPONENTS, LINES = 6, 400


def write(folder, word):
    with atomic_write_dir(folder) as partial:
        for part in range(COMPONENTS):
            (partial / f"part{part}").write_text(f"{word}\n" * LINES)


def read(folder):
    """The word that a whole folder is made of."""
    found = [
        (recovered(folder) / f"part{part}").read_text().split("\n") for part in range(COMPONENTS)
    ]
    (word,) = {line for lines in found for line in lines[:-1]}
    assert all(len(lines) == LINES + 1 for lines in found)
    return word


def replaces_without_end(folder, about_to, write):
    """Write a folder over and over; a byte goes through the pipe just before it is replaced."""
    real = files._replace_folder
    files.flush_to_disk = lambda path: None  # a kill, unlike a power cut, loses no writes

    def announced(path, new):
        os.write(about_to, b"!")
        real(path, new)

    files._replace_folder = announced
    for turn in range(10**9):
        write(folder, f"{os.getpid()}-{turn}")


def killed_at_random(folder, times, write=write, read=read):
    """Kill a process amid the replacement of a folder; return what it left, time after time."""
    moments = random.Random(0)
    seen = []
    for _ in range(times):
        ready, about_to = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                replaces_without_end(folder, about_to, write)
            finally:
                os._exit(1)
        os.close(about_to)
        for _ in range(moments.randint(1, 3)):
            assert os.read(ready, 1) == b"!"
        time.sleep(moments.uniform(0, 0.001))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        seen.append(read(folder))
        sweep(folder.parent)
        assert os.listdir(folder.parent) == [folder.name] and read(folder) == seen[-1]
    return seen


@pytest.fixture
def no_exchange(monkeypatch):
    """A file system that cannot swap two folders."""
    monkeypatch.setattr(files, "exchange_paths", lambda one, other: False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
@pytest.mark.parametrize(
    "system", ["as it is", pytest.param("without exchange", marks=pytest.mark.long)]
)
def test_a_killed_replacement_leaves_the_old_or_the_new_folder(tmp_path, system, request):
    if system != "as it is":
        request.getfixturevalue("no_exchange")
    target = tmp_path / "model"
    write(target, "old")
    assert len(set(killed_at_random(target, 20))) > 10  # it was replaced indeed


@pytest.mark.slow
@pytest.mark.parametrize(
    "system", ["as it is", pytest.param("without exchange", marks=pytest.mark.long)]
)
def test_sixty_kills_amid_the_replacement_of_a_model(tmp_path, system, request):
    """The old or the new model is there and whole: recipe and weights are of one save."""
    import torch

    from multidiff.config.recipe import read_recipe
    from multidiff.models.loading import find_model, save_model
    from multidiff.models.weights import read_tensors

    if system != "as it is":
        request.getfixturevalue("no_exchange")

    class Model(torch.nn.Linear):
        def metadata(self):
            return {"kind": "small"}

        def assets(self):
            return {"vocabulary.json": str(float(self.bias.detach()[0])) * 1000}

    def write(folder, word):
        number = float(zlib.crc32(word.encode()) % 10**6)
        model = Model(50, 50)
        with torch.no_grad():
            model.bias.fill_(number)
        save_model(model, folder, f"model: {number}\n")

    def read(folder):
        found = find_model(folder)
        number = read_recipe(found / "recipe.yaml").value["model"].value
        assert read_tensors(found / "model.safetensors")[0]["bias"].tolist() == [number] * 50
        assert (found / "vocabulary.json").read_text() == str(number) * 1000
        return number

    target = tmp_path / "model"
    write(target, "old")
    assert len(set(killed_at_random(target, 60, write, read))) > 30


def test_killed_between_the_two_renames(tmp_path, no_exchange, monkeypatch):
    """The one moment in which there is no folder of the name."""
    target = tmp_path / "model"
    write(target, "old")
    target.rename(aside_of(target))
    assert not target.exists() and read(target) == "old"
    write(target, "new")
    assert read(target) == "new" and os.listdir(tmp_path) == ["model"]
    target.rename(aside_of(target))
    sweep(tmp_path)
    assert target.is_dir() and read(target) == "new" and os.listdir(tmp_path) == ["model"]


def test_a_model_that_lies_aside_is_found(tmp_path):
    from multidiff.models.loading import find_model, is_ours

    for name in ("model.safetensors", "recipe.yaml"):
        (tmp_path / "run" / "model").mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / "model" / name).write_text("")
    aside = aside_of(tmp_path / "run" / "model")
    (tmp_path / "run" / "model").rename(aside)
    assert is_ours(tmp_path / "run") and find_model(tmp_path / "run") == aside
    assert find_model(tmp_path / "run" / "model") == aside


def test_a_replacement_without_exchange_that_is_refused_halfway(tmp_path, no_exchange, monkeypatch):
    target = tmp_path / "model"
    write(target, "old")
    real = files.Path.rename

    def refuses(self, other):
        if str(self).endswith(".tmp"):
            raise PermissionError(13, "Permission denied")
        return real(self, other)

    monkeypatch.setattr(files.Path, "rename", refuses)
    with pytest.raises(InputError, match="permission denied"):
        write(target, "new")
    assert read(target) == "old" and os.listdir(tmp_path) == ["model"]


def test_a_swap_and_systems_that_have_none(tmp_path, monkeypatch):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.write_text("a file")
    if exchange_paths(one, other):
        assert other.is_dir() and one.read_text() == "a file"
    with pytest.raises(FileNotFoundError):
        exchange_paths(tmp_path / "nowhere", other)
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    assert not exchange.exchange_paths(one, other)


def test_a_model_folder_that_is_a_link(tmp_path):
    write(tmp_path / "real", "old")
    (tmp_path / "model").symlink_to("real")
    write(tmp_path / "model", "new")
    assert (tmp_path / "model").is_symlink() and read(tmp_path / "real") == "new"
    assert sorted(os.listdir(tmp_path)) == ["model", "real"]


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "model").write_text("precious")
    with pytest.raises(InputError, match="is a file, not a folder"):
        write(tmp_path / "model", "new")
    assert (tmp_path / "model").read_text() == "precious"
    assert os.listdir(tmp_path) == ["model"]


@pytest.fixture(scope="module")
def dead():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_the_dead_are_swept_and_no_others(tmp_path, dead):
    stale = [f".a.wav.{dead}.tmp.wav", f".model.{dead}-{HOST}.tmp", f".b.{dead}-{HOST}.tmp.png"]
    kept = [".a.wav.1.tmp.wav", f".model.{os.getpid()}-{HOST}.tmp", f".c.{dead}-00000000.tmp",
            ".hidden", "notes.tmp", f"x.{dead}.tmp"]  # fmt: skip
    for name in stale + kept:
        path = tmp_path / name
        if name.endswith(".tmp"):
            path.mkdir()
            (path / "part").write_text("half")
        else:
            path.write_text("half")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
    old = time.time() - 2 * leftovers.ABANDONED_SECONDS  # of another machine
    os.utime(tmp_path / f".c.{dead}-00000000.tmp", (old, old))
    sweep(tmp_path)
    assert f".c.{dead}-00000000.tmp" not in os.listdir(tmp_path)


@pytest.mark.parametrize("writer", [atomic_write, atomic_write_dir])
def test_writing_clears_away_what_a_killed_process_left(tmp_path, dead, writer):
    (tmp_path / f".old.wav.{dead}-{HOST}.tmp.wav").write_text("half")
    with writer(tmp_path / "new") as partial:
        (partial / "a" if writer is atomic_write_dir else partial).write_text("whole")
    assert os.listdir(tmp_path) == ["new"]


def test_a_run_claims_its_folder_once(tmp_path):
    """A command has it for the trainer that it calls; other threads and processes wait."""
    from concurrent.futures import ThreadPoolExecutor

    from multidiff.training.checkpoints import claimed

    def takes():
        with claimed(tmp_path):
            return True

    with claimed(tmp_path), ThreadPoolExecutor() as pool:
        assert takes()
        for taking in (pool.submit(takes).result, lock_dir(tmp_path).__enter__):
            with pytest.raises(InputError, match="another run is writing there"):
                taking()
    with ThreadPoolExecutor() as pool:
        assert pool.submit(takes).result()


def test_faults_inside_a_lock_pass_as_they_are(tmp_path):
    with pytest.raises(BlockingIOError), lock_dir(tmp_path):
        raise BlockingIOError


def test_hidden_files_are_no_inputs(tmp_path):
    for name in ("a.wav", ".b.wav", ".c/d.wav", "__MACOSX/e.wav", "f/g.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = {str(path.relative_to(tmp_path)) for path in visible_files(tmp_path)}
    assert found == {"a.wav", "f/g.wav"}
