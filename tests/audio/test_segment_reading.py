"""Segments read alone: the samples and the mel of the whole recording."""

import numpy as np
import pytest
import soundfile
import soxr
import torch
from sounds import RATE, speech, tones

from multidiff.audio.data.pcm import (
    FRAMES_AT_ONCE,
    BandEnergy,
    band_edge_hz,
    dequantized,
    quantized,
    scale_of,
)
from multidiff.audio.data.reading import (
    SeekableSound,
    resampled_length,
    segment_with_mel,
)
from multidiff.audio.data.sound import SoundFile
from multidiff.audio.mel import PRESETS
from multidiff.utils.errors import InputError


class InMemory:
    def __init__(self, samples):
        self.samples, self.length = samples, len(samples)

    def read(self, start, stop):
        assert 0 <= start <= stop <= self.length
        return self.samples[start:stop]


def whole_mel(wave, preset, least_frames=4):
    hops = max(-(-len(wave) // preset.hop_length), least_frames)
    padded = np.pad(wave, (0, hops * preset.hop_length - len(wave)))
    return torch.from_numpy(padded), preset.mel(torch.from_numpy(padded)[None])[0]


@pytest.mark.parametrize("name", PRESETS)
def test_a_segments_mel_is_that_of_the_whole_recording(name):
    preset, rng = PRESETS[name], np.random.default_rng(0)
    for length in (37_000, 30 * preset.hop_length):
        wave = tones(seconds=2)[0, :length].numpy()
        padded, mel = whole_mel(wave, preset)
        for frames in (1, 8, 16):
            last = len(padded) // preset.hop_length - frames
            for first in {0, 1, last - 1, last, *rng.integers(0, last + 1, 6).tolist()}:
                found, own = segment_with_mel(InMemory(wave), preset, first, frames, len(padded))
                start = first * preset.hop_length
                assert torch.equal(found, padded[start : start + frames * preset.hop_length])
                count = preset.num_frames(frames * preset.hop_length)
                wanted = mel[:, first : first + count]
                assert own.shape == wanted.shape
                torch.testing.assert_close(own, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 900, 1025])
def test_a_recording_shorter_than_a_segment_ends_in_silence(length):
    preset = PRESETS["wavegrad-paper-24k"]
    wave = speech(seconds=1)[0, 5000 : 5000 + length].numpy()
    padded, mel = whole_mel(wave, preset, 12)
    found, own = segment_with_mel(InMemory(wave), preset, 0, 12, len(padded))
    assert torch.equal(found, padded)
    torch.testing.assert_close(own, mel, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rate", "ending"), [(16000, "flac"), (44100, "wav"), (RATE, "flac")])
def test_a_sought_segment_is_that_of_the_whole_resampled_recording(tmp_path, rate, ending):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.stack([tones(1, rate)[0], tones(1, rate, seed=1)[0]], axis=1), rate)
    whole = SoundFile(path).read(RATE).numpy()
    sound = SeekableSound(path, rate, rate, RATE)
    assert sound.length == len(whole)
    for start, stop in [(0, 3000), (1, 2), (7001, 9000), (len(whole) - 500, len(whole))]:
        np.testing.assert_allclose(sound.read(start, stop), whole[start:stop], rtol=0, atol=1e-6)
    preset = PRESETS["hifigan-22k"]
    padded, mel = whole_mel(whole, preset)
    for first in (0, 31, len(padded) // 256 - 8):
        own = segment_with_mel(sound, preset, first, 8, len(padded))[1]
        torch.testing.assert_close(own, mel[:, first : first + 8], rtol=0, atol=1e-5)


def test_the_length_of_a_resampled_recording_is_known_before():
    for length, rate in [(1, 8000), (4095, 44100), (7777, 16000), (10_001, 48000)]:
        found = soxr.resample(np.zeros(length, np.float32), rate, RATE, "VHQ")
        assert resampled_length(length, rate, RATE) == len(found)


def test_a_sought_file_that_changes_or_goes_is_named(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(900), RATE)
    sound = SeekableSound(path, RATE, 1000, RATE)
    with pytest.raises(InputError, match=r"a\.wav: changed"):
        sound.read(500, 1000)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.wav: "):
        sound.read(0, 100)


def test_sixteen_bits_are_kept_exactly():
    values = np.arange(-32768, 32768).astype(np.int16)
    samples = values.astype(np.float32) / 32768
    assert scale_of(float(samples.min()), float(samples.max())) == 1
    assert np.array_equal(quantized(samples, 1.0), values)
    assert np.array_equal(dequantized(values, 1.0), samples)


@pytest.mark.parametrize(("low", "high"), [(-1.5, 0.3), (-0.2, 1.4999), (-1.0, 1.0)])
def test_peaks_beyond_full_scale_are_not_clipped(low, high):
    samples = np.linspace(low, high, 9999, dtype=np.float32)
    scale = scale_of(low, high)
    found = dequantized(quantized(samples, scale), scale)
    np.testing.assert_allclose(found, samples, rtol=0, atol=0.6 * scale / 32768)
    assert scale <= 1.0001 * max(-low, high)


def test_a_band_edge_does_not_depend_on_blocks():
    samples = np.tile(speech()[0].numpy(), 12)[: 2 * FRAMES_AT_ONCE * 512 + 4321]
    whole = band_edge_hz(torch.from_numpy(samples), RATE)
    found = BandEnergy()
    for block in np.split(samples, [3, 400, 90_000, 1_500_000]):
        found.add(block)
    assert found.edge_hz(RATE) == whole
    spectrum = torch.stft(
        torch.from_numpy(samples), 1024, 512, window=torch.hann_window(1024), return_complex=True
    )
    energy = spectrum.abs().square().double().sum(dim=1)
    above = energy.flip(0).cumsum(0).flip(0) / energy.sum()
    assert whole == int((above > 1e-5).sum()) * RATE / 1024
