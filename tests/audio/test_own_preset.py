"""A mel preset of one's own: in recipes, checkpoints and files."""

import numpy as np
import pytest
import torch
from commands import complains, does
from program import RECIPES
from sounds import speech

import multidiff
from multidiff.audio.data.mel_files import read_mel, write_mel
from multidiff.audio.mel import MelPreset
from multidiff.models.loading import build_model, check_recipe, save_model
from multidiff.utils.errors import InputError

OWN = MelPreset(
    name="mine-22k", sample_rate_hz=22050, n_fft=1024, win_length=800, hop_length=256,
    n_mels=40, f_min_hz=50, f_max_hz=7600, floor=1e-4,
)  # fmt: skip
TEXT = (
    "{use: MelPreset, name: mine-22k, sample_rate_hz: 22050, n_fft: 1024, win_length: 800, "
    "hop_length: 256, n_mels: 40, f_min_hz: 50, f_max_hz: 7600, floor: 1e-4}"
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The smoke recipe, of one's own preset by name everywhere."""
    text = (RECIPES / "smoke" / "speech.yaml").read_text()
    text = text.replace("mel: hifigan-22k", "mel: *mine").replace("*mine", f"&mine {TEXT}", 1)
    text = text.replace("use: SpeechSegments\n", "use: SpeechSegments\n    mel: *mine\n")
    path = tmp_path_factory.mktemp("own") / "own.yaml"
    path.write_text(text.replace("steps: 20", "steps: 2"))
    return path


@pytest.fixture(scope="module")
def trained(recipe):
    from multidiff.cli.main import run

    assert run(["train", str(recipe), "--out", str(recipe.parent / "run")]) == 0
    return recipe.parent / "run" / "model"


def test_the_checkpoint_holds_it(trained):
    model = multidiff.load(trained)
    assert model.preset == OWN
    wave = speech(seconds=1)[:, : 256 * 80]
    assert model.synthesize(OWN.mel(wave)).shape == wave.shape


def test_a_preset_of_48_khz(tmp_path):
    """128 bands at 48 kHz, hop 512: from the recipe into the checkpoint and to sound."""
    text = (RECIPES / "smoke" / "speech.yaml").read_text()
    mine = (
        "&mine {use: MelPreset, name: mine-48k, sample_rate_hz: 48000, n_fft: 2048, "
        "win_length: 2048, hop_length: 512, n_mels: 128, f_min_hz: 0, f_max_hz: 24000}"
    )
    text = text.replace("mel: hifigan-22k", f"mel: {mine}", 1)
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("mel: hifigan-22k", "mel: *mine").replace("hop: 128", "hop: 256"))
    save_model(build_model(path), tmp_path / "model", path.read_text())
    model = multidiff.load(tmp_path / "model")
    assert (model.preset.sample_rate_hz, model.preset.hop_length) == (48000, 512)
    wave = 0.1 * torch.randn(1, 512 * 40, generator=torch.Generator().manual_seed(0))
    mel = model.preset.mel(wave)
    assert mel.shape == (1, 128, 40) and model.synthesize(mel).shape == wave.shape


def test_files_of_it_carry_it(tmp_path, capsys, trained):
    mel = OWN.mel(speech(seconds=1)[:, : 256 * 80])[0]
    write_mel(tmp_path / "own.npz", mel, OWN)
    torch.testing.assert_close(read_mel(tmp_path / "own.npz", OWN).frames(0, 80)[0], mel)
    does(capsys, "synth", tmp_path / "own.npz", "-o", tmp_path / "a.wav", "--model", trained)
    hifigan = multidiff.load("speech").preset
    write_mel(tmp_path / "other.npz", hifigan.mel(speech(seconds=1)[:, :20480])[0], hifigan)
    reported = complains(
        capsys, "synth", tmp_path / "other.npz", "-o", tmp_path / "b.wav", "--model", trained
    )
    assert "was made with preset hifigan-22k" in reported or "win_length" in reported
    with pytest.raises(InputError, match="n_mels 40"):
        read_mel(tmp_path / "own.npz", hifigan)


def test_weights_of_another_preset_of_its_name_are_refused(tmp_path, trained):
    import shutil

    folder = shutil.copytree(trained, tmp_path / "model")
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("centred: false", "centred: true"))
    with pytest.raises(InputError, match="was made for mel_preset"):
        multidiff.load(folder)


def test_faults_in_it_are_found_before_anything_is_built(recipe, tmp_path):
    for change, reason in (("n_mels: forty", "n_mels|forty"), ("n_mels: 40, bands: 3", "bands")):
        path = tmp_path / "wrong.yaml"
        path.write_text(recipe.read_text().replace("n_mels: 40", change))
        with pytest.raises(InputError, match=reason):
            check_recipe(path)


def test_a_name_stays_a_name(tmp_path):
    path = RECIPES / "audio" / "speech.yaml"
    parts = check_recipe(path)
    assert parts["model"].resolved["domain"]["mel"] == "hifigan-22k"
    assert np.isclose(parts["model"].build().preset.floor, 1e-5)
