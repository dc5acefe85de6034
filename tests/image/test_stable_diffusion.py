"""Stable Diffusion's files: read and written, equal outputs, and what is refused."""

import json
import pickle
import shutil
import socket
import sys
import types

import pytest
import torch
from commands import complains, does
from diffusers import StableDiffusionPipeline
from pipelines import autoencoder, compvis, pipeline, text_encoder, unet, write_tokenizer
from safetensors.torch import load_file, save_file

from multidiff import load
from multidiff.config.recipe import parse
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.image.stable_diffusion import naming
from multidiff.image.stable_diffusion.conversion import convert, knows
from multidiff.image.stable_diffusion.openai import COMPARED
from multidiff.image.stable_diffusion.recipe import SCHEDULE, Words
from multidiff.image.stable_diffusion.shapes import (
    autoencoder_words,
    schedule_of,
    text_words,
    unet_words,
)
from multidiff.image.stable_diffusion.tensors import without_clip_prefix
from multidiff.models.convert import convert_checkpoint
from multidiff.models.loading import shipped
from multidiff.models.weights import LEFT_ALONE, read_pickle
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report

STEPS = 1000


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return written(tmp_path_factory.mktemp("first"), 1)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return written(tmp_path_factory.mktemp("second"), 2)


def written(root, version, **options):
    """A pipeline, as ``folder`` and as ``single.safetensors`` beside its tokenizer's files."""
    pipe = pipeline(root, version, **options)
    pipe.save_pretrained(root / "folder")
    save_file(compvis(pipe), root / "single.safetensors")
    return root, pipe


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("a file on the disk needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def said(conversion):
    return parse(conversion.recipe, "recipe").plain()["model"]


def close(ours, theirs):
    scale = float(theirs.abs().max())
    assert scale > 1e-3
    torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-4, atol=1e-4)


def compare(model, pipe):
    """The three networks' outputs, and the tokens of a prompt."""
    rng = torch.Generator().manual_seed(0)
    # Not "!", which diffusers takes for padding in the second version and its makers do not.
    prompts = ["a cat sat", "cab, ab."]
    options = {"padding": "max_length", "truncation": True, "max_length": 12}
    tokens = pipe.tokenizer(prompts, return_tensors="pt", **options).input_ids
    with torch.no_grad():
        assert torch.equal(model.domain.tokenizer(prompts), tokens)
        words = pipe.text_encoder(tokens)[0]
        close(model.domain.condition(prompts), words)
        xt = torch.randn(2, 4, 8, 8, generator=rng)
        time = torch.tensor([17, 981])
        level = model.process.schedule.at((time + 1) / STEPS)
        close(level.alpha.float(), pipe.scheduler.alphas_cumprod[time].sqrt())
        close(model.denoiser(xt, level, words), pipe.unet(xt, time, words).sample)
        image = torch.rand(1, 3, 16, 16, generator=rng) * 2 - 1
        found, wanted = model.domain.autoencoder.encode(image), pipe.vae.encode(image)
        close(found.mean, wanted.latent_dist.mean)
        latent = wanted.latent_dist.mean
        close(model.domain.autoencoder.decode(latent), pipe.vae.decode(latent).sample)


# ----------------------------------------------------------------------------- reading


@pytest.mark.parametrize("form", ["folder", "single.safetensors"])
def test_the_first_version_computes_the_same(first, form):
    root, pipe = first
    compare(load(root / form), pipe)


@pytest.mark.parametrize("form", ["folder", "single.safetensors"])
def test_the_second_version_computes_the_same(second, form, tmp_path):
    root, pipe = second
    options = [] if form == "folder" else ["--prediction", "epsilon"]
    convert_checkpoint(root / form, tmp_path / "model", False, options)
    compare(load(tmp_path / "model"), pipe)


