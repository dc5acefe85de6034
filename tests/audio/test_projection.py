"""The mel projection pulls sounds towards their mel; the spectral distance measures."""

import pytest
import torch
from sounds import speech

from multidiff.audio.mel import PRESETS
from multidiff.audio.metrics.pairs import log_mel_l1
from multidiff.audio.metrics.spectral import magnitude, spectral_distance
from multidiff.audio.vocoder.projection import MelProjection, bin_ratios

HIFIGAN = PRESETS["hifigan-22k"]


def recording(hop=256, seconds=2):
    wave = speech("LJ80-07", seconds)
    return wave[:, : wave.shape[1] // hop * hop]


@pytest.mark.parametrize(
    "name", ["hifigan-22k", "lmnt-diffwave", "vocos-24k", "wavegrad-paper-24k", "ivanvovk-wavegrad"]
)
def test_noise_comes_nearer_to_any_presets_mel(name):
    preset = PRESETS[name]
    wave = recording(preset.hop_length)
    mel = preset.mel(wave)
    noise = 0.01 * torch.randn(wave.shape, generator=torch.Generator().manual_seed(0))
    projection = MelProjection(preset)
    inner = slice(4, -4)

    def distance(sound):
        bands = preset.expand(preset.mel(sound))[..., inner].clamp(min=1e-4).log()
        return float((bands - preset.expand(mel)[..., inner].clamp(min=1e-4).log()).abs().mean())

    found = [distance(projection(noise, mel, count)) for count in (0, 1, 8)]
    assert found[0] > 3 * found[2] and found[1] > found[2]


def test_more_iterations_come_nearer_and_momentum_helps():
    wave = recording()
    mel = HIFIGAN.mel(wave)
    noise = torch.randn(wave.shape, generator=torch.Generator().manual_seed(0)) * 0.01

    def distance(count, momentum=0.99):
        found = MelProjection(HIFIGAN, momentum)(noise, mel, count)
        return log_mel_l1(wave[0], found[0], HIFIGAN)

    assert distance(32) < distance(8) < distance(2)
    assert distance(16) < distance(16, momentum=0.0)
    assert distance(32) < 0.1


@pytest.mark.parametrize("name", ["hifigan-22k", "ivanvovk-wavegrad"])
def test_iterations_by_their_formula(name):
    preset = PRESETS[name]
    wave = recording(preset.hop_length)
    mel, found = preset.mel(wave), 0.1 * wave.flip(1)
    got = MelProjection(preset, momentum=0.5)(found, mel, 3)
    least, before = max(preset.floor, 1e-7), None
    for _ in range(3):
        spectrum = preset.spectrum(found)
        ahead = spectrum + (0 if before is None else 0.5 * (spectrum - before))
        missing = preset.expand(mel).clamp(min=least) / (preset.bands(ahead.abs()).clamp(min=least))
        gain = (bin_ratios(preset, wave) @ missing.log() / preset.power).exp()
        found, before = preset.waveform(gain * ahead, wave.shape[1]), spectrum
    torch.testing.assert_close(got, found, rtol=1e-3, atol=1e-5)


def test_none_changes_nothing_and_the_truth_stays():
    wave = recording()
    mel = HIFIGAN.mel(wave)
    projection = MelProjection(HIFIGAN)
    assert projection(wave, mel, 0) is wave
    moved = projection(wave, mel, 3)
    assert float((moved - wave).square().mean() / wave.square().mean()) < 1e-4


def test_momentum_is_bounded():
    with pytest.raises(ValueError, match="must be in"):
        MelProjection(HIFIGAN, momentum=2.5)


def test_shares_of_a_bin_add_up_to_one():
    ratios = bin_ratios(HIFIGAN, torch.zeros(1))
    total = ratios.sum(dim=1)
    assert set(total.round(decimals=5).tolist()) == {0.0, 1.0}
    assert int((total == 0).sum()) == pytest.approx(512 * (1 - 8000 / 11025), abs=3)


def test_spectral_distance_is_zero_only_for_the_same():
    wave = recording()
    assert float(spectral_distance(wave, wave)) == 0
    small = spectral_distance(wave + 1e-3 * torch.randn(wave.shape), wave)
    large = spectral_distance(wave + 1e-2 * torch.randn(wave.shape), wave)
    assert 0 < float(small) < float(large)


def test_spectral_distance_by_its_formula():
    one, other = recording(), recording() * 0.5
    total = 0.0
    for n_fft, hop, window in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        a, b = (magnitude(x, n_fft, hop, window) for x in (other, one))
        total += float((a - b).norm() / b.norm() + (a.log() - b.log()).abs().mean()) / 3
    assert float(spectral_distance(other, one)) == pytest.approx(total, rel=1e-5)


def test_spectral_distance_of_silence_has_a_slope():
    silent = torch.zeros(1, 4096, requires_grad=True)
    spectral_distance(silent, recording()[:, :4096]).sum().backward()
    assert silent.grad is not None and torch.isfinite(silent.grad).all()
