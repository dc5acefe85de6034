"""Daily work with images: variations, plots, outpainting, regions, latents, prompt tables."""

import json

import numpy as np
import pytest
import torch
from commands import complains, facts
from PIL import Image

import multidiff as md
from multidiff.core.random import generators
from multidiff.image.canvas_files import outpainted
from multidiff.image.crops import crop_region
from multidiff.image.data.image_files import read_facts, read_image, write_image
from multidiff.image.diffusion.starts import first_states
from multidiff.image.plots import sheet, xy_plot
from multidiff.image.prompt_rows import read_prompt_table
from multidiff.image.request import sides_of
from multidiff.image.variations import Variation
from multidiff.models.weights import read_tensors
from multidiff.nn.attention import attention, attention_slicing
from multidiff.utils.errors import InputError

SEVEN = "a handwritten seven"


def drawn(path, *shape, white=None):
    image = torch.randint(0, 60, shape, dtype=torch.uint8, generator=generators([1])[0])
    if white is not None:
        image[:, white[0], white[1]] = 255
    write_image(image, path)
    return path


def images_of(reported):
    return [read_image(one["path"], channels=1) for one in reported["outputs"]]


def again(capsys, model, reported, out, number=-1):
    """The image that ``--from`` makes of a file's metadata, beside the one in the file."""
    path = reported["outputs"][number]["path"]
    made = facts(capsys, "sample", model, "--from", path, "-o", out)
    return images_of(made)[0], read_image(path, channels=1)


def test_variations_are_between_two_seeds(small_digits, tmp_path, capsys):
    common = ["sample", small_digits, "--prompt", SEVEN, "--steps", 2, "--seed", 5]
    ends = images_of(facts(capsys, *common, "-n", 5, "-o", tmp_path / "ends"))
    varied = [*common, "-n", 2, "--variation-seed", 8, "--variation-strength"]
    made = [facts(capsys, *varied, one, "-o", tmp_path / str(one)) for one in (0.3, 1)]
    said = read_facts(made[0]["outputs"][1]["path"])
    assert (said["seed"], said["variation_seed"], said["variation_strength"]) == ("5", "9", "0.3")
    assert "Variation seed: 9, Variation seed strength: 0.3" in said["parameters"]
    last = images_of(made[1])
    assert all(
        (one.int() - end.int()).abs().max() <= 1 for one, end in zip(last, ends[3:], strict=True)
    )
    near = [(one.float() - ends[0]).square().mean() for one in images_of(made[0])]
    far = [(end.float() - ends[0]).square().mean() for end in ends[3:]]
    assert all(0 < one < other for one, other in zip(near, far, strict=True))
    assert torch.equal(*again(capsys, small_digits, made[0], tmp_path / "again"))


def test_noise_of_a_variation_is_slerp_of_both(small_digits):
    """Against the formula at the measured angle, as stable-diffusion-webui has it."""
    from multidiff.image.diffusion.starts import CheckedRequest
    from multidiff.image.generation import Part

    model = md.load(small_digits)
    config, shape = model.sampling, (1, 4, 64, 64)
    times = config.times_from(1.0, model.process.schedule)
    request = CheckedRequest(config, times, (64, 64), [None], None, Variation([3], 0.4))
    part = Part([SEVEN], [2], slice(0, 1))
    found = first_states(model, request, part, None, shape, generators([2]))
    low, high = (model.process.prior(shape, generators([seed])) for seed in (2, 3))
    angle = torch.nn.functional.cosine_similarity(low.flatten(), high.flatten(), dim=0).acos()
    wanted = (torch.sin(0.6 * angle) * low + torch.sin(0.4 * angle) * high) / torch.sin(angle)
    assert found is not None
    assert (found - wanted).norm() / wanted.norm() < 0.02
    assert found.std() == pytest.approx(1, abs=0.02)


