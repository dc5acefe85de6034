"""Denoisers: exact against another implementation, local, learning."""

import copy

import pytest
import torch
import torch.nn.functional as F
from sounds import speech

from multidiff.audio.data.segments import SpeechSegments
from multidiff.audio.data.sources import AudioSource
from multidiff.audio.vocoder.domains import SpectralDomain, WaveformDomain
from multidiff.audio.vocoder.mdct_denoiser import MDCTDenoiser, log_energy, wiener_velocity
from multidiff.audio.vocoder.wavegrad import (
    FACTORS,
    StretchedConv,
    WaveGrad,
    interleaved,
    plus_stretched,
)
from multidiff.core.gaussian.losses import SimpleLoss
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule, LogSNRSchedule, NoiseLevel
from multidiff.core.task import DiffusionTask
from multidiff.data.batches import Batches
from multidiff.nn.convolutions import TimeConv, time_conv
from multidiff.nn.embeddings import LogSNREmbedding, sinusoid
from multidiff.training.trainer import Trainer


def levels(*alphas):
    alpha = torch.tensor(alphas, dtype=torch.float64)
    return NoiseLevel(alpha, alpha, (1 - alpha**2).sqrt())


# -------------------------------------------------------------------------- embedding


def test_sinusoid_of_both_families():
    """t = 981, width 320: the first four of Stable Diffusion and of the Ho et al. code."""
    time = torch.tensor([981.0])
    stable = sinusoid(time, 320, order="cos-sin")[0, :4]
    ho = sinusoid(time, 320, last_rate="half-minus-one")[0, :4]
    torch.testing.assert_close(
        stable, torch.tensor([0.679957, -0.798430, 0.578088, -0.674703]), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        ho, torch.tensor([0.733252, 0.831247, 0.316050, 0.987942]), rtol=0, atol=1e-4
    )


def test_levels_without_noise_or_signal_are_embedded():
    embedding = LogSNREmbedding(8)
    assert torch.isfinite(embedding(levels(1.0, 0.0))).all()


# ------------------------------------------------------------------- time convolution


@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (3, 1), (3, 8), (5, 2)])
def test_time_convolution_and_its_gradients(taps, dilation):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 1, 33, generator=rng, dtype=torch.float64)
    layer = TimeConv(16, 24, taps, dilation).double()
    plain = copy.deepcopy(layer)
    inputs = [
        x.clone().contiguous(memory_format=torch.channels_last).requires_grad_() for _ in range(2)
    ]
    ours = layer(inputs[0])
    theirs = F.conv2d(
        inputs[1], plain.weight, plain.bias, padding=plain.padding, dilation=plain.dilation
    )
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad)
    torch.testing.assert_close(layer.bias.grad, plain.bias.grad)


