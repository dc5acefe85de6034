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
from multidiff.image.stable_diffusion.lora import merge_lora, set_loras
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
    kept = read_facts(tmp_path / names[1])
    lines = kept.pop("parameters").splitlines()
    assert lines[:2] == [SEVEN, "Negative prompt: a one"]
    assert lines[2].startswith("Steps: 3, Sampler: ddim, CFG scale: 2, Seed: 6, Size: 28x28, ")
    assert kept == {
        "prompt": SEVEN,
        "negative_prompt": "a one",
        "seed": "6",
        "sampler": "ddim",
        "steps": "3",
        "guidance_scale": "2",
        "size": "28x28",
        "model": model.name,
        "rescale": "0",
        "literal_prompts": "False",
        "strength_of": "time",
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
    again = facts(capsys, "sample", small_digits, "--from", path, "--lora", f"{lora}:0.5,{other}",
                  "--init-image", init, "--mask-image", mask, "-o", tmp_path / "again")  # fmt: skip
    copy = read_image(again["outputs"][0]["path"], channels=1)
    assert (copy.int() - read_image(path, channels=1).int()).abs().max() <= 1
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


def replayed(capsys, model, path, out, *words):
    reported = facts(capsys, "sample", model, "--from", path, *words, "-o", out)
    return read_image(reported["outputs"][0]["path"], channels=1)


def test_from_an_image_alone(small_digits, tmp_path, capsys):
    """The same to the bit, with every option; what is given again replaces it."""
    (tmp_path / "out").mkdir()
    init = drawn(tmp_path / "out/init.png", 1, 40, 30, white=(slice(5, 20), slice(5, 9)))
    lora = lora_of(md.load(small_digits), tmp_path / "out/style.safetensors", 1)
    common = ["sample", small_digits, "--prompt", SEVEN, "-o", tmp_path / "out", "--steps", 2]
    for number, words in enumerate(
        (
            ["--seed", 9, "--sampler", "ddpm", "--guidance-scale", 2, "--rescale", 0.2],
            ["--lora", f"{lora}:0.5", "--negative-prompt", "a one", "--size", "32x24"],
            ["--init-image", init, "--fit", "crop", "--size", "28x28", "--strength", 0.5],
            ["--init-image", init, "--fit", "pad", "--strength-of", "steps"],
            ["--hires", 1.5, "--timestep-spacing", "karras"],
        )
    ):
        path = facts(capsys, *common, *words)["outputs"][0]["path"]
        again = replayed(capsys, small_digits, path, tmp_path / str(number))
        assert torch.equal(again, read_image(path, channels=1)), words
    other = replayed(capsys, small_digits, path, tmp_path / "other", "--prompt", "a two")
    assert other.shape == again.shape and not torch.equal(other, again)
    lora.unlink()
    path = tmp_path / "out/001-a-handwritten-seven-0.png"
    reported = complains(capsys, "sample", small_digits, "--from", path)
    assert "was made with style.safetensors" in reported and "give its path by --lora" in reported
    grid = facts(capsys, *common, "-n", 2)["grid"]
    reported = complains(capsys, "sample", small_digits, "--from", grid)
    assert "is a grid or a frame; name a single image" in reported
    reported = complains(capsys, "sample", small_digits, "--from", init)
    assert "has no record of how it was made" in reported


def test_a_seed_given_beside_an_image_replaces_its_own(small_digits, tmp_path, capsys):
    """Also 0, which is the default of other runs."""
    common = ["--prompt", SEVEN, "--steps", 1, "-o", tmp_path]
    made = facts(capsys, "sample", small_digits, *common, "--seed", 9)["outputs"][0]
    plain = facts(capsys, "sample", small_digits, *common)["outputs"][0]
    assert (made["seed"], plain["seed"]) == (9, 0)
    for words, seed in (([], 9), (["--seed", 0], 0), (["--seed", 4], 4)):
        again = facts(capsys, "sample", small_digits, "--from", made["path"], *words, "-o",
                      tmp_path)["outputs"][0]  # fmt: skip
        assert again["seed"] == seed
        same = torch.equal(read_image(again["path"], 1), read_image(plain["path"], 1))
        assert same == (seed == 0)


def test_an_image_of_other_weights(small_digits, small_pixels, tmp_path, capsys):
    path = facts(capsys, "sample", small_pixels, "--prompt", "six", "--steps", 1, "-o",
                 tmp_path)["outputs"][0]["path"]  # fmt: skip
    reported = complains(capsys, "sample", small_digits, "--from", path)
    assert "was made by" in reported and "but this model's are" in reported


def test_a_folder_of_initial_images_and_seeds_of_ones_own(small_digits, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name, rows in (("a", slice(2, 9)), ("b", slice(9, 20))):
        drawn(tmp_path / f"in/{name}.png", 1, 28, 28, white=(rows, slice(5, 9)))
    common = ["sample", small_digits, "--prompt", SEVEN, "--prompt", "2", "--steps", 2]
    reported = facts(capsys, *common, "--init-image", tmp_path / "in", "--strength", 0.5, "--seeds",
                     "7,3", "--negative-prompt", "one", "--negative-prompt", "a six", "-o",
                     tmp_path / "out")  # fmt: skip
    seeds = [(one["prompt"], one["seed"]) for one in reported["outputs"]]
    assert seeds == [(SEVEN, 7), (SEVEN, 7), ("2", 3), ("2", 3)]
    said = [read_facts(one["path"]) for one in reported["outputs"]]
    assert [one["init_image"] for one in said] == ["a.png", "b.png"] * 2
    assert [one["negative_prompt"] for one in said] == ["one", "one", "a six", "a six"]
    model = md.load(small_digits)
    canvas = Canvas(read_image(tmp_path / "in/b.png", channels=1), 0.5)
    wanted = model.generate("2", seed=3, steps=2, canvas=canvas, negative_prompt="a six")
    found = read_image(reported["outputs"][3]["path"], channels=1)
    assert (found.int() - wanted[0].int()).abs().max() <= 1
    assert "give one for each" in complains(capsys, *common, "--seeds", "7")
    drawn(tmp_path / "in/c.png", 1, 20, 28)
    reported = complains(capsys, *common, "--init-image", tmp_path / "in")
    assert "c.png: has 28x20 pixels" in reported and "--fit crop" in reported


def test_inputs_are_fitted_and_masks_feathered(small_pixels, tmp_path, capsys):
    init = drawn(tmp_path / "init.png", 1, 56, 84, white=(slice(0, 56), slice(0, 42)))
    mask = drawn(tmp_path / "mask.png", 1, 56, 84, white=(slice(0, 10), slice(0, 84)))
    common = ["sample", small_pixels, "--prompt", "six", "--steps", 1, "--init-image", init]
    for fit, size in (("crop", "28x28"), ("stretch", "28x28"), ("pad", "28x28")):
        words = ("--fit", fit, "--size", size, "--mask-image", mask, "--feather", 4)
        reported = facts(capsys, *common, *words, "-o", tmp_path / fit)
        found = read_image(reported["outputs"][0]["path"], channels=1)
        assert found.shape == (1, 28, 28) and reported["feather"] == "4" and reported["fit"] == fit
        assert found[0, 14:18, 1].min() == 255 and found[0, 14:18, -2].max() == 0
    assert "give it by --init-image" in complains(
        capsys, "sample", small_pixels, "--prompt", "six", "--fit", "crop"
    )
    assert "0 or more pixels around a mask" in complains(capsys, *common, "--feather", 3)


def test_a_feathered_mask_fades_out():
    from multidiff.image.canvas import feathered

    mask = torch.zeros(1, 21, dtype=torch.bool)
    mask[0, 10:] = True
    found = feathered(mask.expand(21, 21), 4)[10]
    assert (found[10:] == 1).all() and (found[:6] == 0).all()
    assert (found[6:11].diff() > 0).all() and torch.equal(feathered(mask, 0), mask.float())


def test_loras_are_put_on_and_taken_off(small_digits, tmp_path):
    model = md.load(small_digits)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    first = lora_of(model, tmp_path / "a.safetensors", 1)
    second = lora_of(model, tmp_path / "b.safetensors", 2)
    set_loras(model, [(first, 0.3), (second, 1.0)])
    both = {name: one.clone() for name, one in model.state_dict().items()}
    assert [one.name for one in model.loras] == ["a.safetensors", "b.safetensors"]
    set_loras(model, [(second, 1.0)])
    one_alone = md.load(small_digits)
    merge_lora(one_alone, second)
    for name, wanted in one_alone.state_dict().items():
        assert torch.equal(model.state_dict()[name], wanted)
    with pytest.raises(InputError, match="no such weights file"):
        set_loras(model, [(first, 1.0), (tmp_path / "none.safetensors", 1.0)])
    assert not model.loras
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert any(not torch.equal(both[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("unet.x.lora_magnitude_vector", "a DoRA"),
        ("lora_unet_x.dora_scale", "a DoRA"),
        ("lora_unet_x.hada_w1_a", "a LoHa"),
        ("lora_unet_x.lokr_w1", "a LoKr"),
        ("lora_unet_x.oft_diag", "an OFT adapter"),
        ("ip_adapter.1.to_k_ip.weight", "an IP-Adapter"),
        ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
        ("emb_params", "a textual inversion"),
    ],
)
def test_other_adapters_are_named(small_digits, tmp_path, capsys, name, kind):
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file({name: torch.zeros(2, 2)}, path)
    reported = complains(capsys, "sample", small_digits, "--prompt", SEVEN, "--lora", path)
    assert f"{path}: is {kind}" in reported and "not merged here" in reported


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
