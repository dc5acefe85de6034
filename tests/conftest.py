"""Shapes written in the package's signatures are checked in every test."""

import os

import jaxtyping
import pytest
import torch

# Two OpenMP threads on a shared two-core machine wait for each other; one does not.
torch.set_num_threads(int(os.environ.get("MULTIDIFF_TEST_THREADS", "1")))
jaxtyping.install_import_hook("multidiff.core", "shapes.checked")


@pytest.fixture
def unchecked_signatures():
    """Calls as users make them: wrong types reach the code that refuses them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