def test_time_convolution_trains_in_bfloat16():
    """Under autocast the states are bfloat16 and the weights are not."""
    layer = TimeConv(16, 24, 3)
    x = torch.randn(2, 16, 1, 33, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(layer(x)[:, :16])
    assert found.dtype == torch.bfloat16
    found.float().square().sum().backward()
    assert layer.weight.grad.dtype == torch.float32 and x.grad.isfinite().all()


def test_time_convolution_passes_the_numerical_gradient_check():
    x = torch.randn(1, 16, 1, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(16, 16, 1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: time_conv(a, b, None, 2, 2), (x, weight))


# --------------------------------------------------------------------------- wavegrad


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_convolution_before_stretching_is_that_after(factor):
    layer = StretchedConv(16, 20, factor)
    x = torch.randn(2, 16, 1, 7)
    after = layer.taps(F.interpolate(x, size=(1, 7 * factor)))
    torch.testing.assert_close(layer(x), after, rtol=1e-4, atol=1e-5)


def test_stretching_and_interleaving():
    x = torch.arange(3.0).reshape(1, 1, 1, 3)
    assert interleaved([x, x + 10])[0, 0, 0].tolist() == [0, 10, 1, 11, 2, 12]
    long = torch.zeros(1, 1, 1, 6)
    assert plus_stretched(long, x, 2)[0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_wavegrad_has_the_papers_size():
    """15,920,993 parameters with 128 mels and the factors of hop 300."""
    network = WaveGrad("wavegrad-paper-24k")
    assert sum(p.numel() for p in network.parameters()) == 15_920_993


@pytest.mark.parametrize("mel", ["wavegrad-paper-24k", "hifigan-22k"])
def test_wavegrad_makes_a_sample_for_every_sample(mel):
    network = WaveGrad(mel, first_channels=96)
    domain = WaveformDomain(mel)
    wave = torch.randn(2, domain.preset.hop_length * 12)
    noise = network(wave, levels(0.5, 0.9), domain.preset.mel(wave))
    assert noise.shape == wave.shape


def test_every_hop_is_the_product_of_its_factors():
    for hop, factors in FACTORS.items():
        assert torch.tensor(factors).prod() == hop
    with pytest.raises(ValueError, match="not for the 512"):
        WaveGrad("bigvgan-v2-44k-128")


def test_wavegrad_equals_lmnts():
    """The same weights give the same output: names, FiLM order, slopes, resizing, encoding."""
    pytest.importorskip("wavegrad")
    from wavegrad.model import WaveGrad as Theirs
    from wavegrad.params import params

    from multidiff.audio.vocoder.lmnt import renamed

    torch.manual_seed(0)
    theirs, ours = Theirs(params), WaveGrad("lmnt-wavegrad-22k", embedding_scale=1.0)
    tensors = renamed(theirs.state_dict())
    ours.load_state_dict({name.removeprefix("denoiser."): t for name, t in tensors.items()})
    wave, mel = torch.randn(2, 3600), torch.rand(2, 128, 12)
    level = levels(0.3, 0.95)
    with torch.no_grad():
        wanted = theirs(wave, mel, level.alpha.float()).squeeze(1)
        found = ours(wave, level, mel)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_embedding_scale_matters():
    """Scales 1 and 5000 have the same shapes: nothing but the output tells them apart."""
    torch.manual_seed(0)
    one = WaveGrad("wavegrad-paper-24k", 1.0, first_channels=96)
    paper = WaveGrad("wavegrad-paper-24k", 5000.0, first_channels=96)
    paper.load_state_dict(one.state_dict())
    wave, mel = torch.randn(1, 3600), torch.randn(1, 128, 13)
    assert not torch.allclose(one(wave, levels(0.9), mel), paper(wave, levels(0.9), mel))


# ----------------------------------------------------------------------------- frames


def test_wiener_velocity_is_the_best_for_gaussian_coefficients():
    """For clean ~ N(0, S) the best velocity of Gaussian data, at every level and strength."""
    process = GaussianProcess(LogSNRSchedule(9, -7), "v")
    level = process.schedule.at(torch.linspace(0, 1, 9))
    xt = torch.randn(9, 4)
    for strength in (0.01, 1.0, 30.0):
        log_strength = torch.full((9, 4), strength).log()
        estimate = process.estimate(wiener_velocity(log_strength, xt, level), xt, level)
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        wanted = alpha * strength / (alpha**2 * strength + sigma**2) * xt
        torch.testing.assert_close(estimate.x0, wanted.float(), rtol=1e-4, atol=1e-5)


def test_wiener_velocity_is_bounded_and_nothing_at_the_clean_end():
    xt = torch.ones(2, 3)
    extreme = torch.tensor([[-99.0, 0.0, 99.0]]).expand(2, 3)
    found = wiener_velocity(extreme, xt, levels(1.0, 1e-4))
    assert torch.isfinite(found).all() and float(found[0].abs().max()) == 0


def test_a_tones_energy_does_not_come_and_go_with_its_phase():
    """Single MDCT coefficients of a tone vary over frames by their whole size."""
    domain = SpectralDomain("hifigan-22k", 128)
    time = torch.arange(128 * 200) / 22050
    tone = domain.transform.forward(torch.sin(2 * torch.pi * 1000.3 * time)[None])[:, :, 20:-20]
    loudest = int(tone.square().mean(dim=2).argmax())
    plain = tone[0, loudest].square()
    steady = torch.exp(2 * log_energy(tone)[0, loudest])
    assert float(steady.std() / steady.mean()) < 0.5 * float(plain.std() / plain.mean())


def test_frame_denoiser_is_local():
    """Far frames do not reach a frame, so long mels can be cut into pieces."""
    torch.manual_seed(0)
    network = MDCTDenoiser(width=16, depth=3).eval()
    torch.nn.init.normal_(network.write.weight)
    xt, mel = torch.randn(1, 128, 161), torch.randn(1, 80, 80)
    changed_noisy, changed_mel = xt.clone(), mel.clone()
    changed_noisy[..., 60:] += 1
    changed_mel[..., 30:] += 1
    with torch.no_grad():
        one = network(xt, levels(0.5), mel)
        other = network(changed_noisy, levels(0.5), changed_mel)
    reach = 1 + 3 * 3 + 1  # the reading convolution, three blocks, half a mel frame
    assert torch.equal(one[..., : 58 - reach], other[..., : 58 - reach])
    assert not torch.equal(one, other)


def test_frame_denoiser_starts_without_an_opinion():
    """Untrained it returns the Wiener estimate for strength 1, which is velocity 0."""
    network = MDCTDenoiser(width=16, depth=1)
    assert (
        float(network(torch.randn(1, 128, 5), levels(0.5), torch.randn(1, 80, 2)).abs().max()) == 0
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["frames", pytest.param("wavegrad", marks=pytest.mark.long)])
@pytest.mark.usefixtures("unchecked_signatures")
def test_a_denoiser_overfits_one_segment(kind):
    torch.manual_seed(0)
    if kind == "frames":
        domain, network = SpectralDomain("hifigan-22k"), MDCTDenoiser(width=64, depth=2)
        process = GaussianProcess(LogSNRSchedule(9, -7), "v", objective=SimpleLoss("l1"))
        wave = speech("LJ80-07")[:, 256 * 60 : 256 * 76]
    else:
        domain = WaveformDomain("wavegrad-paper-24k")
        network = WaveGrad("wavegrad-paper-24k", first_channels=96)
        schedule = BetaSchedule.linear(1000, 1e-6, 0.01)
        process = GaussianProcess(schedule, "epsilon", objective=SimpleLoss("l1"))
        wave = speech("LJ80-07")[:, 300 * 60 : 300 * 72]
    batch = {"wave": wave.repeat(8, 1), "mel": domain.preset.mel(wave).repeat(8, 1, 1)}
    task = DiffusionTask(domain, process, network)

    def loss():
        with torch.no_grad():
            rng = torch.Generator().manual_seed(0)
            return float(
                torch.stack([task.losses(batch, rng)["denoising"].mean() for _ in range(8)]).mean()
            )

    before = loss()
    Trainer(steps=150, learning_rate=3e-3, ema_decay=0.9, log_every=150).fit(task, [batch])
    assert loss() < 0.7 * before


@pytest.mark.usefixtures("unchecked_signatures")
def test_the_first_hundred_steps_on_speech_help():
    torch.manual_seed(0)
    source = AudioSource("starter:speech", held_out_every=4)
    process = GaussianProcess(LogSNRSchedule(9, -7), "v")
    task = DiffusionTask(SpectralDomain(), process, MDCTDenoiser(width=48, depth=2))
    held_out = Batches(SpeechSegments([source], segment_frames=32, held_out=True), 16)

    def loss():
        with torch.no_grad():
            rng = torch.Generator().manual_seed(0)
            return float(task.losses(held_out.batch(0), rng)["denoising"].mean())

    before = loss()
    train = Batches(SpeechSegments([source], segment_frames=32), 8)
    Trainer(steps=100, learning_rate=3e-3, ema_decay=0.9, log_every=100).fit(task, train)
    assert loss() < 0.93 * before
