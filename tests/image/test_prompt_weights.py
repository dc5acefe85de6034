"""Prompts with weights and of any length, negative prompts, and img2img as in diffusers."""

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image
from pipelines import compvis, pipeline
from safetensors.torch import save_file

import multidiff as md
from multidiff.image.interpolation import interpolate
from multidiff.image.prompt_weights import apply_weights, parse_weights, unread_notation
from multidiff.image.stable_diffusion.vae import read_autoencoder, swap_autoencoder
from multidiff.utils.errors import InputError


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("prompts")
    pipe = pipeline(root)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(root / "folder")
    return root, pipe


@pytest.fixture
def model(published):
    return md.load(published[0] / "folder")


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat", [("a cat", 1)]),
        ("a (red) cat", [("a ", 1), ("red", 1.1), (" cat", 1)]),
        ("((red))", [("red", 1.1**2)]),
        ("[red]", [("red", 1 / 1.1)]),
        ("(red:1.3) (a:.5)", [("red", 1.3), (" ", 1), ("a", 0.5)]),
        (r"\(red\)", [("(red)", 1)]),
        ("(red", [("red", 1.1)]),
        ("red) 3:4", [("red) 3:4", 1)]),
        ("a BREAK b", [("a ", 1), ("BREAK", 1), (" b", 1)]),
        ("(a (b:1.2))", [("a ", 1.1), ("b", 1.2 * 1.1)]),
        ("", []),
    ],
)
def test_the_notation(prompt, parts):
    found = parse_weights(prompt)
    assert [text for text, _ in found] == [text for text, _ in parts]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in parts])


def test_weights_multiply_what_the_encoder_returns(model):
    domain = model.domain
    plain, weighted = domain.prompted(["a cat b"]), domain.prompted(["a (cat:1.5) b"])
    assert torch.equal(plain, domain.condition(["a cat b"]))
    assert torch.equal(
        domain.prompted(["a (cat) b"], weighted=False), domain.condition(["a (cat) b"])
    )
    factor = torch.ones(1, 12)
    factor[0, 2] = 1.5  # begin, a, cat
    assert torch.equal(weighted, apply_weights(plain, factor))
    torch.testing.assert_close(weighted.mean(), plain.mean(), rtol=1e-4, atol=1e-6)
    ratio = weighted[0] / plain[0]
    torch.testing.assert_close(ratio[2] / ratio[1], torch.full((64,), 1.5), rtol=1e-3, atol=1e-3)


def test_long_prompts_are_encoded_in_pieces(model):
    domain, letters = model.domain, "a b c d e f g h i j k l"  # 12 tokens, 10 fit
    assert [domain.pieces(one) for one in ("a", letters, "a BREAK b BREAK")] == [1, 2, 3]
    found = domain.prompted([letters, "cat"], pieces=2)
    parts = domain.condition(["a b c d e f g h i j", "k l", "cat", ""])
    torch.testing.assert_close(found, parts.reshape(2, 24, 64), rtol=1e-5, atol=1e-5)
    assert domain.complaint(letters) is None
    for prompt in ("<lora:x:1>", "[a:b:0.5]", "[a|b]", "a AND b"):
        assert "read as text" in domain.complaint(prompt)
    assert unread_notation("a sand [box]") is None


def test_images_do_not_depend_on_the_length_of_other_prompts(model):
    long = "a b c d e f g h i j k l m"
    options = {"steps": 1, "size": (16, 16)}
    together = model.generate(["a", long, "b"], seed=[1, 2, 3], negative_prompt="x", **options)
    for number, prompt in enumerate(["a", long, "b"]):
        alone = model.generate(prompt, seed=number + 1, negative_prompt="x", **options)
        assert (together[number].int() - alone[0].int()).abs().max() <= 1
    each = model.generate(["a", "a"], seed=[1, 1], negative_prompt=["x", long], **options)
    assert (each[0].int() - together[0].int()).abs().max() <= 1
    assert not torch.equal(each[0], each[1])
    with pytest.raises(InputError, match="2 negative prompts for 3 prompts"):
        model.generate(["a"] * 3, negative_prompt=["x", "y"], **options)


def test_frames_between_prompts_of_different_lengths(model):
    long = "a b c d e f g h i j k l m"
    ends = [("a", 1), (long, 1)]
    frames = interpolate(model, ends, 2, steps=1, negative_prompt="x", guidance_scale=2.0)
    for (prompt, seed), frame in zip(ends, frames, strict=True):
        alone = model.generate(prompt, seed=seed, steps=1, negative_prompt="x", guidance_scale=2.0)
        assert prompt == "a" or (frame.int() - alone[0].int()).abs().max() <= 1
    assert not torch.equal(*frames)


def test_img2img_makes_the_steps_of_diffusers(published, model):
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator())
    pipe = StableDiffusionImg2ImgPipeline(**published[1].components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    wanted = pipe(
        "a cat",
        image=Image.fromarray(image.permute(1, 2, 0).numpy()),
        strength=0.65,
        num_inference_steps=5,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images
    canvas = md.Canvas(image, 0.65)
    options = {"steps": 5, "guidance_scale": 4.0, "canvas": canvas, "seed": 7}
    found = model.generate("a cat", strength_of="steps", **options)
    wanted = torch.as_tensor(wanted[0]).permute(2, 0, 1) * 255
    assert (found[0] - wanted).abs().max() < 0.55  # a half by rounding
    assert not torch.equal(found, model.generate("a cat", **options))
    with pytest.raises(InputError, match=r"makes no step: give at least 0\.2"):
        model.generate("a", canvas=md.Canvas(image, 0.1), steps=5, strength_of="steps")


# ------------------------------------------------------------------------- another autoencoder


def test_another_autoencoder_from_a_folder_or_a_file(published, tmp_path):
    root, _ = published
    other = pipeline(tmp_path / "other")
    with torch.no_grad():
        for one in other.vae.parameters():
            one.mul_(1.5)
    other.vae.save_pretrained(tmp_path / "vae")
    whole = compvis(other)
    inside = {n: t for n, t in whole.items() if n.startswith("first_stage_model.")}
    bare = {name.removeprefix("first_stage_model."): t for name, t in inside.items()}
    save_file(bare, tmp_path / "bare.safetensors")
    save_file(whole, tmp_path / "whole.safetensors")
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator())
    with torch.no_grad():
        wanted = other.vae.decode(latent).sample
    for path in ("vae", "bare.safetensors", "whole.safetensors"):
        model = md.load(root / "folder")
        swap_autoencoder(model, tmp_path / path)
        assert model.domain.autoencoder.scaling == 0.18215
        with torch.no_grad():
            found = model.domain.autoencoder.decode(latent)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_autoencoders_of_other_models_are_refused(published, model, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(
        InputError, match="is no autoencoder of Stable Diffusion; its tensors are a"
    ):
        read_autoencoder(tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    with pytest.raises(InputError, match="is an AutoencoderTiny"):
        read_autoencoder(tmp_path)
    model.domain.autoencoder.latent_channels = 16
    with pytest.raises(InputError, match=r"latents have 4 channels .* the model's 16"):
        swap_autoencoder(model, published[0] / "folder")
    with pytest.raises(InputError, match="has no latents"):
        swap_autoencoder(object(), published[0] / "folder")
