"""States of speech: exactly undone, whitened, alike for pieces and wholes."""

import math

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import speech, tones
from torch._subclasses.fake_tensor import FakeTensorMode

from multidiff.audio.mel import PRESETS, preset_named
from multidiff.audio.metrics.spectral import spectral_distance
from multidiff.audio.vocoder.domains import SpectralDomain, WaveformDomain
from multidiff.audio.vocoder.envelope import Envelope, on_state_frames, smooth_bands
from multidiff.audio.vocoder.mdct import MDCT
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import LogSNRSchedule
from multidiff.utils.errors import InputError


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40).map(lambda n: 2 * n), st.integers(1, 20), st.integers(1, 3))
def test_lapped_transform_is_orthonormal_and_undone(hop, count, batch):
    transform = MDCT(hop)
    wave = torch.randn(batch, hop * count, dtype=torch.float64)
    coefficients = transform.forward(wave)
    assert coefficients.shape == (batch, hop, count + 1)
    torch.testing.assert_close(transform.inverse(coefficients), wave, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(coefficients.square().sum(), wave.square().sum())


def test_lapped_transform_against_a_cosine_transform():
    """An MDCT is a type-4 cosine transform of the folded, windowed frame."""
    hop, wave = 16, torch.randn(1, 64, dtype=torch.float64)
    frames = np.pad(wave[0].numpy(), hop)
    window = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop))
    for number in range(5):
        a, b, c, d = (frames[number * hop : (number + 2) * hop] * window).reshape(4, hop // 2)
        folded = np.concatenate([-c[::-1] - d, a - b[::-1]])
        wanted = scipy.fft.dct(folded, type=4, norm="ortho")
        found = MDCT(hop).forward(wave)[0, :, number].numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_lapped_transform_keeps_white_noise_white():
    noise = torch.randn(1, 128 * 4000, generator=torch.Generator().manual_seed(0))
    coefficients = MDCT(128).forward(noise)[0, :, 1:-1]
    assert float(coefficients.std()) == pytest.approx(1, abs=0.005)
    neighbours = (coefficients[:, 1:] * coefficients[:, :-1]).mean()
    assert abs(float(neighbours)) < 0.005


def test_a_basis_made_in_inference_mode_or_a_dry_run_serves_training():
    with FakeTensorMode():
        MDCT(12).forward(torch.zeros(1, 24))
    with torch.inference_mode():
        MDCT(12).forward(torch.zeros(1, 24))
    wave = torch.ones(1, 24, dtype=torch.float64, requires_grad=True)
    MDCT(12).forward(wave).square().sum().backward()
    torch.testing.assert_close(wave.grad, 2 * wave.detach())


def test_odd_hops_are_refused():
    with pytest.raises(ValueError, match="even and positive"):
        MDCT(7)


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("hop", [64, 128])
def test_decoding_undoes_encoding(name, hop):
    domain = SpectralDomain(name, hop)
    cycle = math.lcm(hop, domain.preset.hop_length)
    wave = speech()[:, : speech().shape[1] // cycle * cycle]
    mel = domain.preset.mel(wave)
    encoded = domain.encode({"wave": wave, "mel": mel}, None)
    assert tuple(encoded.x0.shape) == domain.state_shape(1, mel.shape[2])
    torch.testing.assert_close(domain.decode(encoded.x0, mel), wave, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="pass it as the condition"):
        domain.decode(encoded.x0)


def test_waveform_domain_is_the_waveform():
    domain = WaveformDomain("wavegrad-paper-24k")
    wave = tones()[:, : 300 * 60]
    encoded = domain.encode({"wave": wave, "mel": domain.preset.mel(wave)}, None)
    assert encoded.x0 is wave
    assert domain.state_shape(1, encoded.condition.shape[2]) == (1, 18000)
    assert domain.state_start(7) == 2100


def test_whitened_speech_has_even_size():
    """Over the band the state's level varies by half of the decibels that speech's does."""
    domain = SpectralDomain("hifigan-22k", 128)
    wave = speech()[:, : speech().shape[1] // 256 * 256]
    state = domain.to_state(wave, domain.preset.mel(wave))[0]
    plain = domain.transform.forward(wave)[0]

    def spread_db(x):
        levels = 10 * x[:88].unflatten(0, (8, 11)).square().mean(dim=(1, 2)).log10()
        return float(levels.max() - levels.min())

    assert spread_db(state) < spread_db(plain) / 2
    assert 0.5 < float(state.std()) < 1.5


def test_gain_changes_the_mel_and_not_the_state():
    domain = SpectralDomain("hifigan-22k", 128)
    wave = speech()[:, : 256 * 200]
    states = [domain.to_state(gain * wave, domain.preset.mel(gain * wave)) for gain in (1.0, 0.5)]
    assert float((states[0] - states[1]).abs().median()) < 0.01


def test_state_frames_of_both_framings():
    """Mel frame i lies at i + 1/2 hops, or at i hops if centred; state frame j at j of its own."""
    plain, centred = preset_named("hifigan-22k"), preset_named("lmnt-diffwave")
    ramp = torch.arange(5.0)[None, None]
    halves = on_state_frames(ramp, plain, 128)[0, 0]
    assert halves.tolist() == [0, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4]
    whole = on_state_frames(ramp, centred, 128)[0, 0]
    assert whole.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert on_state_frames(ramp[..., :1], plain, 128)[0, 0].tolist() == [0, 0, 0]


def test_smoothing_keeps_what_is_even():
    even = torch.full((1, 5, 3), 2.0)
    torch.testing.assert_close(smooth_bands(even), even)


def test_a_hop_that_does_not_fit():
    with pytest.raises(ValueError, match="must divide half"):
        Envelope(preset_named("hifigan-22k"), 96)
    with pytest.raises(InputError, match="unknown mel preset"):
        SpectralDomain("mel-22k")


def test_loss_counts_only_the_recorded_band():
    domain = SpectralDomain("hifigan-22k", 128)
    wave = speech()[:, : 256 * 20].repeat(2, 1)
    mel = domain.preset.mel(wave)
    batch = {"wave": wave, "mel": mel, "band_hz": torch.tensor([11025.0, 4000.0])}
    encoded = domain.encode(batch, None)
    assert encoded.mask is not None
    # 128 coefficients of 86 Hz; 46 have their centre below 4 kHz.
    assert encoded.mask[:, :, 0].sum(dim=1).tolist() == [128, 46]


def test_spectral_loss_is_zero_for_the_truth_and_grows_with_the_signal():
    domain = SpectralDomain("hifigan-22k", 128, spectral_weight=0.5)
    process = GaussianProcess(LogSNRSchedule(9, -7), "v")
    wave = speech()[:, : 256 * 40].repeat(2, 1)
    encoded = domain.encode({"wave": wave, "mel": domain.preset.mel(wave)}, None)
    level = process.schedule.at(torch.tensor([0.1, 0.9]))
    corrupted = process.corrupt(encoded.x0, level, torch.Generator().manual_seed(0))
    truth = process.estimate(process.prediction.target(corrupted), corrupted.xt, level)
    right = domain.extra_losses(encoded, corrupted, truth, process)["spectral"]
    assert float(right.max()) < 1e-3
    wrong = process.estimate(torch.zeros_like(corrupted.xt), corrupted.xt, level)
    found = domain.extra_losses(encoded, corrupted, wrong, process)["spectral"]
    assert float(found.min()) > 0.001
    assert SpectralDomain("hifigan-22k").extra_losses(encoded, corrupted, truth, process) == {}


def test_spectral_loss_is_the_distance_times_a_power_of_the_signal():
    process = GaussianProcess(LogSNRSchedule(9, -7), "v")
    wave = speech()[:, : 256 * 40].repeat(2, 1)
    mel = PRESETS["hifigan-22k"].mel(wave)
    for power in (0.0, 0.5, 1.0):
        domain = SpectralDomain("hifigan-22k", 128, spectral_weight=0.5, spectral_power=power)
        encoded = domain.encode({"wave": wave, "mel": mel}, None)
        level = process.schedule.at(torch.tensor([0.1, 0.9]))
        corrupted = process.corrupt(encoded.x0, level, torch.Generator().manual_seed(0))
        estimate = process.estimate(torch.zeros_like(corrupted.xt), corrupted.xt, level)
        found = domain.extra_losses(encoded, corrupted, estimate, process)["spectral"]
        distance = spectral_distance(domain.to_wave(estimate.x0, mel), wave)
        wanted = 0.5 * (level.alpha**2) ** power * distance
        torch.testing.assert_close(found, wanted.to(found), rtol=1e-3, atol=1e-4)
