"""Sound files whose real length is not what a reader takes it to be, and channels that cancel."""

import io
import logging
import struct

import numpy as np
import pytest
import soundfile
from commands import complains, facts
from program import RECIPES
from sounds import RATE, STARTER, tones

from multidiff.audio.data.mp3 import scan
from multidiff.audio.data.segments import SpeechSegments
from multidiff.audio.data.sound import SoundFile, write_sound
from multidiff.audio.data.sources import AudioSource
from multidiff.utils.errors import InputError

SECONDS = 3
WAVE = tones(SECONDS)[0].numpy()
KINDS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}


def encoded(kind, sound=WAVE, rate=RATE, **options):
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=kind.upper(), subtype=KINDS[kind], **options)
    return file.getvalue()


WHOLE = {kind: encoded(kind) for kind in KINDS}


def data_size(wav, size):
    """The same file whose header gives another number of bytes of sound."""
    position = wav.index(b"data") + 4
    return wav[:position] + struct.pack("<I", size) + wav[position + 4 :]


def without_total(flac):
    field = int.from_bytes(flac[18:26], "big") & ~((1 << 36) - 1)
    return flac[:18] + field.to_bytes(8, "big") + flac[26:]


def without_header(mp3):
    """An MP3 without the frame that says how long it is."""
    return b"".join(mp3[part.start : part.stop] for part in scan(mp3).frames)


def variable_bit_rate():
    """Five seconds of a low and five of a high bit rate, as streams and cuts are: no header."""
    noise = 0.2 * np.random.default_rng(0).standard_normal(5 * RATE)
    quiet = encoded("mp3", 0.01 * np.tile(WAVE, 2)[: 5 * RATE], compression_level=0.99)
    return without_header(quiet) + without_header(encoded("mp3", noise, compression_level=0.0))


READ_TO_THE_END = {
    "a wav": (WHOLE["wav"], SECONDS),
    "a wav whose recorder was switched off": (data_size(WHOLE["wav"], 0), SECONDS),
    "a streamed wav": (data_size(WHOLE["wav"], 0xFFFFFFFF), SECONDS),
    "a wav of more than its header says": (data_size(WHOLE["wav"], 20_000), SECONDS),
    "a wav with other chunks": (WHOLE["wav"] + b"LIST\x04\0\0\0abcd", SECONDS),
    "two wavs in one": (2 * WHOLE["wav"], 2 * SECONDS),
    "a flac": (WHOLE["flac"], SECONDS),
    "a flac of unknown length": (without_total(WHOLE["flac"]), SECONDS),
    "two flacs in one": (2 * WHOLE["flac"], 2 * SECONDS),
    "two flacs, the second of unknown length": (
        WHOLE["flac"] + without_total(WHOLE["flac"]), 2 * SECONDS
    ),
    "an ogg": (WHOLE["ogg"], SECONDS),
    "two oggs in one": (2 * WHOLE["ogg"], 2 * SECONDS),
    "an mp3": (WHOLE["mp3"], SECONDS),
    "an mp3 without a header": (without_header(WHOLE["mp3"]), SECONDS),
    "an mp3 of variable bit rate without a header": (variable_bit_rate(), 10),
    "two mp3s in one": (2 * WHOLE["mp3"], 2 * SECONDS),
    "an mp3 behind a tag": (b"ID3\x04\0\0\0\0\x08\0" + bytes(1024) + WHOLE["mp3"], SECONDS),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ_TO_THE_END)
def test_sounds_are_read_to_their_end(kind, caplog):
    content, seconds = READ_TO_THE_END[kind]
    found = SoundFile(content, kind).read(RATE, whole=True)
    # An MP3 keeps the padding of its encoder where nothing says how long that is.
    assert len(found) == pytest.approx(seconds * RATE, abs=3000 if "mp3" in kind else 0)
    assert float(found[-RATE:].std()) > 0.1
    assert caplog.text == ""


