"""Stable Diffusion's inpainting models: a UNet of nine channels, against diffusers' pipelines."""

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
from PIL import Image
from pipelines import compvis, pipeline, xl_pipeline
from safetensors.torch import save_file

from multidiff import load
from multidiff.core.random import generators
from multidiff.image.canvas import Canvas
from multidiff.models.convert import convert_checkpoint
from multidiff.utils.errors import InputError

SIZE = (24, 16)


def inpainting(root, version):
    """A pipeline with random weights, whose autoencoder's Gaussian has hardly any width."""
    kinds = {1: StableDiffusionInpaintPipeline, "XL": StableDiffusionXLInpaintPipeline}
    parts = xl_pipeline(root, in_channels=9) if version == "XL" else pipeline(root, in_channels=9)
    with torch.no_grad():
        parts.vae.quant_conv.weight[4:] = 0
        parts.vae.quant_conv.bias[4:] = -30
    names = [name for name in parts.components if parts.components[name] is not None]
    safety = {} if version == "XL" else {"safety_checker": None, "feature_extractor": None}
    more = {"add_watermarker": False} if version == "XL" else {"requires_safety_checker": False}
    pipe = kinds[version](**{name: parts.components[name] for name in names}, **safety, **more)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(root / "folder")
    return pipe


def canvas():
    image = torch.randint(0, 256, (1, 3, *reversed(SIZE)), generator=generators([1])[0])
    mask = torch.zeros(tuple(reversed(SIZE)), dtype=torch.bool)
    mask[3:11, 7:20] = True
    return Canvas(image.to(torch.uint8), 1.0, mask)


def painted(pipe, noise):
    """The pipeline's image in [-1, 1]."""
    own = canvas()
    assert own.mask is not None
    image = Image.fromarray(own.image[0].permute(1, 2, 0).numpy())
    mask = Image.fromarray(own.mask.numpy())
    options: dict[str, Any] = {
        "width": SIZE[0],
        "height": SIZE[1],
        "num_inference_steps": 4,
        "strength": 1.0,
    }
    options |= {"negative_prompt": "b", "guidance_scale": 5.0, "output_type": "pt"}
    made = pipe("a cat", image=image, mask_image=mask, latents=noise.clone(),
                generator=generators([0])[0], **options)  # fmt: skip
    return 2 * made.images - 1


def decoded(model, monkeypatch):
    """Our image in [-1, 1], before kept pixels are copied into it, and the image itself."""
    seen, decode = [], model.domain.to_image
    monkeypatch.setattr(model.domain, "to_image", lambda *a: seen.append(decode(*a)) or seen[-1])
    made = model.generate("a cat", canvas=canvas(), seed=7, steps=4, guidance_scale=5.0,
                          negative_prompt="b")  # fmt: skip
    return seen[0].clamp(-1, 1), made


@pytest.mark.parametrize("version", [1, "XL"])
def test_equal_to_diffusers_and_written_back(version, tmp_path, monkeypatch):
    pipe = inpainting(tmp_path, version)
    model = load(tmp_path / "folder")
    noise = model.process.prior(model.domain.state_shape(1, SIZE), generators([7]))
    wanted = painted(pipe, noise)
    assert wanted.std() > 0.02
    found, made = decoded(model, monkeypatch)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    own = canvas()
    assert own.mask is not None and torch.equal(made[..., ~own.mask], own.image[..., ~own.mask])
    convert_checkpoint(tmp_path / "folder", tmp_path / "ours")
    convert_checkpoint(tmp_path / "ours", tmp_path / "theirs", False, ["--to", "diffusers"])
    again = type(pipe).from_pretrained(tmp_path / "theirs")
    again.set_progress_bar_config(disable=True)
    torch.testing.assert_close(painted(again, noise), wanted)


def test_a_single_file_and_images_without_a_mask(tmp_path, monkeypatch):
    pipe = inpainting(tmp_path, 1)
    path = tmp_path / "single.safetensors"
    save_file(compvis(pipe), path)
    model, other = load(path), load(tmp_path / "folder")
    options = {"steps": 2, "sampler": "ddim", "timestep_spacing": "trailing", "size": SIZE}
    first, second = (one.generate("a cat", **options) for one in (model, other))
    assert (first.int() - second.int()).abs().max() <= 1  # all of it is inpainted
    masked, _ = decoded(other, monkeypatch)
    assert not torch.equal(second.float() / 127.5 - 1, masked)
    with pytest.raises(InputError, match="are not trained here"):
        model.task()
    assert "for inpainting" in convert_checkpoint(path, tmp_path / "ours").lines[0]
