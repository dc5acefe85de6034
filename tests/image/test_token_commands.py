"""`multidiff sample` and `multidiff eval` on models of image tokens, end to end."""

import math
import shutil

import pytest
import torch
from commands import complains, does, facts
from PIL import Image
from test_image_commands import drawn, sha256

import multidiff as md
from multidiff.image.data.image_files import read_facts, read_image
from multidiff.image.data.images import Images, ImageSource
from multidiff.image.maskgit.model import TokenDraft

TOP = (slice(0, 12), slice(0, 28))


def test_pictures_a_grid_and_what_they_were_made_of(small_tokens, tmp_path, capsys):
    reported = facts(
        capsys,
        "sample",
        small_tokens,
        "--prompt",
        "7",
        "--prompt",
        "2",
        "-n",
        2,
        "--seed",
        5,
        "--sampler",
        "halton",
        "--steps",
        6,
        "--guidance-scale",
        2,
        "--temperature",
        0.8,
        "-o",
        tmp_path,
    )
    assert [(one["prompt"], one["seed"]) for one in reported["outputs"]] == [
        ("7", 5), ("7", 6), ("2", 5), ("2", 6),
    ]  # fmt: skip
    assert reported["steps"] == "6" and reported["sampler"] == "halton" and reported["faults"] == []
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["000-7-5.png", "001-7-6.png", "002-2-5.png", "003-2-6.png", "grid.png"]
    model = md.load(small_tokens)
    wanted = model.generate(
        ["7"], seed=6, steps=6, sampler="halton", guidance_scale=2, temperature=0.8
    )
    found = read_image(tmp_path / "001-7-6.png", channels=1)
    assert found.shape == (1, 28, 28) and (found.int() - wanted[0].int()).abs().max() <= 1
    metadata = read_facts(tmp_path / "001-7-6.png")
    assert metadata.pop("parameters").startswith(
        "7\nSteps: 6, Sampler: halton, CFG scale: 2, Seed: 6"
    )
    assert metadata == {
        "prompt": "7", "seed": "6", "sampler": "halton", "steps": "6", "guidance_scale": "2",
        "temperature": "0.8", "noise": "4.5", "size": "28x28", "model": model.name,
        "weights": sha256(small_tokens / "model.safetensors"), "multidiff": md.__version__,
        "torch": torch.__version__.partition("+")[0], "device": "cpu",
    }  # fmt: skip
    assert read_facts(tmp_path / "grid.png")["prompt"] == "7 | 2"


def test_lines_for_people(small_tokens, tmp_path, capsys):
    text = does(capsys, "sample", small_tokens, "--prompt", "6", "--steps", 2, "-o", tmp_path)
    assert "000-6-0.png: 6, seed 0" in text and "1 images" in text
    text = does(capsys, "sample", small_tokens, "--steps", 2, "-o", tmp_path / "plain")
    assert "000-0.png: an image, seed 0" in text


def test_a_sampler_is_named(small_tokens, tmp_path, capsys):
    common = ["sample", small_tokens, "--prompt", "3", "--steps", 4, "--seed", 1]
    made = [
        facts(capsys, *common, *words, "-o", tmp_path / str(number))
        for number, words in enumerate(
            (["--sampler", "random"], ["--sampler=random"], ["--sampler", "ancestral"], [])
        )
    ]
    assert [one["sampler"] for one in made] == ["random", "random", "ancestral", "confidence"]
    one, same, other, usual = (
        read_image(reported["outputs"][0]["path"], channels=1) for reported in made
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other) and not torch.equal(one, usual)


def test_each_step_is_shown(small_tokens, tmp_path, capsys):
    reported = facts(
        capsys, "sample", small_tokens, "--prompt", "4", "-n", 3, "--steps", 5, "--show-steps",
        "-o", tmp_path,
    )  # fmt: skip
    assert reported["strip"] == str(tmp_path / "steps.png")
    strip = read_image(tmp_path / "steps.png", channels=1)
    assert strip.shape == (1, 3 * 30 - 2, 5 * 30 - 2)
    for row, one in enumerate(reported["outputs"]):
        cells = [strip[:, 30 * row : 30 * row + 28, 30 * n : 30 * n + 28] for n in range(5)]
        last = read_image(one["path"], channels=1)
        assert (cells[-1].int() - last.int()).abs().max() <= 1
        grey = [(cell == 128).sum().item() for cell in cells]
        masks = [math.floor(49 * math.cos(math.pi / 2 * n / 5) + 1e-9) for n in range(1, 6)]
        assert all(have >= 16 * left for have, left in zip(grey, masks, strict=True))
        assert grey[0] > 16 * 40 and grey[-1] < 16 * 8
    assert read_facts(tmp_path / "steps.png")["steps"] == "5"


