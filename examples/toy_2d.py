"""Train a diffusion model of two moons in the plane and sample each moon by its class.

python examples/toy_2d.py --steps 1500
"""

import argparse
import math

import torch
from torch import nn

import multidiff as md


def moons(count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points ``(count, 2)`` on two half circles, and the class of each: 0 or 1."""
    kind = torch.randint(2, (count,), generator=rng)
    angle = math.pi * (torch.rand(count, generator=rng) + kind)
    points = torch.stack([angle.cos() + kind - 0.5, angle.sin() + 0.25 * (2 * kind - 1)], dim=1)
    return points + 0.05 * torch.randn(count, 2, generator=rng), kind


class Moons(md.Domain):
    """The plane, scaled to unit variance."""

    def encode(self, batch, rng):
        return md.Encoded(batch["points"] / 0.7, batch["kind"])

    def decode(self, state, condition=None):
        return 0.7 * state


class PointDenoiser(nn.Module):
    """A perceptron of the point, its noise level and its class (-1: none, for guidance)."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.kind = nn.Embedding(3, 16)
        self.layers = nn.Sequential(
            nn.Linear(2 + 1 + 16, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, xt, level, condition):
        log_snr = level.log_snr.to(xt).clamp(-10, 10)[:, None] / 5
        return self.layers(torch.cat([xt, log_snr, self.kind(condition + 1)], dim=1))


def main(arguments: list[str] | None = None) -> float:
    """Train, sample, and return the mean distance of the samples to their own half circle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    steps = parser.parse_args(arguments).steps
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    batches = [dict(zip(("points", "kind"), moons(256, rng), strict=True)) for _ in range(200)]

    process = md.GaussianProcess(md.BetaSchedule.cosine(1000), prediction="v")
    task = md.DiffusionTask(Moons(), process, PointDenoiser(), drop_condition=0.1)
    trainer = md.Trainer(steps=steps, learning_rate=1e-2, decay="linear", ema_decay=0.99)
    print(trainer.fit(task, batches).losses)

    kind = torch.arange(2).repeat_interleave(500)
    denoiser = md.ClassifierFreeGuidance(task.denoiser, scale=1.5)
    times = md.uniform_timesteps(50)
    state = md.sample(process, denoiser, md.DDIM(), (1000, 2), times, condition=kind, rng=rng)
    points = Moons().decode(state)
    centre = torch.stack([kind - 0.5, 0.25 * (2 * kind - 1)], dim=1)
    distance = ((points - centre).norm(dim=1) - 1).abs().mean().item()
    print(f"samples are {distance:.3f} from their half circle on average; data 0.040")
    return distance


if __name__ == "__main__":
    main()
