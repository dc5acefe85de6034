"""The command line as a whole: statuses, models, recipes, conversion."""

import json
import re
import shutil
import time
import tomllib

import pytest
import safetensors.torch
import torch
from commands import complains, does, facts
from program import RECIPES, run

import multidiff
from multidiff.models.loading import shipped
from multidiff.models.shipped import card_of
from multidiff.models.weights import read_tensors, save_tensors
from multidiff.utils.devices import checked_device
from multidiff.utils.errors import InputError

SMOKE = sorted((RECIPES / "smoke").glob("*.yaml"))
# Dear ones, whose parts other recipes have too; and those that other tests train by the command,
# for the models that they load (tests/conftest.py and those in image, text; "trained(").
LONG_SMOKE = (
    "block_characters", "diffuser_wikisplit", "digits_dreambooth", "sdxl", "tts_ljspeech",
    "wikisplit", "wikisplit_autoregressive",
    "diffuser_wmt", "digit_tokens", "digits", "digits_distilled", "digits_pixels", "digits_vq",
    "edits", "emoji", "lora", "masked", "masked_characters", "restaurant", "restaurant_control",
    "stable_diffusion", "uniform_characters",
)  # fmt: skip
COMMANDS = (
    "synth", "sample", "eval", "train", "check", "models", "doctor", "convert", "push"
)  # fmt: skip


def test_help_names_every_command_and_is_quick_to_come(capsys):
    text = does(capsys, "--help")
    assert all(command in text for command in COMMANDS)
    for command in COMMANDS:
        assert "--help" in does(capsys, command, "--help")


def test_the_version_is_that_of_the_package(capsys):
    pyproject = tomllib.loads((RECIPES.parent / "pyproject.toml").read_text())
    assert does(capsys, "--version") == f"multidiff {pyproject['project']['version']}\n"


def test_wrong_words_end_with_status_2(capsys):
    for words in (["sing"], ["synth", "--stpes", "3"], ["train"], ["check"], ["synth", "a.wav"]):
        complains(capsys, *words)


def test_models_are_listed(capsys):
    reported = facts(capsys, "models")["models"]
    assert [one["name"] for one in reported] == list(shipped())
    lines = does(capsys, "models")
    for one, folder in zip(reported, shipped().values(), strict=True):
        size = (folder / "model.safetensors").stat().st_size / 1e6
        assert one["megabytes"] == pytest.approx(size, abs=0.01) and size < 12
        assert (
            one["domain"] in ("speech", "images", "texts", "media") and one["license"][:2] == "CC"
        )
        assert all(one[key] in lines for key in ("name", "about", "figures"))


def test_figures_of_the_list_stand_in_the_cards():
    """Each number of the head is one that the card below it tells."""
    for folder in shipped().values():
        _, _, text = (folder / "card.md").read_text().split("---\n", 2)
        for number in re.findall(r"\d+\.\d+|\d+ %", card_of(folder)["figures"]):
            assert number in text, f"{folder.name}: {number}"


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(one, id=one.stem, marks=[pytest.mark.long] * (one.stem in LONG_SMOKE))
        for one in SMOKE
    ],
)
def test_every_smoke_recipe_trains_a_model_that_loads(recipe, tmp_path, capsys):
    began = time.time()
    few = [f"trainer.{key}=4" for key in ("steps", "save_every", "validate_every")]
    words = ["train", recipe, *few, "trainer.log_every=2", "--out", tmp_path]
    assert "trained for 4 steps" in does(capsys, *words)
    model = multidiff.load(tmp_path)
    assert not model.training and time.time() - began < 120
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"train", "held-out"} <= {entry["group"] for entry in logged}
    assert (tmp_path / "model" / "recipe.yaml").read_text() == (
        sorted((tmp_path / "checkpoints").iterdir())[-1] / "recipe.yaml"
    ).read_text()


def test_check_tells_five_faults_at_once(tmp_path, capsys):
    good = RECIPES / "smoke" / "speech.yaml"
    text = good.read_text()
    for right, wrong in (
        ("use: Vocoder", "use: Vocodre"),
        ("batch_size: 4", "batch_size: four"),
        ("held_out_every: 4}]", "hold_out: 4}]"),
        ("steps: 20", "steps: 20\n  decay: sideways"),
        ("log_every: 5", "logevery: 5"),
    ):
        assert right in text
        text = text.replace(right, wrong, 1)
    bad = tmp_path / "bad.yaml"
    bad.write_text(text)
    reported = complains(capsys, "check", bad, good, lines=5)
    assert reported.count(f"{bad}:") == 5
    for hint in ("did you mean Vocoder", "'four'", "did you mean held_out_every", "sideways"):
        assert hint in reported
    assert complains(capsys, "train", bad, "--out", tmp_path / "run", lines=5) == reported
    assert not (tmp_path / "run").exists()
    assert "1 of 1 recipes are right" in does(capsys, "check", good)


def test_a_recipe_that_is_not_there(tmp_path, capsys):
    assert "nothing.yaml" in complains(capsys, "check", tmp_path / "nothing.yaml")
    assert "nothing.yaml" in complains(capsys, "train", tmp_path / "nothing.yaml")


# ---------------------------------------------------------------- models and their folders


