"""LoRA in training: what changes, the file that diffusers reads, DreamBooth's examples."""

import json

import numpy as np
import pytest
import torch
from commands import does
from pipelines import pipeline, xl_pipeline
from program import RECIPES
from safetensors import safe_open
from torch import nn

from benchmarks import dreambooth
from multidiff import load
from multidiff.image.data.dreambooth import DreamBooth
from multidiff.image.data.images import Images
from multidiff.image.data.listing import ImageSource
from multidiff.image.diffusion.unet import UNet
from multidiff.image.stable_diffusion.lora import METADATA, merge_lora
from multidiff.image.stable_diffusion.lora_training import FILE, ImageLoRA
from multidiff.nn.lora import Adapters

MAKERS = {"1": lambda root: pipeline(root, 1), "xl": xl_pipeline}


def test_the_published_number_of_weights():
    whole = nn.Module()
    with torch.device("meta"):
        whole.denoiser = UNet(condition_width=768)
        adapters = Adapters(whole, ImageLoRA().layers, 4, 4)
    assert len(adapters.items()) == 128
    assert sum(one.numel() for one in adapters.parameters()) == 797_184


@pytest.mark.parametrize("kind", MAKERS)
def test_trained_written_and_read_by_diffusers(kind, tmp_path):
    pipe = MAKERS[kind](tmp_path)
    pipe.save_pretrained(tmp_path / "folder")
    model, before = load(tmp_path / "folder", trainable=True), load(tmp_path / "folder")
    model.lora = ImageLoRA(rank=2, alpha=6.0)
    rng = torch.Generator().manual_seed(0)
    batch = {"image": torch.randint(0, 256, (2, 3, 16, 16), generator=rng, dtype=torch.uint8)}
    batch["caption"] = ["a cat", "cab"]
    xt, level = torch.randn(2, 4, 8, 8, generator=rng), model.process.schedule.at(torch.ones(2) / 2)
    condition = before.condition(["a cat", "b"])
    with torch.no_grad():
        wanted = before.denoiser(xt, level, condition)
    task = model.task().train()
    with torch.no_grad():
        assert torch.equal(model.denoiser(xt, level, condition), wanted)  # B is zero at first
    trained = [one for one in task.parameters() if one.requires_grad]
    assert {id(one) for one in trained} == {id(one) for one in task.adapters.parameters()}
    optimizer = torch.optim.AdamW(trained, lr=0.05)
    for _ in range(2):
        loss = task.losses(batch, torch.Generator().manual_seed(1))["denoising"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        beside = model.denoiser(xt, level, condition)
        assert (beside - wanted).abs().max() > 1e-2
        (line,) = task.finish(tmp_path)
        torch.testing.assert_close(model.denoiser(xt, level, condition), beside)
        merge_lora(before, tmp_path / FILE)
        torch.testing.assert_close(before.denoiser(xt, level, condition), beside)
        pipe.load_lora_weights(str(tmp_path), weight_name=FILE)
        words, more = condition, {}
        if kind == "xl":
            words, more = condition["words"], {"text_embeds": condition["pooled"]}
            more = {"added_cond_kwargs": {**more, "time_ids": condition["sizes"]}}
        theirs = pipe.unet(xt, torch.tensor(499), words, **more).sample
    torch.testing.assert_close(theirs, beside, rtol=1e-4, atol=1e-4)
    assert f"{len(task.adapters.items())} layers of rank 2" in line
    with safe_open(tmp_path / FILE, "pt") as file:
        assert json.loads(file.metadata()[METADATA])["unet.lora_alpha"] == 6


def images(every):
    source = ImageSource("starter:digits", held_out_every=every)
    return Images(source, (16, 16), held_out=True)


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 0.5), (0.25, 0.2), (0.0, 0.0)])
def test_class_images_are_drawn_by_their_weight(weight, expected):
    own, prior = images(100), images(20)
    examples = DreamBooth(own, "a sks", prior, "a digit", weight)
    rng = np.random.default_rng(0)
    drawn = [examples.example(1, rng) for _ in range(400)]
    ratio = np.mean([one["caption"] == "a digit" for one in drawn])
    assert abs(ratio - expected) < 0.08 and len(examples) == len(own)
    mine = [one["image"] for one in drawn if one["caption"] == "a sks"]
    assert all(torch.equal(one, own.image(1)) for one in mine)


