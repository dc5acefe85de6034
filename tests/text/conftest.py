"""Models that are quick and bad: trained by the smoke recipes once for all tests."""

import pytest


@pytest.fixture(scope="session")
def small_restaurant(tmp_path_factory):
    """The folder of a text model conditioned on meanings."""
    from program import trained

    return trained(tmp_path_factory.mktemp("runs") / "restaurant", "restaurant")


@pytest.fixture(scope="session")
def small_control(tmp_path_factory, small_restaurant):
    """The folder of a classifier on the embeddings of that model."""
    from program import RECIPES, trained

    folder = tmp_path_factory.mktemp("runs")
    recipe = (RECIPES / "smoke" / "restaurant_control.yaml").read_text()
    assert "weights:" not in recipe  # the smoke recipe stands alone; here it follows the model
    weights = f"weights=[{{model: {small_restaurant}, source_key: domain, target_key: domain}}]"
    return trained(folder / "restaurant_control", "restaurant_control", weights, steps=30)


@pytest.fixture(scope="session")
def small_masked(tmp_path_factory):
    """The folder of a masked model conditioned on meanings."""
    from program import trained

    return trained(tmp_path_factory.mktemp("runs") / "masked", "masked")


@pytest.fixture(scope="session")
def small_characters(tmp_path_factory):
    """The folder of a masked model of running text."""
    from program import trained

    return trained(tmp_path_factory.mktemp("runs") / "characters", "masked_characters")


@pytest.fixture(scope="session")
def small_uniform(tmp_path_factory):
    """The folder of a model of running text by uniform diffusion."""
    from program import trained

    return trained(tmp_path_factory.mktemp("runs") / "uniform", "uniform_characters", steps=2)


@pytest.fixture(scope="session")
def small_blocks(tmp_path_factory):
    """The folder of a masked model that finds running text block by block."""
    from program import trained

    return trained(tmp_path_factory.mktemp("runs") / "blocks", "block_characters")


@pytest.fixture(scope="session")
def small_rewriter(tmp_path_factory):
    """The folder of a masked model that makes sentences from their written meanings."""
    from program import trained

    positions = (
        "model.domain.vocabulary.source",
        "data.examples.source",
        "validation.examples.source",
    )
    words = [f"{position}.source_column=meaning" for position in positions]
    words += ["model.domain.meanings=null", "model.domain.source_length=40"]
    words += ["model.denoiser.sources=200", "model.denoiser.source_length=40"]
    return trained(tmp_path_factory.mktemp("runs") / "rewriter", "masked", *words)


@pytest.fixture(scope="session")
def small_edits(tmp_path_factory):
    """The folder of an editor conditioned on meanings."""
    from program import trained

    return trained(tmp_path_factory.mktemp("runs") / "edits", "edits")


@pytest.fixture(scope="session")
def small_translator(tmp_path_factory):
    """The folder of an editor that makes sentences from their written meanings."""
    from program import trained

    return trained(tmp_path_factory.mktemp("runs") / "translator", "diffuser_wmt")
