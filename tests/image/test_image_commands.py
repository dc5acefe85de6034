"""`multidiff sample` and `multidiff eval` on image models, end to end."""

import hashlib
import json

import numpy as np
import pytest
import torch
from commands import complains, does, facts
from PIL import Image
from program import RECIPES

import multidiff as md
from multidiff.cli.main import run
from multidiff.image.cli import sample
from multidiff.image.data.image_files import read_facts, read_image, write_image
from multidiff.image.data.images import Images, ImageSource
from multidiff.image.diffusion.model import Canvas
from multidiff.image.stable_diffusion.lora import merge_lora
from multidiff.utils.errors import InputError
from multidiff.utils.files import resolve_path

SEVEN = "a handwritten seven"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def drawn(path, *shape, white=None):
    image = torch.zeros(shape, dtype=torch.uint8)
    if white is not None:
        image[:, white[0], white[1]] = 255
    write_image(image, path)
    return path


def test_pictures_a_grid_and_what_they_were_made_of(small_digits, tmp_path, capsys):
    reported = facts(
        capsys,
        "sample",
        small_digits,
        "--prompt",
        SEVEN,
        "--prompt",
        "2",
        "-n",
        2,
        "--steps",
        3,
        "--seed",
        5,
        "--sampler",
        "ddim",
        "--guidance-scale",
        2,
        "--negative-prompt",
        "a one",
        "-o",
        tmp_path,
    )
    assert [(one["prompt"], one["seed"]) for one in reported["outputs"]] == [
        (SEVEN, 5), (SEVEN, 6), ("2", 5), ("2", 6),
    ]  # fmt: skip
    assert reported["steps"] == "3" and reported["faults"] == []
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "000-a-handwritten-seven-5.png", "001-a-handwritten-seven-6.png", "002-2-5.png",
        "003-2-6.png", "grid.png",
    ]  # fmt: skip
    model = md.load(small_digits)
    wanted = model.generate(
        [SEVEN], seed=6, steps=3, sampler="ddim", guidance_scale=2, negative_prompt="a one"
    )[0]  # fmt: skip
    found = read_image(tmp_path / names[1], channels=1)
    assert found.shape == (1, 28, 28) and (found.int() - wanted.int()).abs().max() <= 1
    assert read_facts(tmp_path / names[1]) == {
        "prompt": SEVEN,
        "negative_prompt": "a one",
        "seed": "6",
        "sampler": "ddim",
        "steps": "3",
        "guidance_scale": "2",
        "size": "28x28",
        "model": model.name,
        "rescale": "0",
        "timestep_spacing": "trailing",
        "weights": sha256(small_digits / "model.safetensors"),
        "multidiff": md.__version__,
        "torch": torch.__version__.partition("+")[0],
        "device": "cpu",
    }
    whole = read_image(tmp_path / "grid.png", channels=1)
    assert whole.shape[1] >= 2 * 28 and whole.shape[2] >= 2 * 28
    assert read_facts(tmp_path / "grid.png")["prompt"] == f"{SEVEN} | 2"


def test_lines_for_people(small_pixels, tmp_path, capsys):
    text = does(capsys, "sample", small_pixels, "--prompt", "six", "--steps", 2, "-o", tmp_path)
    assert "000-six-0.png: six, seed 0" in text and "1 images" in text
    text = does(capsys, "sample", small_pixels, "--steps", 2, "-o", tmp_path / "plain")
    assert "000-0.png: an image, seed 0" in text


def test_from_a_picture_and_over_a_part_of_it(small_digits, tmp_path, capsys):
    init = drawn(tmp_path / "init.png", 1, 28, 28, white=(slice(5, 20), slice(5, 9)))
    mask = drawn(tmp_path / "mask.png", 1, 28, 28, white=(slice(0, 14), slice(0, 28)))
    common = ["sample", small_digits, "--prompt", SEVEN, "--steps", 4, "--init-image", init]
    reported = facts(capsys, *common, "--strength", 0.5, "-o", tmp_path / "half")
    assert (reported["steps"], reported["strength"]) == ("4", "0.5")
    reported = facts(capsys, *common, "--strength", 0, "-o", tmp_path / "none")
    assert (reported["steps"], reported["strength"]) == ("0", "0")
    original = read_image(init, channels=1)
    assert torch.equal(read_image(reported["outputs"][0]["path"], channels=1), original)
    reported = facts(capsys, *common, "--mask-image", mask, "-o", tmp_path / "part")
    painted = read_image(reported["outputs"][0]["path"], channels=1)
    assert reported["strength"] == "1" and torch.equal(painted[:, 14:], original[:, 14:])
    assert not torch.equal(painted, original)


