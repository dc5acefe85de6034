"""Stable Diffusion XL: the whole pipeline, its two encoders, sizes and negative prompts."""

import json
import shutil

import pytest
import torch
from commands import complains
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from pipelines import autoencoder, compvis, on_meta, text_encoder, xl_pipeline
from safetensors.torch import load_file, save_file

from multidiff import load
from multidiff.config.recipe import parse
from multidiff.core.random import generators
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.conversion import convert
from multidiff.image.stable_diffusion.lora import merge_lora
from multidiff.image.stable_diffusion.recipe import SCALING_XL, SCHEDULE, Words
from multidiff.image.stable_diffusion.shapes import (
    autoencoder_words,
    both_text_words,
    unet_words,
)
from multidiff.models.convert import convert_checkpoint

SIZE = (24, 16)  # width and height
PROMPT = "a cat, cab"


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    """A pipeline and its folder."""
    root = tmp_path_factory.mktemp("xl")
    pipe = xl_pipeline(root)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(root / "folder")
    save_file(compvis(pipe), root / "single.safetensors")
    return pipe, root / "folder"


def ours(model, negative_prompt, **options):
    """The image of a prompt before it becomes bytes."""
    seen, decode = [], model.domain.to_image
    model.domain.to_image = lambda *given: seen.append(decode(*given)) or seen[-1]
    model.generate([PROMPT], size=SIZE, seed=7, negative_prompt=negative_prompt, **options)
    model.domain.to_image = decode
    return seen[0]


def theirs(pipe, model, negative_prompt, steps=4):
    noise = model.process.prior(model.domain.state_shape(1, SIZE), generators([7]))
    width, height = SIZE
    return 2 * pipe(
        PROMPT,
        negative_prompt=negative_prompt,
        num_inference_steps=steps,
        guidance_scale=5.0,
        width=width,
        height=height,
        latents=noise.clone(),
        output_type="pt",
    ).images - 1  # fmt: skip


@pytest.mark.parametrize("negative_prompt", [None, "", "b, c"])
def test_the_whole_pipeline(xl, negative_prompt, request):
    pipe, folder = xl
    model = load(folder)
    found = ours(model, negative_prompt, steps=4).clamp(-1, 1)
    wanted = theirs(pipe, model, negative_prompt)
    assert wanted.std() > 0.05
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    seen = vars(request.module).setdefault("seen", [])
    assert all((found - other).abs().max() > 1e-2 for other in seen)  # all three differ
    seen.append(found)


def test_the_published_scheduler(xl, tmp_path):
    pipe, folder = xl
    shutil.copytree(folder, tmp_path / "euler")
    own = pipe.scheduler
    pipe.scheduler = EulerDiscreteScheduler.from_config(own.config, timestep_spacing="leading")
    pipe.scheduler.save_pretrained(tmp_path / "euler" / "scheduler")
    model = load(tmp_path / "euler")
    try:
        wanted = theirs(pipe, model, None)
    finally:
        pipe.scheduler = own
    found = ours(model, None, steps=4).clamp(-1, 1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_long_prompts_and_weights_reach_both_encoders(xl):
    model = load(xl[1])
    plain, weighted = (model.condition([text], size=SIZE) for text in ("a cat", "a (cat:1.5)"))
    assert torch.equal(plain["pooled"], weighted["pooled"])
    assert (plain["words"] - weighted["words"]).abs().max() > 1e-3
    long = " ".join(["a"] * 15)
    found = model.condition([long, "a"], model.domain.pieces(long), size=SIZE)
    assert found["words"].shape == (2, 24, 192) and found["pooled"].shape == (2, 48)
    assert torch.equal(found["sizes"][0], torch.tensor([16.0, 24, 0, 0, 16, 24]))


def test_written_back_for_diffusers(xl, tmp_path):
    pipe, folder = xl
    convert_checkpoint(folder, tmp_path / "ours")
    convert_checkpoint(tmp_path / "ours", tmp_path / "theirs", False, ["--to", "diffusers"])
    again = StableDiffusionXLPipeline.from_pretrained(tmp_path / "theirs", add_watermarker=False)
    again.set_progress_bar_config(disable=True)
    model = load(tmp_path / "ours")
    assert model.sampling.guidance_scale == 5
    torch.testing.assert_close(theirs(again, model, None), theirs(pipe, model, None))
    assert torch.equal(ours(model, None, steps=2), ours(load(tmp_path / "theirs"), None, steps=2))


# ----------------------------------------------------------------------------- single files


def model_of(conversion):
    return parse(conversion.recipe, "recipe").plain()["model"]


def test_the_single_file_says_and_holds_the_same(xl, tmp_path):
    _, folder = xl
    single = folder.parent / "single.safetensors"
    ours, theirs = convert(folder), convert(single)
    assert theirs.about == "Stable Diffusion XL, predicts epsilon"
    said, found = model_of(ours), model_of(theirs)
    assert said["domain"].pop("size") == [16, 16] and found["domain"].pop("size") == [1024, 1024]
    assert said["denoiser"].pop("dropout") == 0
    assert found.pop("sampling") == {
        "steps": 50,
        "timestep_spacing": "scheduler",
        "sampler": "scheduler",
        "guidance_scale": 5.0,
        "scheduler": {"kind": "EulerDiscrete", "timestep_spacing": "leading", "steps_offset": 1},
    }
    assert said.pop("sampling")["guidance_scale"] == 5 and said == found
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in ours.tensors)
    convert_checkpoint(single, tmp_path / "ours")
    path = tmp_path / "again.safetensors"
    convert_checkpoint(tmp_path / "ours", path, False, ["--to", "single-file"])
    again, before = load_file(path), load_file(single)
    assert again.keys() == before.keys()
    assert all(torch.equal(again[name], before[name]) for name in before)


