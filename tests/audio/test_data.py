"""Recordings from folders, lists and data sets; what is wrong with them is named."""

import logging

import numpy as np
import pytest
import soundfile
import torch
from sounds import RATE, STARTER, speech, tones

from multidiff.audio.data.pcm import band_edge_hz
from multidiff.audio.data.segments import SpeechSegments, prepare
from multidiff.audio.data.sound import SoundFile, find_sounds, write_sound
from multidiff.audio.data.sources import AudioSource
from multidiff.audio.mel import preset_named
from multidiff.utils.errors import InputError

HIFIGAN = preset_named("hifigan-22k")


def write(path, samples, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


# ------------------------------------------------------------------------------ sound


@pytest.mark.parametrize(
    ("ending", "subtype"), [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", None)]
)
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_the_same_sound_in_any_container(tmp_path, ending, subtype, channels):
    wave = speech(seconds=1)[0].numpy()
    many = np.stack([wave] * channels, axis=1)
    path = write(tmp_path / f"a.{ending}", many, subtype=subtype)
    found = SoundFile(path).read(RATE)
    assert found.shape == wave.shape
    mels = [HIFIGAN.mel(torch.as_tensor(x)[None, : 256 * 80]) for x in (wave, found)]
    torch.testing.assert_close(mels[0], mels[1], rtol=0, atol=0.1)
    assert float((mels[0] - mels[1]).abs().mean()) < 1e-3


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000, 384000])
def test_any_rate_is_resampled(tmp_path, rate):
    tone = tones(seconds=0.5, rate=rate)[0]
    if rate == 8000:
        tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(4000) / rate)
    found = SoundFile(write(tmp_path / "a.wav", tone.numpy(), rate)).read(RATE)
    assert abs(len(found) - RATE // 2) <= 1
    spectrum = torch.fft.rfft(found[2000:9000] * torch.hann_window(7000)).abs()
    assert int(spectrum.argmax()) * RATE / 7000 == pytest.approx(440, abs=4)


def test_blocks_make_up_the_whole(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", tones(seconds=3, rate=16000)[0].numpy(), 16000)
    whole = SoundFile(path).read(RATE)
    monkeypatch.setattr("multidiff.audio.data.sound.BLOCK_SECONDS", 1)
    pieces = list(SoundFile(path).blocks(RATE))
    assert len(pieces) >= 3
    np.testing.assert_allclose(np.concatenate(pieces), whole.numpy(), atol=1e-6)


def test_a_gain_goes_through_unchanged(tmp_path):
    wave = 0.1 * speech(seconds=1)[0]
    write_sound(tmp_path / "a.flac", iter([wave]), RATE)
    assert float((SoundFile(tmp_path / "a.flac").read(RATE) - wave).abs().max()) < 1e-4


BAD_SOUNDS = {
    "empty": (lambda path: path.write_bytes(b""), "not a sound file"),
    "no-samples": (lambda path: write(path, np.zeros(0)), "holds no samples"),
    "text": (lambda path: path.write_text("I am text, not sound. " * 30), "not a sound file"),
    "nan": (lambda path: write(path, np.array([0.1, np.nan] * 500), subtype="FLOAT"), "NaN"),
    "integers": (lambda path: write(path, np.full(999, 3e3), subtype="FLOAT"), "peaks at 3000"),
    "folder": (lambda path: path.mkdir(), "no such sound file"),
}


@pytest.mark.parametrize("kind", BAD_SOUNDS)
def test_what_is_no_sound_is_named(tmp_path, kind):
    make, reason = BAD_SOUNDS[kind]
    path = tmp_path / "bad.wav"
    make(path)
    with pytest.raises(InputError, match=reason) as reported:
        SoundFile(path).read(RATE)
    assert str(path) in str(reported.value)
    assert "\n" not in str(reported.value)


def test_sound_is_written_as_wav_or_flac(tmp_path):
    with pytest.raises(InputError, match=r"written as \.wav or \.flac"):
        write_sound(tmp_path / "a.mp3", iter([np.zeros(9)]), RATE)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------- sources


def test_a_folder_with_folders(tmp_path):
    for name in ("b.wav", "a/c.flac", "a/notes.txt", "d.WAV"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x") if name.endswith("txt") else write(path, np.zeros(999), format="WAV")
    assert [p.name for p in find_sounds(tmp_path)] == ["c.flac", "b.wav", "d.WAV"]
    with pytest.raises(InputError, match="holds no sound files"):
        find_sounds(tmp_path / "a" / "nowhere")


def test_a_list_of_files_and_ljspeechs(tmp_path):
    write(tmp_path / "wavs" / "LJ-1.wav", speech(seconds=1)[0].numpy())
    write(tmp_path / "clip.flac", speech(seconds=1)[0].numpy())
    listing = tmp_path / "metadata.csv"
    listing.write_text('LJ-1|He said "no."|he said no\nclip.flac|Other words\n\n')
    names = [one.name for one in AudioSource(str(listing)).recordings()]
    assert names == [str(tmp_path / "wavs" / "LJ-1.wav"), str(tmp_path / "clip.flac")]


def test_a_data_set_in_a_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    files = sorted(STARTER.glob("*.flac"))[:2]
    rows = {"audio": [{"bytes": f.read_bytes(), "path": f.name} for f in files], "text": ["a", "b"]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "part.parquet")
    found = AudioSource(str(tmp_path)).recordings()
    assert len(found) == 2 and found[1].name == f"{tmp_path}[1]"
    wanted = SoundFile(files[1]).read(RATE)
    assert torch.equal(found[1].read(RATE), wanted)
    with pytest.raises(InputError, match="no column 'sound'"):
        AudioSource(str(tmp_path), dataset_column="sound").recordings()


def test_a_source_that_is_nothing(tmp_path):
    with pytest.raises(InputError, match="no such file or folder of recordings"):
        AudioSource(str(tmp_path / "nowhere")).recordings()
    (tmp_path / "empty.csv").write_text("\n")
    with pytest.raises(InputError, match="names no files"):
        AudioSource(str(tmp_path / "empty.csv")).recordings()


def test_held_out_recordings_are_never_trained_on():
    source = AudioSource("starter:speech", held_out_every=4)
    kept = {one.name for one in source.recordings(held_out=True)}
    trained = {one.name for one in source.recordings(held_out=False)}
    assert len(kept) == 1 and len(trained) == 3 and not kept & trained
    assert {one.name for one in source.recordings()} == kept | trained


# --------------------------------------------------------------------------- segments


@pytest.mark.parametrize("mel", ["hifigan-22k", "wavegrad-paper-24k", "ivanvovk-wavegrad"])
def test_segments_are_cut_from_whole_mels(mel):
    segments = SpeechSegments([AudioSource("starter:speech")], mel, segment_frames=20)
    preset = segments.preset
    example = segments.example(3, np.random.default_rng(0))
    assert example["wave"].shape == (20 * preset.hop_length,)
    assert example["mel"].shape == (preset.n_mels, preset.num_frames(20 * preset.hop_length))
    utterance = next(u for u in segments.recordings[0].utterances if u.name == example["name"])
    position = (utterance.mel[0].unfold(0, example["mel"].shape[1], 1) - example["mel"][0]).abs()
    first = int(position.sum(dim=1).argmin())
    start = first * preset.hop_length
    wanted = utterance.wave[start : start + len(example["wave"])]
    torch.testing.assert_close(example["wave"], wanted)
    torch.testing.assert_close(
        example["mel"], utterance.mel[:, first : first + example["mel"].shape[1]],
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_a_random_gain_moves_sound_and_mel_alike():
    segments = SpeechSegments(
        [AudioSource("starter:speech")], segment_frames=40, gain_db=(-20.0, -20.0)
    )
    example = segments.example(0, np.random.default_rng(0))
    mel = HIFIGAN.mel(example["wave"][None])[0]
    # Inner frames only: those of a segment alone see mirrored edges. Floored levels stay.
    loud = example["mel"][:, 4:-4] > -8
    torch.testing.assert_close(mel[:, 4:-4][loud], example["mel"][:, 4:-4][loud], rtol=0, atol=2e-2)


def test_an_epoch_visits_recordings_by_their_length():
    segments = SpeechSegments([AudioSource("starter:speech", repeat=2)], segment_frames=64)
    visits = torch.bincount(torch.from_numpy(segments.visits.locate(np.arange(len(segments)))[0]))
    frames = torch.tensor([u.mel.shape[1] for u in segments.recordings[0].utterances])
    assert torch.equal(visits, 2 * ((frames + 63) // 64))


def test_short_recordings_are_padded(tmp_path):
    write(tmp_path / "short.wav", speech(seconds=1)[0, 5000:5900].numpy())
    segments = SpeechSegments([AudioSource(str(tmp_path))], segment_frames=64)
    example = segments.example(0, np.random.default_rng(0))
    assert example["wave"].shape == (64 * 256,)
    assert float(example["wave"][1000:].abs().max()) == 0
    assert float(example["mel"][:, 10:].max()) == pytest.approx(-11.5129, abs=1e-3)


def test_bad_recordings_are_skipped_by_name(tmp_path, caplog):
    write(tmp_path / "good.wav", speech(seconds=1)[0].numpy())
    write(tmp_path / "silent.wav", np.zeros(9000))
    write(tmp_path / "nan.wav", np.full(900, np.nan), subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no sound")
    with caplog.at_level(logging.WARNING):
        segments = SpeechSegments([AudioSource(str(tmp_path))], segment_frames=8)
    assert [u.name for u in segments.recordings[0].utterances] == [str(tmp_path / "good.wav")]
    for name in ("silent", "nan", "text"):
        assert f"skipped: {tmp_path / name}.wav" in caplog.text
    (tmp_path / "good.wav").unlink()
    with pytest.raises(InputError, match="no usable recordings"):
        SpeechSegments([AudioSource(str(tmp_path))], segment_frames=8)


def test_the_band_of_a_narrow_recording():
    full = speech()[0]
    assert band_edge_hz(full, RATE) > 9000
    narrow = torch.fft.irfft(
        torch.fft.rfft(full) * (torch.arange(len(full) // 2 + 1) < len(full) * 0.2)
    )
    assert band_edge_hz(narrow, RATE) == pytest.approx(0.2 * RATE, abs=200)


def test_a_resampled_recording_ends_at_half_its_rate(tmp_path):
    tone = tones(seconds=1, rate=16000)[0]
    utterance = prepare(SoundFile(write(tmp_path / "a.wav", tone.numpy(), 16000)), HIFIGAN, 8)
    assert utterance.band_hz <= 8000


def test_nothing_to_cut():
    with pytest.raises(ValueError, match="nothing to cut"):
        SpeechSegments([], segment_frames=8)