def test_folder_and_file_say_the_same(first):
    root, _ = first
    folder, single = convert(root / "folder"), convert(root / "single.safetensors")
    ours, theirs = said(folder), said(single)
    # The size stands in the folder alone; a single file's is as published.
    assert ours["domain"].pop("size") == [16, 16] and theirs["domain"].pop("size") == [512, 512]
    assert ours["denoiser"].pop("dropout") == 0
    # Neither is the scheduler in a file.
    assert ours.pop("sampling") == {
        "steps": 50,
        "timestep_spacing": "scheduler",
        "sampler": "scheduler",
        "guidance_scale": 7.5,
        "scheduler": {
            "kind": "DDIM",
            "timestep_spacing": "leading",
            "set_alpha_to_one": False,
            "steps_offset": 1,
        },
    }
    assert theirs.pop("sampling") == {
        "steps": 50,
        "timestep_spacing": "leading",
        "sampler": "ddim",
        "guidance_scale": 7.5,
    }
    assert ours == theirs
    assert ours["domain"]["tokenizer"] == {"use": "ClipTokenizer", "length": 12, "pad": 192}
    assert folder.tensors.keys() == single.tensors.keys()
    assert all(torch.equal(folder.tensors[name], single.tensors[name]) for name in folder.tensors)
    assert json.loads(folder.texts["vocab.json"]) == json.loads(single.texts["vocab.json"])
    assert folder.texts["merges.txt"] == single.texts["merges.txt"]


def test_the_folder_that_one_stands_in(first, monkeypatch):
    monkeypatch.chdir(first[0] / "folder")
    assert load(".").name == "folder"


def test_older_names_and_files(first, tmp_path):
    """Text names without their prefix, a buffer, the autoencoder's old attention, ``.bin``."""
    root, pipe = first
    shutil.copytree(root / "folder", tmp_path / "old")
    vae = pipe.vae.state_dict()
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    at = "mid_block.attentions.0."
    for new, old in older.items():
        vae = {name.replace(at + new, at + old): tensor for name, tensor in vae.items()}
    replace(tmp_path / "old/vae", "diffusion_pytorch_model.bin", vae)
    text = {f"text_model.{name}": t for name, t in text_of(pipe).items()}
    text["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    replace(tmp_path / "old/text_encoder", "pytorch_model.fp16.bin", text)
    unet = list(pipe.unet.state_dict().items())
    parts = {"a.safetensors": dict(unet[:9]), "b.safetensors": dict(unet[9:])}
    index = {"weight_map": {n: part for part, tensors in parts.items() for n in tensors}}
    for part, tensors in parts.items():
        replace(tmp_path / "old/unet", part, tensors)
    path = tmp_path / "old/unet/diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps(index))
    save_file(unet_of(parts["a.safetensors"]), tmp_path / "old/unet/a.safetensors")
    new, old = convert(root / "folder"), convert(tmp_path / "old")
    assert new.tensors.keys() == old.tensors.keys()
    assert all(torch.equal(new.tensors[name], old.tensors[name]) for name in new.tensors)


def replace(folder, name, tensors):
    """Other weights in the place of a component's ``.safetensors``."""
    for path in folder.glob("*model.safetensors"):
        path.unlink()
    if name.endswith("safetensors"):
        save_file(unet_of(tensors), folder / name)
    else:
        torch.save(tensors, folder / name)


def unet_of(tensors):
    return {name: t.contiguous() for name, t in tensors.items()}


def text_of(pipe):
    return without_clip_prefix(pipe.text_encoder.state_dict())


def changed(root, tmp_path, component, **values):
    """A copy of the folder with some of a component's configuration changed."""
    shutil.copytree(root / "folder", tmp_path / "copy")
    name = "scheduler_config.json" if component == "scheduler" else "config.json"
    path = tmp_path / "copy" / component / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"prediction_type": "v_prediction"}, {"prediction": "v"}),
        ({"timestep_spacing": "trailing"}, {"timestep_spacing": "trailing"}),
        ({"_class_name": "DPMSolverMultistepScheduler"}, {"kind": "DPMSolverMultistep"}),
        ({"beta_schedule": "linear"}, {"use": "BetaSchedule.linear"}),
        ({"beta_schedule": "squaredcos_cap_v2"}, {"use": "BetaSchedule.cosine"}),
        ({"trained_betas": [0.1] * 1000}, {"use": "BetaSchedule"}),
    ],
)
def test_what_the_scheduler_says(first, tmp_path, config, words):
    found = said(convert(changed(first[0], tmp_path, "scheduler", **config)))
    process = found["process"]
    here = {**found["sampling"]["scheduler"], **process["schedule"]}
    here |= {"prediction": process["prediction"]}
    assert {key: here[key] for key in words} == words