def test_many_pictures_are_shown_in_the_order_they_are_made_in(small_tokens, tmp_path, capsys):
    """More than are made at a time."""
    reported = facts(
        capsys, "sample", small_tokens, "-n", 66, "--steps", 2, "--show-steps", "-o", tmp_path
    )
    strip = read_image(tmp_path / "steps.png", channels=1)
    assert strip.shape == (1, 66 * 30 - 2, 58)
    last = read_image(reported["outputs"][65]["path"], channels=1)
    assert (strip[:, -28:, -28:].int() - last.int()).abs().max() <= 1


def test_a_part_is_painted_anew(small_tokens, tmp_path, capsys):
    init = drawn(tmp_path / "init.png", 1, 28, 28, white=(slice(3, 20), slice(5, 9)))
    mask = drawn(tmp_path / "mask.png", 1, 28, 28, white=TOP)
    common = ["sample", small_tokens, "--prompt", "7", "-n", 2, "--steps", 4]
    reported = facts(
        capsys,
        *common,
        "--init-image",
        init,
        "--mask-image",
        mask,
        "-o",
        tmp_path / "part",
        "--show-steps",
    )
    original = read_image(init, channels=1)
    said = read_facts(reported["outputs"][0]["path"])
    assert (said["init_image"], said["mask_image"]) == ("init.png", "mask.png")
    assert (said["init_image_sha256"], said["mask_image_sha256"]) == (sha256(init), sha256(mask))
    for one in reported["outputs"]:
        made = read_image(one["path"], channels=1)
        assert torch.equal(made[:, 12:], original[:, 12:]) and not torch.equal(made, original)
    area = torch.zeros(28, 28, dtype=torch.bool)
    area[TOP] = True
    model = md.load(small_tokens)
    wanted = model.generate(["7"], draft=TokenDraft(original[None], area), steps=4)[0]
    made = read_image(reported["outputs"][0]["path"], channels=1)
    assert (wanted.int() - made.int()).abs().max() <= 1


def test_colour_is_read_as_grey(small_tokens, tmp_path, capsys):
    mask = drawn(tmp_path / "mask.png", 1, 28, 28, white=TOP)
    color = drawn(tmp_path / "colour.png", 3, 28, 28, white=(slice(3, 20), slice(5, 9)))
    reported = facts(
        capsys,
        "sample",
        small_tokens,
        "--init-image",
        color,
        "--mask-image",
        mask,
        "-o",
        tmp_path / "out",
    )
    with Image.open(reported["outputs"][0]["path"]) as image:
        assert image.mode == "L" and image.size == (28, 28)


BAD = [
    (["--init-image", "{init}"], "--init-image and --mask-image go together"),
    (["--mask-image", "{mask}"], "--init-image and --mask-image go together"),
    (["--init-image", "no.png", "--mask-image", "{mask}"], "no.png"),
    (["--init-image", "{init}", "--mask-image", "no.png"], "no.png"),
    (["--init-image", "{init}", "--mask-image", "{small}"], "has 20x16 pixels"),
    (["--init-image", "{init}", "--mask-image", "{init}"], "black everywhere"),
    (["--init-image", "{other}", "--mask-image", "{small}"], "generates 28x28 with 1; resize it"),
    (["--init-image", "{broken}", "--mask-image", "{mask}"], "broken.png"),
    (["--prompt", "eleven"], "no class 'eleven': one of 0, 1, 2"),
    (["--steps", "0"], "--steps 0"),
    (["--order", "halton"], "--order: no such option here"),
    (["--sampler", "ddim"], "--sampler ddim: expected one of confidence"),
    (["--noise", "-1"], "--noise -1"),
    (["--temperature", "-1"], "--temperature -1"),
    (["--guidance-scale", "-1"], "--guidance-scale -1"),
    (["--strength", "0.5"], "no such option"),
]


@pytest.mark.parametrize(("words", "reason"), BAD, ids=lambda x: " ".join(x)[:40])
def test_what_cannot_be_sampled(small_tokens, words, reason, tmp_path, capsys):
    positions = {
        "init": drawn(tmp_path / "init.png", 1, 28, 28),
        "mask": drawn(tmp_path / "mask.png", 1, 28, 28, white=TOP),
        "small": drawn(tmp_path / "small.png", 1, 16, 20, white=(slice(0, 9), slice(0, 9))),
        "other": drawn(tmp_path / "other.png", 1, 16, 20),
        "broken": tmp_path / "broken.png",
    }
    positions["broken"].write_bytes(positions["init"].read_bytes()[:45])
    words = [word.format(**positions) for word in words]
    out = tmp_path / "out"
    assert reason in complains(capsys, "sample", small_tokens, *words, "-o", out)
    assert not out.exists()


