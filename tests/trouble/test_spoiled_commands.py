"""Whatever words a command is given, it does what they say or tells in a line what is wrong."""

import functools
import inspect
import io
import math
import os
import shutil
import sys
import typing

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from mishaps import NUMBERS, WORDS, cases, ended, left_behind, spoiled
from PIL import Image
from program import RECIPES

import multidiff.models.loading
from multidiff.audio.vocoder.inference_schedule import VocoderSamplingConfig
from multidiff.cli import main as cli
from multidiff.config.build import locate
from multidiff.config.registry import COMMANDS
from multidiff.models.loading import shipped
from multidiff.utils.errors import InputError

# As little work as each model can be asked for.
QUICK = {
    "speech": {"--steps": "1"},
    "digits": {"--steps": "1"},
    "digit-tokens": {"--steps": "1"},
    "restaurant": {"--steps": "1", "--length": "4"},
    "masked": {"--steps": "1", "--length": "4"},
    "edits": {"--steps": "1", "--source": "a pub"},
}
MEASURED = {
    "digit-tokens": {"--steps": "1", "--num": "1", "--most": "2"},
    "restaurant": {"--steps": "1", "--num": "1"},
    "masked": {"--steps": "1", "--num": "1"},
    "edits": {"--steps": "1", "--num": "1"},
    "restaurant-control": {"--num": "1"},
}
# What the command fills in itself, and models, which are a test of their own.
TAKEN = {"model", "num", "prompts", "out", "data", "folder"}


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Models are loaded once for all commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            multidiff.models.loading, "load", functools.cache(multidiff.models.loading.load)
        )
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    soundfile.write(folder / "a.wav", np.sin(np.arange(4410) / 7) / 2, 22050)
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(folder / "a.png")
    (folder / "a.csv").write_text("text,meaning\n" + "a pub .,eatType[pub]\n" * 4)
    return folder


@functools.cache
def options(verb):
    """Every option that a model's wing reads, and its type."""
    found = []
    for model in QUICK if verb == "sample" else MEASURED:
        function = locate(COMMANDS[type(multidiff.models.loading.load(model)).__name__][verb])
        hints = typing.get_type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in TAKEN:
                found.append((model, f"--{name.replace('_', '-')}", hints[name]))
    return found


def strange(draw, option, hint):
    """An option with a value that it may not have been made for."""
    if hint is bool:
        return [option]
    if {hint, *typing.get_args(hint)} & {int, float}:
        value = draw(st.one_of(st.sampled_from(NUMBERS), st.integers(-3, 3).map(str)))
    else:
        value = draw(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)))
    pulled = ["--control", "food=Italian", "--classifier", "restaurant-control"]
    return [f"{option}={value}", *(pulled if option == "--control-strength" else [])]


def but(quick, option):
    return [word for name, value in quick.items() if name != option for word in (name, value)]


@given(data=st.data())
@cases(40)
def test_options_of_sample(files, tmp_path, data):
    model, option, hint = data.draw(st.sampled_from(options("sample")))
    words = but(QUICK[model], option) + strange(data.draw, option, hint)
    words += ["--prompt", files / "a.wav"] if model == "speech" else []
    words += ["--init-image", files / "a.png"] if option in ("--mask-image", "--strength") else []
    out = tmp_path / "out"
    status, _ = ended("sample", model, *words, "-o", out)
    assert out.exists() == (status == 0) and not left_behind(tmp_path)
    shutil.rmtree(out, ignore_errors=True)


@given(data=st.data())
@cases(25)
def test_options_of_eval(files, data):
    model, option, hint = data.draw(st.sampled_from(options("eval")))
    media = "starter:digits" if model == "digit-tokens" else files / "a.csv"
    words = but(MEASURED[model], option) + strange(data.draw, option, hint)
    ended("eval", model, media, "--meaning-column=meaning", *words)


def commands(word, files, out):
    """Each command with a word where it reads or writes."""
    smoke = RECIPES / "smoke" / "masked.yaml"
    return [
        ["synth", "-o", out, "--steps=1", "--", word],
        ["synth", "--model", word, "-o", out, files / "a.wav"],
        ["synth", "--sampler", word, "-o", out, files / "a.wav"],
        ["synth", "--device", word, "-o", out, files / "a.wav"],
        ["sample", "-o", out, "--", word],
        ["sample", "masked", "--steps=1", "--prompt", word],
        ["sample", "digits", "--steps=1", "-o", out, "--prompt", word],
        ["sample", "speech", "--steps=1", "-o", out, "--prompt", word],
        ["sample", "restaurant", "--classifier", word],
        ["eval", "--", word],
        ["eval", "masked", "--num=1", "--steps=1", "--column", word, files / "a.csv"],
        ["train", "--out", out, "--", word],
        ["train", "--out", out, "--", smoke, word],
        ["check", "--", word],
        ["convert", "--", word, out],
        ["convert", "--", files / "a.png", out],
        ["models", word],
        [word],
    ]


@given(data=st.data(), word=st.one_of(st.sampled_from(WORDS), st.text(max_size=8)))
@cases(60)
def test_words_of_every_command(files, tmp_path, monkeypatch, data, word):
    if any(sign in word for sign in "/\\") or word.startswith((".", "starter", "speech")):
        word = "a/b"  # nothing outside the test's own folder is read or written
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    status, _ = ended(*data.draw(st.sampled_from(commands(word, files, out))), lines=None)
    assert (status == 0 or not out.exists()) and not left_behind(tmp_path)
    shutil.rmtree(out, ignore_errors=True)


