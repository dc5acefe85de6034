"""Texts to sound: the command, the Python call, and what both refuse."""

import re
import shutil

import numpy as np
import pytest
import soundfile
import torch
from commands import complains, does, facts
from program import RECIPES

from multidiff.audio.data.mel_files import read_mel
from multidiff.audio.mel import PRESETS
from multidiff.audio.tts.speech import SENTENCE_PAUSE
from multidiff.core.draws import DrawsFrom
from multidiff.models.loading import build_model, load, save_model
from multidiff.utils.errors import InputError

RATE = 22050


@pytest.fixture(scope="module")
def voice(tmp_path_factory, small_vocoder):
    """The folder of a small untrained voice."""
    recipe = (RECIPES / "smoke" / "tts.yaml").read_text()
    model = recipe[recipe.index("model:") : recipe.index("precompute:")]
    model = f"{model.rstrip()}\n  vocoder: {small_vocoder}\n"
    folder = tmp_path_factory.mktemp("voices") / "voice"
    path = folder.parent / "voice.yaml"
    path.write_text(model, "utf-8")
    with DrawsFrom(torch.Generator().manual_seed(0)):
        made = build_model(path)
    made.domain.mean.fill_(-5.0)
    made.read_by = "gruut 0.0"
    save_model(made, folder, model)
    return folder


def samples(path):
    return soundfile.read(path, dtype="float32")[0]


def test_a_sentence_does_not_depend_on_those_around_it(voice):
    """And the pause between two is the only thing between them."""
    model = load(voice)
    both = [one.wave for one in model.speak("Go home. Stay here.", temperature=1.0)]
    alone = [
        one.wave
        for text in ("Go home.", "Stay here.")
        for one in model.speak(text, temperature=1.0)
    ]
    pause = torch.zeros(round(SENTENCE_PAUSE * RATE))
    assert torch.equal(both[0], torch.cat([alone[0], pause]))
    assert torch.equal(both[1], alone[1])
    (other,) = model.speak("Go home.", temperature=1.0, seed=1)
    assert not torch.equal(other.wave, alone[0])


def test_a_stream_is_the_same_sound_sooner(voice, monkeypatch):
    """Its first chunk is one of the network's calls, and the whole is as long as the sentences."""
    model, asked = load(voice), []
    vocoder = model.loaded_vocoder()
    made = vocoder._synthesized
    monkeypatch.setattr(
        vocoder, "_synthesized", lambda mel, *a: asked.append(mel.shape[-1]) or made(mel, *a)
    )
    text = "Go home, and stay there until the others come back. Stay here."
    stream = model.stream(text, first_chunk_frames=8)
    chunks = [next(stream)]
    assert len(asked) == 1 and len(chunks[0]) == 8 * model.preset.hop_length
    chunks += stream
    whole = torch.cat([one.wave for one in model.speak(text)])
    assert len(torch.cat(chunks)) == len(whole)
    same = torch.cat(list(model.stream(text, first_chunk_frames=10_000)))
    torch.testing.assert_close(same, whole, rtol=0, atol=0)


def test_sentences_come_one_by_one(voice, monkeypatch):
    model, made = load(voice), []
    monkeypatch.setattr(
        type(model), "mels", lambda self, phones, *a, **b: made.append(phones) or 1 / 0
    )
    spoken = model.speak("One. Two. Three.")
    assert made == []
    with pytest.raises(ZeroDivisionError):
        next(spoken)
    assert len(made) == 1


def test_another_phonemiser_than_in_training_is_reported(voice, caplog):
    model = load(voice)
    assert model.read_by == "gruut 0.0"
    model.speak("Yes.")
    assert "learned phones of gruut 0.0" in caplog.text


def test_text_becomes_a_file_with_its_mel(tmp_path, capsys, voice):
    out, mel = tmp_path / "a.wav", tmp_path / "a.npz"
    words = ["synth", "--model", voice, "--text", "Go home. Stay!", "-o", out, "--save-mel", mel]
    found = facts(capsys, *words)
    assert found["outputs"][0]["sentences"] == 2 and found["real_time_factor"] > 0
    frames = read_mel(mel, PRESETS["hifigan-22k"]).num_frames
    assert len(samples(out)) == frames * 256 + round(SENTENCE_PAUSE * RATE)
    again = tmp_path / "b.wav"
    assert "real-time factor" in does(capsys, *words[:5], "-o", again)
    assert again.read_bytes() == out.read_bytes()
    fast = tmp_path / "c.wav"
    does(capsys, *words[:5], "-o", fast, "--speed", 2)
    pause = SENTENCE_PAUSE * RATE
    assert (len(samples(fast)) - pause) / (len(samples(out)) - pause) == pytest.approx(
        0.5, abs=0.05
    )


