"""Waveforms as states: the samples, or MDCT coefficients whitened by the mel's envelope."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from multidiff.audio.mel import MelPreset, preset_named
from multidiff.audio.metrics.spectral import spectral_distance
from multidiff.audio.vocoder.envelope import Envelope
from multidiff.audio.vocoder.mdct import MDCT
from multidiff.core.protocols import Corrupted, Domain, Encoded, Estimate, Process
from multidiff.core.random import Rng


class SpeechDomain(Domain):
    """Waveforms conditioned on their mel spectrograms.

    A batch is a dict: ``wave`` (batch, samples) in [-1, 1] and ``mel`` (batch, mels, frames)
    of the same segment; and optionally ``band_hz`` (batch,), the highest frequency that the
    recording contains. The condition is the mel.

    Args:
        mel: the preset, or its name.
        spectral_weight: weight of an extra loss, the multi-resolution spectral distance of the
            estimated waveform; 0 disables it.
        spectral_power: exponent of the signal power of the noisy state (``alpha^2``) that the loss
            is multiplied by; 0 weighs noise and nearly clean states alike, so that the first
            estimate already has the spectrum of speech.

    Raises:
        InputError: if the preset is unknown.
    """

    def __init__(
        self,
        mel: str | MelPreset = "hifigan-22k",
        spectral_weight: float = 0.0,
        spectral_power: float = 1.0,
    ):
        self.preset = preset_named(mel)
        self.spectral_weight, self.spectral_power = spectral_weight, spectral_power

    def state_shape(self, batch: int, num_frames: int) -> tuple[int, ...]:
        """Return the shape of the states of that many mel frames."""
        raise NotImplementedError

    def state_start(self, first_frame: int) -> int:
        """Return where on the state's last axis a piece starts that starts at a mel frame."""
        raise NotImplementedError

    def to_state(self, wave: Tensor, mel: Tensor) -> Tensor:
        """Convert waveforms to states, given their mels."""
        raise NotImplementedError

    def to_wave(self, state: Tensor, mel: Tensor) -> Tensor:
        """Convert states to waveforms ``(batch, samples)``, given their mels."""
        raise NotImplementedError

    def loss_mask(self, state: Tensor, band_hz: Float[Tensor, " batch"]) -> Tensor | None:
        """Return a mask of the state's values within the recording's band; None for all."""
        return None

    def encode(self, batch: dict[str, Any], rng: Rng | None) -> Encoded:
        """See :class:`~multidiff.core.protocols.Domain`."""
        wave, mel = batch["wave"], batch["mel"]
        state = self.to_state(wave, mel)
        band_hz = batch.get("band_hz")
        mask = None if band_hz is None else self.loss_mask(state, band_hz)
        return Encoded(state, mel, mask)

    def decode(self, state: Tensor, condition: Tensor | None = None) -> Tensor:
        """See :class:`~multidiff.core.protocols.Domain`.

        Raises:
            ValueError: if the mel is not given.
        """
        if condition is None:
            raise ValueError("speech is decoded with its mel: pass it as the condition")
        return self.to_wave(state, condition)

    def extra_losses(
        self, encoded: Encoded, corrupted: Corrupted, estimate: Estimate, process: Process
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return the weighted spectral distance of the estimated waveform, if enabled."""
        if self.spectral_weight == 0:
            return {}
        return self.spectral_losses(corrupted, *self.waves(encoded, estimate))

    def spectral_losses(
        self,
        corrupted: Corrupted,
        made: Float[Tensor, "batch samples"],
        real: Float[Tensor, "batch samples"],
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return the extra losses of the two waveforms of :meth:`waves`."""
        if self.spectral_weight == 0:
            return {}
        distance = spectral_distance(made, real)
        signal = corrupted.level.alpha.to(distance) ** (2 * self.spectral_power)
        return {"spectral": self.spectral_weight * signal * distance}

    def waves(self, encoded: Encoded, estimate: Estimate) -> tuple[Tensor, Tensor]:
        """Return the estimated waveforms and the recordings ``(batch, samples)``.

        Values outside the recording's band are taken from it in both, so they cannot differ.
        """
        mask = 1.0 if encoded.mask is None else encoded.mask
        found = encoded.x0 + (estimate.x0 - encoded.x0) * mask
        return self.to_wave(found, encoded.condition), self.to_wave(encoded.x0, encoded.condition)


class WaveformDomain(SpeechDomain):
    """The waveform itself as the state, as in WaveGrad."""

    def state_shape(self, batch: int, num_frames: int) -> tuple[int, ...]:
        """Return ``(batch, samples)``."""
        return batch, self.preset.num_samples(num_frames)

    def state_start(self, first_frame: int) -> int:
        """Return the sample at the start of the frame."""
        return first_frame * self.preset.hop_length

    def to_state(self, wave: Tensor, mel: Tensor) -> Tensor:
        """Return the waveform."""
        return wave

    def to_wave(self, state: Tensor, mel: Tensor) -> Tensor:
        """Return the state."""
        return state


class SpectralDomain(SpeechDomain):
    """MDCT coefficients divided by the standard deviation that the mel implies.

    Args:
        mel: the preset, or its name.
        hop: number of coefficients of a frame.
        spectral_weight: see :class:`SpeechDomain`.
        spectral_power: see :class:`SpeechDomain`.

    Raises:
        InputError: if the preset is unknown.
        ValueError: if the hop does not fit it.
    """

    def __init__(
        self,
        mel: str | MelPreset = "hifigan-22k",
        hop: int = 128,
        spectral_weight: float = 0.0,
        spectral_power: float = 1.0,
    ):
        super().__init__(mel, spectral_weight, spectral_power)
        self.transform = MDCT(hop)
        self.envelope = Envelope(self.preset, hop)

    def state_shape(self, batch: int, num_frames: int) -> tuple[int, ...]:
        """Return ``(batch, hop, samples / hop + 1)``."""
        hop = self.transform.hop
        return batch, hop, self.preset.num_samples(num_frames) // hop + 1

    def state_start(self, first_frame: int) -> int:
        """Return the MDCT frame at the start of the mel frame."""
        return first_frame * self.preset.hop_length // self.transform.hop

    def to_state(self, wave: Tensor, mel: Tensor) -> Tensor:
        """Return the coefficients divided by the envelope."""
        return self.transform.forward(wave) / self.envelope(mel)

    def to_wave(self, state: Tensor, mel: Tensor) -> Tensor:
        """Invert :meth:`to_state`."""
        return self.transform.inverse(state * self.envelope(mel))

    def loss_mask(self, state: Tensor, band_hz: Float[Tensor, " batch"]) -> Tensor:
        """Return 1 for the coefficients below the band's edge: ``(batch, hop, 1)``."""
        hop = self.transform.hop
        centre_hz = (torch.arange(hop, device=state.device) + 0.5) * (
            self.preset.sample_rate_hz / 2 / hop
        )
        return (centre_hz < band_hz[:, None].to(state.device)).to(state)[..., None]
