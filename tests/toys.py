"""A small task for tests of the trainer: two-dimensional points on a ring."""

import torch
from torch import nn

from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.protocols import Domain, Encoded
from multidiff.core.task import DiffusionTask


class Points(Domain):
    """Points as they are."""

    def encode(self, batch, rng):
        return Encoded(batch["points"])

    def decode(self, state, condition=None):
        return state


class PointDenoiser(nn.Module):
    """A perceptron with dropout, so that its own randomness is tested too."""

    def __init__(self, dropout=0.1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 32), nn.SiLU(), nn.Dropout(dropout), nn.Linear(32, 2)
        )

    def forward(self, xt, level, condition=None):
        log_snr = level.log_snr.clamp(-10, 10).to(xt)[:, None]
        return self.layers(torch.cat([xt, log_snr / 10], dim=1))


class Ring:
    """Examples on the unit circle."""

    def __len__(self):
        return 40

    def example(self, index, rng):
        angle = torch.tensor(rng.uniform(0, 6.28))
        points = torch.stack([angle.cos(), angle.sin()]).float()
        return {"points": points, "name": f"point-{index}"}


def ring_task(dropout=0.1, **options):
    """The task, with the same weights every time."""
    torch.manual_seed(7)
    process = GaussianProcess(BetaSchedule.linear(100), **options)
    return DiffusionTask(Points(), process, PointDenoiser(dropout))
