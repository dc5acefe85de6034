"""The band of a sound: found, kept, and nothing invented above it."""

import numpy as np
import pytest
import soundfile
import soxr
import torch
from commands import complains, does
from sounds import RATE, speech

import multidiff
from multidiff.audio.data.band import band_limit_hz, band_limited
from multidiff.audio.mel import PRESETS
from multidiff.audio.metrics.evaluation import clips_of, evaluate
from multidiff.audio.metrics.pairs import high_band_distance
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
    """A recording at 16 kHz has no sound above 8 kHz."""
    at_16k = soxr.resample(a_recording()[0].numpy(), RATE, 16000)
    soundfile.write(tmp_path / "a.wav", at_16k, 16000)
    made, out = {}, tmp_path / "out.wav"
    for limit in ("auto", "none", "2000"):
        does(
            capsys, "synth", tmp_path / "a.wav", "-o", out, "--model", small_vocoder,
            "--band-limit", limit, "--subtype", "FLOAT",
        )  # fmt: skip
        made[limit] = soundfile.read(out)[0]
    assert energy_above(made["auto"], 8300) < -60 < energy_above(made["none"], 8300)
    assert energy_above(made["2000"], 2300) < -60
    reported = complains(capsys, "synth", tmp_path / "a.wav", "-o", out, "--band-limit", "high")
    assert "--band-limit high" in reported


def test_figures_are_of_the_limited_sound(tmp_path, small_vocoder):
    at_16k = soxr.resample(a_recording(1.0)[0].numpy(), RATE, 16000)
    soundfile.write(tmp_path / "a.wav", at_16k, 16000)
    model = multidiff.load(small_vocoder)
    clips = clips_of(str(tmp_path / "a.wav"), model.preset)
    assert clips[0].band_hz == 8000
    found = evaluate(model, clips)[0].metrics["high_band"]
    made = {
        limit: model.synthesize(clips[0].mel, mel_scale="preset", band_limit=limit)[0]
        for limit in ("8000", "none")
    }
    wanted, free = (high_band_distance(clips[0].wave, one, RATE) for one in made.values())
    assert found == pytest.approx(wanted, abs=1e-4) and wanted < free
