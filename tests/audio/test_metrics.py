"""Metrics: perfect for the same, worse for worse, NaN where they do not exist."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from sounds import RATE, speech, tones

from multidiff.audio.mel import PRESETS
from multidiff.audio.metrics.evaluation import Clip, clips_of, means, scored
from multidiff.audio.metrics.pairs import (
    METRICS,
    compare,
    griffin_lim,
    high_band_distance,
    log_mel_l1,
    mel_cepstral_distortion,
    residual_kurtosis,
    voiced,
)

HIFIGAN = PRESETS["hifigan-22k"]
BEST = {"pesq": 4.644, "stoi": 1, "estoi": 1, "log_mel_l1": 0, "multi_stft": 0, "mcd": 0,
        "voicing_f1": 1, "voicing_error": 0, "high_band": 0}  # fmt: skip


def recording(seconds=3):
    return speech("LJ80-07", seconds)[0]


def test_a_recording_against_itself():
    scores = compare(recording(), recording(), HIFIGAN)
    assert scores.keys() == METRICS.keys()
    for name, best in BEST.items():
        assert scores[name] == pytest.approx(best, abs=1e-3)


def test_every_metric_hears_noise():
    clean = recording()
    noise = torch.randn(len(clean), generator=torch.Generator().manual_seed(0))
    scores = [compare(clean, clean + level * noise, HIFIGAN) for level in (0.003, 0.03)]
    best = {**BEST, "residual_kurtosis": residual_kurtosis(clean, RATE, voiced(clean, RATE))}
    for name, (_, more_is_better) in METRICS.items():
        values = [best[name], scores[0][name], scores[1][name]]
        assert values == sorted(values, reverse=more_is_better), name


def test_what_does_not_exist_is_nan():
    silence = torch.zeros(RATE)
    scores = compare(silence, silence, HIFIGAN)
    assert math.isnan(scores["pesq"]) and math.isnan(scores["voicing_f1"])
    assert scores["log_mel_l1"] == 0
    short = compare(recording(0.1), recording(0.1), HIFIGAN)
    assert math.isnan(short["estoi"])
    assert means([{"a": 1.0, "b": math.nan}, {"a": 3.0, "b": 5.0}]) == {"a": 2.0, "b": 5.0}
    assert math.isnan(means([{"a": math.nan}])["a"])


def test_mel_distance_of_a_gain_is_its_logarithm():
    noise = 0.05 * torch.randn(RATE // 256 * 256, generator=torch.Generator().manual_seed(0))
    assert log_mel_l1(noise, noise * math.e, HIFIGAN) == pytest.approx(1, abs=1e-3)


def test_cepstral_distortion_does_not_hear_a_gain():
    """Coefficient 0 is left out: only floored levels move the others."""
    clean = recording()
    assert mel_cepstral_distortion(clean, clean * 1.5, HIFIGAN) < 0.3
    assert mel_cepstral_distortion(clean, clean.flip(0), HIFIGAN) > 3


def test_voicing_of_tone_and_noise():
    tone = 0.3 * torch.sin(2 * torch.pi * 150 * torch.arange(RATE) / RATE)
    noise = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    assert voiced(tone, RATE).mean() > 0.9
    assert voiced(noise, RATE).mean() < 0.2


def test_kurtosis_of_pulses_through_a_resonance():
    """Linear prediction finds the excitation again, whatever filter it passed through."""
    count = RATE
    noise = 0.1 * np.random.default_rng(0).standard_normal(count)
    pulses = np.zeros(count)
    pulses[::200] = 1.0  # 110 Hz: one sample in 200, of kurtosis 198
    flags = np.ones(count // 256, bool)

    def measured(excitation):
        filtered = scipy.signal.lfilter([1.0], [1, -1.6, 0.9], excitation)
        return residual_kurtosis(torch.from_numpy(filtered), RATE, flags)

    assert measured(noise) == pytest.approx(3, abs=0.15)
    assert measured(pulses) > 100
    assert math.isnan(residual_kurtosis(torch.zeros(RATE), RATE, flags))


def test_high_band_is_heard_above_4_khz_only():
    clean = recording()
    low, high = (0.1 * torch.sin(2 * torch.pi * hz * torch.arange(len(clean)) / RATE)
                 for hz in (1000, 6000))  # fmt: skip
    assert high_band_distance(clean, clean * math.e, RATE) == pytest.approx(1, abs=0.05)
    found = [high_band_distance(clean, clean + tone, RATE) for tone in (low, high)]
    assert found[0] < 0.1 < found[1]


@pytest.mark.parametrize(
    "name",
    [
        "hifigan-22k",
        "lmnt-diffwave",
        pytest.param("ivanvovk-wavegrad", marks=pytest.mark.long),
    ],
)
def test_griffin_lim_has_the_right_length_and_place(name):
    preset = PRESETS[name]
    clean = recording()[: preset.hop_length * 60]
    made = griffin_lim(preset.mel(clean[None])[0], preset, len(clean))
    assert len(made) == len(clean)
    loudness = [x.unfold(0, 441, 441).square().mean(dim=1).sqrt() for x in (clean, made)]
    correlation = [
        float(np.corrcoef(loudness[0][2:-2], loudness[1].roll(shift)[2:-2])[0, 1])
        for shift in (-1, 0, 1)
    ]
    assert correlation[1] == max(correlation) > 0.95


def test_griffin_lim_scores_as_the_field_knows_it():
    """PESQ 2.7 to 3.5 and ESTOI above 0.9 for 32 iterations on such recordings."""
    clips = clips_of("starter:speech", HIFIGAN)
    assert len(clips) == 4 and all(len(c.wave) % 256 == 0 for c in clips)
    clip = Clip("cut", clips[0].wave[: 256 * 250], clips[0].mel[:, :250])
    scores = scored("gl", [clip], HIFIGAN, lambda c: griffin_lim(c.mel, HIFIGAN, len(c.wave)))
    assert 2.5 < scores.metrics["pesq"] < 3.8
    assert scores.metrics["estoi"] > 0.9
    assert scores.real_time_factor > 0


def test_tones_are_no_speech_for_pesq():
    tone = tones(1.0)[0]
    assert set(compare(tone, tone, HIFIGAN)) == set(METRICS)
