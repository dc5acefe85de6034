"""Models that are quick and bad: trained by the smoke recipes once for all tests."""

import pytest


def _trained(tmp_path_factory, name):
    from program import RECIPES

    from multidiff.cli import run

    folder = tmp_path_factory.mktemp("runs") / name
    recipe = RECIPES / "smoke" / f"{name}.yaml"
    words = ["trainer.steps=6", "trainer.save_every=6", "trainer.validate_every=6"]
    assert run(["train", str(recipe), *words, "--out", str(folder)]) == 0
    return folder / "model"


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory):
    """The folder of a latent diffusion model with prompts."""
    return _trained(tmp_path_factory, "digits")


@pytest.fixture(scope="session")
def small_pixels(tmp_path_factory):
    """The folder of a pixel diffusion model with classes."""
    return _trained(tmp_path_factory, "digits_pixels")


@pytest.fixture(scope="session")
def small_colour(tmp_path_factory):
    """The folder of a colour model of 64x64, whose sizes are multiples of 8."""
    return _trained(tmp_path_factory, "stable_diffusion")
