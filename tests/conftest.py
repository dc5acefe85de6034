"""Shapes written in the package's signatures are checked in every test."""

import gc
import os

import jaxtyping
import pytest
import shapes
import torch

gc.disable()  # a quarter of the time of collecting tests, and nothing imported is garbage
# Two OpenMP threads on a shared two-core machine wait for each other; one does not.
# What a run computes in is not to depend on the machine that tests it.
os.environ.setdefault("MULTIDIFF_AUTO_PRECISION", "fp32")
torch.set_num_threads(int(os.environ.get("MULTIDIFF_TEST_THREADS", "1")))
shapes.check_sparingly()
jaxtyping.install_import_hook("multidiff.core", "shapes.checked")


def pytest_collection_finish():
    """Leave what was imported to no garbage collection, half a million objects; collect seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)  # 700 by default, a twentieth of the time of short tests
    gc.enable()


def pytest_runtest_setup():
    """Begin the count of checked calls again with each test."""
    shapes.calls.clear()


@pytest.fixture
def unchecked_signatures():
    """Calls as users make them: wrong types reach the code; and hundreds of steps alike."""
    with shapes.unchecked():
        yield


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """The folder of a finished training run: the smoke recipe's."""
    from program import RECIPES

    from multidiff.cli.main import run

    folder = tmp_path_factory.mktemp("runs") / "speech"
    assert run(["train", str(RECIPES / "smoke" / "speech.yaml"), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def small_vocoder(small_run):
    """The folder of a vocoder that is quick and bad."""
    return small_run / "model"


def pytest_collection_modifyitems(items):
    """The slowest first, so that several processes end together; what needs a GPU where one is."""
    items.sort(key=lambda item: "slow" not in item.keywords)
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
