r"""What a model of emoji by prompt has learnt: retrieval, attributes, styles, memorisation.

    python -m benchmarks.emoji MODEL data/emoji --judge runs/emoji_styles

The folder is that of benchmarks/emoji_data.py. The judge of styles sees no sample of any model; it
has 32x32 pixels, as the model's network, since enlarged outlines look filled to one of 64x64:

    multidiff train recipes/image/digit_features.yaml --out runs/emoji_styles model.channels=3 \
      model.size=[32,32] model.classes=4 model.turn_degrees=0 trainer.steps=1000 \
      data.examples.size=[32,32] data.examples.channels=3 \
      data.examples.source='{path: data/emoji, split: train, label_column: style}' \
      validation.examples.size=[32,32] validation.examples.channels=3 \
      validation.examples.source='{path: data/emoji, split: test, label_column: style}'

Retrieval: the rank of the true image among all of its pool, by 16x16 pixels and by histograms of
gradients with colour. The copy baseline answers with the training image of the name in another
style. Attributes: prompts of two attributes, such as a hue and a place, right only if
both hold on the sample and the name's own image, edited alike, is among the five nearest in grey.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import multidiff as md
from multidiff.image.data.augmentation import (
    COLOUR_WORDS,
    HUES,
    LEAST_BACKGROUND,
    LEAST_COLOURED,
    PLACES,
    as_pixels,
    background_of,
    coloured_ratio,
    on_background,
    placed,
    recoloured,
    rgb_of,
    side_by_side,
)
from multidiff.image.data.image_files import to_unit
from multidiff.image.data.images import Images, ImageSource
from multidiff.image.prompts import split_style
from multidiff.image.tokenizers import words_of
from multidiff.utils.report import table

AT_ONCE, SIDE = 25, 64
SEED = 7
NEAREST = 5
# Largest difference of a sample's hue from the named one, in degrees.
HUE_APART = 25.0


@dataclass(frozen=True)
class Emoji:
    """Images with their names and styles.

    Attributes:
        images: bytes ``(images, 3, height, width)``.
        captions: prompt of each.
    """

    images: Tensor
    captions: list[str]

    @classmethod
    def read(cls, folder: str, split: str) -> Emoji:
        """Return the images of one side of the split."""
        found = Images(ImageSource(folder, split=split))
        captions = [found.caption_of(n, np.random.default_rng(0)) for n in range(len(found))]
        return cls(torch.stack([found.image(n) for n in range(len(found))]), captions)

    def __getitem__(self, rows: Sequence[int]) -> Emoji:
        return Emoji(self.images[list(rows)], [self.captions[row] for row in rows])

    @property
    def names(self) -> list[str]:
        """Name of each image."""
        return [split_style(one)[0] for one in self.captions]

    @property
    def styles(self) -> list[str]:
        """Style of each image."""
        return [split_style(one)[1] or "" for one in self.captions]


def pixels(images: Tensor) -> Tensor:
    """Return images at 16x16 pixels as rows."""
    return F.adaptive_avg_pool2d(images.float() / 255, 16).flatten(1)


def gradients(images: Tensor, colour: bool = True) -> Tensor:
    """Return histograms of unsigned gradients in cells of 8x8 pixels, and mean colours of 4x4."""
    grey = images.float().mean(dim=1) / 255
    across, down = F.pad(grey.diff(dim=2), (0, 1)), F.pad(grey.diff(dim=1), (0, 0, 0, 1))
    size, angle = torch.hypot(across, down), torch.atan2(down, across) % torch.pi
    bins = (angle / torch.pi * 8).long().clamp(max=7)
    votes = F.one_hot(bins, 8).permute(0, 3, 1, 2) * size[:, None]
    found = F.normalize(F.avg_pool2d(votes, 8).flatten(1).sqrt(), dim=1)
    if not colour:
        return found
    means = F.adaptive_avg_pool2d(images.float() / 255, 4).flatten(1)
    return torch.cat([found, F.normalize(means - means.mean(), dim=1)], dim=1)


FEATURES = {"16x16 pixels": pixels, "gradients and colour": gradients}


def ranks(queries: Tensor, pool: Tensor, truth: Sequence[int]) -> np.ndarray:
    """Return the rank from 0 of each query's true row of the pool, by Euclidean distance."""
    far = torch.cdist(queries, pool)
    own = far[range(len(far)), list(truth)]
    return (far < own[:, None]).sum(dim=1).numpy()


def recalls(found: np.ndarray) -> str:
    """Return R@1 and R@5 as text."""
    return f"{np.mean(found < 1):.3f} / {np.mean(found < NEAREST):.3f}"


def drawn(model: Any, prompts: Sequence[str], **options: Any) -> Tensor:
    """Return a sample of each prompt, of seeds from 0 on, at the size of the data."""
    made = model.generate(list(prompts), seed=0, batch_size=AT_ONCE, **options)
    if made.shape[-1] >= SIDE:
        return made
    larger = F.interpolate(made.float(), SIDE, mode="bicubic", antialias=True)
    return larger.round().clamp(0, 255).to(torch.uint8)