def test_a_plot_of_guidance_and_steps(small_pixels, tmp_path, capsys):
    reported = facts(capsys, "sample", small_pixels, "--prompt", "six", "-n", 2, "-o", tmp_path,
                     "--xy-plot", "guidance-scale=1,2.5", "--xy-plot", "steps=1,2,3")  # fmt: skip
    said = [read_facts(one["path"]) for one in reported["outputs"]]
    asked = [(one["steps"], one["guidance_scale"], one["seed"]) for one in said]
    assert asked == [
        (steps, scale, seed) for steps in "123" for scale in ("1", "2.5") for seed in "01"
    ]
    model, images = md.load(small_pixels), images_of(reported)
    wanted = model.generate("six", seed=1, steps=3, guidance_scale=2.5)[0]
    assert (images[-1].int() - wanted.int()).abs().max() <= 1
    whole = read_image(reported["grid"], channels=1)
    places = whole[:, -30:-2].unfold(2, 28, 1).movedim(2, 0)
    assert any(torch.equal(one, images[-1]) for one in places)
    assert torch.equal(*again(capsys, small_pixels, reported, tmp_path / "again"))
    for words, reason in (("stepz=1", "did you mean steps"), ("3", "write NAME=VALUE"),
                          ("steps=1,rescale=0,guidance-scale=2", "3 options")):  # fmt: skip
        with pytest.raises(InputError, match=reason):
            xy_plot(words.split(","), model.sampling)


def test_a_sheet_has_each_image_at_its_place():
    images = torch.randint(0, 255, (6, 1, 40, 200), dtype=torch.uint8)
    whole = sheet(images, ["steps 1", "steps 2"], ["a", "b", "c"])
    side, top = whole.shape[2] - 2 * 202, whole.shape[1] - 3 * 42
    for number, image in enumerate(images):
        row, column = divmod(number, 2)
        y, x = top + 42 * row, side + 202 * column
        assert torch.equal(whole[:, y : y + 40, x : x + 200], image)
    labels = whole[0, :top, side:]
    assert labels.min() == 0 and (whole[0, top:, :side] < 128).any()


def test_outpainting_keeps_the_image(small_pixels, tmp_path, capsys):
    init = drawn(tmp_path / "init.png", 1, 28, 28, white=(slice(5, 20), slice(5, 9)))
    common = ["sample", small_pixels, "--prompt", "six", "--steps", 2, "--init-image", init]
    reported = facts(capsys, *common, "--outpaint", "left=8,bottom=4", "-o", tmp_path)
    (made,), original = images_of(reported), read_image(init, channels=1)
    assert made.shape == (1, 32, 36) and torch.equal(made[:, :28, 8:], original)
    assert reported["strength"] == "1" and reported["outpaint"] == "left=8,bottom=4"
    assert torch.equal(*again(capsys, small_pixels, reported, tmp_path / "again"))
    assert "sides are left, right" in complains(capsys, *common, "--outpaint", "left=1,left=2")
    wrong = complains(capsys, *common, "--outpaint", "left=8", "--size", "28x28")
    assert "--size 28x28: with --outpaint the image has 36x28 pixels" in wrong
    for words in (("left",), ("left=x",), ("middle=3",)):
        with pytest.raises(InputError, match="sides are left, right"):
            sides_of(words)
    sides = {"left": 1, "right": 0, "top": 0, "bottom": 0}
    image, area = outpainted(original[None], None, sides)
    assert area is not None and area.sum() == 28
    assert torch.equal(image[0, :, :, 0], original[..., 0])


def test_a_region_is_cropped_as_in_diffusers():
    from diffusers.image_processor import VaeImageProcessor

    rng = np.random.default_rng(0)
    for _ in range(200):
        rows, columns, width, height = rng.integers(8, 90, 4)
        mask = np.zeros((rows, columns), bool)
        top, left = rng.integers(0, rows), rng.integers(0, columns)
        mask[top : top + rng.integers(1, 30), left : left + rng.integers(1, 30)] = True
        padding = int(rng.integers(0, 12))
        found = crop_region(torch.from_numpy(mask), (int(width), int(height)), padding)
        wanted = VaeImageProcessor.get_crop_region(
            Image.fromarray(mask.astype(np.uint8) * 255), int(width), int(height), padding
        )
        assert (found.left, found.top, found.right, found.bottom) == wanted