def test_a_fine_tune_that_predicts_v(xl, tmp_path):
    state = load_file(xl[1].parent / "single.safetensors")
    empty = torch.zeros(0)
    save_file(state | {"v_pred": empty, "ztsnr": empty}, tmp_path / "v.safetensors")
    found = model_of(convert(tmp_path / "v.safetensors", tokenizer=xl[1] / "tokenizer"))
    assert found["process"]["prediction"] == "v"
    assert found["process"]["schedule"]["use"] == "BetaSchedule.zero_terminal_snr"
    assert found["sampling"]["timestep_spacing"] == "trailing"


def test_every_tensor_of_the_published_model_lands():
    unet = on_meta(
        UNet2DConditionModel,
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ).state_dict()
    first, second = text_encoder(768, 12, 12), text_encoder(1280, 32, 20)
    tensors = {
        **{naming.OUR_UNET + name: t for name, t in unet.items()},
        **{naming.OUR_AUTOENCODER + name: t for name, t in autoencoder().state_dict().items()},
        **{naming.OUR_FIRST + name: t for name, t in first.items()},
        **{naming.OUR_SECOND + name: t for name, t in second.items()},
        naming.OUR_PROJECTION + ".weight": torch.empty(1280, 1280, device="meta"),
    }
    assert sum(t.numel() for t in unet.values()) == 2_567_463_684
    words = Words(
        unet_words(tensors),
        autoencoder_words(tensors, SCALING_XL),
        both_text_words(tensors),
        dict(SCHEDULE),
        "epsilon",
        pad=49407,
    )
    wanted = {"heads": [5, 10, 20], "blocks": [1, 2, 10], "pooled_width": 1280}
    wanted |= {"attention": ["none", "cross", "cross"], "condition_width": 2048, "upcast": False}
    assert {key: words.denoiser[key] for key in wanted} == wanted
    shapes = words.shapes()
    assert shapes == {name: tuple(t.shape) for name, t in tensors.items()}


# ----------------------------------------------------------------------------- LoRA

RANK, ALPHA = 2, 4.0
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k"
LAYERS = {  # path in diffusers: kohya's name, by the original's block names where they differ
    f"unet.{ATTENTION}": "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_k",
    "unet.mid_block.attentions.0.proj_in": "lora_unet_middle_block_1_proj_in",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj":
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
    "text_encoder_2.text_model.encoder.layers.1.mlp.fc1":
        "lora_te2_text_model_encoder_layers_1_mlp_fc1",
}  # fmt: skip


def drawn(pipe):
    """A and B of each layer."""
    rng, found = torch.Generator().manual_seed(1), {}
    for path in LAYERS:
        part, _, inner = path.partition(".")
        weight = getattr(pipe, part).get_submodule(own_path(pipe, part, inner)).weight
        found[path] = (
            torch.randn(RANK, weight.shape[1], generator=rng),
            torch.randn(weight.shape[0], RANK, generator=rng),
        )
    return found


def own_path(pipe, part, inner):
    """A path in the library's version of today, which may omit text_model."""
    has_prefix = any(n.startswith("text_model.") for n, _ in getattr(pipe, part).named_modules())
    return inner if has_prefix else inner.removeprefix("text_model.")


@pytest.mark.parametrize("style", ["diffusers", "kohya", "kohya, diffusers' blocks"])
def test_a_lora_of_all_three_networks(xl, tmp_path, style):
    pipe, folder = xl
    pairs, state = drawn(pipe), {}
    for path, (down, up) in pairs.items():
        if style == "diffusers":
            state |= {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
            continue
        name = LAYERS[path]
        if "blocks" in style and path.startswith("unet."):
            name = f"lora_unet_{path.removeprefix('unet.').replace('.', '_')}"
        state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        state[f"{name}.alpha"] = torch.tensor(ALPHA)
    save_file(state, tmp_path / "a.safetensors")
    model, before = load(folder), load(folder)
    report = merge_lora(model, tmp_path / "a.safetensors", 0.5)
    assert len(report.matched) == len(LAYERS) and not report.unmatched
    scale = 0.5 * (1 if style == "diffusers" else ALPHA / RANK)
    parts = {"unet": naming.OUR_UNET, "text_encoder": naming.OUR_FIRST}
    parts["text_encoder_2"] = naming.OUR_SECOND
    after, changed = dict(model.named_parameters()), 0
    for path, (down, up) in pairs.items():
        part, _, inner = path.partition(".")
        name = f"{parts[part]}{inner.removeprefix('text_model.')}.weight"
        wanted = before.get_parameter(name) + scale * up @ down
        torch.testing.assert_close(after[name], wanted)
        changed += 1
    others = [n for n, p in before.named_parameters() if not torch.equal(p, after[n])]
    assert len(others) == changed


# ----------------------------------------------------------------------------- refused


def test_the_refiner_and_what_is_missing(xl, tmp_path, capsys):
    copy, index = tmp_path / "copy", tmp_path / "copy" / "model_index.json"
    shutil.copytree(xl[1], copy)
    said = json.loads(index.read_text())
    shutil.rmtree(copy / "text_encoder_2")

    def reason():
        return complains(capsys, "convert", copy, tmp_path / "x")

    assert "has no folder text_encoder_2; download the whole model" in reason()
    index.write_text(json.dumps(said | {"text_encoder": [None, None]}))
    assert "is the refiner of Stable Diffusion XL" in reason()
    part = ["diffusers", "FluxTransformer2DModel"]
    index.write_text(json.dumps({"_class_name": "FluxPipeline", "transformer": part}))
    assert "is a FluxPipeline (Flux, a flow transformer that reads T5); supported" in reason()
