"""Bring your own modality: melodies, as tokens, by masked diffusion.

    python examples/own_modality.py --steps 1500

A domain turns notes into tokens and back; the process, the network, the trainer and the sampler
are the ones that images and texts use. Nothing in the package changes.
"""

import argparse

import torch

import multidiff as md
from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.samplers import RandomOrderSampler
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.core.discrete.unmasking import unmask
from multidiff.nn.token_denoiser import TokenDenoiser

LOWEST, NOTES, LENGTH = 60, 24, 16  # MIDI number of the lowest note; notes; notes of a melody
MAJOR = (0, 2, 4, 5, 7, 9, 11)


def melodies(count: int, rng: torch.Generator) -> torch.Tensor:
    """Return MIDI notes ``(count, 16)`` that move by single steps of the scale of C major."""
    scale = torch.tensor([octave + step for octave in (0, 12) for step in MAJOR])
    first = torch.randint(3, 11, (count, 1), generator=rng)
    moves = 2 * torch.randint(2, (count, LENGTH - 1), generator=rng) - 1
    steps = torch.cat([first, moves], dim=1).cumsum(dim=1) % (2 * len(scale))
    return LOWEST + scale[torch.minimum(steps, 2 * len(scale) - 1 - steps)]


def follows_rules(notes: torch.Tensor) -> float:
    """Return the fraction of neighbouring notes that lie in the scale, at most one step apart."""
    in_scale = torch.isin((notes - LOWEST) % 12, torch.tensor(MAJOR))
    near = notes.diff(dim=1).abs() <= 2
    return (near & in_scale[:, 1:] & in_scale[:, :-1]).float().mean().item()


class Melodies(md.Domain):
    """MIDI notes as tokens from 0."""

    def encode(self, batch, rng):
        return md.Encoded(batch["notes"] - LOWEST)

    def decode(self, state, condition=None):
        return state + LOWEST


def main(arguments: list[str] | None = None) -> float:
    """Train, write melodies, and return the fraction of their steps that follow the rules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    steps = parser.parse_args(arguments).steps
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    batches = [{"notes": melodies(64, rng)} for _ in range(300)]

    process = MaskProcess(NOTES, LogLinearMasks())
    denoiser = TokenDenoiser(NOTES, width=64, layers=2, heads=4, length=LENGTH)
    task = md.DiffusionTask(Melodies(), process, denoiser)
    trainer = md.Trainer(steps=steps, learning_rate=3e-3, decay="linear", ema_decay=0.99)
    print(trainer.fit(task, batches).losses)

    tokens = unmask(process, denoiser, RandomOrderSampler(), (64, LENGTH), steps=LENGTH, rng=rng)
    notes = Melodies().decode(tokens)
    print(*notes[:4].tolist(), sep="\n")
    print(f"{100 * follows_rules(notes):.0f} % of the steps follow the rules of the data")
    return follows_rules(notes)


if __name__ == "__main__":
    main()