def test_a_region_is_inpainted_at_full_size(small_pixels, tmp_path, capsys, monkeypatch):
    init = drawn(tmp_path / "init.png", 1, 101, 90, white=(slice(5, 20), slice(5, 9)))
    mask = drawn(tmp_path / "mask.png", 1, 101, 90)
    area = torch.zeros(1, 101, 90, dtype=torch.uint8)
    area[:, 40:50, 60:66] = 255
    write_image(area, mask)
    common = ["sample", small_pixels, "--prompt", "six", "--steps", 2, "--init-image", init]
    region = [*common, "--mask-image", mask, "--padding-mask-crop", 4]
    reported = facts(capsys, *region, "-n", 2, "-o", tmp_path / "out")
    made, original = images_of(reported), read_image(init, channels=1)
    kept = area < 128
    assert all(torch.equal(one[kept], original[kept]) for one in made)
    assert not torch.equal(made[0], original) and not torch.equal(made[0], made[1])
    # The region of 10x6 and its padding is a square of 18, painted at the model's 28.
    model = md.load(small_pixels)
    from multidiff.image.canvas import Canvas
    from multidiff.image.data.image_files import stretched

    part = stretched(original[:, 36:54, 54:72], 28, 28)
    inside = torch.nn.functional.adaptive_max_pool2d(area[:, 36:54, 54:72].float(), (28, 28))[0]
    whole = model.generate("six", seed=1, steps=2, canvas=Canvas(part, 1.0, inside > 0))
    wanted = stretched(whole[0], 18, 18)[:, 4:14, 6:12]
    assert (made[1][:, 40:50, 60:66].int() - wanted.int()).abs().max() <= 1
    unchanged = facts(capsys, *region, "--strength", 0, "-o", tmp_path / "unchanged")
    assert torch.equal(images_of(unchanged)[0], original)
    (tmp_path / "again").mkdir()
    for path in (init, mask):
        path.rename(tmp_path / "out" / path.name)
    assert torch.equal(*again(capsys, small_pixels, reported, tmp_path / "again"))
    common[-1] = tmp_path / "out/init.png"
    assert "needs --init-image and" in complains(capsys, *common, "--padding-mask-crop", 4)


