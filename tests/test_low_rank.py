"""Models stored as a low-rank difference from another model."""

import re
import shutil

import pytest
import torch
from commands import complains, does
from safetensors import safe_open

from multidiff import load, save
from multidiff.models.loading import RECIPE, WEIGHTS
from multidiff.models.low_rank import difference, rebuilt
from multidiff.utils.errors import InputError


def weights(seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (24, 6, 3, 3), "b.weight": (20, 30), "b.bias": (20,), "c.weight": (3, 2)}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def test_a_difference_of_its_rank_is_exact_and_a_lower_one_the_nearest(tmp_path):
    base, rng = weights(), torch.Generator().manual_seed(1)
    tuned = dict(base)
    change = torch.randn(24, 4, generator=rng) @ torch.randn(4, 54, generator=rng)
    tuned["a.weight"] = base["a.weight"] + change.view(24, 6, 3, 3)
    tuned["b.bias"] = base["b.bias"] + 1
    for rank in (4, 2):
        stored = difference(tuned, base, rank)
        assert stored.keys() == {"a.lora_A.weight", "a.lora_B.weight", "b.bias"}
        assert stored["a.lora_A.weight"].shape == (rank, 6, 3, 3)
        assert stored["a.lora_B.weight"].shape == (24, rank, 1, 1)
        found = rebuilt(stored, base, tmp_path)
        error = float((found["a.weight"] - tuned["a.weight"]).norm())
        wanted = float(torch.linalg.svdvals(change)[rank:].norm())
        assert error == pytest.approx(wanted, abs=1e-4)
        assert torch.equal(found["b.bias"], tuned["b.bias"])
        assert torch.equal(found["b.weight"], base["b.weight"])
    # Two factors would be larger than the matrix.
    tuned["c.weight"] = base["c.weight"] + 1
    assert torch.equal(difference(tuned, base, 2)["c.weight"], tuned["c.weight"])


def test_a_model_is_written_as_a_difference_and_loads(tmp_path, capsys):
    model = load("digit-features")
    with torch.no_grad():
        first = next(one for one in model.parameters() if one.ndim == 4)
        first += 0.01 * torch.ones_like(first)
    recipe = (model.home / RECIPE).read_text()
    save(model, tmp_path / "whole", recipe)
    does(
        capsys, "convert", tmp_path / "whole", tmp_path / "tuned", "--base", "digit-features",
        "--rank", 1,
    )  # fmt: skip
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in ("whole", "tuned")]
    assert sizes[1] < sizes[0] / 100
    found = load(tmp_path / "tuned")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=0, atol=1e-6)

    with safe_open(tmp_path / "tuned" / WEIGHTS, "pt") as file:
        assert file.metadata()["base"] == "digit-features"
    path = tmp_path / "tuned" / WEIGHTS
    content = path.read_bytes()
    digest = re.search(rb'base_sha256":"(\w+)', content)[1]
    path.write_bytes(content.replace(digest, digest[::-1]))
    with pytest.raises(InputError, match="difference from other weights than those of"):
        load(tmp_path / "tuned")
    path.write_bytes(content.replace(b"digit-features", b"digit-featured"))
    with pytest.raises(InputError, match="no model 'digit-featured'"):
        load(tmp_path / "tuned")


def test_what_cannot_be_written_as_a_difference(tmp_path, capsys):
    shutil.copytree(load("digit-features").home, tmp_path / "own")
    common = ["convert", tmp_path / "own", tmp_path / "new"]
    assert "--rank 0: must be" in complains(
        capsys, *common, "--base", "digit-features", "--rank", 0
    )
    assert "has other weights" in complains(capsys, *common, "--base", "digits")
    assert "no model 'nowhere'" in complains(capsys, *common, "--base", "nowhere")
    assert not (tmp_path / "new").exists()
