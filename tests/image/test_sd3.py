"""Stable Diffusion 3 and 3.5: the transformer and the whole pipeline, without T5."""

import json

import pytest
import torch
from commands import complains
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from pipelines import small_text, small_tokenizer, small_vae, write_tokenizer
from transformers import CLIPTextModelWithProjection

from multidiff import load
from multidiff.core.random import generators
from multidiff.models.convert import convert_checkpoint

SIZE = (24, 16)
VERSIONS = {"3": {}, "3.5": {"dual_attention_layers": (0,), "qk_norm": "rms_norm"}}


def pipeline(root, **options):
    torch.manual_seed(5)
    vocabulary = write_tokenizer(root)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=224,
        caption_projection_dim=32,
        pooled_projection_dim=72,
        pos_embed_max_size=8,
        **options,
    )
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=small_vae(
            scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(small_text(vocabulary, 1, projection_dim=24)),
        text_encoder_2=CLIPTextModelWithProjection(small_text(vocabulary, 2, projection_dim=48)),
        text_encoder_3=None,
        tokenizer=small_tokenizer(root, 1),
        tokenizer_2=small_tokenizer(root, 2),
        tokenizer_3=None,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(root / "folder")
    return pipe


@pytest.mark.parametrize("version", VERSIONS)
def test_the_whole_pipeline(version, tmp_path):
    pipe = pipeline(tmp_path, **VERSIONS[version])
    model = load(tmp_path / "folder")
    noise = model.process.prior(model.domain.state_shape(1, SIZE), generators([7]))
    for negative_prompt in (None, "b, c"):
        seen, decode = [], model.domain.to_image
        model.domain.to_image = lambda *given, to=decode, at=seen: at.append(to(*given)) or at[-1]
        model.generate("a cat", size=SIZE, seed=7, steps=4, guidance_scale=5.0,
                       negative_prompt=negative_prompt)  # fmt: skip
        model.domain.to_image = decode
        wanted = pipe(
            "a cat",
            negative_prompt=negative_prompt,
            num_inference_steps=4,
            guidance_scale=5.0,
            width=SIZE[0],
            height=SIZE[1],
            latents=noise.clone(),
            output_type="pt",
        ).images
        assert wanted.std() > 0.02
        torch.testing.assert_close(seen[0].clamp(-1, 1), 2 * wanted - 1, rtol=0, atol=2e-4)


def test_written_back_for_diffusers(tmp_path):
    pipe = pipeline(tmp_path, **VERSIONS["3.5"])
    convert_checkpoint(tmp_path / "folder", tmp_path / "ours")
    convert_checkpoint(tmp_path / "ours", tmp_path / "theirs", False, ["--to", "diffusers"])
    again = StableDiffusion3Pipeline.from_pretrained(
        tmp_path / "theirs", text_encoder_3=None, tokenizer_3=None
    )
    again.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "width": SIZE[0], "height": SIZE[1], "output_type": "pt"}
    first, second = (
        one("a cat", **options, generator=torch.Generator().manual_seed(0)).images
        for one in (pipe, again)
    )
    torch.testing.assert_close(first, second)


def test_another_scheduler_is_refused(tmp_path, capsys):
    pipeline(tmp_path)
    path = tmp_path / "folder" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dynamic_shifting": True}))
    reported = complains(capsys, "convert", tmp_path / "folder", tmp_path / "x")
    assert f"{path}: the scheduler FlowMatchEulerDiscreteScheduler is not supported" in reported