def test_latents_go_out_and_in(small_digits, tmp_path, capsys):
    common = ["sample", small_digits, "--prompt", SEVEN, "--steps", 3]
    reported = facts(capsys, *common, "-n", 2, "--save-latents", "-o", tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [one.with_suffix(".png").exists() for one in files] == [True, True]
    tensors, said = read_tensors(files[1])
    assert said["prompt"] == SEVEN and said["seed"] == "1"
    model = md.load(small_digits)
    kept = []
    model.generate([SEVEN] * 2, steps=3, on_latents=lambda first, state: kept.append(state))
    assert torch.allclose(tensors["latents"][0], kept[0][1], atol=1e-5)
    # Strength 0 decodes them, a later strength goes on from them.
    first = ["--init-latents", files[1]]
    same = facts(capsys, *common, *first, "--strength", 0, "-o", tmp_path / "same")
    decoded, original = images_of(same)[0][:, 2:30, 2:30], images_of(reported)[1]
    assert (decoded.int() - original.int()).abs().max() <= 1
    on = facts(capsys, *common, *first, "--size", "64x64", "--strength", 0.4, "-o", tmp_path / "on")
    assert on["size"] == "64x64" and on["init_latents"] == files[1].name
    (tmp_path / "on" / files[1].name).write_bytes(files[1].read_bytes())
    assert torch.equal(*again(capsys, small_digits, on, tmp_path / "again"))


def test_latents_that_are_none(small_digits, small_pixels, tmp_path, capsys):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    common = ["sample", small_digits, "--prompt", SEVEN, "--init-latents", path]
    save_file({"latents": torch.zeros(1, 3, 4, 4)}, path)
    assert "its latents are (1, 3, 4, 4)" in complains(capsys, *common)
    save_file({"latents": torch.full((1, 4, 4, 4), torch.nan)}, path)
    assert "not finite" in complains(capsys, *common)
    for word in (["--save-latents"], ["--init-latents", path]):
        reported = complains(capsys, "sample", small_pixels, "--prompt", "six", *word)
        assert "this model works in pixels" in reported


def test_prompts_of_a_table(small_digits, tmp_path, capsys):
    table = tmp_path / "prompts.csv"
    table.write_text(f'prompt,seed,negative_prompt\n{SEVEN},7,a one\n"2, thin",,\n{SEVEN},3,\n')
    common = ["sample", small_digits, "--steps", 1, "--prompt-table"]
    reported = facts(capsys, *common, table, "-n", 2, "--seed", 9, "-o", tmp_path / "a")
    said = [read_facts(one["path"]) for one in reported["outputs"]]
    asked = [(one["prompt"], one["seed"], one.get("negative_prompt")) for one in said]
    assert asked == [
        (SEVEN, "7", "a one"), (SEVEN, "8", "a one"), ("2, thin", "9", None),
        ("2, thin", "10", None), (SEVEN, "3", None), (SEVEN, "4", None),
    ]  # fmt: skip
    lines = [{"prompt": SEVEN, "seed": 7, "negative_prompt": "a one"}, {"prompt": "2"}]
    other = tmp_path / "prompts.jsonl"
    other.write_text("\n".join(map(json.dumps, lines)))
    second = facts(capsys, *common, other, "-o", tmp_path / "b")
    assert torch.equal(images_of(second)[0], images_of(reported)[0])
    for text, reason in (
        ("prompt,sede\na,1\n", "its columns are prompt, sede"),
        ("prompt,seed\na,x\n", "prompts.csv:2: seed 'x' is not an integer"),
        ("prompt,seed\n,4\n", "prompts.csv:2: no prompt"),
        ("prompt,seed\na,1,2\n", "prompts.csv:2: unknown column beyond the header"),
        ("prompt\n", "has no rows"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=reason):
            read_prompt_table(table)
    assert "leave out --prompt" in complains(capsys, *common, other, "--prompt", "1")


def test_sliced_attention_is_equal():
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, 8, generator=rng) for n in (5, 7, 7))
    masks = (None, torch.rand(2, 1, 1, 7, generator=rng) > 0.3, torch.rand(2, 4, 5, 7) > 0.3)
    for mask in masks:
        wanted = attention(q, k, v, mask)
        with attention_slicing():
            torch.testing.assert_close(attention(q, k, v, mask), wanted, rtol=0, atol=1e-6)


def test_slices_and_tiles_of_a_model(small_color, tmp_path, capsys):
    common = ["sample", small_color, "--prompt", "a nine", "--steps", 1, "--size", "64x32"]
    images = []
    for words in ([], ["--attention-slicing"], ["--vae-tiling", 32]):
        reported = facts(capsys, *common, *words, "-o", tmp_path / str(len(images)))
        images.append(read_image(reported["outputs"][0]["path"]).int())
    assert (images[1] - images[0]).abs().max() <= 1
    tiled = (images[2] - images[0]).abs()
    assert 0 < tiled.float().mean() < 20  # blended tiles are close, not equal
    assert reported["vae_tiling"] == "32"
    assert "must be a multiple of 8" in complains(capsys, *common, "--vae-tiling", 63)


