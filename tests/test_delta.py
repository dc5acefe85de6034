"""Models stored as a difference from another model's weights, in a few bits."""

import re
import shutil

import pytest
import torch
from commands import complains, does
from safetensors import safe_open

from multidiff import load, save
from multidiff.models.delta import difference, rebuilt
from multidiff.models.loading import RECIPE, WEIGHTS
from multidiff.utils.errors import InputError


def weights(seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (24, 6, 3, 3), "b.weight": (20, 31), "b.bias": (20,)}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


# Squared error of the best uniform quantizer of a normal variable (Max 1960, table 2).
@pytest.mark.parametrize(("bits", "error"), [(1, 0.3634), (2, 0.1188), (3, 0.0374), (4, 0.0115)])
def test_a_difference_is_rounded_as_well_as_a_uniform_quantizer_can(bits, error, tmp_path):
    base, rng = weights(), torch.Generator().manual_seed(1)
    change = torch.randn(64, 5000, generator=rng)
    base["c.weight"] = torch.zeros(64, 5000)
    tuned = {**base, "c.weight": change, "b.bias": base["b.bias"] + 1}
    stored = difference(tuned, base, bits)
    assert stored.keys() == {"c.weight.delta_codes", "c.weight.delta_scale", "b.bias"}
    assert stored["c.weight.delta_codes"].numel() == 64 * 5000 * bits / 8
    found = rebuilt(stored, base, bits, tmp_path)
    assert float((found["c.weight"] - change).square().mean()) == pytest.approx(error, rel=0.06)
    assert torch.equal(found["b.bias"], tuned["b.bias"])
    assert torch.equal(found["a.weight"], base["a.weight"])


def test_values_on_the_levels_come_back_and_any_number_of_them_is_packed(tmp_path):
    base, rng = weights(), torch.Generator().manual_seed(1)
    codes = torch.randint(8, (20, 31), generator=rng)
    codes[:, 0] = 7  # the largest level occurs
    tuned = {**base, "b.weight": base["b.weight"] + 0.01 * (codes - 3.5)}
    found = rebuilt(difference(tuned, base, 3), base, 3, tmp_path)
    torch.testing.assert_close(found["b.weight"], tuned["b.weight"], rtol=0, atol=1e-6)


def test_a_model_is_written_as_a_difference_and_loads(tmp_path, capsys):
    model = load("digit-features")
    with torch.no_grad():
        first = next(one for one in model.parameters() if one.ndim == 4)
        first += 0.01
    save(model, tmp_path / "whole", (model.home / RECIPE).read_text())
    words = ["--base", "digit-features", "--bits", 3]
    does(capsys, "convert", tmp_path / "whole", tmp_path / "tuned", *words)
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in ("whole", "tuned")]
    assert sizes[1] < sizes[0] / 100
    found = load(tmp_path / "tuned")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=0, atol=1e-6)

    path = tmp_path / "tuned" / WEIGHTS
    with safe_open(path, "pt") as file:
        assert file.metadata()["base"] == "digit-features"
    content = path.read_bytes()
    digest = re.search(rb'base_sha256":"(\w+)', content)[1]
    changes = [
        (digest, digest[::-1], "difference from other weights than those of"),
        (b"digit-features", b"digit-featured", "no model 'digit-featured'"),
        (b'delta_bits":"3"', b'delta_bits":"7"', "does not fit its base"),
        (b'delta_bits":"3"', b'delta_bits":"x"', "is not a difference of weights"),
    ]
    for before, after, said in changes:
        assert before in content
        path.write_bytes(content.replace(before, after))
        with pytest.raises(InputError, match=said):
            load(tmp_path / "tuned")


def test_what_cannot_be_written_as_a_difference(tmp_path, capsys):
    shutil.copytree(load("digit-features").home, tmp_path / "own")
    common = ["convert", tmp_path / "own", tmp_path / "new", "--base"]
    assert "--bits 0: must be 1 to 8" in complains(capsys, *common, "digit-features", "--bits", 0)
    assert "has other weights" in complains(capsys, *common, "digits")
    assert "no model 'nowhere'" in complains(capsys, *common, "nowhere")
    assert not (tmp_path / "new").exists()
