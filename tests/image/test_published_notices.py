"""What is replaced or passed over in published files is named; what would come out wrong is
refused."""

import inspect
import json
import logging
import shutil

import diffusers
import pytest
import torch
from commands import complains, does
from pipelines import compvis, pipeline
from safetensors.torch import load_file, save_file

import multidiff as md
from multidiff import load
from multidiff.image.data.image_files import read_facts
from multidiff.image.stable_diffusion.conversion import convert
from multidiff.image.stable_diffusion.schedulers import (
    DISTILLED_KIND,
    KNOWN,
    config_of,
    sampling_of,
)
from multidiff.utils.errors import InputError

EXACT = {"_class_name": "DDIMScheduler", "set_alpha_to_one": False, "steps_offset": 1}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Stable Diffusion at a toy's size, as ``folder`` and as ``single.safetensors``."""
    root = tmp_path_factory.mktemp("published")
    pipe = pipeline(root)
    pipe.save_pretrained(root / "folder")
    save_file(compvis(pipe), root / "single.safetensors")
    return root


def scheduled(published, tmp_path, **values):
    """A copy of the folder with another scheduler."""
    folder = shutil.copytree(published / "folder", tmp_path / "copy")
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


DPM = {"_class_name": "DPMSolverMultistepScheduler"}


@pytest.mark.parametrize(
    ("config", "lost"),
    [
        ({"_class_name": "KDPM2DiscreteScheduler"}, ""),
        ({"_class_name": "DPMSolverSinglestepScheduler"}, ""),
        ({"_class_name": "PNDMScheduler"}, "skip_prk_steps false"),
        ({**DPM, "solver_order": 3, "use_lu_lambdas": True}, "use_lu_lambdas true, solver_order 3"),
        ({**DPM, "solver_type": "heun"}, 'solver_type "heun"'),
        ({**DPM, "algorithm_type": "dpmsolver"}, 'algorithm_type "dpmsolver"'),
        ({"_class_name": "EulerDiscreteScheduler", "use_exponential_sigmas": True},
         "use_exponential_sigmas true"),
        ({"_class_name": "UniPCMultistepScheduler", "predict_x0": False}, "predict_x0 false"),
        ({"_class_name": "DDPMScheduler", "variance_type": "fixed_large", "steps_offset": 1},
         'variance_type "fixed_large"'),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, 'variance_type "learned"'),
    ],
)  # fmt: skip
def test_which_schedulers_are_replaced(tmp_path, config, lost):
    found = sampling_of(tmp_path, config)
    rest = f"; not reproduced: {lost}" if lost else ""
    assert found.replaces == f"{config['_class_name']} by dpm++ on the trailing grid{rest}"
    assert (found.sampler, found.grid, found.scheduler) == ("dpm++", "trailing", None)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**EXACT, "use_karras_sigmas": True},  # a left-over, which diffusers ignores too
         {"kind": "DDIM", "timestep_spacing": "leading", "steps_offset": 1,
          "set_alpha_to_one": False, "clip_sample": True}),
        ({**DPM, "solver_type": "bh2", "lambda_min_clipped": -float("inf")},
         {"kind": "DPMSolverMultistep"}),
        ({"_class_name": "DDPMScheduler", "variance_type": "fixed_small_log"},
         {"kind": "DDPM", "timestep_spacing": "leading", "clip_sample": True}),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned_range", "clip_sample": False},
         {"kind": "DDPM", "timestep_spacing": "leading", "variance_type": "learned"}),
    ],
)  # fmt: skip
def test_what_a_recipe_holds_of_a_scheduler(tmp_path, config, said):
    found = sampling_of(tmp_path, config)
    assert found.scheduler == said and not found.replaces
    back = sampling_of(tmp_path, config_of(found.scheduler))
    assert back == found


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ({"_class_name": "EDMEulerScheduler"}, "the scheduler EDMEulerScheduler is not supported"),
        ({"_class_name": "MyScheduler"}, "the scheduler MyScheduler is not supported"),
        ({}, "the scheduler None is not supported"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "flow matching"),
        ({**EXACT, "timestep_spacing": "leadin"}, "timestep_spacing 'leadin'"),
    ],
)
def test_schedulers_that_are_refused(tmp_path, config, reason):
    with pytest.raises(InputError, match=reason) as reported:
        sampling_of(tmp_path / "scheduler_config.json", config)
    assert "scheduler_config.json" in str(reported.value)