def test_the_size_of_pictures_that_are_not_square(first, tmp_path, capsys):
    folder = changed(first[0], tmp_path, "unet", sample_size=[8, 12])
    assert said(convert(folder))["domain"]["size"] == [24, 16]
    does(capsys, "convert", folder, tmp_path / "ours")
    does(capsys, "convert", tmp_path / "ours", tmp_path / "theirs", "--to", "diffusers")
    config = json.loads((tmp_path / "theirs/unet/config.json").read_text())
    assert config["sample_size"] == [8, 12]


def test_zero_terminal_snr(tmp_path):
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    root, pipe = written(tmp_path, 1, prediction="v_prediction", **options)
    model = load(root / "folder")
    assert model.sampling.scheduler.timestep_spacing == "trailing"
    time = torch.tensor([0, 500, 999])
    alpha = model.process.schedule.at((time + 1) / STEPS).alpha
    # Where diffusers keeps its last alpha above zero it does so by 2^-24.
    torch.testing.assert_close(
        alpha.float(), pipe.scheduler.alphas_cumprod[time].sqrt(), rtol=1e-3, atol=1e-3
    )
    assert float(alpha[2]) == 0
    compare(model, pipe)


# --------------------------------------------------------------------- single files


def test_a_ckpt_with_everything_published_files_hold(first, tmp_path):
    """Tables, an averaged UNet, a buffer, objects of the training program; the prefix left out."""
    root, pipe = first
    state = load_file(root / "single.safetensors")
    state = {
        name.replace("transformer.text_model.", "transformer."): t for name, t in state.items()
    }
    averaged = {naming.averaged_name(name.removeprefix(naming.UNET)): t + 1
                for name, t in state.items() if name.startswith(naming.UNET)}  # fmt: skip
    betas = pipe.scheduler.betas
    state |= averaged | {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(7),
        "betas": betas,
        "alphas_cumprod": (1 - betas).cumprod(0),
        "sqrt_recip_alphas_cumprod": betas,
        "posterior_variance": betas,
        "logvar": betas,
        "lvlb_weights": betas,
        "first_stage_model.loss.logvar": torch.zeros(1),
        "cond_stage_model.transformer.embeddings.position_ids": torch.arange(12)[None],
    }
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "a.ckpt")
    write_tokenizer(tmp_path / "tokenizer")
    wanted = convert(root / "single.safetensors")
    plain, ema = convert(tmp_path / "a.ckpt"), convert(tmp_path / "a.ckpt", ema=True)
    assert said(plain) == said(wanted) and plain.texts.keys() == wanted.texts.keys()
    for name, tensor in wanted.tensors.items():
        assert torch.equal(plain.tensors[name], tensor)
        more = 1 if name.startswith(naming.OUR_UNET) else 0
        assert torch.equal(ema.tensors[name], tensor + more)


