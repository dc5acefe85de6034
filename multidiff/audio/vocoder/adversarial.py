"""Training of a vocoder against a discriminator, beside the losses of diffusion."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.audio.vocoder.discriminator import SpectrogramDiscriminator
from multidiff.audio.vocoder.domains import SpeechDomain
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.rollout import RolloutTask
from multidiff.core.gaussian.timesteps import TimestepSchedule
from multidiff.core.protocols import Encoded
from multidiff.core.random import Rng
from multidiff.core.task import device_type

# Weight of the distance of features, beside the adversarial loss (HiFi-GAN, Kong et al. 2020).
FEATURE_WEIGHT = 2.0


class AdversarialTask(RolloutTask):
    """Denoising whose estimates of the waveform a discriminator compares with recordings.

    Spectral distances are deaf to phases: an estimate that is right in them may still smear the
    pulses of a voice. A discriminator of complex spectra hears that (WaveFit, Koizumi et al. 2022,
    trains every iteration so). Both networks step at once.

    Args:
        domain: waveforms as states.
        process: Gaussian process of the states.
        denoiser: the network.
        times: timestep schedule of sampling.
        ratio: fraction of the samples whose states are sampled.
        discriminator: the discriminator, with the weight of its losses.
    """

    domain: SpeechDomain

    def __init__(
        self,
        domain: SpeechDomain,
        process: GaussianProcess,
        denoiser: nn.Module,
        times: TimestepSchedule,
        ratio: float,
        discriminator: SpectrogramDiscriminator,
    ):
        super().__init__(domain, process, denoiser, times, ratio)
        self.discriminator = discriminator
        self.batches: Tensor
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self._half = False

    def losses(self, batch: object, rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return the losses of each sample, those of both sides among them."""
        self._half = torch.is_autocast_enabled(device_type(self.denoiser))
        if torch.is_grad_enabled():
            self.batches += 1
        return super().losses(batch, rng)

    def _losses_of_estimate(
        self, encoded: Encoded, corrupted: Any, estimate: Any
    ) -> dict[str, Float[Tensor, " batch"]]:
        made, real = self.domain.waves(encoded, estimate)
        if type(self.domain).extra_losses is SpeechDomain.extra_losses:
            extra = self.domain.spectral_losses(corrupted, made, real)
        else:
            extra = super()._losses_of_estimate(encoded, corrupted, estimate)
        # The rest of the losses needs full precision; these are most of the work.
        with torch.autocast(device_type(self.denoiser), enabled=self._half):
            found = self.discriminator.losses(made, real)
        weight = self.discriminator.weight
        weight *= min(1.0, int(self.batches) / max(self.discriminator.warmup, 1))
        return {
            **extra,
            "adversarial": weight * found.adversarial,
            "features": FEATURE_WEIGHT * weight * found.features,
            "discriminator": found.discriminator,
        }