def test_class_images_without_a_prompt_keep_their_captions():
    own, prior = images(100), images(20)
    with pytest.raises(ValueError, match="the class images have no captions; give prior_prompt"):
        DreamBooth(own, "a sks", prior)
    with pytest.raises(ValueError, match="give class images"):
        DreamBooth(own, "a sks", prior_prompt="a digit")
    named = ImageSource(
        "starter:digits", held_out_every=20, label_column="label", names=tuple("0123456789")
    )
    prior = Images(named, (16, 16), held_out=True)
    rng = np.random.default_rng(0)
    drawn = [DreamBooth(own, "a sks", prior).example(0, rng) for _ in range(200)]
    assert all(one.keys() == drawn[0].keys() for one in drawn)  # they form batches
    assert "a sks" in {one["caption"] for one in drawn}
    assert len({one["caption"] for one in drawn}) > 2
    assert {one["caption"] for one in drawn} <= {"a sks", *"0123456789"}


def test_a_run_writes_the_file_and_the_merged_model(tmp_path, capsys):
    recipe = RECIPES / "smoke" / "lora.yaml"
    printed = does(capsys, "train", recipe, "--out", tmp_path / "run", "trainer.steps=4")
    assert f"{tmp_path / 'run' / FILE}: " in printed
    merged, checkpoint = load(tmp_path / "run"), load(tmp_path / "run", checkpoint=4)
    for name, weight in merged.named_parameters():
        torch.testing.assert_close(checkpoint.get_parameter(name), weight)


def test_one_batch_of_six_images_is_learned_by_heart(tmp_path):
    """With the same noise at each step, the loss of a LoRA falls far below that at the start."""
    pipeline(tmp_path, 1).save_pretrained(tmp_path / "folder")
    model, rng = load(tmp_path / "folder", trainable=True), torch.Generator().manual_seed(0)
    layers = (*ImageLoRA().layers, "net.0.proj", "net.2", "time_emb_proj")
    model.lora = ImageLoRA(rank=16, layers=layers)
    batch = {"image": torch.randint(0, 256, (6, 3, 16, 16), generator=rng, dtype=torch.uint8)}
    batch["caption"] = ["a cat"] * 4 + ["a"] * 2
    task = model.task().train()
    optimizer = torch.optim.AdamW(task.adapters.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = task.losses(batch, torch.Generator().manual_seed(1))["denoising"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.long
def test_six_images_of_a_subject_are_learned_and_their_class_is_kept(tmp_path, capsys):
    """DreamBooth on the shipped digits by the recipe: samples come near the images, not others."""
    dreambooth.draw(tmp_path / "star")
    for digit in dreambooth.DIGITS:
        words = ["--prompt", f"a handwritten {digit}", "-n", 10, "--steps", 10, "--no-grid"]
        does(capsys, "sample", "digits", *words, "-o", tmp_path / "class" / digit)
    folders = [
        f"data.examples.{key}.source.path={tmp_path / name}"
        for key, name in (("images", "star"), ("prior", "class"))
    ]
    recipe = RECIPES / "image" / "digits_dreambooth.yaml"
    does(capsys, "train", recipe, "--out", tmp_path / "run", *folders)
    images = torch.stack([dreambooth.star(number) for number in range(6)])

    def distance(model, prompt):
        made = load(model).generate([prompt] * 12, seed=0, steps=10)
        return float(dreambooth.distances(made, images).mean())

    subject, class_ = dreambooth.SUBJECT, dreambooth.CLASS
    assert distance(tmp_path / "run", subject) < 0.3 * distance("digits", subject)
    assert distance(tmp_path / "run", class_) > 0.8 * distance("digits", class_)
