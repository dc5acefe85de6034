"""Shared parts of the image commands: writing images into a folder, and reading masks."""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from multidiff.image.data.image_files import grid, write_image
from multidiff.image.latent_files import write_latents
from multidiff.models.requests import FirstSeeds, seed_ranges
from multidiff.utils.errors import InputError
from multidiff.utils.report import OnLine, Report

logger = logging.getLogger(__name__)

SAMPLES = Path("samples")
GRID = "grid"
LONGEST_NAME = 40
NUMBERED = re.compile(r"(\d{3,})(-.*)?\.png")


class Prompted(Protocol):
    """A model of images, optionally conditioned on prompts."""

    domain: Any


def checked_folder(folder: Path) -> Path:
    """Return a folder that images may be written to.

    Raises:
        InputError: if it is a file.
    """
    if folder.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
        raise InputError(f"-o {folder}: several files are written; name a folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder}: is a file; name a folder")
    return folder


def checked_prompts(model: Prompted, prompts: Sequence[str]) -> list[str]:
    """Return prompts that the model can read; an empty one if it needs none.

    Raises:
        InputError: if it reads none, needs one, or a prompt describes nothing.
    """
    reads = model.domain.reads
    if reads == "nothing" and prompts:
        raise InputError(f"--prompt {prompts[0]}: this model was trained without prompts")
    if reads == "prompt" and not prompts:
        raise InputError("--prompt: is missing; describe the images")
    if prompts and reads == "prompt":
        model.domain.check_prompts(prompts)
    for complaint in map(model.domain.complaint, prompts):
        if complaint:
            logger.warning("%s", complaint)
    return list(prompts) or [""]


def with_seeds(prompts: Sequence[str], seed: FirstSeeds, num: int) -> list[tuple[str, int]]:
    """Return each prompt with the seed of each of its images.

    Args:
        prompts: the prompts.
        seed: random seed of each prompt's first image; a sequence has one for each.
        num: number of images of each.
    """
    ranges = seed_ranges(seed, len(prompts), num)
    return [(prompt, one) for prompt, own in zip(prompts, ranges, strict=True) for one in own]


class ImageWriter:
    """Writes images into a folder as they are generated, and never over another file.

    Numbers continue after the highest in the folder, as other programs of the field count: a
    second run adds to the first. The caller holds the folder's lock.

    Args:
        folder: output folder.
        wanted: prompt and seed of each image.
        facts: function for the metadata of every file; called once, at the first image.
        on_line: function called with each line of the report.
    """

    def __init__(
        self,
        folder: Path,
        wanted: Sequence[tuple[str, int]],
        facts: Callable[[], dict[str, str]],
        on_line: OnLine | None = None,
    ):
        self.folder, self.wanted, self._facts, self._on_line = folder, wanted, facts, on_line
        self.first = _next_number(folder)
        self.each: Sequence[Mapping[str, str]] = ()  # further metadata of each image
        self.latents: dict[int, Tensor] | None = None  # of images to be written, if they are kept
        self.lines: list[str] = []
        self.facts: dict[str, str] = {}
        self._written: list[tuple[Path, str, int]] = []
        self._images: list[Tensor] = []
        self._began = time.perf_counter()

    def say(self, line: str) -> None:
        """Add a line to the report, and pass it to ``on_line`` at once."""
        self.lines.append(line)
        if self._on_line is not None:
            self._on_line(line)

    def write(self, first: int, images: Tensor) -> None:
        """Write a PNG for each of some images, with its prompt and seed in the name.

        Args:
            first: index of the first, among all requested images.
            images: bytes ``(batch, channels, height, width)``.
        """
        if not self.facts:
            self.facts = {**self._facts(), "size": f"{images.shape[3]}x{images.shape[2]}"}
        for number, image in enumerate(images, first):
            prompt, seed = self.wanted[number]
            words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-")[:LONGEST_NAME]
            name = "-".join(str(p) for p in (f"{self.first + number:03d}", words, seed) if p != "")
            path = self.folder / f"{name}.png"
            own = {"prompt": prompt, "seed": str(seed), **self.facts}
            own |= self.each[number] if self.each else {}
            write_image(image, path, {**own, "parameters": parameters(own)})
            if self.latents is not None:
                write_latents(self.latents.pop(number), path.with_suffix(".safetensors"), own)
            self._written.append((path, prompt, seed))
            self.say(f"{path}: {prompt or 'an image'}, seed {seed}")
        self._images.append(images)

    def keep_latents(self, first: int, states: Tensor) -> None:
        """Keep the latents of images that are written next, to be written beside them."""
        self.latents = {**(self.latents or {}), **dict(enumerate(states.cpu(), first))}

    def free(self, stem: str, ending: str = ".png") -> Path:
        """Return an unused file name for an image of the whole run."""
        names = (f"{stem}-{self.first:03d}" + (f"-{n}" if n else "") for n in itertools.count())
        paths = (self.folder / f"{name}{ending}" for name in itertools.chain([stem], names))
        return next(path for path in paths if not path.exists())

    def report(self, arrange: Callable[[Tensor], Tensor] = grid, with_grid: bool = True) -> Report:
        """Write an image of all images, and return the command's report.

        Args:
            arrange: function that makes it; a grid, about square, by default.
            with_grid: whether to write it.
        """
        path = self._write_grid(arrange) if with_grid else self.folder
        seconds = time.perf_counter() - self._began
        self.say(f"{path}: {len(self._written)} images, {seconds:.1f} s")
        facts = {
            "outputs": [{"path": str(p), "prompt": t, "seed": n} for p, t, n in self._written],
            **({"grid": str(path)} if with_grid else {}),
            **self.facts,
            "wall_seconds": round(seconds, 3),
        }
        return Report(self.lines, facts)

    def _write_grid(self, arrange: Callable[[Tensor], Tensor]) -> Path:
        path = self.free(GRID)
        everything = {
            "prompt": " | ".join(dict.fromkeys(prompt for prompt, _ in self.wanted)),
            "seed": " ".join(str(seed) for _, seed in self.wanted),
        }
        write_image(arrange(torch.cat(self._images)), path, {**everything, **self.facts})
        return path


def parameters(facts: Mapping[str, str]) -> str:
    """Return an image's metadata as the text that stable-diffusion-webui writes and others read."""
    negative = facts.get("negative_prompt")
    lines = [facts["prompt"], *([f"Negative prompt: {negative}"] if negative else [])]
    known = {
        "Steps": facts.get("steps"),
        "Sampler": facts.get("scheduler", facts.get("sampler")),
        "CFG scale": facts.get("guidance_scale"),
        "Seed": facts["seed"],
        "Size": facts.get("size"),
        "Model hash": facts.get("weights", "")[:10] or None,
        "Model": facts.get("model"),
        "Denoising strength": facts.get("strength"),
        "Variation seed": facts.get("variation_seed"),
        "Variation seed strength": facts.get("variation_strength"),
        "Version": f"multidiff {facts['multidiff']}" if "multidiff" in facts else None,
    }
    return "\n".join([*lines, ", ".join(f"{k}: {v}" for k, v in known.items() if v is not None)])


def _next_number(folder: Path) -> int:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = [NUMBERED.fullmatch(name) for name in names]
    return max((int(one[1]) + 1 for one in found if one), default=0)
