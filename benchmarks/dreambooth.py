"""DreamBooth on six images of one subject: what is learnt, and what of their class is kept.

    python -m benchmarks.dreambooth draw data/star
    python -m benchmarks.dreambooth measure data/star digits runs/digits_dreambooth

``draw`` writes six stars of five points at slightly different places, sizes and angles, which
`digits` never saw. ``measure`` prints, for each model: the mean squared distance in grey levels of
samples with the subject's prompt to the nearest of the six images, and of samples with the prompt
of the class alone, which become the subject too if the class is forgotten; and how many samples of
the ten digits show the digit that was asked for (by the classifier `digit-features`).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import multidiff as md
from multidiff.image.data.image_files import EXTENSIONS, read_image, to_unit, write_image
from multidiff.utils.report import table

COUNT, SIDE, POINTS = 6, 28, 5
FINER = 8  # factor of the size at which stars are drawn before they are reduced
SUBJECT, CLASS = "a sks digit", "a digit"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def star(seed: int) -> Tensor:
    """Return a star in white on black, ``(1, side, side)``."""
    rng = np.random.default_rng(seed)
    middle = SIDE / 2 + rng.uniform(-0.7, 0.7, 2)
    radius, turn = rng.uniform(9.3, 10.3), rng.uniform(-0.08, 0.08) - math.pi / 2
    angles = turn + 4 * math.pi * np.arange(POINTS + 2) / POINTS  # to every second point
    corners = middle + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    canvas = Image.new("L", (SIDE * FINER, SIDE * FINER))
    line = [(x * FINER, y * FINER) for x, y in corners]
    ImageDraw.Draw(canvas).line(line, fill=255, width=2 * FINER, joint="curve")
    small = canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small))[None]


def draw(folder: Path) -> None:
    """Write the six images."""
    for number in range(COUNT):
        write_image(star(number), folder / f"{number}.png")


def distances(made: Tensor, images: Tensor) -> Tensor:
    """Return the mean squared difference of each image of one set to the nearest of another."""
    pairs = (made[:, None].float() - images[None].float()).square().mean(dim=(2, 3, 4))
    return pairs.min(dim=1).values


def between(images: Tensor) -> float:
    """Return the mean distance of the images to the nearest of the others."""
    others = [torch.cat([images[:n], images[n + 1 :]]) for n in range(len(images))]
    pairs = zip(images, others, strict=True)
    return float(torch.stack([distances(one[None], rest)[0] for one, rest in pairs]).mean())


def measured(model: Any, images: Tensor, judge: Any, count: int, steps: int) -> list[str]:
    """Return the row of a model: both distances, and the fraction of right digits."""
    options = {"seed": 0, "steps": steps}
    cells = []
    for prompt in (SUBJECT, CLASS):
        made = model.generate([prompt] * count, **options)
        cells.append(f"{float(distances(made, images).mean()):,.0f}")
    wanted = torch.arange(10).repeat(count // 10)
    made = model.generate([f"a handwritten {DIGITS[label]}" for label in wanted], **options)
    right = judge(to_unit(made)).argmax(dim=1) == wanted
    return [*cells, f"{float(right.float().mean()):.3f}"]


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="DreamBooth on six images.")
    parser.add_argument("action", choices=["draw", "measure"])
    parser.add_argument("images", type=Path, help="folder of the six images")
    parser.add_argument("models", nargs="*", help="models to measure")
    parser.add_argument("--num", type=int, default=100, help="samples of each kind")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    if options.action == "draw":
        draw(options.images)
        return
    files = sorted(p for p in options.images.iterdir() if p.suffix.lower() in EXTENSIONS)
    images = torch.stack([read_image(path, channels=1) for path in files])
    judge: Any = md.load("digit-features")
    print(f"the {len(images)} images among themselves: {between(images):,.0f}")
    heading = ["model", f"'{SUBJECT}' to the nearest", f"'{CLASS}'", "right digits"]
    rows = [
        [name, *measured(md.load(name), images, judge, options.num, options.steps)]
        for name in options.models
    ]
    print(*table([heading, *rows]), sep="\n")


if __name__ == "__main__":
    main()