def test_an_unknown_model(tmp_path, capsys):
    reported = complains(capsys, "eval", "spech")
    assert "no model 'spech'" in reported and "speech" in reported
    (tmp_path / "empty").mkdir()
    assert "has no recipe.yaml" in complains(capsys, "eval", tmp_path / "empty")
    (tmp_path / "file").touch()
    assert "not a file" in complains(capsys, "eval", tmp_path / "file")


def test_guidance_that_overflows(tmp_path, capsys):
    words = ("sample", "digits", "--prompt", "six", "--steps", 2, "-o", tmp_path)
    reported = complains(capsys, *words, "--guidance-scale", 1e308)
    assert "the state is not finite; the network returned" in reported


def test_a_hub_id_that_cannot_be_had(monkeypatch, capsys):
    import huggingface_hub

    def fails(*arguments, **options):
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    reported = complains(capsys, "eval", "somebody/something")
    assert "somebody/something" in reported and "no network here" in reported


def test_a_hub_id_is_a_folder_once_it_is_had(monkeypatch, small_vocoder):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **o: str(small_vocoder))
    assert isinstance(multidiff.load("somebody/something"), torch.nn.Module)


@pytest.fixture
def copied(small_vocoder, tmp_path):
    return shutil.copytree(small_vocoder, tmp_path / "copied")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.popitem(), "missing"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra not in this model"),
        (lambda tensors: tensors.update({next(iter(tensors)): torch.zeros(9)}), "another shape"),
    ],
)
def test_weights_that_do_not_fit(copied, change, reason, capsys):
    path = copied / "model.safetensors"
    tensors, reported = read_tensors(path)
    change(tensors)
    save_tensors(tensors, path, reported)
    line = complains(capsys, "synth", "starter:speech/LJ80-07.flac", "-o", copied / "a.wav",
                     "--model", copied)  # fmt: skip
    assert reason in line and str(path) in line
    assert not (copied / "a.wav").exists()


def test_weights_for_another_mel(copied, capsys):
    path = copied / "model.safetensors"
    tensors, reported = read_tensors(path)
    save_tensors(tensors, path, {**reported, "mel": "vocos-24k"})
    line = complains(capsys, "eval", copied)
    assert "mel vocos-24k" in line and "hifigan-22k" in line


def test_a_pickle_posing_as_weights(copied, capsys):
    path = copied / "model.safetensors"
    torch.save({"weights": torch.zeros(3)}, path)
    assert "is a pickle" in complains(capsys, "eval", copied)


def test_runs_and_their_checkpoints_are_models(small_run, tmp_path, capsys):
    """A checkpoint loads with its averaged weights, which the finished model has too."""
    last = sorted((small_run / "checkpoints").iterdir())[-1]
    finished, unfinished = multidiff.load(small_run), multidiff.load(last)
    for one, other in zip(
        finished.state_dict().values(), unfinished.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    does(capsys, "convert", last, tmp_path / "small", "--half")
    halved = safetensors.torch.load_file(tmp_path / "small" / "model.safetensors")
    for name, tensor in finished.state_dict().items():
        assert torch.equal(halved[name], tensor.half())
    assert isinstance(multidiff.load(tmp_path / "small"), torch.nn.Module)
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == [
        "model.safetensors",
        "recipe.yaml",
    ]


# ------------------------------------------------------------------ foreign checkpoints


def test_nothing_to_convert(tmp_path, capsys):
    assert "no such file" in complains(capsys, "convert", tmp_path / "no.pt", tmp_path / "to")
    (tmp_path / "text.pt").write_text("words")
    assert "text.pt" in complains(capsys, "convert", tmp_path / "text.pt", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_device_that_is_not_there(capsys, tmp_path):
    for device in ("cuda:77", "gpu"):
        reported = complains(capsys, "eval", "speech", "--device", device)
        assert f"--device {device}" in reported


@pytest.mark.parametrize(
    "device", ["meta", "cpu:x", "gpu", "cuda:99", "", "\x1b[2J", "vulkan"], ids=repr
)
def test_devices_that_compute_nothing(device):
    with pytest.raises(InputError) as caught:
        checked_device(device)
    line = str(caught.value)
    assert line.startswith("--device ") and line.endswith("; try cpu") and line.isprintable()


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"RANK": "abc"}, "RANK=abc: must be a whole number"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE=-1: must be a whole number"),
        ({"WORLD_SIZE": "0"}, "RANK=0 WORLD_SIZE=0: ranks go"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK=4 WORLD_SIZE=4: ranks go"),
        ({"LOCAL_RANK": "\u0663"}, "LOCAL_RANK=\u0663: must be a whole number"),
    ],
)
def test_an_environment_that_says_nonsense_of_processes(monkeypatch, capsys, values, complaint):
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert complaint in complains(capsys, "train", SMOKE[0])


def test_reading_stops_when_nobody_listens():
    """`multidiff models | head -0` is no error."""
    import subprocess

    from program import ENVIRONMENT, MULTIDIFF, ROOT

    with subprocess.Popen(
        [*MULTIDIFF, "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        env=ENVIRONMENT,
    ) as process:  # fmt: skip
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 0


def test_the_program_runs_as_a_process():
    assert run("--version").returncode == 0
    assert "Traceback" not in run("eval", "spech").stderr
