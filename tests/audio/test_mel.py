"""Mel front ends against librosa and against the conventions they are named after."""

import math
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sounds import speech, tones
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from multidiff.audio.mel import PRESETS, _level_range, overlap_add, preset_named
from multidiff.audio.mel_filters import mel_filters
from multidiff.utils.errors import InputError

NAMES = sorted(PRESETS)
HIFIGAN = PRESETS["hifigan-22k"]


def fitted(wave, preset):
    """Cut to whole hops, resampled by nobody: rates do not matter to the formulas."""
    return wave[:, : wave.shape[1] // preset.hop_length * preset.hop_length]


def by_librosa(wave, preset):
    """The preset's definition, written with librosa and numpy alone."""
    pad = (preset.n_fft if preset.centred else preset.n_fft - preset.hop_length) // 2
    padded = np.pad(wave[0].numpy(), pad, mode="reflect")
    spectrum = librosa.stft(
        padded,
        n_fft=preset.n_fft,
        hop_length=preset.hop_length,
        win_length=preset.win_length,
        center=False,
    )
    magnitude = np.sqrt(np.abs(spectrum) ** 2 + preset.under_root)
    if preset.window_normalized:
        magnitude = magnitude / np.sqrt(
            (librosa.filters.get_window("hann", preset.win_length) ** 2).sum()
        )
    filters = librosa.filters.mel(
        sr=preset.sample_rate_hz,
        n_fft=preset.n_fft,
        n_mels=preset.n_mels,
        fmin=preset.f_min_hz,
        fmax=preset.f_max_hz,
        htk=preset.mel_scale == "htk",
        norm=preset.norm,
    )
    bands = filters @ magnitude**preset.power
    if preset.drops_last:
        bands = bands[:, :-1]
    if preset.log == "ln":
        return np.log(np.maximum(bands, preset.floor))
    if preset.log == "log10":
        return np.log10(bands)
    decibels = 20 * np.log10(np.maximum(bands, preset.floor)) - 20
    return np.clip((decibels + 100) / 100, 0, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sound", ["tones", "speech"])
def test_presets_agree_with_librosa(name, sound):
    preset = PRESETS[name]
    wave = fitted(tones() if sound == "tones" else speech(seconds=2), preset)
    wanted = by_librosa(wave, preset)
    found = preset.mel(wave)[0].numpy()
    assert found.shape == wanted.shape == (preset.n_mels, preset.num_frames(wave.shape[1]))
    assert np.abs(found - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())
    assert preset.num_samples(found.shape[1]) == wave.shape[1]


@pytest.mark.parametrize("name", NAMES)
def test_filters_are_those_of_librosa_to_the_bit(name):
    preset = PRESETS[name]
    wanted = librosa.filters.mel(
        sr=preset.sample_rate_hz, n_fft=preset.n_fft, n_mels=preset.n_mels, fmin=preset.f_min_hz,
        fmax=preset.f_max_hz, htk=preset.mel_scale == "htk", norm=preset.norm,
    )  # fmt: skip
    assert np.array_equal(preset.filters(torch.zeros(())).T.numpy(), wanted)


def test_bands_that_stay_empty_are_reported(caplog):
    mel_filters(22050, 1024, 80, 0, 8000, "slaney", "slaney")
    assert not caplog.records
    mel_filters(22050, 256, 128, 0, 8000, "slaney", "slaney")
    assert "stay empty" in caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_filters_are_triangles_between_edges_even_in_mel(name):
    preset = PRESETS[name]
    ends = [hertz_to_mel(hz, preset.mel_scale) for hz in (preset.f_min_hz, preset.f_max_hz)]
    edges = mel_to_hertz(np.linspace(*ends, preset.n_mels + 2), preset.mel_scale)
    bins = np.linspace(0, preset.sample_rate_hz / 2, preset.n_fft // 2 + 1)
    rising = (bins[:, None] - edges[:-2]) / np.diff(edges[:-1])
    falling = (edges[2:] - bins[:, None]) / np.diff(edges[1:])
    wanted = np.minimum(rising, falling).clip(min=0)
    if preset.norm == "slaney":
        wanted *= 2 / (edges[2:] - edges[:-2])
    found = preset.filters(torch.zeros(1, dtype=torch.float64)).numpy()
    assert np.abs(found - wanted).max() < 1e-6 * wanted.max()


def hertz_to_mel(hz, scale):
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    return np.where(
        hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4)
    )


def mel_to_hertz(mel, scale):
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def test_filters_of_the_named_scales():
    """Row sums: 0.049 at most with slaney's norm, 13.7 without any (22.05 kHz, 80 bands)."""
    one = torch.zeros(1)
    assert float(HIFIGAN.filters(one).sum(dim=0).max()) == pytest.approx(0.0475, abs=0.002)
    diffwave = PRESETS["lmnt-diffwave"]
    assert float(diffwave.filters(one).max()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("name", "level"),
    [("hifigan-22k", -11.5129), ("vocos-24k", -16.1181), ("lmnt-wavegrad-22k", 0.0)],
)
def test_silence(name, level):
    preset = PRESETS[name]
    mel = preset.mel(torch.zeros(1, preset.hop_length * 20))
    assert float(mel.min()) == float(mel.max()) == pytest.approx(level, abs=1e-4)
    assert preset.level_range[0] == pytest.approx(level, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_no_sound_leaves_the_level_range(name):
    preset = PRESETS[name]
    low, high = preset.level_range
    for wave in (tones(), torch.ones(1, 22200), torch.randn(1, 22200).sign()):
        mel = preset.mel(fitted(wave, preset))
        finite = mel[torch.isfinite(mel)]
        assert low - 1e-3 <= float(finite.min()) and float(finite.max()) <= high + 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_frames_lie_where_the_preset_says(name):
    """A click at sample k * hop: frame k is loudest if centred, k - 1 and k tie if not."""
    preset = PRESETS[name]
    wave = torch.zeros(1, preset.hop_length * 30)
    wave[0, 12 * preset.hop_length] = 1
    energy = preset.spectrum(wave).abs().square().sum(dim=1)[0]
    if preset.centred:
        assert int(energy.argmax()) == 12
    else:
        assert sorted(energy.topk(2).indices.tolist()) == [11, 12]
        assert float(energy[11]) == pytest.approx(float(energy[12]), rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_waveform_undoes_spectrum(name):
    preset = PRESETS[name]
    wave = fitted(tones(), preset)
    found = preset.waveform(preset.spectrum(wave), wave.shape[1])
    # Where the last frame is dropped, nothing covers the end.
    inside = slice(None, -preset.n_fft) if preset.drops_last else slice(None)
    torch.testing.assert_close(found[:, inside], wave[:, inside], rtol=0, atol=1e-5)


def test_a_dry_run_leaves_no_tensors_without_values():
    """Windows are kept for the rest of the process, which may train after it."""
    preset = replace(HIFIGAN, name="short", n_fft=96, win_length=64, hop_length=32)
    with FakeTensorMode() as fake:
        spectrum = preset.spectrum(fake.from_tensor(torch.zeros(1, 640)))
        assert isinstance(preset.waveform(spectrum, 640), FakeTensor)
    wave = tones()[:, :640]
    found = preset.waveform(preset.spectrum(wave), 640)
    torch.testing.assert_close(found, wave, rtol=0, atol=1e-5)


def test_what_was_cached_in_inference_mode_serves_training():
    preset = replace(HIFIGAN, name="trained after", n_mels=20)
    with torch.inference_mode():
        preset.mel(tones()[:, :4096])
    wave = tones()[:, :4096].clone().requires_grad_()
    preset.mel(wave).sum().backward()
    assert wave.grad is not None and wave.grad.any()


@pytest.mark.parametrize(("length", "hop"), [(16, 4), (8, 3), (5, 5)])
def test_overlapping_frames_add_up(length, hop):
    frames = torch.randn(2, 6, length, generator=torch.Generator().manual_seed(0))
    samples = 5 * hop + length
    folded = F.fold(frames.transpose(1, 2), (1, samples), (1, length), stride=(1, hop))
    torch.testing.assert_close(overlap_add(frames, hop), folded[:, 0, 0])


@pytest.mark.parametrize("name", NAMES)
def test_expand_undoes_compress(name):
    preset = PRESETS[name]
    bands = torch.logspace(-3, -0.1, 50)
    torch.testing.assert_close(preset.expand(preset.compress(bands)), bands, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_mean_magnitude_of_white_noise(name):
    """White noise of deviation 1 has spectral magnitudes of mean sqrt(pi)/2 |window|."""
    preset = PRESETS[name]
    rng = torch.Generator().manual_seed(0)
    wave = 0.05 * torch.randn(1, preset.hop_length * 2000, generator=rng)
    found = preset.mean_magnitude(preset.mel(wave)).mean(dim=2)[0]
    wanted = 0.05 * math.sqrt(math.pi) / 2 * float(preset.window_norm(wave))
    if preset.power == 2:  # the root of mean powers is the RMS
        wanted *= math.sqrt(4 / math.pi)
    covered = preset.filters(wave).sum(dim=0) > 0
    torch.testing.assert_close(
        found[covered], torch.full_like(found[covered], wanted), rtol=0.1, atol=0
    )


def test_too_short_for_a_frame():
    with pytest.raises(InputError, match="too short for a hifigan-22k mel"):
        HIFIGAN.mel(torch.zeros(1, 256))


def test_unknown_preset():
    with pytest.raises(InputError, match="one of hifigan-22k"):
        preset_named("hifigan")


def test_the_range_of_levels_is_exact_where_a_network_asks_first():
    wanted = HIFIGAN.level_range
    _level_range.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert HIFIGAN.level_range == wanted
