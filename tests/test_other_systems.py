"""Systems that lack what Linux has, and a broken torchaudio beside us, in a process of its own."""

import re
import subprocess
import sys
from textwrap import dedent

from program import ENVIRONMENT, RECIPES, ROOT

# What Windows lacks, and torchaudio as it is beside a torch that it was not built for.
POORER = """
    import ctypes, importlib, os, pkgutil, signal, sys

    sys.modules["fcntl"] = None
    for name in ("SIGHUP", "pthread_sigmask"):
        delattr(signal, name)
    for name in ("sched_getaffinity", "killpg", "fork"):
        delattr(os, name)
    library = ctypes.CDLL
    def loaded(name, *arguments, **options):
        if name is None:
            raise TypeError("no C library to ask")
        return library(name, *arguments, **options)
    ctypes.CDLL = loaded
"""
BROKEN_TORCHAUDIO = 'raise OSError("libtorchaudio.so: undefined symbol: torch_new_stable_ivalue")'


def run_python(code, tmp_path):
    """What a program printed that runs on a poorer system, in an empty folder."""
    (tmp_path / "torchaudio.py").write_text(BROKEN_TORCHAUDIO)
    paths = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-c", dedent(POORER) + dedent(code)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=paths, cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_imports_trains_and_speaks_without_locks_hangups_and_torchaudio(tmp_path):
    """All modules, a run that is replaced and resumed, and a sound."""
    code = f"""
    import multidiff
    from multidiff.cli.main import run

    for module in pkgutil.walk_packages(multidiff.__path__, "multidiff."):
        importlib.import_module(module.name)
    recipe = {str(RECIPES / "smoke" / "speech.yaml")!r}
    words = ["trainer.save_every=1", "--out", "made"]
    assert run(["train", recipe, "trainer.steps=2", *words]) == 0
    assert run(["train", recipe, "trainer.steps=2", *words, "--resume"]) == 0
    sound = "starter:speech/LJ001-0019.flac"
    assert run(["synth", sound, "--model", "made", "--steps", "1", "-o", "made.wav"]) == 0
    try:
        import torchaudio
    except OSError:
        print("torchaudio is broken")
    """
    assert run_python(code, tmp_path).endswith("torchaudio is broken\n")
    assert (tmp_path / "made.wav").stat().st_size > 10_000
    assert (tmp_path / "made" / "model" / "model.safetensors").is_file()


def test_help_and_version_need_no_package_but_the_parsers(tmp_path):
    """As on a machine where torch itself is broken."""
    code = """
    from multidiff.cli.main import run

    for name in ("torch", "numpy", "librosa", "soundfile", "transformers"):
        sys.modules[name] = None
    assert run(["--help"]) == run(["--version"]) == run(["train", "--help"]) == 0
    assert run(["sample", "digits"]) == 2  # torch is needed: one line
    assert run(["doctor"]) == 2
    """
    assert re.search(r"torch +broken", run_python(code, tmp_path))
