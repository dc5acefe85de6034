"""Models that are quick and bad: trained by the smoke recipes once for all tests."""

import pytest


def _trained(tmp_path_factory, name):
    from program import trained

    return trained(tmp_path_factory.mktemp("runs") / name, name)


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory):
    """The folder of a latent diffusion model with prompts."""
    return _trained(tmp_path_factory, "digits")


@pytest.fixture(scope="session")
def small_pixels(tmp_path_factory):
    """The folder of a pixel diffusion model with classes."""
    return _trained(tmp_path_factory, "digits_pixels")


@pytest.fixture(scope="session")
def small_color(tmp_path_factory):
    """The folder of a colour model of 64x64, whose sizes are multiples of 8."""
    return _trained(tmp_path_factory, "stable_diffusion")


@pytest.fixture(scope="session")
def small_tokens(tmp_path_factory):
    """The folder of a model of image tokens with classes."""
    return _trained(tmp_path_factory, "digit_tokens")