WAYS = (
    [],
    ["--seed", 9, "--guidance-scale", 3.14159265, "--rescale", 0.2],
    ["--sampler", "euler-ancestral", "--negative-prompt", "b, (c:1.2)"],
    ["--literal-prompts", "--timestep-spacing", "trailing", "--sampler", "ddim", "--steps", 3],
    ["--size", "24x16"],
    ["--lora", "{out}/a.safetensors:0.333333333,{out}/b.safetensors"],
    ["--embedding", "{out}/e.safetensors:<x>", "--prompt", "a <x>"],
    ["--vae", "{out}/vae"],
    ["--init-image", "{out}/init.png", "--fit", "crop", "--size", "16x16", "--strength", 0.5123456],
    ["--init-image", "{out}/init.png", "--fit", "pad", "--strength-of", "steps"],
    ["--init-image", "{out}/init.png", "--mask-image", "{out}/mask.png", "--feather", 2,
     "--fit", "stretch"],
    ["--init-image", "{out}/init.png", "--outpaint", "left=8,top=4"],
    ["--init-image", "{out}/init.png", "--mask-image", "{out}/mask.png", "--padding-mask-crop", 3,
     "--size", "16x16"],
    ["--init-image", "{out}/folder", "--strength", 0.7],
    ["--init-latents", "{out}/l.safetensors", "--strength", 0.6],
    ["--hires", 1.5, "--hires-strength", 0.3333333],
    ["--variation-strength", 0.2, "--variation-seed", 77],
    ["--xy-plot", "guidance-scale=2,5", "--xy-plot", "steps=1,2"],
    ["--attention-slicing", "--vae-tiling", 8, "--size", "32x16"],
    ["--prompt-table", "{out}/t.csv"],
)  # fmt: skip


@pytest.mark.long
def test_twenty_ways_of_making_an_image_again(tmp_path, capsys):
    """Every option is recorded: ``--from`` makes the same image to the bit."""
    import shutil

    from pipelines import pipeline
    from safetensors.torch import save_file

    pipeline(tmp_path, 1).save_pretrained(tmp_path / "model")
    out, rng = tmp_path / "out", torch.Generator().manual_seed(0)
    (out / "folder").mkdir(parents=True)
    for name, size in (("init", (3, 20, 24)), ("folder/c", (3, 16, 16)), ("folder/d", (3, 16, 16))):
        image = torch.randint(0, 256, size, dtype=torch.uint8, generator=rng)
        write_image(image, out / f"{name}.png")
    mask = torch.zeros(1, 20, 24, dtype=torch.uint8)
    mask[:, 5:12, 3:9] = 255
    write_image(mask, out / "mask.png")
    for name in "ab":
        stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
        down, up = torch.randn(2, 128, generator=rng), torch.randn(128, 2, generator=rng)
        parts = {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        save_file(parts, out / f"{name}.safetensors")
    save_file({"<x>": torch.randn(64, generator=rng)}, out / "e.safetensors")
    save_file({"latents": torch.randn(1, 4, 8, 8, generator=rng)}, out / "l.safetensors")
    pipeline(tmp_path / "other", 2).vae.save_pretrained(out / "vae")
    (out / "t.csv").write_text("prompt,negative_prompt,seed\na,b,3\nc a,,5\n")
    common = ["sample", tmp_path / "model", "--steps", 2, "-o", out]
    wrong = []
    for number, words in enumerate(WAYS):
        words = [one.format(out=out) if isinstance(one, str) else one for one in words]
        words += (
            [] if {"--prompt", "--prompt-table"} & {*map(str, words)} else ["--prompt", "a cat"]
        )
        words = [*common[:2], *words, *([] if "--steps" in words else common[2:4]), *common[4:]]
        path = facts(capsys, *words)["outputs"][-1]["path"]
        for file in (out / "folder").iterdir():  # an image names its own initial image
            shutil.copy(file, out / file.name)
        made = facts(capsys, *common[:2], "--from", path, "-o", tmp_path / str(number))
        if not torch.equal(read_image(made["outputs"][0]["path"]), read_image(path)):
            wrong.append(words)
    assert len(WAYS) == 20 and not wrong
