"""Every option of ``sample`` changes the image of every family, or a line says why it does not."""

import shutil
from pathlib import Path

import pytest
import torch
from commands import facts
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, DiTPipeline, UNet2DModel
from pipelines import pipeline, small_vae, xl_pipeline
from safetensors.torch import save_file
from test_dit import peer
from test_sd3 import pipeline as sd3_pipeline

from multidiff.cli.main import run
from multidiff.image.data.image_files import read_image, write_image

PROMPT = "(a:1.4) cat"


def pixels(root):
    blocks = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    kinds = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    return DDPMPipeline(UNet2DModel(sample_size=8, **blocks, **kinds), DDPMScheduler())


FAMILIES = {
    "pixels": pixels,
    "SD": lambda root: pipeline(root, 1),
    "SDXL": xl_pipeline,
    "SD 3": lambda root: sd3_pipeline(root, qk_norm="rms_norm"),
    "DiT": lambda root: DiTPipeline(peer(num_embeds_ada_norm=4), small_vae(), DDIMScheduler()),
}
ALONE = (
    "--steps 3", "--sampler dpm++", "--timestep-spacing log-snr", "--guidance-scale 2.5",
    "--rescale 0.9", "--style-guidance-scale 2", "--negative-prompt b", "--size 16x24",
    "--hires 2", "--hires-strength 0.4", "--variation-strength 0.5", "--variation-seed 9",
    "--strength 0.5", "--strength-of steps", "--fit crop", "--feather 2", "--outpaint left=8",
    "--padding-mask-crop 2", "--mask-image mask.png", "--init-image init.png",
    "--init-latents latents.safetensors", "--lora lora.safetensors", "--vae vae",
    "--embedding word.safetensors", "--vae-tiling 8", "--literal-prompts", "--seed 3",
    "-n 2 --seeds 4", "--interpolate 2 --save-latents", "--interpolate 2 --xy-plot steps=1,2",
)  # fmt: skip
BESIDE = (
    "--strength-of steps --strength 0.5", "--fit stretch --size 16x8", "--outpaint right=8",
    "--outpaint right=8 --size 8x8", "--mask-image mask.png", "--mask-image mask.png --feather 3",
    "--mask-image mask.png --padding-mask-crop 1",
)  # fmt: skip
# From pure noise to clean, three steps of any order are of the first.
STEPS = "4"
NEUTRAL = ("pixels", "SD 3", "DiT")  # their prompts have no weights that could be literal


@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=[pytest.mark.long] * (one != "pixels")) for one in FAMILIES]
)
def test_no_option_is_ignored_in_silence(family, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FAMILIES[family](tmp_path / "parts").save_pretrained(tmp_path / "model")
    rng, side = torch.Generator().manual_seed(0), 8 if family == "pixels" else 16
    image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=rng)
    write_image(image, tmp_path / "init.png")
    mask = torch.zeros(1, side, side, dtype=torch.uint8)
    mask[:, 2:6, 2:6] = 255
    write_image(mask, tmp_path / "mask.png")
    stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    matrices = {"lora_A": torch.randn(2, 128, generator=rng), "lora_B": torch.randn(128, 2)}
    save_file({f"{stem}.{n}.weight": t for n, t in matrices.items()}, "lora.safetensors")
    save_file({"a": torch.randn(64, generator=rng)}, "word.safetensors")
    save_file({"latents": torch.randn(1, 4, 8, 8, generator=rng)}, "latents.safetensors")
    small_vae().save_pretrained("vae")
    prompt = {"pixels": [], "DiT": ["--prompt", "2"]}.get(family, ["--prompt", PROMPT])

    def silent(words, usual):
        """Whether options leave the image as it is, and nothing is said of them."""
        caplog.clear()
        given = [*prompt, *words.split()]
        given += [] if "--steps" in given else ["--steps", STEPS]
        shutil.rmtree("out", ignore_errors=True)
        status = run(["sample", "model", *given, "-o", "out"])
        said = capsys.readouterr().err + caplog.text
        assert status in (0, 2)
        if any(one in said for one in words.split() if one.startswith("-") or "." in one):
            return False  # options and files are named
        assert status == 0, (words, said)
        return torch.equal(read_image(min(Path("out").glob("0*.png"))), usual)

    def made(*words):
        shutil.rmtree("out", ignore_errors=True)
        path = facts(capsys, "sample", "model", *prompt, "--steps", STEPS, "-o", "out", *words)
        return read_image(path["outputs"][0]["path"])

    usual = made()
    found = [words for words in ALONE if silent(words, usual)]
    usual = made("--init-image", "init.png")
    found += [one for one in BESIDE if silent(f"--init-image init.png {one}", usual)]
    assert {*found} <= ({"--literal-prompts"} if family in NEUTRAL else set()), found