def retrieval(title: str, made: Tensor, pool: Emoji, copies: list[list[Tensor]]) -> list[list[str]]:
    """Return rows of recalls of samples, and of copies in other styles, by style.

    Args:
        title: name of the pool.
        made: sample of each image's prompt.
        pool: real images.
        copies: images of the same name in other styles, of each image.
    """
    rows, styles = [], np.array(pool.styles)
    for name, describe in FEATURES.items():
        reference = describe(pool.images)
        found = ranks(describe(made), reference, range(len(made)))
        owner = [row for row, several in enumerate(copies) for _ in several]
        copied = [one for several in copies for one in several]
        other = ranks(describe(torch.stack(copied)), reference, owner) if copied else np.empty(0)
        for style in ("all", *sorted(set(styles))):
            chosen = styles == style if style != "all" else np.ones(len(styles), bool)
            base = other[chosen[owner]] if copied else other
            row = [title, name, style, str(int(chosen.sum())), recalls(found[chosen])]
            rows.append([*row, recalls(base) if len(base) else "-", f"{1 / len(pool.images):.3f}"])
    return rows


def copies_of(pool: Emoji, trained: Emoji) -> list[list[Tensor]]:
    """Return the training images of each image's name in other styles."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(trained.names):
        by_name[name].append(row)
    return [
        [trained.images[row] for row in by_name[name] if trained.styles[row] != style]
        for name, style in zip(pool.names, pool.styles, strict=True)
    ]


@dataclass(frozen=True)
class Wanted:
    """A prompt of two attributes.

    Attributes:
        kind: kinds of the attributes.
        prompt: the prompt.
        name: name of the (first) object.
        style: style.
        hue: hue of the object, or None.
        ground: hue of the background, or None.
        place: corner, or None.
        beside: image beside it, or None.
    """

    kind: str
    prompt: str
    name: str
    style: str
    hue: str | None = None
    ground: str | None = None
    place: str | None = None
    beside: np.ndarray | None = None

    def edited(self, image: np.ndarray) -> np.ndarray:
        """Return an image edited as the prompt says."""
        image = image if self.hue is None else recoloured(image, HUES[self.hue])
        image = image if self.place is None else placed(image, self.place, (2, 2))
        image = image if self.beside is None else side_by_side(image, self.beside)
        if self.ground is not None:
            image = on_background(image, background_of(image), rgb_of(HUES[self.ground], 0.6, 0.92))
        return image

    def holds(self, image: np.ndarray) -> bool:
        """Return whether both attributes hold on a sample."""
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        ground = np.median(edge, axis=0)
        there = np.abs(image.astype(int) - ground).max(axis=2) > 40
        if there.mean() < 0.01:
            return False
        if self.ground is not None and not near_hue(ground[None], self.ground):
            return False
        if self.ground is None and ground.min() < 200:
            return False
        where = np.argwhere(there)
        middle = where.mean(axis=0) / len(image)
        if self.place is not None:
            below, right = middle > 0.5
            found = f"{'bottom' if below else 'top'} {'right' if right else 'left'}"
            if found != self.place or (np.ptp(where, axis=0) > 0.75 * len(image)).any():
                return False
        if self.beside is not None:
            half = image.shape[1] // 2
            there, image = there[:, :half], image[:, :half]
        return self.hue is None or near_hue(image[there], self.hue)


def near_hue(colours: np.ndarray, name: str) -> bool:
    """Return whether the saturated ones of some colours have a named hue, in the median."""
    from PIL import Image

    hsv = np.array(Image.fromarray(colours.round().astype(np.uint8)[None]).convert("HSV"))[0]
    hues = hsv[hsv[:, 1] >= 50, 0] / 255 * 360
    if len(hues) < 0.2 * len(hsv):
        return False
    apart = (hues - HUES[name] + 180) % 360 - 180
    return bool(abs(np.median(apart)) <= HUE_APART)


def attribute_prompts(trained: Emoji, count: int) -> list[Wanted]:
    """Return prompts of two attributes, drawn from a seed."""
    rng = np.random.default_rng(SEED)
    found: list[Wanted] = []
    kinds = ("hue and background", "hue and place", "place and background", "hue in a pair")
    while len(found) < count:
        kind = kinds[len(found) % len(kinds)]
        row = int(rng.integers(len(trained.captions)))
        name, style, image = trained.names[row], trained.styles[row], trained.images[row]
        drawing = as_pixels(image)
        if COLOUR_WORDS & {*words_of(name)} or "and" in words_of(name):
            continue
        if background_of(drawing).mean() < LEAST_BACKGROUND:
            continue
        if "hue" in kind and coloured_ratio(drawing) < LEAST_COLOURED:
            continue
        hue, ground = (list(HUES)[i] for i in rng.choice(len(HUES), 2, replace=False))
        options: dict[str, Any] = {"hue": hue} if "hue" in kind else {}
        text = f"{hue} {name}" if options else name
        if "place" in kind:
            options["place"] = PLACES[rng.integers(4)]
            text = f"small {text}, {options['place']}"
        if "pair" in kind:
            others = [n for n, one in enumerate(trained.styles) if one == style]
            other = others[rng.integers(len(others))]
            options["beside"] = as_pixels(trained.images[other])
            text = f"{text} and {trained.names[other]}"
        if "background" in kind:
            options["ground"] = ground
            text = f"{text} on {'an' if ground[0] in 'aeiou' else 'a'} {ground} background"
        found.append(Wanted(kind, f"{text}, {style} style", name, style, **options))
    return found


def attributes(model: Any, everything: Emoji, trained: Emoji, count: int) -> list[list[str]]:
    """Return rows of how often attributes hold and the name is recognised, by kind.

    The last two rows check the judge: it must be right about real images edited as the prompts say,
    and about the same images as they are.
    """
    wanted = attribute_prompts(trained, count)
    made = drawn(model, [one.prompt for one in wanted])
    styles, results, checks = np.array(everything.styles), defaultdict(list), defaultdict(list)
    for one, sample in zip(wanted, made, strict=True):
        rows = np.flatnonzero(styles == one.style)
        edited = np.stack([one.edited(as_pixels(everything.images[row])) for row in rows])
        pool = gradients(torch.from_numpy(edited).permute(0, 3, 1, 2), colour=False)
        own = [n for n, row in enumerate(rows) if everything.names[row] == one.name]
        rank = ranks(gradients(sample[None], colour=False), pool, own)[0]
        results[one.kind].append((one.holds(as_pixels(sample)), rank < NEAREST))
        real = as_pixels(everything.images[rows[own[0]]])
        checks["edited real images"].append(one.holds(one.edited(real)))
        checks["the same, not edited"].append(one.holds(real))
    results["all"] = [pair for several in [*results.values()] for pair in several]
    rows = []
    for kind, pairs in results.items():
        hold, named = (np.array(one) for one in zip(*pairs, strict=True))
        ratios = [f"{np.mean(one):.3f}" for one in (hold, named, hold & named)]
        rows.append([kind, str(len(pairs)), *ratios])
    checked = [[k, str(len(v)), f"{np.mean(v):.3f}", "-", "-"] for k, v in checks.items()]
    return rows + checked


def style_accuracy(judge: Any, images: Tensor, styles: Sequence[str]) -> float:
    """Return the ratio of images whose style the judge names; its labels are the sorted styles.

    Images are reduced to the judge's size.
    """
    names, (width, height) = sorted({*styles}), judge.size
    images = F.adaptive_avg_pool2d(images.float(), (height, width)).round().to(torch.uint8)
    with torch.no_grad():
        found = torch.cat([judge(to_unit(part)).argmax(dim=1) for part in images.split(AT_ONCE)])
    return float(
        np.mean([names[int(one)] == style for one, style in zip(found, styles, strict=True)])
    )


def nearest(images: Tensor, trained: Tensor) -> np.ndarray:
    """Return the root mean square distance of each image to the nearest training one, in [0, 1]."""
    rows, pool = (one.flatten(1).float() / 255 for one in (images, trained))
    return (torch.cdist(rows, pool).min(dim=1).values / rows.shape[1] ** 0.5).numpy()


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description="Measure a model of emoji by prompt.")
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--judge", help="classifier of the four styles")
    parser.add_argument("--seen", type=int, default=196, help="training prompts; 0 for none")
    parser.add_argument("--attributes", type=int, default=200, help="prompts of two attributes")
    options = parser.parse_args()
    model: Any = md.load(options.model)
    trained, held_out = Emoji.read(options.data, "train"), Emoji.read(options.data, "test")
    made = drawn(model, held_out.captions)
    heading = ["prompts", "features", "style", "images", "R@1 / R@5", "copy baseline", "chance"]
    rows = retrieval("held out", made, held_out, copies_of(held_out, trained))
    if options.seen:
        chosen = np.random.default_rng(SEED).permutation(len(trained.captions))[: options.seen]
        seen = trained[chosen.tolist()]
        rows += retrieval("trained on", drawn(model, seen.captions), seen, [[]] * len(chosen))
    print(*table([heading, *rows]), sep="\n", flush=True)
    near = [np.median(nearest(one, trained.images)) for one in (made, held_out.images)]
    print(f"\nnearest training image, median RMS: samples {near[0]:.3f}, held-out {near[1]:.3f}")
    if options.judge:
        judge: Any = md.load(options.judge)
        right = [style_accuracy(judge, one, held_out.styles) for one in (held_out.images, made)]
        print(f"style named right by the judge: held-out {right[0]:.3f}, samples {right[1]:.3f}")
    if options.attributes:
        both = Emoji(
            torch.cat([trained.images, held_out.images]), trained.captions + held_out.captions
        )
        found = attributes(model, both, trained, options.attributes)
        heading = ["attributes", "prompts", "hold", f"name in {NEAREST} nearest", "both"]
        print("", *table([heading, *found]), sep="\n")


if __name__ == "__main__":
    main()