def test_a_ckpt_of_a_training_program(tmp_path, monkeypatch):
    """The class that Lightning leaves in its files is read as an empty one, and not imported."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")

    class ModelCheckpoint:
        pass

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = module.__name__, "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint
    with monkeypatch.context() as patch:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
            patch.setitem(sys.modules, name, module)
        content = {"state_dict": {"a": torch.ones(2)}, "callbacks": {ModelCheckpoint: {"best": 1}}}
        torch.save(content, tmp_path / "a.ckpt")
    assert module.__name__ + ".ModelCheckpoint" in LEFT_ALONE
    found = read_pickle(tmp_path / "a.ckpt")
    assert torch.equal(found["state_dict"]["a"], torch.ones(2))
    assert ModelCheckpoint not in found["callbacks"]


def test_the_24th_layer_of_open_clip_is_left_out(second, tmp_path):
    root, _ = second
    state = load_file(root / "single.safetensors")
    wanted = convert(root / "single.safetensors", prediction="v")
    layer = "cond_stage_model.model.transformer.resblocks."
    state |= {name.replace(f"{layer}1.", f"{layer}23."): t.clone() for name, t in state.items()
              if name.startswith(f"{layer}1.")}  # fmt: skip
    for name in ("text_projection", "logit_scale", "attn_mask"):
        state[f"cond_stage_model.model.{name}"] = torch.zeros(1)
    save_file(state, tmp_path / "a.safetensors")
    found = convert(tmp_path / "a.safetensors", prediction="v", tokenizer=root)
    assert said(found) == said(wanted) and found.tensors.keys() == wanted.tensors.keys()
    assert said(found)["process"]["prediction"] == "v"
    assert said(found)["domain"]["size"] == [768, 768]


def test_without_a_tokenizer_the_model_is_written_and_says_so(first, tmp_path, capsys):
    root, _ = first
    save_file(load_file(root / "single.safetensors"), tmp_path / "a.safetensors")
    reported = does(capsys, "convert", tmp_path / "a.safetensors", tmp_path / "model", "--half")
    assert "put vocab.json and merges.txt of CLIP's tokenizer into the folder" in reported
    assert not (tmp_path / "model/vocab.json").exists()
    with pytest.raises(InputError, match=r"vocab\.json"):
        load(tmp_path / "model").domain.condition(["a cat"])
    write_tokenizer(tmp_path / "model")
    assert load(tmp_path / "model").domain.condition(["a cat"]).shape == (1, 12, 64)
    half = load_file(tmp_path / "model/model.safetensors")
    assert all(t.dtype == torch.float16 for t in half.values())


def test_marks_that_some_files_carry(first, tmp_path):
    """Two empty tensors by which people mark velocity models with zero terminal SNR."""

    def marks(state):
        state.update(v_pred=torch.zeros(0), ztsnr=torch.zeros(0))

    found = said(convert(single(first, tmp_path, marks)))
    assert (
        found["process"]["prediction"] == "v"
        and found["sampling"]["timestep_spacing"] == "trailing"
    )
    assert found["process"]["schedule"]["use"] == "BetaSchedule.zero_terminal_snr"


@pytest.mark.parametrize(
    ("version", "denoiser", "text"),
    [
        (
            1,
            {"heads": [8, 8, 8, 8], "condition_width": 768, "linear_projection": False},
            {"width": 768, "feed_forward": 3072, "layers": 12, "heads": 12, "length": 77},
        ),
        (
            2,
            {"heads": [5, 10, 20, 20], "condition_width": 1024, "linear_projection": True},
            {"width": 1024, "feed_forward": 4096, "layers": 23, "heads": 16, "length": 77},
        ),
    ],
)
def test_shapes_tell_the_published_models(version, denoiser, text):
    """From shapes to words, and from words to a model that has just these tensors."""
    tensors = {
        **{naming.OUR_UNET + name: t for name, t in unet(version).state_dict().items()},
        **{naming.OUR_AUTOENCODER + name: t for name, t in autoencoder().state_dict().items()},
        **{naming.OUR_TEXT_ENCODER + n: t
           for n, t in text_encoder(text["width"], text["layers"], text["heads"]).items()},
    }  # fmt: skip
    words = Words(
        unet_words(tensors),
        autoencoder_words(tensors),
        text_words(tensors, is_open_clip=version == 2),
        dict(SCHEDULE),
        "epsilon",
        pad=0,
    )
    wanted = {"channels": [320, 640, 1280, 1280], "layers": 2, "in_channels": 4, "out_channels": 4}
    wanted["attention"] = ["cross", "cross", "cross", "none"]
    assert {key: words.denoiser[key] for key in wanted | denoiser} == wanted | denoiser
    wanted = {"channels": [128, 256, 512, 512], "layers": 2, "latent_channels": 4}
    wanted |= {"image_channels": 3, "scaling": 0.18215, "groups": 32, "norm_eps": 1e-6}
    assert words.autoencoder == wanted
    assert {key: words.text_encoder[key] for key in text} == text
    assert len(tensors) == (1130, 1306)[version - 1]
    assert sorted(words.shapes()) == sorted(tensors)


def test_betas_that_a_file_keeps():
    usual = {"use": "BetaSchedule.scaled_linear", "steps": 500, "first": 0.0015, "last": 0.0195}
    betas = BetaSchedule.scaled_linear(500, 0.0015, 0.0195).betas
    assert schedule_of(betas.float()) == usual
    odd = BetaSchedule.cosine(20).betas
    assert schedule_of(odd) == {"use": "BetaSchedule", "betas": odd.tolist()}


# ----------------------------------------------------------------------------- refused


def single(first, tmp_path, change):
    """A single file with some tensors changed."""
    state = load_file(first[0] / "single.safetensors")
    change(state)
    save_file(state, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def renames(state):
    state["model.diffusion_model.input_blocks.1.0.in_layers.9.weight"] = state.pop(
        "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    )


def drops(*pieces):
    def change(state):
        for name in [name for name in state if any(piece in name for piece in pieces)]:
            del state[name]

    return change


def adds(name, *shape):
    return lambda state: state.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (renames, "in_layers.2.weight, and has model.diffusion_model.input_blocks.1.0.in_layers.9"),
        (drops("out.2.bias"), "lacks model.diffusion_model.out.2.bias"),
        (drops("time_embed"), "time_embed.2.weight and 1 more"),
        (drops("quant_conv"), "lacks first_stage_model.post_quant_conv.weight"),
        (drops("cond_stage_model"), "has no text encoder"),
        (drops("first_stage_model"), "has no autoencoder"),
        (drops("model.diffusion_model", "cond_stage_model"), "an autoencoder alone"),
        (drops("input_blocks.3.0"), "not its UNet"),
        (adds("conditioner.embedders.0.model.ln_final.bias", 1), "is the refiner of Stable Diff"),
        (adds("model.diffusion_model.label_emb.0.0.weight", 4, 2000), "reads a further embedding"),
        (adds("model.diffusion_model.joint_blocks.0.x", 1),
         "is Stable Diffusion 3 without its text encoders"),
        (adds("model.diffusion_model.double_blocks.0.x", 1), "is Flux"),
        (adds("control_model.x", 1), "is a ControlNet"),
        (adds("model.diffusion_model.input_blocks.0.0.weight", 64, 8, 3, 3),
         "is a model for editing by instruction: its UNet reads 8 channels"),
        (adds("model.diffusion_model.input_blocks.0.0.weight"), "do not have Stable Diffusion"),
        (adds("model.diffusion_model.input_blocks.1.0.out_layers.3.weight", 33, 64, 3, 3),
         "do not have Stable Diffusion's shapes"),
        (adds("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", 9),
         "do not have Stable Diffusion's shapes"),
        (adds("model.diffusion_model.out.2.bias", 5), "conv_out.bias (5,) instead of (4,)"),
    ],
)  # fmt: skip
def test_single_files_that_are_something_else(first, tmp_path, capsys, change, reason):
    path = single(first, tmp_path, change)
    reported = refused(capsys, path, tmp_path)
    assert str(path) in reported and reason in reported


@pytest.mark.parametrize("form", ["folder", "single.safetensors"])
def test_unexpected_tensors_are_left_out_if_that_is_allowed(first, tmp_path, capsys, caplog, form):
    root, pipe = first
    source = tmp_path / form
    if form == "folder":
        shutil.copytree(root / form, source)
        path, name = source / "unet/diffusion_pytorch_model.safetensors", "strange.weight"
    else:
        write_tokenizer(tmp_path)
        path, name = source, "strange.weight"
        shutil.copy(root / form, source)
    save_file({**load_file(path), name: torch.zeros(3)}, path)
    reported = complains(capsys, "convert", source, tmp_path / "model")
    assert str(source) in reported and name in reported and "--allow-unexpected" in reported
    assert not (tmp_path / "model").exists()
    does(capsys, "convert", source, tmp_path / "model", "--allow-unexpected")
    assert "left out 1 un" in caplog.text and name in caplog.text
    compare(load(tmp_path / "model"), pipe)


def refused(capsys, source, tmp_path):
    """The one line that ``convert``, ``sample`` and ``eval`` all end with."""
    reported = complains(capsys, "convert", source, tmp_path / "model")
    assert complains(capsys, "sample", source, "--prompt", "a", "-o", tmp_path / "out") == reported
    assert complains(capsys, "eval", source) == reported
    assert not (tmp_path / "model").exists() and not (tmp_path / "out").exists()
    return reported


@pytest.mark.parametrize("size", [0, 5, 300, -1000])
def test_files_that_were_not_copied_whole(first, tmp_path, capsys, size):
    path = tmp_path / "a.safetensors"
    path.write_bytes((first[0] / "single.safetensors").read_bytes()[:size])
    reported = refused(capsys, path, tmp_path)
    assert (
        f"{path}: is not a whole safetensors file" in reported and "download it again" in reported
    )


def test_files_of_one_part_alone(first, tmp_path, capsys):
    _, pipe = first
    lora = {"unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.zeros(1)}
    for name, state, reason in (
        ("vae", pipe.vae.state_dict(), "an autoencoder alone"),
        ("unet", pipe.unet.state_dict(), "a UNet alone"),
        ("lora", lora, "a LoRA"),
    ):
        path = tmp_path / f"{name}.safetensors"
        save_file(unet_of(state), path)
        assert reason in refused(capsys, path, tmp_path)
    reported = refused(capsys, first[0] / "folder/vae", tmp_path)
    assert "is only a part of a model, or a LoRA" in reported


@pytest.mark.parametrize(
    ("component", "values", "reason"),
    [
        ("unet", {"addition_embed_type": "text_time"}, 'addition_embed_type is "text_time"'),
        ("unet", {"transformer_layers_per_block": [1, 2]}, "transformer_layers_per_block"),
        ("unet", {"in_channels": 8}, "is a model for editing by instruction"),
        ("unet", {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "AttnDownBlock2D"),
        ("unet", {"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "do not mirror"),
        ("unet", {"layers_per_block": 2}, "missing"),
        ("vae", {"block_out_channels": 64}, "have values that diffusers never writes ("),
        ("vae", {"use_quant_conv": False}, "use_quant_conv is false"),
        ("scheduler", {"prediction_type": "flow"}, "'flow' is not one of epsilon"),
        ("scheduler", {"beta_schedule": "exp"}, "beta_schedule 'exp' must be one of"),
    ],
)
def test_folders_that_are_something_else(first, tmp_path, capsys, component, values, reason):
    folder = changed(first[0], tmp_path, component, **values)
    reported = refused(capsys, folder, tmp_path)
    assert str(folder) in reported and reason in reported


def test_folders_that_are_not_whole(first, tmp_path, capsys):
    folder = changed(first[0], tmp_path, "unet")
    index = folder / "model_index.json"
    content = json.loads(index.read_text())
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    assert "has no weights" in complains(capsys, "convert", folder, tmp_path / "model")
    (folder / "unet/config.json").write_text("[]")
    assert "is not a JSON object" in complains(capsys, "convert", folder, tmp_path / "model")
    (folder / "unet/config.json").write_text("{")
    assert "config.json: is not JSON" in complains(capsys, "convert", folder, tmp_path / "model")
    (folder / "unet/config.json").unlink()
    assert "no such file" in complains(capsys, "convert", folder, tmp_path / "model")
    shutil.rmtree(folder / "unet")
    assert "has no folder unet; download the whole model" in refused(capsys, folder, tmp_path)
    index.write_text(json.dumps({**content, "unet": [None, None]}))
    assert "supported are Stable Diffusion 1, 2 and XL" in refused(capsys, folder, tmp_path)
    index.write_text(json.dumps({**content, "text_encoder_2": ["x", "y"]}))
    reported = complains(capsys, "convert", folder, tmp_path / "model")
    assert "has no folder unet, text_encoder_2; download the whole model" in reported


SOURCES = {
    "pixels": {"unet": ["diffusers", "UNet2DModel"]},
    "DiT": {"transformer": ["diffusers", "DiTTransformer2DModel"]},
    "SD 3": {"transformer": ["diffusers", "SD3Transformer2DModel"]},
    "SD": {"unet": ["diffusers", "UNet2DConditionModel"]},
    "SD 3.safetensors": ["model.diffusion_model.joint_blocks.0.x"],
    "SD.safetensors": ["model.diffusion_model.x"],
    "openai.safetensors": [*COMPARED, "output_blocks.0.x"],
}
OPTIONS = {
    "--prediction v": {"pixels", "SD", "SD.safetensors"},
    "--tokenizer DATA": {"SD", "SD.safetensors", "SD 3", "SD 3.safetensors"},
    "--vae DATA": {"SD", "SD.safetensors"},
    "--ema": {"SD.safetensors"},
    "--image-size 8": {"openai.safetensors"},
    "--heads 1": {"openai.safetensors"},
    "--schedule cosine": {"openai.safetensors"},
    "--qkv-order new": {"openai.safetensors"},
    "--without-t5": {"SD 3", "SD 3.safetensors"},
    "--allow-unexpected": {*SOURCES},
}


def test_options_that_would_change_nothing(tmp_path, capsys):
    """Every option of every kind of source is read, or refused in a line that names it."""
    write_tokenizer(tmp_path / "data")
    for kind, holds in SOURCES.items():
        source = tmp_path / kind
        if isinstance(holds, dict):
            source.mkdir()
            (source / "model_index.json").write_text(json.dumps(holds))
        else:
            save_file({name: torch.zeros(1) for name in holds}, source)
        for words, kinds in OPTIONS.items():
            given = words.replace("DATA", str(tmp_path / "data")).split()
            reported = complains(capsys, "convert", source, tmp_path / "model", *given)
            refusal = f"{given[0]}: changes nothing in {source}, "
            assert (refusal in reported) == (kind not in kinds), (kind, words, reported)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--bits 3", "--bits 3: only with --base"),
        ("--posthoc-ema 0.1 --base digits", "--posthoc-ema 0.1: goes with --half alone"),
        ("--posthoc-ema 0.1 --to diffusers", "--posthoc-ema 0.1: goes with --half alone"),
    ],
)
def test_options_of_a_model_of_ours_that_would_change_nothing(tmp_path, capsys, words, reason):
    source = shipped()["digits"]
    assert reason in complains(capsys, "convert", source, tmp_path / "model", *words.split())


class Harm:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_pickles_with_code(first, tmp_path, capsys):
    state = load_file(first[0] / "single.safetensors")
    torch.save({"state_dict": state, "x": Harm()}, tmp_path / "a.ckpt")
    reported = refused(capsys, tmp_path / "a.ckpt", tmp_path)
    assert "a.ckpt: holds objects besides tensors, which could run code" in reported
    torch.save(state, tmp_path / "b.safetensors")
    reported = refused(capsys, tmp_path / "b.safetensors", tmp_path)
    assert "is a pickle with the name of a safetensors file" in reported
    (tmp_path / "c.ckpt").write_bytes(pickle.dumps({"a": Harm()}))
    assert "could run code" in complains(capsys, "convert", tmp_path / "c.ckpt", "model")
    (tmp_path / "d.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes()[:5000])
    assert "not a whole torch file" in complains(capsys, "convert", tmp_path / "d.ckpt", "model")
    assert "never" not in capsys.readouterr().out


def test_files_of_no_known_kind(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("a cat sat\n")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    for path in (tmp_path, *sorted(tmp_path.iterdir())):
        assert not knows(path)
        reported = complains(capsys, "convert", path, tmp_path / "model")
        assert f"{path}: is not a checkpoint of a known format" in reported


# ---------------------------------------------------------------------- command line


@pytest.mark.parametrize("form", ["folder", "single.safetensors"])
def test_sampling_and_measuring_need_no_conversion(first, form, tmp_path, capsys, monkeypatch):
    source, seen = first[0] / form, []

    def measure(model, data, folder, *, seed):
        seen.append((type(model).__name__, folder))
        return Report([])

    monkeypatch.setattr("multidiff.image.diffusion.evaluation.measure", measure)
    does(capsys, "eval", source)
    assert seen == [("ImageDiffusion", source)]
    how = ("--prompt", "a cat", "--steps", 1, "--size", "16x16", "-o", tmp_path / "out")
    assert "seed 0" in does(capsys, "sample", source, *how)
    assert (tmp_path / "out/000-a-cat-0.png").is_file()


def test_folders_with_other_things_are_kept(first, tmp_path, capsys):
    """Writing a model replaces its folder, so that must not be somebody's home."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    source, ours = first[0] / "folder", tmp_path / "ours"
    does(capsys, "convert", source, ours)
    does(capsys, "convert", source, ours)
    for words in ((source, tmp_path / "home"), (ours, tmp_path / "home"),
                  (ours, tmp_path / "home", "--to", "diffusers"), (source, source)):  # fmt: skip
        assert "holds other files, which would be lost" in complains(capsys, "convert", *words)
    assert (tmp_path / "home/letter.txt").read_text() == "dear"
    does(capsys, "convert", ours, tmp_path / "theirs", "--to", "diffusers")
    does(capsys, "convert", ours, tmp_path / "theirs", "--to", "diffusers")


