"""Training objective: durations, mean frames, and the diffusion of the mel."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.audio.mel import MelPreset, preset_named
from multidiff.audio.tts.phone_encoder import PhoneEncoder, frames_of
from multidiff.core.gaussian.predictions import mean_over_state
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.protocols import Domain, Encoded
from multidiff.core.random import Rng
from multidiff.core.task import DiffusionTask


class MelDomain(nn.Module, Domain):
    """Log mels as states: each band brought to mean 0 and deviation 1.

    A batch is a dict: ``mel`` (batch, frames, mels), ``mask`` (batch, frames), 1 at frames and 0
    at padding, and ``condition``, what the denoiser reads.

    Args:
        mel: the preset, or the name of one.
    """

    def __init__(self, mel: str | MelPreset = "hifigan-22k"):
        super().__init__()
        self.preset = preset_named(mel)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(self.preset.n_mels))
        self.register_buffer("std", torch.ones(self.preset.n_mels))

    def encode(self, batch: dict[str, Any], rng: Rng | None) -> Encoded:
        """See :class:`~multidiff.core.protocols.Domain`."""
        mask = batch["mask"][..., None]
        return Encoded(self.standardized(batch["mel"]) * mask, batch["condition"], mask)

    def decode(self, state: Tensor, condition: Any = None) -> Float[Tensor, "batch frames mels"]:
        """See :class:`~multidiff.core.protocols.Domain`; levels stay within the preset's."""
        return (state * self.std + self.mean).clamp(*self.preset.level_range)

    def standardized(self, mel: Float[Tensor, "batch frames mels"]) -> Tensor:
        """Return mels with each band at mean 0 and deviation 1."""
        return (mel - self.mean) / self.std


class AcousticTask(DiffusionTask):
    """Durations and mean frames by regression, the mel by diffusion (Popov et al. 2021, eq. 8).

    The decoder's gradient reaches the text's vectors, but not the mean frames.

    Args:
        domain: mels as states.
        process: how they are corrupted.
        denoiser: the decoder.
        text: phones to durations and mean frames.
        duration_weight: factor of the duration loss.
        freezes_text: train the decoder alone.
    """

    def __init__(
        self,
        domain: MelDomain,
        process: GaussianProcess,
        denoiser: nn.Module,
        text: PhoneEncoder,
        duration_weight: float = 0.3,
        freezes_text: bool = False,
    ):
        super().__init__(domain, process, denoiser)
        self.domain: MelDomain
        self.text, self.duration_weight, self.freezes_text = text, duration_weight, freezes_text
        if freezes_text:
            text.requires_grad_(False).eval()

    def losses(self, batch: dict[str, Any], rng: Rng | None) -> dict[str, Float[Tensor, " batch"]]:
        """Return ``denoising``, ``mean`` and ``duration`` of each sample.

        ``mean`` is the squared error of the mean frames, ``duration`` that of the natural
        logarithm of durations; both as means over what is no padding.
        """
        with torch.no_grad() if self.freezes_text else nullcontext():
            condition, found = self._read_text(batch)
        parts = {"mel": batch["mel"], "mask": batch["mask"], "condition": condition}
        losses = super().losses(parts, rng)
        return losses if self.freezes_text else {**losses, **found}

    def _read_text(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        mask, mel = batch["mask"], batch["mel"]
        phones = self.text.read(batch["phones"], batch["speaker"])
        hidden = self.text.hidden(phones)
        index, features = self._cropped(batch, mel)
        text, mean = self.text.frames(hidden, index, features, mask)
        log_durations = self.text.log_durations(hidden, phones)
        wanted = self._padded_logs(batch["durations"], log_durations)
        with torch.autocast(mel.device.type, enabled=False):
            off = (mean.float() - self.domain.standardized(mel)).square()
            late = (log_durations.float() - wanted).square()
            losses = {
                "mean": mean_over_state(off, mask[..., None]),
                "duration": self.duration_weight * mean_over_state(late, phones.mask[..., 0]),
            }
        return {"mean": mean.detach(), "text": text, "mask": mask}, losses

    def _cropped(self, batch: dict[str, Any], mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the phone and the features of each frame of the crops."""
        rows, size = mel.shape[:2]
        phone = np.zeros((rows, size), np.int64)
        features = np.zeros((rows, size, 4), np.float32)
        firsts = batch["first"].tolist() if isinstance(batch["first"], Tensor) else batch["first"]
        for row, (first, durations) in enumerate(zip(firsts, batch["durations"], strict=True)):
            found = frames_of(durations)
            crop = slice(first, first + size)
            count = len(found.phone[crop])
            phone[row, :count], features[row, :count] = found.phone[crop], found.features[crop]
        return torch.from_numpy(phone).to(mel.device), torch.from_numpy(features).to(mel.device)

    def _padded_logs(self, durations: list[np.ndarray], like: Tensor) -> Tensor:
        logs = np.zeros(tuple(like.shape), np.float32)
        for row, one in enumerate(durations):
            logs[row, : len(one)] = np.log(np.asarray(one))
        return torch.from_numpy(logs).to(like.device)