def test_more_steps_than_tokens_are_told_of_once(small_tokens, tmp_path, capsys, caplog):
    reported = facts(capsys, "sample", small_tokens, "--steps", 60, "--show-steps", "-o", tmp_path)
    assert reported["steps"] == "49" and caplog.text.count("so 49 steps are made") == 1
    assert read_image(tmp_path / "steps.png", channels=1).shape == (1, 28, 49 * 30 - 2)


def test_places_that_are_no_folder(small_tokens, tmp_path, capsys):
    (tmp_path / "file").touch()
    common = ["sample", small_tokens, "--steps", 1, "-o"]
    assert "name a folder" in complains(capsys, *common, tmp_path / "seven.png")
    assert "name a folder" in complains(capsys, *common, tmp_path / "file")


def test_a_model_without_prompts(small_tokens, tmp_path, capsys):
    from program import RECIPES

    from multidiff.models.loading import build_model, save_model

    text = (RECIPES / "smoke" / "digit_tokens.yaml").read_text()
    recipe = tmp_path / "plain.yaml"
    reported = ("classes:", "sources:", "source_length:")
    recipe.write_text(
        "".join(t for t in text.splitlines(True) if not t.strip().startswith(reported))
    )
    save_model(build_model(recipe), tmp_path / "plain", recipe.read_text())
    common = ["sample", tmp_path / "plain", "--steps", 2, "-o", tmp_path / "out"]
    assert "without prompts" in complains(capsys, *common, "--prompt", "7")
    assert "no prompt to be guided by" in complains(capsys, *common, "--guidance-scale", 2)
    reported = facts(capsys, *common, "-n", 3)
    assert reported["guidance_scale"] == "1" and len(reported["outputs"]) == 3
    reported = facts(capsys, "eval", tmp_path / "plain", "--num", 0, "--nats", 4)
    assert reported["nats_per_token"] > 0


# ------------------------------------------------------------------------------------ eval


def test_samples_are_measured(small_tokens, capsys):
    reported = facts(
        capsys, "eval", small_tokens, "starter:digits", "--classifier", "digit-features",
        "--num", 24,
        "--steps", 2, "--sampler", "halton",
    )  # fmt: skip
    assert (
        reported["classifier"]["made_count"] == 24 and reported["classifier"]["real_count"] == 200
    )
    assert reported["classifier"]["frechet"] > 1 and 0 <= reported["right"] <= 1
    assert "nats_per_token" not in reported
    text = does(
        capsys, "eval", small_tokens, "--classifier", "digit-features", "--num", 12, "--steps", 1
    )
    assert "show what was asked for" in text and "feature distance" in text


def test_nats_are_those_of_the_model(small_tokens, capsys, monkeypatch):
    monkeypatch.setattr("multidiff.image.maskgit.evaluation.AT_ONCE", 4)
    words = ["eval", small_tokens, "starter:digits", "--num", 0, "--seed", 3]
    reported = facts(capsys, *words, "--nats", 6)
    model = md.load(small_tokens)
    real = Images(ImageSource("starter:digits", label_column="label"), channels=1)
    image = torch.stack([real.image(number) for number in range(6)])
    assert real.labels is not None
    prompts = [str(int(label)) for label in real.labels[:6]]
    wanted = model.nats_per_token(image, prompts, seed=3)
    assert reported["nats_per_token"] == pytest.approx(float(wanted.mean()), abs=1e-4)
    assert 1 < reported["nats_per_token"] < math.log(60) + 0.5
    text = does(capsys, *words, "--nats", 1)
    assert "1 images: at most" in text and "all codes alike cost 4.094" in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--num", "3"], "--classifier MODEL"),
        (["--num", "0"], "nothing to measure"),
        (["--num", "0", "--nats", "-1"], "nothing to measure"),
        (["--num", "2", "--classifier", "digit-features", "--steps", "0"], "--steps 0"),
        (["--num", "2", "--classifier", "digit-features", "--sampler", "ddim"], "--sampler ddim"),
        (["--bits", "2", "--num", "0"], "no such option"),
        (["nowhere.parquet", "--num", "0", "--nats", "2"], "nowhere.parquet"),
    ],
    ids=lambda x: " ".join(x)[:40],
)
def test_what_cannot_be_measured(small_tokens, words, reason, capsys):
    assert reason in complains(capsys, "eval", small_tokens, *words)


def test_a_model_that_moved_is_the_same(small_tokens, tmp_path):
    """Nothing of it lies elsewhere: the autoencoder is in its own weights."""
    moved = md.load(shutil.copytree(small_tokens, tmp_path / "moved"))
    one, other = (model.generate(["1"] * 2, steps=3) for model in (moved, md.load(small_tokens)))
    assert torch.equal(one, other) and moved.name == "moved"
