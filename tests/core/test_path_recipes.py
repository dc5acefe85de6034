"""Recipes of other paths: one of the flow, and EDM's with its preconditioning."""

import textwrap
from pathlib import Path

import pytest
import torch

import multidiff
from multidiff.cli.main import run

FLOW = (Path(__file__).parents[2] / "recipes" / "smoke" / "digits_flow.yaml").read_text()


def edm():
    """The flow's recipe with another path, another prediction and the network's input scaled."""
    text = FLOW.replace("RectifiedFlow", "VarianceExploding").replace("LogitNormal", "LogNormal")
    text = text.replace("LogNormalTimes", "LogNormalSigmas")
    text = text.replace("prediction: flow", "prediction: {use: EDMPrediction, data_std: 0.4}")
    before, rest = text.split("  denoiser:\n")
    network, after = rest.split("  sampling:")
    inner = textwrap.indent(network, "  ")
    wrapped = f"    use: ScaledInput\n    data_std: 0.4\n    network:\n{inner}"
    return f"{before}  denoiser:\n{wrapped}  sampling:{after}"


def test_edm_trains_and_samples_by_a_recipe(tmp_path):
    recipe = tmp_path / "edm.yaml"
    recipe.write_text(edm())
    options = ["trainer.steps=2", "trainer.save_every=2", "trainer.validate_every=2"]
    assert run(["train", str(recipe), "--out", str(tmp_path / "run"), *options]) == 0
    model = multidiff.load(tmp_path / "run")
    assert model.process.start_scale() == pytest.approx(80, rel=1e-3)
    made = model.generate(["seven"], steps=3, seed=0, sampler="unipc")
    assert torch.isfinite(torch.as_tensor(made[0]).float()).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("prediction: flwo", "no prediction 'flwo': one of epsilon, x0, v, flow"),
        ("prediction: epsilon", "prediction 'epsilon': the schedule ends with zero terminal SNR"),
    ],
)
def test_a_prediction_that_does_not_fit(wrong, said, tmp_path, capsys):
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(FLOW.replace("prediction: flow", wrong))
    assert run(["train", str(recipe), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error and "wrong.yaml:" in error and error.count("\n") == 1
