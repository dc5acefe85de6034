"""Stable Diffusion in half precision: images as in float32, and what stays in float32."""

import pytest
import torch
from commands import complains, does
from pipelines import pipeline
from safetensors.torch import load_file

from multidiff import load
from multidiff.utils.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The second version, whose attention computes in float32, stored in float16."""
    root = tmp_path_factory.mktemp("half")
    pipe = pipeline(root, 2).to(dtype=torch.float16)
    pipe.save_pretrained(root / "folder")
    return root / "folder"


def images(model):
    options = {"seed": 3, "steps": 4, "guidance_scale": 5.0, "negative_prompt": "b"}
    return model.generate(["a cat", "cab"], **options).float()


@pytest.mark.parametrize(
    ("kind", "most"), [("float16", 1), ("bfloat16", 5), (torch.bfloat16, 5), ("auto", 1)]
)
def test_images_are_those_of_float32_in_grey_levels(folder, kind, most):
    wanted, model = images(load(folder)), load(folder, dtype=kind)
    assert (images(model) - wanted).abs().max() <= most
    used = torch.float16 if kind == "auto" else getattr(torch, str(kind).removeprefix("torch."))
    parts = {model.denoiser: used, model.domain.text_encoder: used}
    parts[model.domain.autoencoder] = torch.float32
    assert all(p.dtype == kind for part, kind in parts.items() for p in part.parameters())


def test_a_file_of_float16_computes_in_float32_by_default(folder):
    stored = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    model = load(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert images(model).std() > 10


def test_a_whole_model_cast_by_hand(folder):
    """Its autoencoder too, which diffusers users expect of ``to``."""
    wanted, model = images(load(folder)), load(folder)
    assert (images(model.to(torch.bfloat16)) - wanted).abs().mean() < 5
    model.denoiser.conv_in.float()
    with pytest.raises(InputError, match=r"weights are bfloat16, float32: .* model\.float\(\)"):
        images(model)
    assert torch.equal(images(load(folder).half().float()), wanted)


def test_the_option_of_the_command(folder, tmp_path, capsys):
    options = ["--steps", "2", "--prompt", "a", "-o", tmp_path / "out"]
    does(capsys, "sample", folder, "--dtype", "bfloat16", *options)
    assert list((tmp_path / "out").glob("*.png"))


def test_parts_move_to_the_device_when_their_turn_comes(folder, monkeypatch, capsys, tmp_path):
    wanted, moves = images(load(folder)), []

    def moved(part, device):
        moves.append((type(part).__name__, str(device)))
        return part

    model = load(folder, offload=True)
    for part, _ in model.offloaded_parts().values():
        monkeypatch.setattr(type(part), "to", moved)
    assert torch.equal(images(model), wanted)
    names = ["TextEncoder", "UNet", "AutoencoderKL"]
    there = [name for name, _ in moves]
    assert there == [
        names[0],
        names[0],
        names[1],
        names[1],
        names[2],
    ]  # to, and back before the next
    assert model.offload.current == "autoencoder" and model.device.type == "cpu"
    monkeypatch.undo()
    options = ["--steps", "1", "--prompt", "a", "-o", tmp_path / "out"]
    does(capsys, "sample", folder, "--offload", *options)
    reported = complains(capsys, "sample", "digit-tokens", "--offload")
    assert "--offload: MaskGIT has no parts that take turns; leave it out" in reported