@given(data=st.data())
@cases(20)
def test_names_of_outputs(files, tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    name = data.draw(
        st.sampled_from(["é", "日本語", "🙂" * 50, "x" * 300, "a\0b", "\udcff", "%s", " ", "."])
    )
    model = data.draw(st.sampled_from(["masked", "digit-tokens", "speech"]))
    ending = data.draw(st.sampled_from(["", ".wav", ".txt", ".png"]))
    words = ["--prompt", files / "a.wav"] if model == "speech" else []
    ended("sample", model, "--steps=1", *words, "-o", f"{name}{ending}")
    assert not left_behind(tmp_path)


FIELDS = [
    *(
        "trainer." + name
        for name in (
            "learning_rate",
            "warmup_steps",
            "decay_from",
            "weight_decay",
            "max_gradient_norm",
            "gradient_accumulation_steps",
            "ema_decay",
            "seed",
            "log_every",
            "save_every",
            "keep",
            "validate_every",
            "validation_batches",
            "workers",
            "threads",
        )
    ),
    "data.batch_size",
    "data.alike",
    "data.examples.longest",
    "model.domain.length",
    "model.domain.drop_values",
    "model.denoiser.width",
    "model.denoiser.heads",
    "model.denoiser.layers",
    "model.drop_condition",
    "model.domain.vocabulary.size",
    "model.process.size",
    "model.denoiser.size",
    "model.denoiser.length",
    "model.denoiser.sources",
]
ODD = [
    "0",
    "-1",
    "1e999",
    ".nan",
    "-.inf",
    "1e30",
    "99999999999999999999999",
    "x",
    "null",
    "[]",
    "{}",
]


@given(field=st.sampled_from(FIELDS), value=st.sampled_from(ODD))
@cases(8)
def test_numbers_of_recipes(tmp_path, field, value):
    if field == "trainer.gradient_accumulation_steps" and value.startswith("99"):
        return  # it would run as requested
    words = ["trainer.steps=1", "trainer.validation_batches=1", f"{field}={value}"]
    ended("train", RECIPES / "smoke" / "masked.yaml", *words, "--out", tmp_path / "run", lines=None)
    assert not left_behind(tmp_path)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


@given(data=st.data(), ending=st.sampled_from(["safetensors", "ckpt", "pt"]))
@cases(20)
def test_files_to_convert_or_to_add(tmp_path, data, ending):
    path, out = tmp_path / f"a.{ending}", tmp_path / "out"
    lora = {
        "unet.down_blocks.0.lora_A.weight": torch.zeros(2, 2),
        "first_conv.weight": torch.ones(1),
    }
    path.write_bytes(data.draw(spoiled(safetensors.torch.save(lora))))
    status, reported = ended("convert", path, out)
    assert status == 2 and str(path) in reported and not out.exists()
    status, reported = ended(
        "sample", "digits", "--steps=1", "--prompt=1", "--lora", path, "-o", out
    )
    assert status == 2 and str(path) in reported and not out.exists()


@given(data=st.data(), name=st.sampled_from(["card.md", "vocabulary.json", "recipe.yaml"]))
@cases(10)
def test_models_to_convert(tmp_path, data, name):
    good, source, out = shipped()["restaurant-control"], tmp_path / "source", tmp_path / "out"
    shutil.copytree(good, source, dirs_exist_ok=True)
    (source / name).write_bytes(data.draw(spoiled((good / name).read_bytes())))
    multidiff.models.loading.load.cache_clear()
    status, _ = ended("convert", source, out, lines=None)
    assert out.exists() == (status == 0) and not left_behind(tmp_path)
    shutil.rmtree(out, ignore_errors=True)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_files_without_rights(files, tmp_path):
    for path in files.iterdir():
        locked = tmp_path / path.name
        locked.write_bytes(path.read_bytes())
        locked.chmod(0)
        status, reported = ended("synth", locked, "-o", tmp_path / "o.wav")
        assert status == 2 and str(locked) in reported


@pytest.mark.parametrize("model", ["restaurant", "masked", "edits", "digits", "digit-tokens"])
@pytest.mark.parametrize("name", ["", " "])
def test_data_without_a_name(model, name):
    status, reported = ended("eval", model, name)
    assert status == 2 and f"{name!r}: is not a file name" in reported


def test_folders_where_files_are_wanted(tmp_path):
    folder = tmp_path / "a.wav"
    folder.mkdir()
    for words in (
        ["check", folder],
        ["train", folder],
        ["convert", folder, tmp_path / "to"],
        ["synth", folder, "-o", tmp_path / "o"],
        ["eval", folder],
        ["eval", "speech", folder],
        ["eval", "masked", folder, "--num", "1"],
        ["sample", "digits", "--init-image", folder],
    ):
        status, reported = ended(*words)
        assert status == 2 and str(folder) in reported, words
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("ends", [(1e30, 8.0), (8.0, -6.0), (math.nan, 8.0), (-6.0, math.inf)])
def test_levels_that_do_not_grow(ends):
    with pytest.raises(InputError, match=r"--log-snr-.* (must be under|from -100 to)"):
        VocoderSamplingConfig(log_snr_min=ends[0], log_snr_max=ends[1])


def test_names_that_a_terminal_cannot_show(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(cli, "run", lambda words: print("a\udcffé.wav"))
    with pytest.raises(SystemExit):
        cli.main()
    shown.flush()
    assert shown.buffer.getvalue() == b"a\\udcff\\xe9.wav\n"
