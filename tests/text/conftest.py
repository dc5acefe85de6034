"""Models that are quick and bad: trained by the smoke recipes once for all tests."""

import pytest


@pytest.fixture(scope="session")
def small_restaurant(tmp_path_factory):
    """The folder of a text model that is told meanings."""
    from program import trained

    return trained(tmp_path_factory.mktemp("runs") / "restaurant", "restaurant")


@pytest.fixture(scope="session")
def small_control(tmp_path_factory, small_restaurant):
    """The folder of a classifier on the embeddings of that model."""
    from program import RECIPES, trained

    folder = tmp_path_factory.mktemp("runs")
    recipe = (RECIPES / "smoke" / "restaurant_control.yaml").read_text()
    assert "weights:" not in recipe  # the smoke recipe stands alone; here it follows the model
    weights = f"weights=[{{model: {small_restaurant}, take: domain, into: domain}}]"
    return trained(folder / "restaurant_control", "restaurant_control", weights, steps=30)
