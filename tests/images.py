"""Small images that tell their number."""

import numpy as np
from PIL import Image


def rng(seed=0):
    return np.random.default_rng(seed)


def write(path, number, width=8, height=6):
    """An image all of whose pixels are noise but the first, which is its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    levels[0, 0] = number
    Image.fromarray(levels).save(path)
    return path


def numbers(images):
    return [int(images.image(index)[0, 0, 0]) for index in range(len(images))]


def rows_of(folder, count=4):
    """Rows of a data set as the library's writers make them."""
    files = [write(folder / f"{n}.png", n) for n in range(count)]
    return [{"bytes": file.read_bytes(), "path": file.name} for file in files]