def test_voice_and_vocoder_compute_in_bfloat16(tmp_path, capsys, voice, small_vocoder):
    half, full = load(voice, dtype="bfloat16"), load(voice)
    halved = {name for name, own in half.named_parameters() if own.dtype == torch.bfloat16}
    assert {name.split(".")[3] for name in halved} == {"widen", "narrow"}
    (layer,) = {own.dtype for own in half.loaded_vocoder().denoiser.blocks[0].narrow.parameters()}
    assert layer == torch.bfloat16
    phones = ["^ #h i ."]
    (one,), (other,) = (model.mels(phones) for model in (half, full))
    assert one.mel.dtype == torch.float32
    torch.testing.assert_close(one.mel, other.mel, rtol=0, atol=0.2)
    words = ["synth", "--text", "Stay.", "--dtype", "bfloat16", "-o", tmp_path / "a.wav"]
    assert "real-time factor" in does(capsys, *words, "--model", voice)
    out = tmp_path / "b.wav"
    recorded = ["synth", "starter:speech/LJ80-07.flac", "-o", out, "--model", small_vocoder]
    assert "real-time factor" in does(capsys, *recorded, "--dtype", "bfloat16")


def test_a_vocoder_of_float32_alone_is_refused_as_the_voice_is_loaded(tmp_path, voice):
    recipe = (RECIPES / "smoke" / "wavegrad.yaml").read_text()
    wavegrad = recipe[recipe.index("model:") : recipe.index("data:")]
    (tmp_path / "wavegrad.yaml").write_text(wavegrad, "utf-8")
    save_model(build_model(tmp_path / "wavegrad.yaml"), tmp_path / "wavegrad", wavegrad)
    other = shutil.copytree(voice, tmp_path / "voice")
    changed = re.sub(
        r"vocoder: .*", f"vocoder: {tmp_path / 'wavegrad'}", (voice / "recipe.yaml").read_text()
    )
    (other / "recipe.yaml").write_text(changed, "utf-8")
    load(other)
    with pytest.raises(InputError, match=r"--dtype .*bfloat16: a Vocoder computes in float32"):
        load(other, dtype="bfloat16")


def test_a_text_file_becomes_one_sound_or_one_a_line(tmp_path, capsys, voice):
    lines = tmp_path / "lines.txt"
    lines.write_text("Go home.\nStay.\n")
    words = ["synth", "--model", voice, "--text-file", lines, "-o"]
    one, several = facts(capsys, *words, tmp_path / "one.wav"), tmp_path / "several"
    assert one["outputs"][0]["sentences"] == 2
    does(capsys, *words, several, "--save-mel", tmp_path / "mels")
    assert sorted(p.name for p in several.iterdir()) == ["text-1.wav", "text-2.wav"]
    assert sorted(p.name for p in (tmp_path / "mels").iterdir()) == ["text-1.npz", "text-2.npz"]
    tail = samples(several / "text-2.wav")
    assert np.array_equal(samples(tmp_path / "one.wav")[-len(tail) :], tail)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--text", "  "], "empty"),
        (["--text", "..."], "no words"),
        (["--text", "a" * 10_000], "10000 letters"),
        (["--text", "hi", "--speaker", "joe"], "the model has lj"),
        (["--text", "hi", "--speed", 0], "--speed 0: from"),
        (["--text", "hi", "--temperature", 9], "--temperature 9: from"),
        (["--text", "hi", "--dtype", "int8"], "--dtype int8: expected one of float32"),
        (["--text", "hi", "--dtype", "float16", "--shard-size", 2], "--dtype: does not go with"),
        (["--text", "hi", "--mel-scale", "log10"], "--mel-scale: no such option here"),
        (["--text", "hi", "--sampler", "none"], "--sampler none: expected one of ddpm"),
        (["starter:speech/LJ80-07.flac", "--speed", 2], "reads only text"),
        (["starter:speech/LJ80-07.flac"], "reads only text"),
    ],
)
def test_wrong_requests_are_one_line_and_leave_nothing(tmp_path, capsys, voice, words, reported):
    out = tmp_path / "a.wav"
    assert reported in complains(capsys, "synth", "--model", voice, *words, "-o", out)
    assert not any(tmp_path.iterdir())


def test_wrong_files_beside_a_text_are_refused(tmp_path, capsys, voice):
    words = ["synth", "--model", voice, "--text", "hi", "-o", tmp_path / "a.wav"]
    dictionary = tmp_path / "words.txt"
    dictionary.write_text("hi h qq\n")
    reported = complains(capsys, *words, "--dictionary", dictionary)
    assert "words.txt:1: phone 'qq': the model does not know it" in reported
    assert "--save-mel" in complains(capsys, *words, "--save-mel", tmp_path / "folder")


def test_a_vocoder_speaks_no_text(tmp_path, capsys, small_vocoder):
    words = ["synth", "--model", small_vocoder, "--text", "hi", "-o", tmp_path / "a.wav"]
    assert "speaks no text" in complains(capsys, *words)