def test_a_second_run_adds_to_the_first(small_pixels, tmp_path, capsys):
    """Nothing is written over: numbers go on, and each run has a grid of its own."""
    common = ["sample", small_pixels, "--prompt", "six", "-o", tmp_path]
    does(capsys, *common, "-n", 2, "--steps", 2)
    first = {path: path.read_bytes() for path in tmp_path.iterdir()}
    reported = facts(capsys, *common, "--steps", 1)
    assert reported["outputs"][0]["path"] == str(tmp_path / "002-six-0.png")
    assert reported["grid"] == str(tmp_path / "grid-002.png")
    assert {path: path.read_bytes() for path in first} == first
    for path in first:
        if path.name != "grid.png":
            path.unlink()
    (tmp_path / "002-six-0.png").unlink()
    assert facts(capsys, *common, "--steps", 1)["grid"] == str(tmp_path / "grid-000.png")


def test_a_folder_that_is_being_written_to(small_pixels, tmp_path, capsys):
    from concurrent.futures import ThreadPoolExecutor

    from multidiff.utils.files import lock_dir

    with lock_dir(tmp_path), ThreadPoolExecutor(1) as other:
        words = [str(one) for one in ("sample", small_pixels, "--steps", 1, "-o", tmp_path)]
        assert other.submit(run, words).result() == 2
    assert "another run is writing there" in capsys.readouterr().err


def test_each_picture_is_there_as_soon_as_it_is_made(small_pixels, tmp_path, monkeypatch):
    """A run that breaks down at the 20th image has written 16, the first batch."""
    model, seen, lines = md.load(small_pixels), [], []
    made = model._made

    def breaks(part, *rest, **named):
        if part.rows.start:
            raise InputError("the power is cut")
        return made(part, *rest, **named)

    monkeypatch.setattr(model, "_made", breaks)
    with pytest.raises(InputError, match="power"):
        sample(
            model, num=20, prompts=[], out=tmp_path, seed=0,
            sampling=model.sampling.replace(steps=1), on_line=lines.append,
        )  # fmt: skip
    seen = sorted(path.name for path in tmp_path.iterdir())
    assert seen == [f"{number:03d}-{number}.png" for number in range(16)]
    assert [line.split(":")[0] for line in lines] == [str(tmp_path / name) for name in seen]


def test_pictures_are_made_though_nobody_reads_the_lines(small_pixels, tmp_path, monkeypatch):
    """As behind ``| head -1``: the files are what was asked for."""
    monkeypatch.setattr("multidiff.cli.parsing.printed", lambda lines: False)
    monkeypatch.chdir(tmp_path)
    assert run(["sample", str(small_pixels), "--steps", "1", "-n", "2"]) == 0
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["000-0.png", "001-1.png", "grid.png"]


