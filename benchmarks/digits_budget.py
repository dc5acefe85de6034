"""Handwritten digits after the same CPU time of training, compared with diffusers.

The package trains ``recipes/image/digits.yaml``, latent diffusion with captions, and
before that its autoencoder, whose time counts; it does without the adversarial loss that
sharpens it in longer training. Diffusers trains a UNet2DModel in pixels as its example for
unconditional images does (:mod:`benchmarks.diffusers_training`), on the same digits padded to
32x32. They take turns of some seconds until each has used its time, and their rates decay with
the fraction of it.

Samples (ours with the classes of the held-out digits) are compared with held-out digits on the
features of the shipped classifier. The same number of training digits shows the remaining
distance between real images. Ratios are to diffusers'.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

import multidiff
from benchmarks.diffusers_training import DiffusersTraining
from benchmarks.latent_digits import LatentDigits
from benchmarks.pairs import Shape, their_pixel_unet
from benchmarks.timing import Row, counted, installed, on_threads, rows_of, training_on_cpu
from multidiff.image.data.image_files import crop_to, from_unit, pad_to_multiple
from multidiff.image.data.images import Images
from multidiff.image.metrics.classifier import ImageClassifier
from multidiff.image.metrics.feature_distance import SetDistance, batches_of, compare_sets
from multidiff.image.metrics.sets import describe_all

PART = "digits-budget"
CLASSIFIER = "digit-features"
UNET: Shape = (1, (64, 128, 128), 1, ("none", "self", "none"))  # 4.4 M weights, as ours
SIDE, BATCH = 32, 16  # the example's batch
AT_ONCE, MOST = 50, 5000
TURN_SECONDS = 5.0
OURS, THEIRS, REAL = "multidiff", "diffusers", "training digits"


class Contender(Protocol):
    """A training that can be continued step by step."""

    @property
    def steps(self) -> int:
        """Number of steps so far."""
        ...

    def step(self, progress: float) -> object:
        """Make one update, when that fraction of the time is used."""
        ...

    def samples(self, count: int, steps: int, seed: int) -> Tensor:
        """Return digits in bytes."""
        ...


def measure(
    threads: int,
    rounds: int,
    *,
    minutes: float = 1.0,
    samples: int = 100,
    our_steps: int = 20,
    their_steps: int = 50,
    data: str = "",
    held_out: str = "",
    seed: int = 0,
) -> list[Row]:
    """Measure distances, steps and the time of a sample.

    Args:
        threads: number of CPU threads; the time of each counts.
        rounds: number of rounds of the other parts; this one has one.
        minutes: CPU minutes of each training.
        samples: number of samples of each.
        our_steps: number of steps of the package's sampler.
        their_steps: number of steps of diffusers' DDIM.
        data: training digits; the recipe's by default.
        held_out: digits to compare with; every twelfth of the others by default.
        seed: random seed of weights, batches and samples.
    """
    with on_threads(threads), training_on_cpu():
        torch.manual_seed(seed)
        ours = LatentDigits(data, held_out, seed)
        contenders: dict[str, Contender] = {OURS: ours}
        if installed("diffusers"):
            contenders[THEIRS] = PixelDigits(ours.images)
        spend(contenders, 60 * minutes)
        made, seconds = {}, {}
        for name, contender in contenders.items():
            _say(f"{name}: {contender.steps} steps; {samples} samples")
            began = time.process_time()
            made[name] = contender.samples(
                samples, our_steps if name == OURS else their_steps, seed
            )
            seconds[name] = [(time.process_time() - began) / samples]
        made[REAL] = _some(ours.images, samples, seed)
        distances = _distances(made, ours.real)
    rows = []
    case = f"{minutes:g} CPU min, {counted(threads)}"
    against = f"{case}, {samples} samples against {min(len(ours.real), MOST)}"
    for unit in ("frechet", "kernel", "precision", "recall"):
        values = {name: [getattr(found, unit)] for name, found in distances.items()}
        reference = THEIRS if unit == "frechet" else ""  # the others may be 0
        rows += rows_of(PART, against, {OURS: [], THEIRS: [], **values}, reference, unit)
    steps = {name: [float(contender.steps)] for name, contender in contenders.items()}
    rows += rows_of(PART, case, {OURS: [], THEIRS: [], **steps}, THEIRS, "steps")
    counts = f"{our_steps} and {their_steps} steps for a sample, {counted(threads)}"
    return rows + rows_of(PART, counts, {OURS: [], THEIRS: [], **seconds}, THEIRS, "CPU s")


def spend(contenders: Mapping[str, Contender], seconds: float) -> None:
    """Train each contender for that time, in turns."""
    used, reported = dict.fromkeys(contenders, 0.0), 0
    while min(used.values()) < seconds:
        for name, contender in contenders.items():
            turn = min(used[name] + TURN_SECONDS, seconds)
            while used[name] < turn:
                began = time.process_time()
                contender.step(used[name] / seconds)
                used[name] += time.process_time() - began
        if min(used.values()) >= reported:
            done = ", ".join(f"{name} {one.steps} steps" for name, one in contenders.items())
            _say(f"{min(used.values()):.0f} of {seconds:.0f} CPU s: {done}")
            reported += 60


class PixelDigits:
    """Diffusers' side.

    Args:
        images: training images.
    """

    def __init__(self, images: Images):
        whole = torch.cat(list(batches_of(images, list(range(len(images))))))
        self.size = images.size
        padded = pad_to_multiple(whole, SIDE)  # black is 0
        self.training = DiffusersTraining(their_pixel_unet(*UNET, SIDE), padded, BATCH)

    @property
    def steps(self) -> int:
        """Number of steps so far."""
        return self.training.steps

    def step(self, progress: float) -> object:
        """Make one update."""
        return self.training.step(progress)

    def samples(self, count: int, steps: int, seed: int) -> Tensor:
        """Return digits in bytes, cropped to their size."""
        made = self.training.samples(count, steps, AT_ONCE, seed)
        return from_unit(crop_to(made, *self.size))


def _some(images: Images, count: int, seed: int) -> Tensor:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return torch.cat(list(batches_of(images, order[:count].tolist())))


def _distances(made: Mapping[str, Tensor], real: Images) -> dict[str, SetDistance]:
    """Return the distances of each set from the held-out digits."""
    classifier: ImageClassifier = multidiff.load(CLASSIFIER)
    features = describe_all(
        batches_of(real, list(range(min(len(real), MOST)))), classifier.describe
    )
    return {
        name: compare_sets(features, describe_all(one.split(AT_ONCE), classifier.describe))
        for name, one in made.items()
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
