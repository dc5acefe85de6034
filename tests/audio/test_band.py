"""The band of a sound: found, kept, and nothing invented above it."""

import numpy as np
import pytest
import soundfile
import soxr
import torch
from commands import complains, does
from sounds import RATE, speech

from multidiff.audio.data.band import band_limit_hz, band_limited, mel_edge_hz
from multidiff.audio.data.mel_files import write_mel
from multidiff.audio.mel import PRESETS
from multidiff.audio.vocoder.inference_schedule import VocoderSamplingConfig
from multidiff.utils.errors import InputError

HIFIGAN = PRESETS["hifigan-22k"]


def a_recording(seconds=1.5):
    wave = speech("LJ80-07", seconds)
    return wave[:, : wave.shape[1] // 256 * 256]


def energy_above(wave, hz, rate=RATE):
    """Decibels of the energy above a frequency, relative to all of it."""
    power = np.abs(np.fft.rfft(np.asarray(wave, np.float64) * np.hanning(len(wave)))) ** 2
    first = round(hz * len(wave) / rate)
    return 10 * np.log10(power[first:].sum() / power.sum() + 1e-12)


def test_the_filter_keeps_what_is_below():
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    fade = torch.hann_window(RATE, dtype=torch.float64)
    below, above = (fade * torch.sin(2 * torch.pi * hz * time) for hz in (3000, 4400))
    found = band_limited((below + above)[None], RATE, 4000)[0]
    torch.testing.assert_close(found, below, atol=1e-3, rtol=0)
    wave = below[None]
    assert band_limited(wave, RATE, None) is wave


def test_edges_of_mels():
    """A mel shows the edge of a band that ends below its last bands, and no other."""
    wave = a_recording()
    assert mel_edge_hz([HIFIGAN.mel(wave)], HIFIGAN) is None
    for edge in (3000, 5500):
        narrow = HIFIGAN.mel(band_limited(wave, RATE, edge))
        found = mel_edge_hz([narrow], HIFIGAN)
        assert found == pytest.approx(edge, abs=600)
        halves = narrow.split(40, dim=2)
        assert mel_edge_hz(halves, HIFIGAN) == found
    assert mel_edge_hz([torch.full((1, 80, 9), HIFIGAN.level_range[0])], HIFIGAN) is None


def test_options():
    assert band_limit_hz("auto", None, HIFIGAN) is None
    assert band_limit_hz("auto", 8000.0, HIFIGAN) == 8000
    assert band_limit_hz("auto", 10600.0, HIFIGAN) is None  # the whole band
    assert band_limit_hz("none", 8000.0, HIFIGAN) is None
    assert band_limit_hz("5000", 8000.0, HIFIGAN) == 5000
    for wrong in ("-1", "0", "nan", "inf", "high"):
        with pytest.raises(InputError, match="--band-limit"):
            VocoderSamplingConfig(band_limit=wrong)


def test_no_treble_that_a_recording_does_not_have(tmp_path, capsys, small_vocoder):
    """A recording at 16 kHz has no sound above 8 kHz, and a mel shows an edge at 4 kHz."""
    wave = a_recording()
    at_16k = soxr.resample(wave[0].numpy(), RATE, 16000)
    soundfile.write(tmp_path / "a.wav", at_16k, 16000)
    write_mel(tmp_path / "b.npz", HIFIGAN.mel(band_limited(wave, RATE, 4000))[0], HIFIGAN)
    for name, edge in (("a.wav", 8000), ("b.npz", 4500)):
        made = {}
        for limit in ("auto", "none", "2000"):
            out = tmp_path / "out.wav"
            does(
                capsys, "synth", tmp_path / name, "-o", out, "--model", small_vocoder,
                "--band-limit", limit, "--subtype", "FLOAT",
            )  # fmt: skip
            made[limit] = soundfile.read(out)[0]
        auto, free = (energy_above(made[one], edge + 300) for one in ("auto", "none"))
        assert auto < -60 and auto < free - 10
        assert energy_above(made["2000"], 2300) < -60
    reported = complains(capsys, "synth", tmp_path / "a.wav", "-o", out, "--band-limit", "high")
    assert "--band-limit high" in reported
