"""`multidiff sample` and `multidiff eval` on picture models, end to end."""

import json

import pytest
import torch
from commands import complains, does, facts
from PIL import Image
from program import RECIPES

import multidiff as md
from multidiff.files import place_of
from multidiff.image.data import Pictures, Source
from multidiff.image.picture import read_facts, read_picture, write_picture

SEVEN = "a handwritten seven"


def drawn(path, *shape, white=None):
    picture = torch.zeros(shape, dtype=torch.uint8)
    if white is not None:
        picture[:, white[0], white[1]] = 255
    write_picture(picture, path)
    return path


def test_pictures_a_grid_and_what_they_were_made_of(small_digits, tmp_path, capsys):
    told = facts(
        capsys, "sample", small_digits, "--prompt", SEVEN, "--prompt", "2", "-n", 2, "--steps", 3,
        "--seed", 5, "--solver", "ddim", "--guidance", 2, "--negative", "a one", "-o", tmp_path,
    )  # fmt: skip
    assert [(one["prompt"], one["seed"]) for one in told["outputs"]] == [
        (SEVEN, 5), (SEVEN, 6), ("2", 5), ("2", 6),
    ]  # fmt: skip
    assert told["steps"] == "3" and told["faults"] == []
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "000-a-handwritten-seven-5.png", "001-a-handwritten-seven-6.png", "002-2-5.png",
        "003-2-6.png", "grid.png",
    ]  # fmt: skip
    model = md.load(small_digits)
    wanted = model.generate(
        [SEVEN], seed=6, steps=3, solver="ddim", guidance=2, negative="a one"
    )[0]  # fmt: skip
    found = read_picture(tmp_path / names[1], channels=1)
    assert found.shape == (1, 28, 28) and (found.int() - wanted.int()).abs().max() <= 1
    assert read_facts(tmp_path / names[1]) == {
        "prompt": SEVEN, "negative": "a one", "seed": "6", "solver": "ddim", "steps": "3",
        "guidance": "2", "size": "28x28", "model": model.name,
    }  # fmt: skip
    whole = read_picture(tmp_path / "grid.png", channels=1)
    assert whole.shape[1] >= 2 * 28 and whole.shape[2] >= 2 * 28
    assert read_facts(tmp_path / "grid.png")["prompt"] == f"{SEVEN} | 2"


def test_lines_for_people(small_pixels, tmp_path, capsys):
    text = does(capsys, "sample", small_pixels, "--prompt", "six", "--steps", 2, "-o", tmp_path)
    assert "000-six-0.png: six, seed 0" in text and "1 pictures" in text
    text = does(capsys, "sample", small_pixels, "--steps", 2, "-o", tmp_path)
    assert "000-0.png: a picture, seed 0" in text


def test_from_a_picture_and_over_a_part_of_it(small_digits, tmp_path, capsys):
    init = drawn(tmp_path / "init.png", 1, 28, 28, white=(slice(5, 20), slice(5, 9)))
    mask = drawn(tmp_path / "mask.png", 1, 28, 28, white=(slice(0, 14), slice(0, 28)))
    common = ["sample", small_digits, "--prompt", SEVEN, "--steps", 4, "--init", init]
    told = facts(capsys, *common, "--strength", 0.5, "-o", tmp_path / "half")
    assert (told["steps"], told["strength"]) == ("4", "0.5")
    told = facts(capsys, *common, "--strength", 0, "-o", tmp_path / "none")
    assert (told["steps"], told["strength"]) == ("0", "0")
    original = read_picture(init, channels=1)
    assert torch.equal(read_picture(told["outputs"][0]["path"], channels=1), original)
    told = facts(capsys, *common, "--mask", mask, "-o", tmp_path / "part")
    painted = read_picture(told["outputs"][0]["path"], channels=1)
    assert told["strength"] == "1" and torch.equal(painted[:, 14:], original[:, 14:])
    assert not torch.equal(painted, original)


