"""A vocoder trained against a discriminator of complex spectra."""

import pytest
import torch
from sounds import speech

import multidiff as md
from multidiff.audio.mel import PRESETS
from multidiff.audio.vocoder.adversarial import AdversarialTask
from multidiff.audio.vocoder.discriminator import SpectrogramDiscriminator, compressed_spectrum
from multidiff.audio.vocoder.domains import SpectralDomain
from multidiff.audio.vocoder.inference_schedule import VocoderSamplingConfig
from multidiff.audio.vocoder.mdct_denoiser import MDCTDenoiser
from multidiff.audio.vocoder.model import Vocoder
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import LogSNRSchedule
from multidiff.core.random import generators
from multidiff.models.loading import build_model, save_model

MEL = PRESETS["hifigan-22k"]
RECIPE = """
model:
  use: Vocoder
  domain: {use: SpectralDomain, spectral_weight: 1.0, spectral_power: 0.0}
  process:
    use: GaussianProcess
    schedule: {use: LogSNRSchedule, highest: 9.0, lowest: -7.0}
    prediction: v
  denoiser: {use: MDCTDenoiser, width: 16, depth: 1}
  rollout: 0.5
  discriminator: {use: SpectrogramDiscriminator, windows: [256, 128], width: 4}
"""


def discriminator(**options):
    torch.manual_seed(1)
    return SpectrogramDiscriminator((256, 128), 4, **options)


def task(**options):
    torch.manual_seed(0)
    denoiser = MDCTDenoiser(width=16, depth=1)
    torch.nn.init.normal_(denoiser.write.weight, std=0.05)
    return Vocoder(
        SpectralDomain(spectral_weight=1.0, spectral_power=0.0),
        GaussianProcess(LogSNRSchedule(9, -7), "v"),
        denoiser,
        VocoderSamplingConfig(3, projections=0, final_projections=0),
        rollout=0.5,
        discriminator=discriminator(**options),
    ).task()


def batch():
    wave = speech(seconds=1)[0, : 32 * 256].view(2, 16 * 256)
    return {"wave": wave, "mel": MEL.mel(wave), "band_hz": torch.tensor([11025.0, 4000.0])}


def norm(loss, weights):
    found = torch.autograd.grad(loss.mean(), weights, retain_graph=True, allow_unused=True)
    return sum(float(one.norm()) for one in found if one is not None)


def test_each_loss_trains_its_own_side():
    one = task(warmup=0)
    losses = one.losses(batch(), generators([3, 4]))
    names = {"denoising", "spectral", "adversarial", "features", "discriminator"}
    assert names == set(losses) and all(len(loss) == 2 for loss in losses.values())
    ours, theirs = list(one.denoiser.parameters()), list(one.discriminator.parameters())
    for name in ("adversarial", "features"):
        assert norm(losses[name], theirs) == 0 < norm(losses[name], ours)
    assert norm(losses["discriminator"], ours) == 0 < norm(losses["discriminator"], theirs)


def test_the_estimate_and_its_waveform_are_computed_once(monkeypatch):
    one, counts = task(), {"waves": 0, "estimate": 0}

    def counted(owner, name):
        plain = getattr(owner, name)

        def call(*arguments):
            counts[name] += torch.is_grad_enabled()  # sampled states are made without gradients
            return plain(*arguments)

        monkeypatch.setattr(owner, name, call)

    counted(one.domain, "waves")
    counted(one.process, "estimate")
    losses = one.losses(batch(), generators([3, 4]))
    assert counts == {"waves": 1, "estimate": 1}
    monkeypatch.undo()

    class Own(SpectralDomain):  # an extra loss of its own is still asked for
        def extra_losses(self, *arguments):
            return super().extra_losses(*arguments)

    one.domain.__class__ = Own
    again = one.losses(batch(), generators([3, 4]))
    assert torch.equal(losses["spectral"], again["spectral"])


def test_the_weight_grows_by_batches_of_training_alone():
    one = task(weight=0.5, warmup=4)
    with torch.no_grad():
        one.losses(batch(), generators([3, 4]))
    found = [one.losses(batch(), generators([3, 4]))["adversarial"].detach() for _ in range(5)]
    full = found[-1]
    for number, own in enumerate(found):
        assert torch.allclose(own, full * min(1, (number + 1) / 4))
    assert int(one.state_dict()["batches"]) == 5  # a resumed run goes on from here


def test_the_band_that_a_recording_lacks_is_not_judged():
    one, data = task(), batch()
    encoded = one.domain.encode(data, None)
    wrong = encoded.x0 + (1 - encoded.mask) * torch.randn_like(encoded.x0)
    made, real = one.domain.waves(encoded, one.process.estimate(wrong * 0, wrong, level(one)))
    assert not torch.allclose(made, real, atol=1e-3)
    estimate = one.process.estimate(wrong * 0, wrong, level(one))
    inside = encoded.x0 + (estimate.x0 - encoded.x0) * encoded.mask
    assert torch.allclose(made, one.domain.to_wave(inside, data["mel"]))


def level(one):
    return one.process.draw_level(2, generators([1, 2]))


def test_a_discriminator_learns_to_tell_smeared_phases():
    """Magnitudes stay the same; a distance of magnitudes could not see the difference."""
    torch.manual_seed(1)
    judge = SpectrogramDiscriminator((64,), 4)
    real = torch.zeros(2, 2048)
    real[:, ::110] = 1.0
    spectrum = torch.fft.rfft(real)
    phases = torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(0)) * 6.283
    smeared = torch.fft.irfft(spectrum * torch.polar(torch.ones_like(phases), phases), n=2048)
    optimizer = torch.optim.Adam(judge.parameters(), 2e-2)
    for _ in range(40):
        loss = judge.losses(smeared, real).discriminator.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2


def test_compression_keeps_phases_and_raises_magnitudes_to_a_power():
    wave = torch.randn(2, 1024, generator=torch.Generator().manual_seed(0))
    small, plain = compressed_spectrum(wave, 256), compressed_spectrum(100 * wave, 256)
    ratio = (plain / small).nan_to_num(0)
    assert torch.allclose(ratio.median(), torch.tensor(100**0.3), rtol=1e-3)


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="windows: 250 must be a positive multiple of 4"):
        SpectrogramDiscriminator((250,))


def test_a_model_goes_on_without_its_discriminator(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    model = build_model(recipe)
    assert isinstance(model.task(), AdversarialTask)
    save_model(model, tmp_path / "model", RECIPE)
    again = md.load(tmp_path / "model")
    assert set(again.state_dict()) == set(model.state_dict())