@pytest.mark.parametrize("name", KNOWN)
def test_the_options_are_those_of_diffusers(name):
    """Each option exists there, with the default that is written here, and no other is left."""
    kind = inspect.signature(getattr(diffusers, name).__init__).parameters
    known = KNOWN[name]
    if known.is_replaced:
        return
    for option, plain in {**known.own, **known.plain}.items():
        if option == "skip_prk_steps":
            assert kind[option].default is False
        else:
            assert kind[option].default == plain, option
    assert kind["timestep_spacing"].default == known.spacing
    assert ("rescale_betas_zero_snr" in kind) == known.rescales
    table = {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"}
    table |= {"timestep_spacing", "steps_offset", "prediction_type", "rescale_betas_zero_snr"}
    if known is DISTILLED_KIND:  # they end at the estimate itself
        table |= {"set_alpha_to_one"}
    flow = {"use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type"}
    if name.startswith("UniPC"):  # these stretch flow sigmas alone
        flow |= {"sigma_min", "sigma_max", "shift_terminal"}
    assert kind.keys() - {"self", *known.own, *known.plain} <= table | flow


def test_a_replaced_scheduler_is_named_by_convert_load_and_every_picture(
    published, tmp_path, capsys, caplog
):
    folder = scheduled(published, tmp_path, _class_name="SASolverScheduler")
    line = f"{folder}: replaces the scheduler SASolverScheduler by dpm++ on the trailing grid"
    with caplog.at_level(logging.WARNING):
        does(capsys, "convert", folder, tmp_path / "ours")
        assert caplog.text.count(line) == 1
        caplog.clear()
        md.load(folder)
        assert caplog.text.count(line) == 1
    does(capsys, "sample", tmp_path / "ours", "--prompt", "a cat", "--steps", 1, "-o", tmp_path)
    reported = read_facts(tmp_path / "000-a-cat-0.png")
    assert reported["replaces"] == "SASolverScheduler by dpm++ on the trailing grid"


def test_a_scheduler_is_named_by_every_image_and_written_back(published, tmp_path, capsys, caplog):
    folder = scheduled(published, tmp_path, _class_name="UniPCMultistepScheduler",
                       use_karras_sigmas=True)  # fmt: skip
    does(capsys, "convert", folder, tmp_path / "ours")
    assert "replaces" not in caplog.text
    how = ("--prompt", "a cat", "--steps", 2, "-o", tmp_path)
    does(capsys, "sample", tmp_path / "ours", *how)
    facts = read_facts(tmp_path / "000-a-cat-0.png")
    assert facts["scheduler"] == (
        "UniPCMultistepScheduler timestep_spacing=leading steps_offset=1 use_karras_sigmas=True"
    )
    assert facts["sampler"] == facts["timestep_spacing"] == "scheduler"
    does(capsys, "convert", tmp_path / "ours", tmp_path / "back", "--to", "diffusers")
    back = json.loads((tmp_path / "back/scheduler/scheduler_config.json").read_text())
    assert back["_class_name"] == "UniPCMultistepScheduler" and back["use_karras_sigmas"] is True
    ours, again = md.load(tmp_path / "ours").sampling, md.load(tmp_path / "back").sampling
    assert ours == again and ours.scheduler.kind == "UniPCMultistep"


@pytest.mark.parametrize(
    ("name", "sampler", "spacing"),
    [
        ("DDIMScheduler", "dpm++", "trailing"),  # where leading would be wrong
        ("DDIMScheduler", "euler-ancestral", "scheduler"),
        ("DDIMScheduler", "lcm", "lcm"),
        ("UniPCMultistepScheduler", "dpm++", "scheduler"),
    ],
)
def test_a_sampler_of_ones_own_gets_a_spacing_on_which_it_is_right(
    published, tmp_path, name, sampler, spacing
):
    sampling = md.load(scheduled(published, tmp_path, _class_name=name)).sampling
    assert sampling.timestep_spacing == "scheduler"
    assert sampling.replace(sampler=sampler).timestep_spacing == spacing
    chosen = sampling.replace(sampler=sampler, timestep_spacing="leading")
    assert chosen.timestep_spacing == "leading"
    assert md.load("digits").sampling.replace(sampler="lcm").timestep_spacing == "trailing"
    with pytest.raises(InputError, match="this model has none"):
        md.load("digits").sampling.replace(sampler="scheduler")


def test_a_foreign_process_is_refused_by_name(published, tmp_path, capsys):
    folder = scheduled(published, tmp_path, _class_name="FlowMatchEulerDiscreteScheduler")
    reported = complains(capsys, "convert", folder, tmp_path / "ours")
    assert "FlowMatchEulerDiscreteScheduler" in reported and not (tmp_path / "ours").exists()


def test_a_solver_that_the_other_form_has_not_is_named(published, tmp_path, capsys):
    folder = scheduled(published, tmp_path, _class_name="SASolverScheduler")
    does(capsys, "convert", folder, tmp_path / "ours")
    reported = does(capsys, "convert", tmp_path / "ours", tmp_path / "back", "--to", "diffusers")
    assert "uses the sampler ddim there, not dpm++ as here" in reported


STRAY = (
    "embedding_manager.string_to_param_dict.*",
    "first_stage_model.model_ema.decay",
    "cond_stage_model.transformer.vision_model.encoder.layers.0.mlp.fc1.weight",
    "cond_stage_model.transformer.visual_projection.weight",
    "cond_stage_model.transformer.text_projection.weight",
    "cond_stage_model.transformer.logit_scale",
)


def test_what_training_programs_leave_is_passed_over_by_name(published, tmp_path, caplog):
    state = load_file(published / "single.safetensors")
    save_file({**state, **{name: torch.zeros(2) for name in STRAY}}, tmp_path / "a.safetensors")
    with caplog.at_level(logging.WARNING):
        found = convert(tmp_path / "a.safetensors", tokenizer=published)
    wanted = convert(published / "single.safetensors").tensors
    assert found.tensors.keys() == wanted.keys()
    line = f"a.safetensors: skipped {len(STRAY)} tensors of "
    assert caplog.text.count(line) == 1 and caplog.text.count("\n") == 1
    kinds = caplog.text.partition(line)[2].partition(", which")[0].split(", ")
    assert all(any(name.startswith(kind) for kind in kinds) for name in STRAY)


def test_what_is_not_known_still_stops(published, tmp_path):
    state = load_file(published / "single.safetensors")
    state |= dict.fromkeys(("cond_stage_model.transformer.other.weight", "extra.weight"),
                           torch.zeros(1))  # fmt: skip
    save_file({name: t.clone() for name, t in state.items()}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"that its model does not: .*extra\.weight"):
        load(tmp_path / "a.safetensors")


# ------------------------------------------------------------------ what was not copied rightly


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named_with_their_file(
    published, small_pixels, tmp_path, capsys, value
):
    """In a folder, in a single file, in a model of ours and in a LoRA; nothing is written."""
    folder = shutil.copytree(published / "folder", tmp_path / "folder")
    spoilt = spoil(
        folder / "vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.bias", value
    )
    name = "first_stage_model.decoder.conv_in.bias"
    single = shutil.copy(published / "single.safetensors", tmp_path / "single.safetensors")
    spoil(single, name, value)
    ours = shutil.copytree(small_pixels, tmp_path / "ours")
    spoil(ours / "model.safetensors", "denoiser.conv_in.bias", value)
    for words, reported in (
        (("convert", folder, tmp_path / "new"), f"{spoilt}: decoder.conv_in.bias: has values"),
        (("convert", single, tmp_path / "new"), f"{single}: {name}: has values"),
        (("sample", single, "--prompt", "a", "-o", tmp_path / "new"), f"{name}: has values"),
        (("sample", ours, "-o", tmp_path / "new"),
         f"{ours / 'model.safetensors'}: denoiser.conv_in.bias: has values"),
    ):  # fmt: skip
        assert reported in complains(capsys, *words)
    assert not (tmp_path / "new").exists()


def spoil(path, name, value):
    state = load_file(path)
    state[name].view(-1)[0] = value
    save_file(state, path)
    return path


def test_a_pointer_of_git_lfs_is_named(published, tmp_path, capsys):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3438167536\n"
    folder = shutil.copytree(published / "folder", tmp_path / "folder")
    for path in (folder / "unet/diffusion_pytorch_model.safetensors", tmp_path / "a.safetensors",
                 tmp_path / "a.ckpt"):  # fmt: skip
        path.write_text(pointer)
    for source in (folder, tmp_path / "a.safetensors", tmp_path / "a.ckpt"):
        reported = complains(capsys, "convert", source, tmp_path / "new")
        assert "is a git-lfs pointer" in reported and "git lfs pull" in reported
    reported = complains(capsys, "sample", published / "folder", "--prompt", "a", "--lora",
                     tmp_path / "a.safetensors", "-o", tmp_path / "new")  # fmt: skip
    assert "a.safetensors: is a git-lfs pointer" in reported and not (tmp_path / "new").exists()
