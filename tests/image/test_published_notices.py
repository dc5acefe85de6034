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
from multidiff.image.data.image_files import read_facts
from multidiff.image.stable_diffusion.conversion import convert
from multidiff.image.stable_diffusion.schedulers import KNOWN, sampling_of
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


@pytest.mark.parametrize(
    ("config", "replaces"),
    [
        (EXACT, ""),
        ({"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}, ""),
        ({**EXACT, "use_karras_sigmas": True}, ""),  # a left-over, which diffusers ignores too
        ({**EXACT, "thresholding": True},
         "DDIMScheduler by ddim on the leading grid; not reproduced: thresholding true"),
        ({**EXACT, "set_alpha_to_one": True},
         "DDIMScheduler by ddim on the leading grid; not reproduced: set_alpha_to_one true"),
        ({"_class_name": "DDPMScheduler", "timestep_spacing": "trailing",
          "variance_type": "fixed_small_log"}, ""),
        ({"_class_name": "DDPMScheduler", "variance_type": "fixed_large"},
         'DDPMScheduler by ddpm on the leading grid; not reproduced: variance_type "fixed_large", '
         'timestep_spacing "leading"'),
        ({"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "trailing"}, ""),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True,
          "algorithm_type": "sde-dpmsolver++"},
         "DPMSolverMultistepScheduler by dpm++ on the linspace grid; not reproduced: "
         'use_karras_sigmas true, algorithm_type "sde-dpmsolver++", timestep_spacing "linspace"'),
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False},
         "PNDMScheduler by ddim on the leading grid"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
         "EulerDiscreteScheduler by ddim on the linspace grid; not reproduced: "
         "use_karras_sigmas true"),
        ({"_class_name": "EulerAncestralDiscreteScheduler"},
         "EulerAncestralDiscreteScheduler by ddim on the linspace grid"),
        ({"_class_name": "LMSDiscreteScheduler"}, "LMSDiscreteScheduler by ddim on the linspace "
                                                  "grid"),
        ({"_class_name": "UniPCMultistepScheduler", "final_sigmas_type": "sigma_min"},
         "UniPCMultistepScheduler by ddim on the linspace grid; not reproduced: "
         'final_sigmas_type "sigma_min"'),
        ({"_class_name": "LCMScheduler"}, "LCMScheduler by ddim on the leading grid"),
        ({"_class_name": "HeunDiscreteScheduler"}, "HeunDiscreteScheduler by heun on the linspace "
                                                   "grid"),
    ],
)  # fmt: skip
def test_which_schedulers_are_replaced(tmp_path, config, replaces):
    assert sampling_of(tmp_path, config).replaces == replaces


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
    """Each option exists there, and the plain scheduler has the value that is written here."""
    kind = inspect.signature(getattr(diffusers, name).__init__).parameters
    if "kwargs" in kind:  # a stand-in for a class that needs another package
        return
    own = {"skip_prk_steps", "final_sigmas_type"}
    for option, plain in KNOWN[name].plain.items():
        if option not in kind:  # some of a family lack some of its options
            assert option in ("euler_at_final", "use_lu_lambdas", "final_sigmas_type"), option
        elif option not in own:
            assert kind[option].default == plain, option
    if "timestep_spacing" in kind:
        assert kind["timestep_spacing"].default == KNOWN[name].spacing


def test_a_replaced_scheduler_is_named_by_convert_load_and_every_picture(
    published, tmp_path, capsys, caplog
):
    folder = scheduled(published, tmp_path, _class_name="PNDMScheduler", skip_prk_steps=True)
    line = f"{folder}: replaces the scheduler PNDMScheduler by ddim on the leading grid"
    with caplog.at_level(logging.WARNING):
        does(capsys, "convert", folder, tmp_path / "ours")
        assert caplog.text.count(line) == 1
        caplog.clear()
        md.load(folder)
        assert caplog.text.count(line) == 1
    does(capsys, "sample", tmp_path / "ours", "--prompt", "a cat", "--steps", 1, "-o", tmp_path)
    reported = read_facts(tmp_path / "000-a-cat-0.png")
    assert reported["replaces"] == "PNDMScheduler by ddim on the leading grid"


def test_a_foreign_process_is_refused_by_name(published, tmp_path, capsys):
    folder = scheduled(published, tmp_path, _class_name="FlowMatchEulerDiscreteScheduler")
    reported = complains(capsys, "convert", folder, tmp_path / "ours")
    assert "FlowMatchEulerDiscreteScheduler" in reported and not (tmp_path / "ours").exists()


def test_a_solver_that_the_other_form_has_not_is_named(published, tmp_path, capsys):
    folder = scheduled(published, tmp_path, _class_name="DPMSolverMultistepScheduler",
                       timestep_spacing="trailing")  # fmt: skip
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
    with pytest.raises(InputError, match=r"that Stable Diffusion does not: .*extra\.weight"):
        convert(tmp_path / "a.safetensors", tokenizer=published)


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