def test_options_of_the_command(second, tmp_path, capsys):
    root, _ = second
    path, out = root / "single.safetensors", tmp_path / "model"
    assert "--prediction epsilon" in complains(capsys, "convert", path, out)
    assert "'epsilon' or 'v'" in complains(capsys, "convert", path, out, "--prediction", "x")
    assert "no such option" in complains(capsys, "convert", path, out, "--predict", "noise")
    arguments = ("convert", path, out, "--prediction", "v")
    assert "has no moving average" in complains(capsys, *arguments, "--ema")
    reported = complains(capsys, *arguments, "--tokenizer", tmp_path)
    assert f"--tokenizer {tmp_path}: has no vocab.json and merges.txt" in reported
    assert "Stable Diffusion 2, predicts v" in does(capsys, *arguments)
    assert (out / "vocab.json").is_file() and (out / "merges.txt").is_file()
    # A folder that is rewritten keeps the files beside the weights.
    does(capsys, "convert", out, tmp_path / "half", "--half")
    assert (tmp_path / "half/merges.txt").read_text() == (out / "merges.txt").read_text()


@pytest.mark.parametrize("version", [1, 2])
def test_there_and_back(first, second, tmp_path, capsys, version):
    """Our folder as diffusers' and as a single file: it loads there, and comes back equal."""
    root, pipe = (first, second)[version - 1]
    ours = tmp_path / "ours"
    does(capsys, "convert", root / "folder", ours)
    does(capsys, "convert", ours, tmp_path / "theirs", "--to", "diffusers")
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "theirs", local_files_only=True)
    compare(load(ours), loaded)
    assert loaded.scheduler.config.prediction_type == pipe.scheduler.config.prediction_type
    assert loaded.tokenizer.pad_token == pipe.tokenizer.pad_token
    assert loaded.vae.config.scaling_factor == 0.18215
    assert said(convert(tmp_path / "theirs")) == said(convert(root / "folder"))

    single = tmp_path / "single.safetensors"
    does(capsys, "convert", ours, single, "--to", "single-file")
    theirs, found = load_file(root / "single.safetensors"), load_file(single)
    assert found.keys() == theirs.keys()
    assert all(torch.equal(found[name], theirs[name]) for name in theirs)
    does(capsys, "convert", ours, tmp_path / "half.safetensors", "--to", "single-file", "--half")
    half = load_file(tmp_path / "half.safetensors")
    assert all(torch.equal(half[name], theirs[name].half()) for name in theirs)


