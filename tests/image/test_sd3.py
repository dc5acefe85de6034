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
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from pipelines import small_text, small_tokenizer, small_vae, write_tokenizer
from safetensors.torch import save_file
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
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.sd3_file import BLOCK, ENDS, PACKED
from multidiff.image.stable_diffusion.tensors import as_convolutions
from multidiff.image.tokenizers import T5_TOKENIZER
from multidiff.models.convert import convert_checkpoint

SIZE = (24, 16)
VERSIONS = {"3": {}, "3.5": {"dual_attention_layers": (0,), "qk_norm": "rms_norm"}}
WIDTH = 224
SHAPE = {
    "attention_head_dim": 16, "num_attention_heads": 2, "caption_projection_dim": 32,
    "pooled_projection_dim": 72,
}  # fmt: skip
# As in the published models: heads of 64 channels, and no projection by the first encoder.
PUBLISHED = {
    "attention_head_dim": 64, "num_attention_heads": 1, "caption_projection_dim": 64,
    "pooled_projection_dim": 64 + 48,
}  # fmt: skip


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
        "text_encoder_3": T5EncoderModel(config).eval(),
        "tokenizer_3": PreTrainedTokenizerFast(
            tokenizer_object=encoder, model_max_length=256, **ends
        ),
    }


def first_encoder(vocabulary, projection):
    found = CLIPTextModelWithProjection(small_text(vocabulary, 1, projection_dim=projection))
    if projection == 64:
        torch.nn.init.eye_(found.text_projection.weight)
    return found


def pipeline(root, with_t5=False, **options):
    torch.manual_seed(5)
    vocabulary = write_tokenizer(root)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        joint_attention_dim=WIDTH,
        pos_embed_max_size=8,
        **{**SHAPE, **options},
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
        text_encoder=first_encoder(vocabulary, transformer.config.pooled_projection_dim - 48),
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


def original(pipe, vae):
    """A pipeline's tensors by the names of a single file, the transformer's by our map inverted."""
    theirs = pipe.transformer.state_dict()
    layers, state = pipe.transformer.config.num_layers, {}
    for layer in range(layers):
        ours = f"transformer_blocks.{layer}."
        for one, own in BLOCK.items():
            for leaf in ("weight", "bias"):
                if f"{ours}{own}.{leaf}" in theirs:
                    tensor = theirs[f"{ours}{own}.{leaf}"]
                    if own == "norm1_context.linear" and layer == layers - 1:
                        tensor = torch.cat(tensor.chunk(2)[::-1])
                    state[f"joint_blocks.{layer}.{one}.{leaf}"] = tensor
        for one, parts in PACKED.items():
            for leaf in ("weight", "bias"):
                if f"{ours}{parts[0]}.{leaf}" in theirs:
                    tensors = [theirs[f"{ours}{part}.{leaf}"] for part in parts]
                    state[f"joint_blocks.{layer}.{one}.{leaf}"] = torch.cat(tensors)
    for one, own in ENDS.items():
        for leaf in (".weight", ".bias", ""):
            if own + leaf in theirs:
                tensor = theirs[own + leaf]
                tensor = torch.cat(tensor.chunk(2)[::-1]) if own.startswith("norm_out") else tensor
                state[one + leaf] = tensor
    state = {f"model.diffusion_model.{name}": one for name, one in state.items()}
    pairs = naming.autoencoder_map_of(vae)
    named, unknown = naming.sorted_out(as_convolutions(vae), pairs)
    assert not unknown
    state |= {f"first_stage_model.{name}": one for name, one in named.items()}
    for start, encoder in (("clip_l", pipe.text_encoder), ("clip_g", pipe.text_encoder_2)):
        for name, one in encoder.state_dict().items():
            if start == "clip_g" or "projection" not in name:
                state[f"text_encoders.{start}.transformer.{name}"] = one
    t5 = pipe.text_encoder_3.state_dict()
    state |= {f"text_encoders.t5xxl.transformer.{name}": t5[name] for name in t5
              if name != "encoder.embed_tokens.weight"}  # fmt: skip
    return {name: one.clone().contiguous() for name, one in state.items()}


def test_a_single_file_is_the_folder(tmp_path, caplog, capsys):
    pipe = pipeline(tmp_path, with_t5=True, **PUBLISHED, **VERSIONS["3.5"])
    folder, path = load(tmp_path / "folder"), tmp_path / "sd3.safetensors"
    state = original(pipe, folder.domain.autoencoder.state_dict())
    inner = {name: one for name, one in state.items() if name.startswith("model.diffusion_model.")}
    referee = convert_sd3_transformer_checkpoint_to_diffusers(dict(inner))
    wanted = pipe.transformer.state_dict()
    assert referee.keys() == wanted.keys()
    assert all(torch.equal(one, wanted[name]) for name, one in referee.items())
    save_file(state, path)
    (tmp_path / T5_TOKENIZER).write_text(
        (tmp_path / "folder" / "tokenizer_3" / "tokenizer.json").read_text()
    )
    found = load(path)
    assert found.sampling.scheduler == folder.sampling.scheduler
    theirs = folder.state_dict()
    assert found.state_dict().keys() == theirs.keys()
    assert all(torch.equal(one, theirs[name]) for name, one in found.state_dict().items())
    options = {"size": SIZE, "steps": 2}
    assert torch.equal(found.generate("a cat", **options), folder.generate("a cat", **options))
    beyond = [f"{start}strange.weight" for start in ("", "first_stage_model.")]
    save_file(state | {name: torch.zeros(1) for name in beyond}, tmp_path / "more.safetensors")
    reported = complains(capsys, "convert", tmp_path / "more.safetensors", tmp_path / "x")
    assert ", ".join(beyond) in reported and "--allow-unexpected" in reported
    (tmp_path / T5_TOKENIZER).unlink()
    assert load(path).domain.text_encoder.third is None and "T5 is left out" in caplog.text
    save_file(inner, path)
    assert "without its text encoders" in complains(capsys, "convert", path, tmp_path / "x")


def test_another_scheduler_is_refused(tmp_path, capsys):
    pipeline(tmp_path)
    path = tmp_path / "folder" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dynamic_shifting": True}))
    reported = complains(capsys, "convert", tmp_path / "folder", tmp_path / "x")
    assert f"{path}: the scheduler FlowMatchEulerDiscreteScheduler is not supported" in reported