def test_colour_sizes(small_colour, tmp_path, capsys):
    told = facts(
        capsys, "sample", small_colour, "--prompt", "a nine", "--size", "48x32", "-o", tmp_path,
        "--steps", 1,
    )  # fmt: skip
    with Image.open(told["outputs"][0]["path"]) as image:
        assert image.size == (48, 32) and image.mode == "RGB"


def test_prompts_that_are_cut_or_unknown_are_told_of(small_digits, tmp_path, capsys, caplog):
    long = "a handwritten seven " * 5
    common = ["sample", small_digits, "--steps", 1, "-o", tmp_path]
    does(capsys, *common, "--prompt", long)
    assert "cut off" in caplog.text
    does(capsys, *common, "--prompt", "a purple seven")
    assert "never read purple" in caplog.text


BAD = [
    (["--prompt", "7", "--size", "70"], "--size 70: write WIDTHxHEIGHT"),
    (["--prompt", "7", "--size", "71x64"], "71x64"),
    (["--prompt", "7", "--guidance", "-1"], "--guidance -1"),
    (["--prompt", "7", "--steps", "0"], "--steps 0"),
    (["--prompt", "7", "--solver", "eulr"], "no solver 'eulr'"),
    (["--prompt", "7", "--strength", "0.5"], "give it by --init"),
    (["--prompt", "7", "--mask", "no.png"], "give it by --init"),
    (["--prompt", "7", "--init", "no.png"], "no.png"),
    (["--prompt", "7", "--init", "{init}", "--strength", "1.5"], "--strength 1.5"),
    (["--prompt", "7", "--init", "{init}", "--strength", "-0.5"], "--strength -0.5"),
    (["--prompt", "7", "--init", "{init}", "--mask", "{small}"], "32x32 pixels"),
    (["--prompt", "7", "--init", "{init}", "--mask", "{init}"], "black everywhere"),
    (["--prompt", "7", "--init", "{odd}"], "nearest is 64x64"),
    (["--prompt", "7", "--init", "{broken}"], "broken.png"),
    (["--prompt", "7", "--init", "{init}", "--size", "32x32"], "--size 32x32"),
    (["--prompt", "7", "--lora", "no.safetensors"], "no.safetensors"),
    (["--prompt", "7", "--rescale", "2"], "rescale"),
    (["--prompt", "7", "--colour", "red"], "no such option"),
    ([], "--prompt"),
]


@pytest.mark.parametrize(("words", "reason"), BAD, ids=lambda x: " ".join(x)[:40])
def test_what_cannot_be_sampled(small_colour, words, reason, tmp_path, capsys):
    places = {
        "init": drawn(tmp_path / "init.png", 3, 64, 64),
        "small": drawn(tmp_path / "small.png", 1, 32, 32, white=(slice(0, 9), slice(0, 9))),
        "odd": drawn(tmp_path / "odd.png", 3, 61, 66),
        "broken": tmp_path / "broken.png",
    }
    places["broken"].write_bytes(places["init"].read_bytes()[:60])
    words = [word.format(**places) for word in words]
    out = tmp_path / "out"
    assert reason in complains(capsys, "sample", small_colour, *words, "-o", out)
    assert not out.exists()


def test_places_that_are_no_folder(small_digits, tmp_path, capsys):
    (tmp_path / "file").touch()
    common = ["sample", small_digits, "--prompt", "7", "--steps", 1, "-o"]
    assert "name a folder" in complains(capsys, *common, tmp_path / "seven.png")
    assert "name a folder" in complains(capsys, *common, tmp_path / "file")


def test_a_model_without_prompts(tmp_path, capsys, monkeypatch):
    from program import RECIPES

    from multidiff.loading import build_model, save_model

    recipe = RECIPES / "smoke" / "ddpm_cifar10.yaml"
    save_model(build_model(recipe), tmp_path / "plain", recipe.read_text())
    common = ["sample", tmp_path / "plain", "--steps", 2, "-o", tmp_path / "out"]
    assert "without prompts" in complains(capsys, *common, "--prompt", "a frog")
    assert "no prompt to be guided by" in complains(capsys, *common, "--guidance", 2)
    assert facts(capsys, *common)["guidance"] == "1"


