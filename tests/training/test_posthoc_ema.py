"""Post-hoc EMA: averages of widths that were not kept, against direct averages."""

import numpy as np
import pytest
import torch
from commands import complains, does
from test_best import write_recipe
from test_trainer import fit, weights_of

import multidiff as md
from multidiff.models.weights import read_tensors
from multidiff.training.posthoc_ema import (
    PosthocEMA,
    PowerAverages,
    combination,
    gamma_of,
    reconstruction,
    write_snapshot,
)
from multidiff.utils.errors import InputError

STEPS = 200


def profile(step, gamma):
    """Weights of the steps up to ``step`` in an average: the profile's integral over each."""
    edges = np.arange(step + 1) / step
    return np.diff(edges ** (gamma + 1))


def trajectory():
    """Weights that drift and jitter, after each step."""
    noise = np.random.default_rng(0).normal(size=(STEPS, 5))
    return np.cumsum(noise, 0) / 10 + noise


def averages_of(path, widths, folder, every=20):
    """Train nothing, but let the averages follow a known path."""
    module = torch.nn.Linear(5, 1, bias=False)
    kept = PowerAverages(PosthocEMA(widths, every), module)
    for step, value in enumerate(path, 1):
        with torch.no_grad():
            module.weight.copy_(torch.tensor(value)[None])
        kept.update(step)
        if kept.is_due(step, STEPS):
            write_snapshot(folder, step, kept.tensors())
    return kept


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.25])
def test_gamma_gives_the_relative_width(width):
    """Standard deviation of the profile over the length of training."""
    gamma, grid = gamma_of(width), (np.arange(200_000) + 0.5) / 200_000
    density = (gamma + 1) * grid**gamma
    mean = (density * grid).mean()
    assert np.sqrt((density * (grid - mean) ** 2).mean()) == pytest.approx(width, rel=1e-4)


def test_a_kept_average_is_the_sum_by_its_profile(tmp_path):
    path = trajectory()
    kept = averages_of(path, (0.05, 0.1), tmp_path)
    for width in (0.05, 0.1):
        wanted = profile(STEPS, gamma_of(width)) @ path
        assert np.allclose(kept.shadows[width]["weight"].numpy()[0], wanted, atol=1e-5)


@pytest.mark.parametrize(("width", "at"), [(0.075, 200), (0.06, 140), (0.14, 200), (0.13, 160)])
def test_a_reconstruction_is_the_direct_average_within_the_stated_error(tmp_path, width, at):
    """By Cauchy-Schwarz on the difference of the profiles."""
    path = trajectory()
    averages_of(path, (0.05, 0.1), tmp_path)
    found = reconstruction(tmp_path, width, at)
    wanted = profile(at, gamma_of(width))
    direct = wanted @ path[:at]
    made = found.tensors()["weight"].numpy()[0]
    gamma = gamma_of(width)
    norm = (gamma + 1) / np.sqrt((2 * gamma + 1) * at)
    spread = np.sqrt(((path[:at] - direct) ** 2).sum(0))
    assert found.error < 0.05
    assert (np.abs(made - direct) <= found.error * norm * spread + 1e-5).all()
    nearest = min((0.05, 0.1), key=lambda one: abs(one - width))
    other = profile(at, gamma_of(nearest)) @ path[:at]
    assert np.abs(made - direct).max() < np.abs(other - direct).max() / 5


def test_factors_keep_a_constant_and_find_a_kept_profile():
    profiles = [(step, gamma_of(width)) for step in (50, 100) for width in (0.05, 0.1)]
    factors, error = combination(profiles, profiles[2])
    assert np.allclose(factors, [0, 0, 1, 0], atol=1e-6)
    assert error < 1e-6
    factors, error = combination(profiles, (100, gamma_of(0.2)))
    assert sum(factors) == pytest.approx(1, abs=1e-9)
    assert error > 0.01


def test_averages_resume_exactly(tmp_path):
    kept = {"posthoc_ema": PosthocEMA(snapshot_every=4)}
    whole = fit(tmp_path / "whole", 10, **kept)
    assert torch.equal(weights_of(whole), weights_of(fit(tmp_path / "plain", 10)))
    fit(tmp_path / "halves", 5, **kept)
    folder = tmp_path / "halves" / "posthoc_ema"
    assert [one.stem for one in sorted(folder.iterdir())] == ["00000004", "00000005"]
    (folder / "00000008.safetensors").write_bytes(b"of an attempt that went further")
    fit(tmp_path / "halves", 10, resume=True, **kept)
    for step in ("00000004", "00000008", "00000010"):
        one, other = (
            read_tensors(tmp_path / home / "posthoc_ema" / f"{step}.safetensors")[0]
            for home in ("whole", "halves")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(InputError, match=r"trainer\.posthoc_ema"):
        fit(tmp_path / "plain", 12, resume=True, **kept)


def test_a_model_of_another_width(tmp_path, capsys):
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    settings = ("trainer.posthoc_ema={snapshot_every: 1}", "trainer.steps=6", "trainer.trackers=[]")
    recipe = write_recipe(tmp_path)
    does(capsys, "train", recipe, "--out", run, *settings)
    said = does(capsys, "convert", run, out, "--posthoc-ema", "0.15")
    assert "average of width 0.15 at step 6, of 12 averages; relative error" in said
    key = "denoiser.conv_in.weight"
    made, loaded = md.load(out).state_dict()[key], md.load(run, weights=0.15).state_dict()[key]
    assert torch.equal(made, loaded)
    direct = reconstruction(tmp_path / "run", 0.15, 6).tensors()[key]
    assert torch.equal(made, direct)
    assert not torch.equal(made, md.load(run).state_dict()[key])
    for source, width, fault in (
        ("digits", "0.15", "digits: no such file"),
        (run, "0.5", "must be in (0, 0.289)"),
        (run, "0.001", "choose a wider one"),
    ):
        assert fault in complains(capsys, "convert", source, out + "2", "--posthoc-ema", width)
    wrong = "trainer.posthoc_ema={sigma_rel: [0.1]}"
    assert "give two or more different widths" in complains(capsys, "check", recipe, wrong)
