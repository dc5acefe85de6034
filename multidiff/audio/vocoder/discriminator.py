"""Discriminators of complex spectrograms, for the adversarial training of a vocoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from multidiff.audio.mel import window_like
from multidiff.nn.adversarial import frozen_call, hinge_loss

# Magnitudes are raised to this power, so that quiet bands count beside loud ones.
COMPRESSION = 0.3
SLOPE = 0.2


class Scores(NamedTuple):
    """Output of a discriminator: scores of patches, and the hidden features of each layer."""

    scores: Tensor
    features: list[Tensor]


class AdversarialLosses(NamedTuple):
    """Losses of both sides, for each sample.

    Attributes:
        adversarial: minus the mean score of the generated sounds; trains the generator.
        features: relative distance of hidden features of generated and real sounds; trains the
            generator too.
        discriminator: hinge loss; trains the discriminator.
    """

    adversarial: Float[Tensor, " batch"]
    features: Float[Tensor, " batch"]
    discriminator: Float[Tensor, " batch"]


class SpectrogramDiscriminator(nn.Module):
    """Discriminator of short-time spectra at several resolutions, phases included.

    Each resolution has convolutions over time and frequency on the real and imaginary parts, as in
    EnCodec (Défossez et al. 2022, section 3.2.2). Short windows see single pulses of a voice.

    Args:
        windows: lengths of the windows, in samples; the hop is a quarter.
        width: number of channels.
        weight: weight of the adversarial loss; the distance of features counts twice that.
        warmup: number of batches over which the weight grows from 0.

    Raises:
        ValueError: if a window is not a positive multiple of 4.
    """

    def __init__(
        self,
        windows: Sequence[int] = (1024, 512, 256),
        width: int = 32,
        weight: float = 1.0,
        warmup: int = 500,
    ):
        super().__init__()
        for window in windows:
            if window < 4 or window % 4:
                raise ValueError(f"windows: {window} must be a positive multiple of 4")
        self.windows, self.weight, self.warmup = tuple(windows), weight, warmup
        self.networks = nn.ModuleList(_network(width) for _ in windows)

    def forward(self, wave: Float[Tensor, "batch samples"]) -> list[Scores]:
        """Return scores and features of waveforms at every resolution."""
        found = []
        for window, network in zip(self.windows, self.networks, strict=True):
            x, features = compressed_spectrum(wave, window), []
            *layers, last = network.children()
            for layer in layers:
                x = nn.functional.leaky_relu(layer(x), SLOPE)
                features.append(x)
            found.append(Scores(last(x), features))
        return found

    def losses(
        self, made: Float[Tensor, "batch samples"], real: Float[Tensor, "batch samples"]
    ) -> AdversarialLosses:
        """Return the losses of generator and discriminator, means over the resolutions.

        The first two give this module's weights no gradient, the third none to the generated
        sounds, so that their sum trains both sides at once.
        """
        found = []
        of_each = self(real), self(made.detach()), frozen_call(self, made)
        for true, false, seen in zip(*of_each, strict=True):
            score = seen.scores.float().flatten(1).mean(dim=1)
            apart = _distance(seen.features, true.features)
            hinge = hinge_loss(true.scores.float(), false.scores.float())
            found.append((-score, apart, hinge))
        return AdversarialLosses(
            *(torch.stack(one).mean(dim=0) for one in zip(*found, strict=True))
        )


def compressed_spectrum(
    wave: Float[Tensor, "batch samples"], window: int
) -> Float[Tensor, "batch 2 frames bins"]:
    """Return real and imaginary parts of short-time spectra with compressed magnitudes.

    The compression is that of speech enhancement (Braun & Tashev 2021).
    """
    spectrum = torch.stft(
        wave, window, window // 4, window=window_like(window, wave), normalized=True,
        return_complex=True,
    )  # fmt: skip
    parts = torch.view_as_real(spectrum).permute(0, 3, 2, 1)
    power = parts.square().sum(dim=1, keepdim=True)
    return parts * (power + 1e-8) ** ((COMPRESSION - 1) / 2)


def _network(width: int) -> nn.Sequential:
    # Strides are along frequency; dilations widen the view in time.
    layers = [weight_norm(nn.Conv2d(2, width, (3, 9), (1, 2), (1, 4)))]
    for dilation in (1, 2, 4):
        layers.append(
            weight_norm(
                nn.Conv2d(width, width, (3, 9), (1, 2), (dilation, 4), dilation=(dilation, 1))
            )
        )
    last = weight_norm(nn.Conv2d(width, width, 3, padding=1))
    return nn.Sequential(*layers, last, weight_norm(nn.Conv2d(width, 1, 3, padding=1)))


def _distance(made: Sequence[Tensor], real: Sequence[Tensor]) -> Float[Tensor, " batch"]:
    total = [
        (a - b.detach()).abs().flatten(1).mean(1) / b.detach().abs().mean()
        for a, b in zip(made, real, strict=True)
    ]
    return torch.stack(total).float().mean(0)