def test_models_that_have_no_such_form(first, tmp_path, capsys, small_vocoder):
    out = tmp_path / "out.safetensors"
    reported = complains(capsys, "convert", small_vocoder, out, "--to", "single-file")
    assert "a Vocoder cannot be written in another format" in reported
    ours = tmp_path / "ours"
    does(capsys, "convert", first[0] / "folder", ours)
    assert "called NAME.safetensors" in complains(
        capsys, "convert", ours, tmp_path / "x", "--to", "single-file"
    )
    assert "'diffusers' or 'single-file'" in complains(capsys, "convert", ours, out, "--to", "x")
    recipe = ours / "recipe.yaml"
    text = recipe.read_text()
    assert "heads: [8, 8]" in text and "first: 0.00085" in text
    recipe.write_text(text.replace("heads: [8, 8]", "heads: [4, 4]"))
    reported = complains(capsys, "convert", ours, out, "--to", "single-file")
    assert "denoiser: heads is [4, 4], but readers of single files assume [8, 8]" in reported
    recipe.write_text(text.replace("first: 0.00085", "first: 0.001"))
    reported = complains(capsys, "convert", ours, out, "--to", "single-file")
    assert "schedule: first is 0.001" in reported and not out.exists()
    recipe.write_text(text.replace("length: 12}", "length: 12, skip: 1}", 1))
    reported = complains(capsys, "convert", ours, out, "--to", "diffusers")
    assert "skips 1 blocks of its text encoder" in reported
    recipe.write_text(text.replace("prediction: epsilon", "prediction: x0"))
    reported = complains(capsys, "convert", ours, out, "--to", "single-file")
    assert "do not support prediction x0" in reported
    recipe.write_text(text.replace("prediction: epsilon", "prediction: v"))
    does(capsys, "convert", ours, tmp_path / "v.safetensors", "--to", "single-file")
    assert said(convert(tmp_path / "v.safetensors"))["process"]["prediction"] == "v"
    recipe.write_text(text)
    (ours / "vocab.json").unlink()
    reported = complains(capsys, "convert", ours, out, "--to", "diffusers")
    assert "has no vocab.json and merges.txt" in reported and not out.exists()
