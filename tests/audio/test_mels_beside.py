"""Training of vocoders on mels from files beside the recordings, such as predicted ones."""

import logging
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from commands import complains
from program import RECIPES
from sounds import RATE, speech

from multidiff.audio.data.mel_files import write_mel
from multidiff.audio.data.segments import SpeechSegments
from multidiff.audio.data.sources import AudioSource
from multidiff.audio.mel import PRESETS
from multidiff.audio.tts.model import FitMelStatistics
from multidiff.audio.tts.predicted import write_predicted
from multidiff.audio.tts.transcripts import TranscribedSource
from multidiff.audio.tts.utterances import Utterances
from multidiff.core.draws import DrawsFrom
from multidiff.data.batches import Batches
from multidiff.models.loading import build_model
from multidiff.utils.errors import InputError

HIFIGAN = PRESETS["hifigan-22k"]


@pytest.fixture
def pairs(tmp_path):
    """Two recordings, and blurred mels of them."""
    sounds, mels = tmp_path / "sounds", tmp_path / "mels"
    sounds.mkdir(), mels.mkdir()
    for name, hops in (("a", 60), ("b", 80)):
        wave = speech("LJ80-07", 2.0)[:, : 256 * hops]
        soundfile.write(sounds / f"{name}.wav", wave[0].numpy(), RATE, "FLOAT")
        write_mel(mels / f"{name}.npz", blurred(HIFIGAN.mel(wave)[0]), HIFIGAN)
    return sounds, mels


def blurred(mel):
    return torch.nn.functional.avg_pool1d(mel, 3, 1, 1, count_include_pad=False)


def example(segments, index):
    return segments.example(index, np.random.default_rng(0))


def test_examples_have_the_mels_of_the_files(pairs):
    sounds, mels = pairs
    beside = SpeechSegments([AudioSource(str(sounds), mels=str(mels))], segment_frames=60)
    own = SpeechSegments([AudioSource(str(sounds))], segment_frames=60)
    found, plain = example(beside, 0), example(own, 0)
    torch.testing.assert_close(found["wave"], plain["wave"])
    torch.testing.assert_close(found["mel"], blurred(plain["mel"]))
    assert beside.data_fingerprint() != own.data_fingerprint()


def test_a_shorter_recording_ends_in_silence(pairs):
    sounds, mels = pairs
    segments = SpeechSegments([AudioSource(str(sounds), mels=str(mels))], segment_frames=90)
    mel = example(segments, 0)["mel"]
    assert mel.shape == (80, 90)
    assert bool((mel[:, 80:] == HIFIGAN.level_range[0]).all())


def test_mels_of_another_length_or_missing_are_skipped(pairs, caplog):
    sounds, mels = pairs
    whole = HIFIGAN.mel(speech("LJ80-07", 2.0)[:, : 256 * 80])[0]
    source = AudioSource(str(sounds), mels=str(mels))
    write_mel(mels / "b.npz", whole[:, :79], HIFIGAN)  # one frame: tools round differently
    assert len(SpeechSegments([source]).recordings[0]) == 2
    write_mel(mels / "b.npz", whole[:, :76], HIFIGAN)
    with caplog.at_level(logging.WARNING):
        assert len(SpeechSegments([source]).recordings[0]) == 1
    assert "has 76 frames and its recording 80" in caplog.text
    (mels / "b.npz").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(SpeechSegments([source]).recordings[0]) == 1
    assert "has no mel b in" in caplog.text


def test_refusals(pairs, capsys):
    sounds, mels = pairs
    source = AudioSource(str(sounds), mels=str(mels))
    with pytest.raises(InputError, match="store: memory or auto, not disk"):
        SpeechSegments([source], store="disk")
    reported = complains(
        capsys, "check", RECIPES / "audio" / "speech.yaml",
        f"data.examples.sources=[{{path: {sounds}, mels: {mels}-none}}]",
    )  # fmt: skip
    assert "is no folder of mels" in reported


