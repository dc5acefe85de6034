"""Training of vocoders on mels from files beside the recordings, such as predicted ones."""

import logging

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


def test_a_voices_mels_beside_its_recordings(tmp_path):
    """Pairs in the recordings' timing, which a vocoder's source reads; levels by band agree."""
    with DrawsFrom(torch.Generator().manual_seed(0)):
        voice = build_model(RECIPES / "smoke" / "tts.yaml").eval()
    source = TranscribedSource("starter:speech", speaker="lj", validation=1)
    own = Utterances([source], part="validation", store="memory")
    FitMelStatistics()(voice, Batches(own, 1))
    assert write_predicted(voice, source, tmp_path, part="validation", steps=0) == 1
    pairs = AudioSource(str(tmp_path / "sounds"), mels=str(tmp_path / "mels"))
    segments = SpeechSegments([pairs], segment_frames=64)
    (utterance,) = segments.recordings[0].utterances
    assert utterance.mel.shape[1] == len(own.utterances[0].mel)
    real = torch.from_numpy(own.utterances[0].mel.T)
    assert float((HIFIGAN.mel(utterance.wave[None])[0] - real).abs().mean()) < 0.02
