"""A vocoder's network as a program: states, parts of the noise level, and the mel as inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim

from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.models.program import Program

if TYPE_CHECKING:
    from multidiff.audio.vocoder.model import Vocoder

EXAMPLE_FRAMES, OTHER_FRAMES = 24, 37


class LevelledDenoiser(nn.Module):
    """A denoiser that takes the parts of its noise level as tensors.

    Args:
        denoiser: the network.
    """

    def __init__(self, denoiser: nn.Module):
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self,
        xt: Float[Tensor, " batch *state"],
        time: Float[Tensor, " batch"],
        alpha: Float[Tensor, " batch"],
        sigma: Float[Tensor, " batch"],
        mel: Float[Tensor, "batch mels frames"],
    ) -> Float[Tensor, " batch *state"]:
        """Return the network's prediction."""
        return self.denoiser(xt, NoiseLevel(time, alpha, sigma, "between"), mel)


def program_of(vocoder: Vocoder) -> Program:
    """Return a vocoder's network for export, with the levels of its default schedule."""
    batch, frames = Dim("batch", max=256), Dim("frames", min=2, max=1 << 16)
    one, two = (vocoder.domain.state_shape(1, count)[-1] for count in (2, 3))
    step = two - one
    length = step * frames + (one - 2 * step)
    state: dict[int, Any] = {0: batch, len(vocoder.domain.state_shape(1, 2)) - 1: length}
    plan = vocoder.plan()
    levels = vocoder.process.levels(plan.times)
    facts = {
        "mel": vocoder.preset.name,
        "sample_rate_hz": vocoder.preset.sample_rate_hz,
        "hop_length": vocoder.preset.hop_length,
        "levels": [[float(part) for part in level.parts()] for level in levels],
        "final_projections": plan.final_projections,
        "projections": list(plan.projections),
    }
    return Program(
        LevelledDenoiser(vocoder.denoiser),
        _inputs(vocoder, 2, EXAMPLE_FRAMES),
        _inputs(vocoder, 3, OTHER_FRAMES),
        {
            "xt": state,
            **{name: {0: batch} for name in ("time", "alpha", "sigma")},
            "mel": {0: batch, 2: frames},
        },
        facts,
    )


def _inputs(vocoder: Vocoder, batch: int, frames: int) -> dict[str, Tensor]:
    """Return noisy noise and a mel of noise, at levels from clean to noisy."""
    generator = torch.Generator().manual_seed(frames)
    preset = vocoder.preset
    wave = 0.1 * torch.randn(batch, preset.num_samples(frames), generator=generator)
    level = vocoder.process.schedule.at(torch.linspace(0.1, 0.9, batch, dtype=torch.float64))
    time, alpha, sigma = (part.float() for part in level.parts())
    shape = vocoder.domain.state_shape(batch, frames)
    xt = torch.randn(shape, generator=generator)
    found = {"xt": xt, "time": time, "alpha": alpha, "sigma": sigma, "mel": preset.mel(wave)}
    return {name: value.to(vocoder.device) for name, value in found.items()}