@pytest.fixture(scope="module")
def own_voice():
    """A random voice, a source of one recording, and that as an utterance."""
    with DrawsFrom(torch.Generator().manual_seed(0)):
        voice = build_model(RECIPES / "smoke" / "tts.yaml").eval()
    source = TranscribedSource("starter:speech", speaker="lj", validation=1)
    own = Utterances([source], part="validation", store="memory")
    FitMelStatistics()(voice, Batches(own, 1))
    (one,) = own.utterances
    return voice, source, one


def test_a_voices_mels_beside_its_recordings(tmp_path, own_voice):
    """Pairs in the recordings' timing, which a vocoder's source reads; levels by band agree."""
    voice, source, one = own_voice
    assert write_predicted(voice, source, tmp_path, part="validation", steps=0) == 1
    pairs = AudioSource(str(tmp_path / "sounds"), mels=str(tmp_path / "mels"))
    segments = SpeechSegments([pairs], segment_frames=64)
    (utterance,) = segments.recordings[0].utterances
    assert utterance.mel.shape[1] == len(one.mel)
    real = torch.from_numpy(one.mel.T)
    assert float((HIFIGAN.mel(utterance.wave[None])[0] - real).abs().mean()) < 0.02


def test_mels_that_start_from_a_recordings(own_voice):
    """SDEdit: the less a recording is noised the nearer it is; padding and rows do not matter."""
    voice, _, one = own_voice
    recorded = torch.from_numpy(one.mel.T)
    given: Any = {"durations": [one.durations], "recorded": [recorded], "temperature": 1.0}

    def distance(strength: float) -> float:
        (spoken,) = voice.mels([one.phones], one.speaker, strength=strength, **given)
        return float((spoken.mel - recorded).abs().mean())

    far = [distance(strength) for strength in (0.01, 0.1, 0.4, 1.0)]
    assert far == sorted(far)
    assert far[0] < 0.1
    assert far[-1] > 0.5
    alone = voice.mels([one.phones], one.speaker, durations=[one.durations], temperature=1.0)
    (new,) = voice.mels([one.phones], one.speaker, strength=1.0, **given)
    # The process ends at a signal of 5e-3, not at 0.
    torch.testing.assert_close(new.mel, alone[0].mel, atol=0.05, rtol=0.0)
    short = [one.durations, np.maximum(one.durations // 2, 1)]
    several = voice.mels(
        [one.phones] * 2, one.speaker, seed=[0, 5], durations=short, temperature=1.0, strength=0.4,
        recorded=[recorded, recorded[:, : int(short[1].sum())]],
    )  # fmt: skip
    (first,) = voice.mels([one.phones], one.speaker, strength=0.4, **given)
    torch.testing.assert_close(several[0].mel, first.mel, atol=1e-4, rtol=1e-4)
    assert voice.mels([]) == []


def test_recordings_that_do_not_fit_their_durations_are_refused(own_voice):
    voice, _, one = own_voice
    recorded = torch.from_numpy(one.mel.T)
    for error, durations, mel, strength in (
        ("recorded: give each", one.durations, recorded[:, 1:], 0.5),
        ("durations: give each", one.durations[1:], recorded, 0.5),
        ("first time 1.5", one.durations, recorded, 1.5),
        ("first time 0", one.durations, recorded, 0.0),
    ):
        with pytest.raises(ValueError, match=error):
            voice.mels(
                [one.phones], one.speaker, durations=[durations], recorded=[mel], strength=strength
            )


def test_pairs_of_files_of_one_name(tmp_path, own_voice):
    """Files of one name in several folders do not overwrite each other."""
    voice, _, _ = own_voice
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "1.wav", speech("LJ80-07", 2.0)[0].numpy(), RATE)
    (tmp_path / "list.csv").write_text("a/1.wav|one word\nb/1.wav|two words\n")
    source = TranscribedSource(str(tmp_path / "list.csv"), speaker="lj")
    assert write_predicted(voice, source, tmp_path / "out", steps=0, strength=0.5) == 2
    assert len([*(tmp_path / "out" / "mels").iterdir()]) == 2
