"""Waveforms as states: as they are, or whitened by the mel's envelope."""

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
    of the same stretch of sound; and ``band_hz`` (batch,), up to which the recording holds
    anything, where that is known. The condition is the mel.

    Args:
        mel: the preset, or the name of one.
        spectral_weight: factor of an extra loss, the multi-resolution spectral distance of the
            estimated waveform, weighted by how much signal the noisy state had
            (``alpha^2``); 0 leaves it out.

    Raises:
        InputError: if there is no such preset.
    """

    def __init__(self, mel: str | MelPreset = "hifigan-22k", spectral_weight: float = 0.0):
        self.preset = preset_named(mel)
        self.spectral_weight = spectral_weight

    def state_shape(self, batch: int, num_frames: int) -> tuple[int, ...]:
        """Shape of the states of so many mel frames."""
        raise NotImplementedError

    def state_start(self, first_frame: int) -> int:
        """Where on the state's last axis a piece begins that begins at a mel frame."""
        raise NotImplementedError

    def to_state(self, wave: Tensor, mel: Tensor) -> Tensor:
        """Waveforms to states, given their mels."""
        raise NotImplementedError

    def to_wave(self, state: Tensor, mel: Tensor) -> Tensor:
        """States to waveforms ``(batch, samples)``, given their mels."""
        raise NotImplementedError

    def loss_mask(self, state: Tensor, band_hz: Float[Tensor, " batch"]) -> Tensor | None:
        """Where the state holds what the recording told; None is everywhere."""
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
            raise ValueError("speech is decoded with its mel: give it as the condition")
        return self.to_wave(state, condition)

    def extra_losses(
        self, encoded: Encoded, corrupted: Corrupted, estimate: Estimate, process: Process
    ) -> dict[str, Float[Tensor, " batch"]]:
        """The spectral distance of the estimated waveform, where it has a weight."""
        if self.spectral_weight == 0:
            return {}
        mask = 1.0 if encoded.mask is None else encoded.mask
        # What the recording does not hold is taken from it in both, so that it cannot differ.
        found = encoded.x0 + (estimate.x0 - encoded.x0) * mask
        distance = spectral_distance(
            self.to_wave(found, encoded.condition), self.to_wave(encoded.x0, encoded.condition)
        )
        signal = corrupted.level.alpha.to(distance).square()
        return {"spectral": self.spectral_weight * signal * distance}


class WaveformDomain(SpeechDomain):
    """The waveform itself is the state, as in WaveGrad."""

    def state_shape(self, batch: int, num_frames: int) -> tuple[int, ...]:
        """``(batch, samples)``."""
        return batch, self.preset.num_samples(num_frames)

    def state_start(self, first_frame: int) -> int:
        """A sample."""
        return first_frame * self.preset.hop_length

    def to_state(self, wave: Tensor, mel: Tensor) -> Tensor:
        """The waveform."""
        return wave

    def to_wave(self, state: Tensor, mel: Tensor) -> Tensor:
        """The state."""
        return state


class SpectralDomain(SpeechDomain):
    """Lapped-transform coefficients over the deviation that the mel leads one to expect.

    Args:
        mel: the preset, or the name of one.
        hop: coefficients of a frame.
        spectral_weight: see :class:`SpeechDomain`.

    Raises:
        InputError: if there is no such preset.
        ValueError: if the hop does not fit it.
    """

    def __init__(
        self, mel: str | MelPreset = "hifigan-22k", hop: int = 128, spectral_weight: float = 0.0
    ):
        super().__init__(mel, spectral_weight)
        self.transform = MDCT(hop)
        self.envelope = Envelope(self.preset, hop)

    def state_shape(self, batch: int, num_frames: int) -> tuple[int, ...]:
        """``(batch, hop, samples / hop + 1)``."""
        hop = self.transform.hop
        return batch, hop, self.preset.num_samples(num_frames) // hop + 1

    def state_start(self, first_frame: int) -> int:
        """A frame of the lapped transform."""
        return first_frame * self.preset.hop_length // self.transform.hop

    def to_state(self, wave: Tensor, mel: Tensor) -> Tensor:
        """Coefficients over the envelope."""
        return self.transform.forward(wave) / self.envelope(mel)

    def to_wave(self, state: Tensor, mel: Tensor) -> Tensor:
        """Undoes :meth:`to_state`."""
        return self.transform.inverse(state * self.envelope(mel))

    def loss_mask(self, state: Tensor, band_hz: Float[Tensor, " batch"]) -> Tensor:
        """1 for the coefficients below the band's edge: ``(batch, hop, 1)``."""
        hop = self.transform.hop
        centre_hz = (torch.arange(hop, device=state.device) + 0.5) * (
            self.preset.sample_rate_hz / 2 / hop
        )
        return (centre_hz < band_hz[:, None].to(state.device)).to(state)[..., None]