# ------------------------------------------------------------------------------------ eval


def test_samples_are_measured(small_digits, capsys):
    told = facts(
        capsys, "eval", small_digits, "starter:digits", "--judge", "digit-features", "--num", 24,
        "--steps", 2,
    )  # fmt: skip
    assert told["judge"]["made_count"] == 24 and told["judge"]["real_count"] == 200
    assert told["judge"]["frechet"] > 1 and 0 <= told["right"] <= 1
    text = does(
        capsys, "eval", small_digits, "--judge", "digit-features", "--num", 12, "--steps", 1
    )
    assert "show what was asked for" in text and "feature distance" in text


def test_bits_are_counted_and_add_up(small_pixels, capsys):
    told = facts(capsys, "eval", small_pixels, "--num", 0, "--bits", 3)["bits_per_dim"]
    assert told["pictures"] == 3
    parts = told["prior"] + told["steps"] + told["decoder"]
    assert told["total"] == pytest.approx(parts, abs=1e-4) and told["total"] > 0


def test_autoencoders_are_measured(tmp_path, capsys):
    from program import RECIPES

    from multidiff.loading import build_model, save_model

    recipe = RECIPES / "smoke" / "digits_autoencoder.yaml"
    save_model(build_model(recipe), tmp_path / "plain", recipe.read_text())
    told = facts(capsys, "eval", tmp_path / "plain", "--judge", "digit-features", "--most", 40)
    assert told["pictures"] == 40 and told["psnr_db"] > 0 and told["judge"]["frechet"] > 1
    for word in ("--steps", "--solver"):
        complains(capsys, "eval", tmp_path / "plain", word, 3)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--num", "3"], "--judge MODEL"),
        (["--num", "0"], "nothing to measure"),
        (["--bits", "2", "--num", "0"], "only a model in pixels"),
        (["--judge", "speech"], "is a Vocoder, not a PictureClassifier"),
        (["--judge", "digit-feature"], "no model 'digit-feature'"),
        (["--inception", "no.pt"], "no.pt"),
        (["nowhere.parquet", "--judge", "digit-features"], "nowhere.parquet"),
    ],
    ids=lambda x: " ".join(x)[:40],
)
def test_what_cannot_be_measured(small_digits, words, reason, capsys):
    assert reason in complains(capsys, "eval", small_digits, *words)


def test_captions_are_asked_for(small_colour, tmp_path):
    """Where the data has captions and the model no subjects, samples are made of captions."""
    from multidiff.image.evaluation import prompts_of

    rows = [{"file_name": f"{i}.png", "text": f"a {word}"} for i, word in enumerate(("one", "two"))]
    for row in rows:
        drawn(tmp_path / row["file_name"], 3, 64, 64)
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    real = Pictures(Source(str(tmp_path)))
    assert prompts_of(md.load(small_colour), real, 3) == ["a one", "a two", "a one"]


def test_starter_digits_are_there():
    assert len(list(place_of("starter:digits").glob("*.parquet"))) == 1


@pytest.mark.parametrize(
    ("recipe", "change", "reason"),
    [
        ("digits", "in_channels=3", "in_channels 3 and out_channels 4 for states of 4 channels"),
        ("digits", "out_channels=8", "in_channels 4 and out_channels 8 for states of 4 channels"),
        ("digits", "condition_width=8", "condition_width 8 for conditions of width 16"),
        ("digits_pixels", "in_channels=4", "in_channels 4 and out_channels 1 for states of 1"),
        ("digits_pixels", "classes=3", "a denoiser of 3 classes for a domain of 10"),
    ],
)
def test_parts_that_do_not_fit_each_other(recipe, change, reason, tmp_path, capsys):
    words = ["train", RECIPES / "smoke" / f"{recipe}.yaml", f"model.denoiser.{change}"]
    assert reason in complains(capsys, *words, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
