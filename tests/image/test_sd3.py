"""Stable Diffusion 3 and 3.5: the transformer and the whole pipeline, with T5 and without it."""

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
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from multidiff import load
from multidiff.core.random import generators
from multidiff.models.convert import convert_checkpoint

SIZE = (24, 16)
VERSIONS = {"3": {}, "3.5": {"dual_attention_layers": (0,), "qk_norm": "rms_norm"}}
WIDTH = 224


def t5():
    """T5's encoder with random weights, and a tokenizer of letters and a word."""
    letters = [chr(code) for code in range(97, 123)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("\u2581cat", -1.0)]
    pieces += [(start + one, -3.0) for one in letters for start in ("", "\u2581")]
    encoder = Tokenizer(Unigram(pieces, unk_id=2))
    encoder.pre_tokenizer = Metaspace()
    encoder.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    ends = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config = T5Config(
        vocab_size=len(pieces), d_model=WIDTH, d_ff=48, d_kv=16, num_layers=2, num_heads=3,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return {
        "text_encoder_3": T5EncoderModel(config),
        "tokenizer_3": PreTrainedTokenizerFast(
            tokenizer_object=encoder, model_max_length=256, **ends
        ),
    }


def pipeline(root, with_t5=False, **options):
    torch.manual_seed(5)
    vocabulary = write_tokenizer(root)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
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
        tokenizer=small_tokenizer(root, 1),
        tokenizer_2=small_tokenizer(root, 2),
        **(t5() if with_t5 else {"text_encoder_3": None, "tokenizer_3": None}),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(root / "folder")
    return pipe


@pytest.mark.parametrize(("version", "with_t5"), [("3", False), ("3.5", False), ("3.5", True)])
def test_the_whole_pipeline(version, with_t5, tmp_path):
    pipe = pipeline(tmp_path, with_t5, **VERSIONS[version])
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
        torch.testing.assert_close(seen[0].clamp(-1, 1), 2 * wanted - 1, rtol=0, atol=1e-4)


@pytest.mark.parametrize("with_t5", [False, True])
def test_written_back_for_diffusers(with_t5, tmp_path):
    pipe = pipeline(tmp_path, with_t5, **VERSIONS["3.5"])
    convert_checkpoint(tmp_path / "folder", tmp_path / "ours")
    convert_checkpoint(tmp_path / "ours", tmp_path / "theirs", False, ["--to", "diffusers"])
    without = {} if with_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    again = StableDiffusion3Pipeline.from_pretrained(tmp_path / "theirs", **without)
    again.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "width": SIZE[0], "height": SIZE[1], "output_type": "pt"}
    first, second = (
        one("a cat", **options, generator=torch.Generator().manual_seed(0)).images
        for one in (pipe, again)
    )
    torch.testing.assert_close(first, second)


def test_t5_can_be_left_out(tmp_path, caplog, capsys):
    pipeline(tmp_path, with_t5=True)
    convert_checkpoint(tmp_path / "folder", tmp_path / "less", False, ["--without-t5"])
    assert "T5, is left out" in caplog.text
    assert load(tmp_path / "less").domain.text_encoder.third is None
    assert load(tmp_path / "folder").domain.text_encoder.third is not None
    (tmp_path / "folder" / "tokenizer_3" / "tokenizer.json").unlink()
    reported = complains(capsys, "convert", tmp_path / "folder", tmp_path / "x")
    assert "has T5, but no tokenizer_3/tokenizer.json" in reported and "--without-t5" in reported


def test_another_scheduler_is_refused(tmp_path, capsys):
    pipeline(tmp_path)
    path = tmp_path / "folder" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dynamic_shifting": True}))
    reported = complains(capsys, "convert", tmp_path / "folder", tmp_path / "x")
    assert f"{path}: the scheduler FlowMatchEulerDiscreteScheduler is not supported" in reported
