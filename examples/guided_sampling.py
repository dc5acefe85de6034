"""Sample digits by prompt at several scales of classifier-free guidance, one row a scale.

    python examples/guided_sampling.py "a handwritten seven" --scales 1 1.5 4 --out sevens.png

Larger scales make samples more typical of the prompt and less varied, which the script prints.
"""

import argparse
from pathlib import Path

import torch

import multidiff as md
from multidiff.image.data.image_files import grid, write_image


def main(arguments: list[str] | None = None) -> dict[float, float]:
    """Write the rows, and return the mean pixel variance across the samples of each scale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?", default="a handwritten seven")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5, 4.0])
    parser.add_argument("--num", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("guidance.png"))
    options = parser.parse_args(arguments)

    model = md.load("digits")
    rows, variety = [], {}
    for scale in options.scales:
        images = model.generate(  # uint8 (num, 1, 28, 28); image i has seed i at every scale
            [options.prompt] * options.num, steps=options.steps, guidance_scale=scale, seed=0
        )
        rows.append(images)
        variety[scale] = (images.float() / 255).var(dim=0).mean().item()
        print(f"guidance scale {scale:g}: variance across samples {variety[scale]:.4f}")
    write_image(grid(torch.cat(rows), columns=options.num), options.out, {"prompt": options.prompt})
    print(options.out)
    return variety


if __name__ == "__main__":
    main()