def test_prompts_of_a_file(small_pixels, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("six\ntwo\n")
    reported = facts(
        capsys,
        "sample",
        small_pixels,
        "--prompt-file",
        tmp_path / "prompts.txt",
        "-n",
        2,
        "--steps",
        1,
        "-o",
        tmp_path / "out",
    )
    assert [one["prompt"] for one in reported["outputs"]] == ["six", "six", "two", "two"]


def test_a_picture_is_made_again_from_what_its_file_says(small_digits, tmp_path, capsys):
    """Model, init, mask and LoRA by name and hash, and every number."""
    init = drawn(tmp_path / "init.png", 1, 28, 28, white=(slice(5, 20), slice(5, 9)))
    mask = drawn(tmp_path / "mask.png", 1, 28, 28, white=(slice(0, 14), slice(0, 28)))
    lora = lora_of(md.load(small_digits), tmp_path / "style.safetensors", 1)
    other = lora_of(md.load(small_digits), tmp_path / "other.safetensors", 2)
    reported = facts(
        capsys,
        "sample",
        small_digits,
        "--prompt",
        SEVEN,
        "-n",
        2,
        "--seed",
        4,
        "--steps",
        3,
        "--sampler",
        "ddpm",
        "--guidance-scale",
        2,
        "--rescale",
        0.3,
        "--negative-prompt",
        "a one",
        "--init-image",
        init,
        "--mask-image",
        mask,
        "--strength",
        0.7,
        "--lora",
        f"{lora}:0.5,{other}",
        "-o",
        tmp_path / "out",
    )
    path = reported["outputs"][1]["path"]
    said = read_facts(path)
    assert said["multidiff"] == md.__version__ and said["timestep_spacing"] == "even"
    assert said["weights"] == sha256(small_digits / "model.safetensors")
    files = {name: tmp_path / said[name] for name in ("init_image", "mask_image")}
    assert all(said[f"{name}_sha256"] == sha256(file) for name, file in files.items())
    model = md.load(small_digits)
    for one, digest in zip(said["lora"].split(), said["lora_sha256"].split(), strict=True):
        name, _, weight = one.rpartition(":")
        assert digest == sha256(tmp_path / name)
        merge_lora(model, tmp_path / name, float(weight))
    area = read_image(files["mask_image"], channels=1)[0] > 127
    made = model.generate(
        [said["prompt"]],
        seed=int(said["seed"]),
        steps=int(said["steps"]),
        sampler=said["sampler"],
        guidance_scale=float(said["guidance_scale"]),
        rescale=float(said["rescale"]),
        negative_prompt=said["negative_prompt"],
        size=tuple(map(int, said["size"].split("x"))),
        canvas=Canvas(read_image(files["init_image"], channels=1), float(said["strength"]), area),
    )
    assert (made[0].int() - read_image(path, channels=1).int()).abs().max() <= 1
    plain = md.load(small_digits).generate([SEVEN], seed=5, steps=3)
    assert not torch.equal(plain, made)


def lora_of(model, path, seed):
    """A LoRA of one layer of the UNet, with its layer's values."""
    from safetensors.torch import save_file

    owned = model.denoiser.named_parameters()
    name, layer = next((name, one) for name, one in owned if name.endswith("to_q.weight"))
    rng = torch.Generator().manual_seed(seed)
    down = torch.randn(2, layer.shape[1], generator=rng)
    up = torch.randn(layer.shape[0], 2, generator=rng)
    stem = f"unet.{name.removesuffix('.weight')}"
    save_file({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, path)
    return path


def test_two_loras_add_up(small_digits, tmp_path, capsys, caplog):
    first = lora_of(md.load(small_digits), tmp_path / "a.safetensors", 1)
    second = lora_of(md.load(small_digits), tmp_path / "b.safetensors", 2)
    common = ["sample", small_digits, "--prompt", SEVEN, "--steps", 2]
    reported = [
        facts(capsys, *common, *words, "-o", tmp_path / str(number))
        for number, words in enumerate(
            (["--lora", first, "--lora", f"{second}:0.5"], ["--lora", f"{first},{second}:0.5"],
             ["--lora", f"{second}:0.5"], ["--lora", first, "--lora", first])
        )
    ]  # fmt: skip
    assert [one["lora"] for one in reported] == [
        "a.safetensors:1 b.safetensors:0.5", "a.safetensors:1 b.safetensors:0.5",
        "b.safetensors:0.5", "a.safetensors:2",
    ]  # fmt: skip
    both, same, one = (read_image(x["outputs"][0]["path"], channels=1) for x in reported[:3])
    assert torch.equal(both, same) and not torch.equal(both, one)
    assert caplog.text.count("a.safetensors: is merged already with weight 1") == 1


def test_masks_as_editors_export_them(small_pixels, tmp_path, capsys, caplog):
    """White on nothing: what is transparent is kept; grey edges are announced."""
    init = drawn(tmp_path / "init.png", 1, 28, 28, white=(slice(5, 20), slice(5, 9)))
    levels = np.full((28, 28, 4), 255, np.uint8)
    levels[:, 14:, 3] = 0
    Image.fromarray(levels).save(tmp_path / "mask.png")
    common = ["sample", small_pixels, "--steps", 2, "--init-image", init, "--mask-image"]
    reported = facts(capsys, *common, tmp_path / "mask.png", "-o", tmp_path / "a")
    made, original = read_image(reported["outputs"][0]["path"], channels=1), read_image(init)[:1]
    assert torch.equal(made[..., 14:], original[..., 14:])
    assert not torch.equal(made[..., :14], original[..., :14]) and not caplog.text
    levels[:, 10:14, 3] = 100
    Image.fromarray(levels).save(tmp_path / "soft.png")
    does(capsys, *common, tmp_path / "soft.png", "-o", tmp_path / "b")
    assert "soft.png: 112 of 784 pixels are neither black nor white" in caplog.text
    levels[:] = 255
    levels[..., 3] = 0
    Image.fromarray(levels).save(tmp_path / "nothing.png")
    reported = complains(capsys, *common, tmp_path / "nothing.png", "-o", tmp_path / "c")
    assert "black everywhere (transparent pixels count as black)" in reported


def test_colour_sizes(small_color, tmp_path, capsys):
    reported = facts(
        capsys, "sample", small_color, "--prompt", "a nine", "--size", "48x32", "-o", tmp_path,
        "--steps", 1,
    )  # fmt: skip
    with Image.open(reported["outputs"][0]["path"]) as image:
        assert image.size == (48, 32) and image.mode == "RGB"


def test_prompts_that_are_cut_or_unknown_are_told_of(small_digits, tmp_path, capsys, caplog):
    long = "a handwritten seven " * 5
    common = ["sample", small_digits, "--steps", 1, "-o", tmp_path]
    does(capsys, *common, "--prompt", long)
    assert "cut off" in caplog.text
    does(capsys, *common, "--prompt", "a purple seven")
    assert "does not know purple" in caplog.text


BAD = [
    (["--prompt", "7", "--size", "70"], "--size 70: write WIDTHxHEIGHT"),
    (["--prompt", "7", "--size", "71x64"], "71x64"),
    (["--prompt", "7", "--guidance-scale", "-1"], "--guidance-scale -1"),
    (["--prompt", "7", "--steps", "0"], "--steps 0"),
    (["--prompt", "7", "--sampler", "eulr"], "--sampler eulr"),
    (["--prompt", "7", "--strength", "0.5"], "give it by --init-image"),
    (["--prompt", "7", "--mask-image", "no.png"], "give it by --init-image"),
    (["--prompt", "7", "--init-image", "no.png"], "no.png"),
    (["--prompt", "7", "--init-image", "{init}", "--strength", "1.5"], "--strength 1.5"),
    (["--prompt", "7", "--init-image", "{init}", "--strength", "-0.5"], "--strength -0.5"),
    (["--prompt", "7", "--init-image", "{init}", "--mask-image", "{small}"], "32x32 pixels"),
    (["--prompt", "7", "--init-image", "{init}", "--mask-image", "{init}"], "black everywhere"),
    (["--prompt", "7", "--init-image", "{odd}"], "66x61 of the initial image"),
    (["--prompt", "7", "--init-image", "{folder}"], "is a folder; name one image"),
    (
        ["--prompt", "7", "--init-image", "{init}", "--mask-image", "{folder}"],
        "is a folder; name one",
    ),
    (["--prompt", "7", "--init-image", "{broken}"], "broken.png"),
    (["--prompt", "7", "--init-image", "{init}", "--size", "32x32"], "--size 32x32"),
    (["--prompt", "7", "--lora", "no.safetensors"], "no.safetensors"),
    (["--prompt", "7", "--rescale", "2"], "rescale"),
    (["--prompt", "7", "--colour", "red"], "no such option"),
    ([], "--prompt"),
]


@pytest.mark.parametrize(("words", "reason"), BAD, ids=lambda x: " ".join(x)[:40])
def test_what_cannot_be_sampled(small_color, words, reason, tmp_path, capsys):
    positions = {
        "init": drawn(tmp_path / "init.png", 3, 64, 64),
        "small": drawn(tmp_path / "small.png", 1, 32, 32, white=(slice(0, 9), slice(0, 9))),
        "odd": drawn(tmp_path / "odd.png", 3, 61, 66),
        "broken": tmp_path / "broken.png",
        "folder": tmp_path,
    }
    positions["broken"].write_bytes(positions["init"].read_bytes()[:60])
    words = [word.format(**positions) for word in words]
    out = tmp_path / "out"
    assert reason in complains(capsys, "sample", small_color, *words, "-o", out)
    assert not out.exists()


def test_places_that_are_no_folder(small_digits, tmp_path, capsys):
    (tmp_path / "file").touch()
    common = ["sample", small_digits, "--prompt", "7", "--steps", 1, "-o"]
    assert "name a folder" in complains(capsys, *common, tmp_path / "seven.png")
    assert "name a folder" in complains(capsys, *common, tmp_path / "file")


def test_a_model_without_prompts(tmp_path, capsys, monkeypatch):
    from program import RECIPES

    from multidiff.models.loading import build_model, save_model

    recipe = RECIPES / "smoke" / "ddpm_cifar10.yaml"
    save_model(build_model(recipe), tmp_path / "plain", recipe.read_text())
    common = ["sample", tmp_path / "plain", "--steps", 2, "-o", tmp_path / "out"]
    assert "without prompts" in complains(capsys, *common, "--prompt", "a frog")
    assert "no prompt to be guided by" in complains(capsys, *common, "--guidance-scale", 2)
    assert facts(capsys, *common)["guidance_scale"] == "1"


# ------------------------------------------------------------------------------------ eval


def test_samples_are_measured(small_digits, capsys):
    reported = facts(
        capsys, "eval", small_digits, "starter:digits", "--classifier", "digit-features",
        "--num", 24,
        "--steps", 2,
    )  # fmt: skip
    assert (
        reported["classifier"]["made_count"] == 24 and reported["classifier"]["real_count"] == 200
    )
    assert reported["classifier"]["frechet"] > 1 and 0 <= reported["right"] <= 1
    text = does(
        capsys, "eval", small_digits, "--classifier", "digit-features", "--num", 12, "--steps", 1
    )
    assert "show what was asked for" in text and "feature distance" in text


def test_bits_are_counted_and_add_up(small_pixels, capsys):
    reported = facts(capsys, "eval", small_pixels, "--num", 0, "--bits", 3)["bits_per_dim"]
    assert reported["images"] == 3
    parts = reported["prior"] + reported["steps"] + reported["decoder"]
    assert reported["total"] == pytest.approx(parts, abs=1e-4) and reported["total"] > 0


def test_autoencoders_are_measured(tmp_path, capsys):
    from program import RECIPES

    from multidiff.models.loading import build_model, save_model

    recipe = RECIPES / "smoke" / "digits_autoencoder.yaml"
    save_model(build_model(recipe), tmp_path / "plain", recipe.read_text())
    reported = facts(
        capsys, "eval", tmp_path / "plain", "--classifier", "digit-features", "--most", 40
    )
    assert (
        reported["images"] == 40
        and reported["psnr_db"] > 0
        and reported["classifier"]["frechet"] > 1
    )
    for word in ("--steps", "--sampler"):
        complains(capsys, "eval", tmp_path / "plain", word, 3)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--num", "3"], "--classifier MODEL"),
        (["--num", "0"], "nothing to measure"),
        (["--bits", "2", "--num", "0"], "only a model in pixels"),
        (["--classifier", "speech"], "is a Vocoder, needs an ImageClassifier"),
        (["--classifier", "digit-feature"], "no model 'digit-feature'"),
        (["--inception", "no.pt"], "no.pt"),
        (["nowhere.parquet", "--classifier", "digit-features"], "nowhere.parquet"),
    ],
    ids=lambda x: " ".join(x)[:40],
)
def test_what_cannot_be_measured(small_digits, words, reason, capsys):
    assert reason in complains(capsys, "eval", small_digits, *words)


def test_captions_are_asked_for(small_color, tmp_path):
    """Where the data has captions and the model no subjects, samples are made of captions."""
    from multidiff.image.diffusion.evaluation import prompts_of

    rows = [{"file_name": f"{i}.png", "text": f"a {word}"} for i, word in enumerate(("one", "two"))]
    for row in rows:
        drawn(tmp_path / row["file_name"], 3, 64, 64)
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    real = Images(ImageSource(str(tmp_path)))
    assert prompts_of(md.load(small_color), real, 3) == ["a one", "a two", "a one"]


def test_starter_digits_are_there():
    assert len(list(resolve_path("starter:digits").glob("*.parquet"))) == 1


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