TRUNCATED = {
    "wav": (WHOLE["wav"][: len(WHOLE["wav"]) // 2], "1.50 of 3.00 s"),
    "flac": (WHOLE["flac"][: len(WHOLE["flac"]) // 2], "of 3.00 s"),
    "mp3": (WHOLE["mp3"][: len(WHOLE["mp3"]) // 2], "of 3.0"),
    "ogg": (encoded("ogg", np.tile(WAVE, 9))[:-9000], "the final page is missing"),
    "a damaged flac": (
        WHOLE["flac"][:50_000] + bytes(900) + WHOLE["flac"][50_900:], "of 3.00 s"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TRUNCATED)
def test_what_is_missing_is_named(kind, caplog):
    content, reason = TRUNCATED[kind]
    with caplog.at_level(logging.WARNING):
        found = SoundFile(content, "cut").read(RATE)
    assert len(found) > RATE // 2 and float(found.std()) > 0.05
    assert "cut: is truncated or damaged" in caplog.text and reason in caplog.text
    with pytest.raises(InputError, match="truncated or damaged"):
        SoundFile(content, "cut").read(RATE, whole=True)


def test_training_skips_and_counts_what_is_not_whole(tmp_path, caplog):
    (tmp_path / "cut.wav").write_bytes(TRUNCATED["wav"][0])
    (tmp_path / "joined.wav").write_bytes(2 * WHOLE["wav"])
    with caplog.at_level(logging.WARNING):
        segments = SpeechSegments([AudioSource(str(tmp_path))], segment_frames=8)
    assert [len(u.wave) // RATE for u in segments.recordings[0].utterances] == [6]
    assert "skipped: " in caplog.text and "1 of 2 recordings were skipped" in caplog.text


def test_sounds_of_different_kinds_in_one_file():
    other = encoded("wav", tones(1, 16000)[0].numpy(), 16000)
    with pytest.raises(InputError, match="different rates or channels"):
        SoundFile(WHOLE["wav"] + other, "two")


def test_a_rate_that_is_none():
    hertz = WHOLE["wav"][:24] + struct.pack("<I", 1) + WHOLE["wav"][28:]
    with pytest.raises(InputError, match="samples a second"):
        SoundFile(hertz, "one_hertz.wav")


# ---------------------------------------------------------------------------- channels


def stereo(left, right):
    return encoded("wav", np.stack([left, right], axis=1))


def test_channels_that_cancel(caplog):
    with caplog.at_level(logging.WARNING):
        found = SoundFile(stereo(0.7 * WAVE, -WAVE), "opposite").read(RATE)
        same = SoundFile(stereo(WAVE, -WAVE), "opposite").read(RATE)
    np.testing.assert_allclose(found, -WAVE, atol=1e-4)
    np.testing.assert_allclose(same, WAVE, atol=1e-4)
    assert "2 channels cancel each other; only channel 2 is used" in caplog.text


def test_channels_that_do_not_cancel_are_averaged(caplog):
    rng = np.random.default_rng(0)
    for right in (WAVE, 0 * WAVE, 0.1 * rng.standard_normal(len(WAVE)), 0.3 * WAVE):
        found = SoundFile(stereo(WAVE, right), "stereo").read(RATE)
        np.testing.assert_allclose(found, (WAVE + right) / 2, atol=1e-4)
    silent = SoundFile(stereo(0 * WAVE, 0 * WAVE), "silent").read(RATE)
    assert float(silent.abs().max()) == 0
    assert caplog.text == ""


def test_several_channels_are_said_once(tmp_path, capsys, caplog, small_vocoder):
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(stereo(WAVE[:RATE], WAVE[:RATE]))
    with caplog.at_level(logging.WARNING):
        AudioSource(str(tmp_path)).recordings()
        assert "2 of 2 recordings have several channels, which are averaged" in caplog.text
        caplog.clear()
        facts(capsys, "synth", tmp_path, "-o", tmp_path / "out", "--model", small_vocoder)
    assert [r.message for r in caplog.records] == [
        "2 of 2 recordings have several channels: the output has one"
    ]


def test_what_is_cut_at_full_scale_is_named(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        write_sound(tmp_path / "a.wav", iter([0.3 * WAVE]), RATE)
        assert caplog.text == ""
        write_sound(tmp_path / "a.wav", iter([5 * WAVE]), RATE)
    assert "beyond full scale and clipped" in caplog.text


# ------------------------------------------------------------------------ the commands


def test_synth_makes_what_is_there_and_says_so(tmp_path, capsys, caplog, small_vocoder):
    (tmp_path / "cut.wav").write_bytes(TRUNCATED["wav"][0])
    with caplog.at_level(logging.WARNING):
        made = facts(
            capsys, "synth", tmp_path / "cut.wav", "-o", tmp_path / "a.wav",
            "--model", small_vocoder,
        )  # fmt: skip
    assert made["seconds"] == pytest.approx(1.5, abs=0.01)
    assert "cut.wav: is truncated or damaged: 1.50 of 3.00 s" in caplog.text


def test_a_folder_of_ones_own_trains_the_recipe(tmp_path, monkeypatch):
    """The command in the recipe's comment, for a single step."""
    from multidiff.cli.main import run

    folder = tmp_path / "voice"
    folder.mkdir()
    (folder / "a.flac").write_bytes((STARTER / "LJ80-07.flac").read_bytes())
    small = ("trainer.steps=1", "trainer.validation_batches=1", "data.batch_size=1",
             "validation.batch_size=1", "model.denoiser.depth=1", "model.denoiser.width=16",
             "model.sampling.final_projections=1", "model.sampling.steps=1")  # fmt: skip
    monkeypatch.chdir(tmp_path)
    recipe = RECIPES / "audio" / "speech.yaml"
    own = "data.examples.sources.0.path=voice"
    assert run(["train", str(recipe), own, *small, "--out", "run"]) == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_a_path_that_is_nothing_is_refused_without_a_network(capsys):
    recipe = RECIPES / "audio" / "speech.yaml"
    said = complains(capsys, "train", recipe, "data.examples.sources.0.path=./nowhere")
    assert "./nowhere: no such file or folder of recordings" in said
    assert "./voice: no such file or folder" in complains(capsys, "check", recipe)


def test_recordings_on_both_sides_of_the_split_are_counted(tmp_path):
    from multidiff.audio.data.inspection import inspect
    from multidiff.data.batches import Batches

    class Model:
        preset = SpeechSegments([AudioSource("starter:speech")], segment_frames=8).preset

    for number, name in enumerate(("LJ80-07", "LJ80-47", "LJ80-07")):
        (tmp_path / f"{number}.flac").write_bytes((STARTER / f"{name}.flac").read_bytes())
    source = [AudioSource(str(tmp_path), held_out_every=3)]
    data, held_out = (
        Batches(SpeechSegments(source, segment_frames=8, held_out=kept), 1)
        for kept in (False, True)
    )
    assert inspect(Model(), data, held_out) == []
    twice = Batches(SpeechSegments([AudioSource("starter:speech")], segment_frames=8), 1)
    (line,) = inspect(Model(), twice, held_out)
    assert "1 of 1 held-out recordings are trained on as well" in line
    other = Batches(SpeechSegments(source, "bigvgan-v2-22k-80", segment_frames=8), 1)
    with pytest.raises(InputError, match=r"data\.examples\.mel: makes bigvgan-v2-22k-80"):
        inspect(Model(), other, None)
