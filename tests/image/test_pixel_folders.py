"""DDPM and DDIM folders of diffusers: equal outputs and samples, both ways, old layouts."""

import json
import shutil

import pytest
import torch
from commands import complains, does
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

import multidiff as md
from multidiff.image.stable_diffusion.conversion import convert

SEEDS = [5, 6]


def pixels(root, padding=1, scheduler=DDPMScheduler, heads=None, outputs=3, **options):
    """A pipeline of random weights, in a folder."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        out_channels=outputs,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=heads,
        norm_num_groups=4,
        norm_eps=1e-6,
        flip_sin_to_cos=False,
        freq_shift=1,
        downsample_padding=padding,
    ).eval()
    kind = DDPMPipeline if scheduler is DDPMScheduler else DDIMPipeline
    pipe = kind(unet, scheduler(**options))
    pipe.save_pretrained(root)
    return pipe


@pytest.mark.parametrize(("padding", "heads"), [(0, None), (1, 8)])
def test_outputs_are_equal(tmp_path, padding, heads):
    pipe, model = pixels(tmp_path, padding, heads=heads), md.load(tmp_path)
    xt, time = torch.randn(2, 3, 8, 8, generator=torch.Generator()), torch.tensor([3, 980])
    level = model.process.schedule.at((time + 1) / 1000)
    with torch.no_grad():
        wanted = pipe.unet(xt, time).sample
        torch.testing.assert_close(model.denoiser(xt, level), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DDPMScheduler, {}),
        (DDPMScheduler, {"variance_type": "fixed_large"}),
        (DDPMScheduler, {"variance_type": "learned_range", "outputs": 6}),
        (DDIMScheduler, {}),  # clips the clean image and keeps the noise
        (DDIMScheduler, {"set_alpha_to_one": False, "clip_sample_range": 0.5}),
    ],
)
@pytest.mark.usefixtures("unchecked_signatures")
def test_samples_are_equal(tmp_path, kind, options):
    pipe = pixels(tmp_path, scheduler=kind, **options)
    rng = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    pipe.set_progress_bar_config(disable=True)
    wanted = pipe(2, generator=rng, num_inference_steps=10, output_type="np").images
    found = md.load(tmp_path).generate([""] * 2, seed=SEEDS, steps=10)
    wanted = torch.as_tensor(wanted).permute(0, 3, 1, 2) * 255
    assert wanted.std() > 10
    assert (found - wanted).abs().max() < 0.52  # a half by rounding, 1e-4 otherwise


def test_older_layouts_are_read(tmp_path):
    """Both components' files beside the index, and the attention's earlier names."""
    pixels(tmp_path / "new", padding=0)
    flat = tmp_path / "flat"
    shutil.copytree(tmp_path / "new", flat)
    for path in (*(flat / "unet").iterdir(), *(flat / "scheduler").iterdir()):
        shutil.move(path, flat / path.name)
    for name in ("unet", "scheduler"):
        (flat / name).rmdir()
    weights = flat / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(weights)
    for new, old in older.items():
        state = {name.replace(f".{new}.", f".{old}."): t for name, t in state.items()}
    assert "mid_block.attentions.0.query.weight" in state
    save_file(state, weights)
    new, old = convert(tmp_path / "new"), convert(flat)
    assert new.recipe.partition("\n")[2] == old.recipe.partition("\n")[2]
    assert new.tensors.keys() == old.tensors.keys()
    assert all(torch.equal(new.tensors[name], old.tensors[name]) for name in new.tensors)


def test_there_and_back(tmp_path, capsys):
    pipe = pixels(tmp_path / "a", padding=0, scheduler=DDIMScheduler, timestep_spacing="trailing")
    does(capsys, "convert", tmp_path / "a", tmp_path / "ours")
    does(capsys, "sample", tmp_path / "ours", "--steps", 2, "-o", tmp_path / "out")
    does(capsys, "convert", tmp_path / "ours", tmp_path / "b", "--to", "diffusers")
    back = DDIMPipeline.from_pretrained(tmp_path / "b", local_files_only=True)
    assert back.scheduler.config.timestep_spacing == "trailing"
    for name in ("downsample_padding", "attention_head_dim", "norm_eps", "freq_shift"):
        assert back.unet.config[name] == pipe.unet.config[name]
    wanted, found = pipe.unet.state_dict(), back.unet.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    reported = complains(capsys, "convert", tmp_path / "ours", tmp_path / "c.safetensors", "--to",
                         "single-file")  # fmt: skip
    assert "--to diffusers" in reported
    reported = complains(capsys, "convert", tmp_path / "a", tmp_path / "c", "--vae", tmp_path)
    assert "without an autoencoder" in reported


@pytest.mark.parametrize(
    ("component", "values", "reason"),
    [
        ("unet", {"center_input_sample": True}, "center_input_sample is true"),
        ("unet", {"time_embedding_type": "fourier"}, "time_embedding_type"),
        ("unet", {"down_block_types": ["SkipDownBlock2D"] * 2}, "a level is SkipDownBlock2D"),
        ("unet", {"up_block_types": ["UpBlock2D"] * 2}, "do not mirror"),
        ("unet", {"downsample_padding": 2}, "downsample_padding is 2"),
        ("scheduler", {"_class_name": "KarrasVeScheduler"}, "KarrasVeScheduler is not supported"),
    ],
)
def test_what_is_computed_otherwise_is_refused(tmp_path, capsys, component, values, reason):
    pixels(tmp_path / "a")
    name = "config.json" if component == "unet" else "scheduler_config.json"
    path = tmp_path / "a" / component / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    reported = complains(capsys, "convert", tmp_path / "a", tmp_path / "b")
    assert reason in reported and str(path) in reported and not (tmp_path / "b").exists()


def test_a_replaced_scheduler_is_named(tmp_path, caplog):
    pixels(tmp_path)
    path = tmp_path / "scheduler/scheduler_config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "_class_name": "SASolverScheduler"})
    )
    model = md.load(tmp_path)
    line = f"{tmp_path}: replaces the scheduler SASolverScheduler by dpm++ on the trailing grid"
    assert line in caplog.text and model.sampling.sampler == "dpm++"
