"""What is installed and what is not: the doctor's findings, and commands without a package."""

import re
import sys
import tomllib
from importlib import metadata

import pytest
import torch
from commands import complains, does, facts
from pages import ROOT
from program import RECIPES

from multidiff.audio import mel
from multidiff.cli import doctor
from multidiff.cli.main import run
from multidiff.models.loading import shipped
from multidiff.utils import packages
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def without(monkeypatch, module):
    """Have the import of a module fail, as that of a broken package does."""
    monkeypatch.setitem(sys.modules, module, None)


def uninstalled(monkeypatch, package):
    """Have a package not be there at all."""
    version = metadata.version

    def absent(name):
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", absent)


@pytest.fixture
def one_model(monkeypatch):
    """A package with a single model, quick to load."""
    small = {"digit-features": shipped()["digit-features"]}
    monkeypatch.setattr("multidiff.models.loading.shipped", lambda: small)


def test_the_doctor_looks_at_every_package_device_and_model(capsys):
    found = facts(capsys, "doctor")
    assert found["faults"] == []
    versions = {one["name"]: one["about"] for one in found["packages"]}
    assert versions["torch"] == metadata.version("torch")
    assert {one["name"] for one in found["models"]} == set(shipped())
    assert all("loads in" in one["about"] for one in found["models"])
    cpu = next(one for one in found["devices"] if one["name"] == "cpu")
    assert re.search(r"bfloat16 (not )?worth it", cpu["about"])
    assert found["threads"] == torch.get_num_threads() and found["cores"] >= 1


def test_the_doctor_knows_the_packages_of_the_project():
    def names(requirements):
        return {re.match(r"[\w.-]+", one)[0] for one in requirements}

    assert set(doctor.NEEDED) == names(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    assert names([*extras["metrics"], *extras["tts"]]) == {name for name, *_ in doctor.OPTIONAL}


def test_a_broken_package_is_a_fault_and_an_optional_one_is_not(capsys, monkeypatch, one_model):
    without(monkeypatch, "soxr")
    without(monkeypatch, "pesq")
    assert run(["doctor"]) == 2
    printed = capsys.readouterr()
    (fault,) = [line for line in printed.err.splitlines() if line.startswith("multidiff: ")]
    for hint in (f"soxr {metadata.version('soxr')}", f"torch {metadata.version('torch')}"):
        assert hint in fault
    assert fault.endswith("pip install --upgrade soxr")
    assert re.search(r"pesq +broken; PESQ in eval of speech needs pesq", printed.out)


def test_what_is_missing_is_named_with_what_it_gives(capsys, monkeypatch, one_model):
    without(monkeypatch, "torch_fidelity")
    uninstalled(monkeypatch, "torch-fidelity")
    without(monkeypatch, "gruut")
    uninstalled(monkeypatch, "gruut")
    printed = does(capsys, "doctor")
    assert re.search(r'torch-fidelity +missing; for FID .*"multidiff\[metrics\]"', printed)
    assert re.search(r'gruut +missing; for synth --text: .*"multidiff\[tts\]"', printed)


def test_a_version_out_of_bounds_is_a_fault(monkeypatch):
    requires = ["numpy>=99", "torch>=2", 'pesq>=99; extra == "metrics"']
    monkeypatch.setattr(metadata, "requires", lambda _: requires)
    faults = [one.fault for one in doctor.packages() if one.fault]
    (fault,) = faults
    assert "multidiff needs numpy>=99" in fault and metadata.version("numpy") in fault


def test_a_model_that_does_not_load_is_a_fault(capsys, monkeypatch, tmp_path):
    (tmp_path / "recipe.yaml").write_text("model: {use: ImageClassifier}")
    monkeypatch.setattr("multidiff.models.loading.shipped", lambda: {"spoiled": tmp_path})
    assert "model spoiled does not load" in complains(capsys, "doctor")
    monkeypatch.setattr("multidiff.models.loading.shipped", dict)
    assert "the package contains no models" in complains(capsys, "doctor")


@pytest.mark.parametrize(
    "error",
    [
        OSError("libtorchaudio.so: undefined symbol: torch_new_stable_ivalue"),
        RuntimeError("operator torchvision::nms does not exist"),
        ValueError("numpy.dtype size changed, may indicate binary incompatibility"),
        ImportError("numba needs NumPy 2.4 or less"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_broken_package_raises_is_one_line(error):
    with pytest.raises(InputError) as raised, packages.needs("librosa", "a mel"):
        raise error
    line = str(raised.value)
    assert line.startswith(f"a mel needs librosa, but librosa {metadata.version('librosa')}")
    assert str(error) in line and f"torch {metadata.version('torch')}" in line
    assert line.endswith("pip install --upgrade librosa")


@pytest.mark.parametrize("verb", ["synth", "train"])
def test_what_all_inputs_need_is_named_once(verb, capsys, monkeypatch, tmp_path):
    """And not as a fault of each recording."""
    monkeypatch.setattr(mel, "_filters", mel._filters.__wrapped__)  # nothing cached

    def broken(*_):
        raise packages.PackageError(packages.trouble("numpy", "a mel", ImportError("no symbol")))

    monkeypatch.setattr(mel, "mel_filters", broken)
    words = {
        "synth": [resolve_path(f"starter:speech/LJ{name}.flac") for name in ("001-0019", "80-07")],
        "train": [RECIPES / "smoke" / "speech.yaml"],
    }[verb]
    option = {"synth": "-o", "train": "--out"}[verb]
    line = complains(capsys, verb, *words, option, tmp_path / "made")
    assert line.endswith("pip install --upgrade numpy\n")


def test_a_command_without_one_of_its_packages_ends_in_one_line(capsys, monkeypatch):
    without(monkeypatch, "huggingface_hub")
    line = complains(capsys, "sample", "nobody/nothing")
    assert "huggingface_hub" in line and "pip install" in line


def test_an_import_that_is_a_fault_of_ours_stays_one(monkeypatch):
    without(monkeypatch, "multidiff.cli.doctor")
    with pytest.raises(ImportError):
        run(["doctor"])
