"""Commands of Gaussian-diffusion image models."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidiff.config.option_set import options_as_text
from multidiff.image.canvas_files import Fit, canvas_of, init_files
from multidiff.image.data.provenance import (
    embedding_facts,
    lora_facts,
    model_facts,
    source_facts,
)
from multidiff.image.diffusion.model import Canvas, ImageDiffusion, Size
from multidiff.image.diffusion.sampling_config import SCHEDULER, ImageSamplingConfig
from multidiff.image.hires import enlarged
from multidiff.image.interpolation import interpolate as between
from multidiff.image.interpolation import labelled_frames, write_gif
from multidiff.image.outputs import (
    SAMPLES,
    ImageWriter,
    checked_folder,
    checked_prompts,
    with_seeds,
)
from multidiff.image.replay import Made, made_from
from multidiff.image.stable_diffusion.lora import merge_lora
from multidiff.image.stable_diffusion.textual_inversion import load_embedding
from multidiff.image.stable_diffusion.vae import swap_autoencoder
from multidiff.models.requests import FirstSeeds
from multidiff.utils.errors import InputError
from multidiff.utils.files import lock_dir
from multidiff.utils.report import OnLine, Report, progress

logger = logging.getLogger(__name__)


def sample(
    model: ImageDiffusion,
    *,
    num: int,
    prompts: Sequence[str],
    out: Path | None,
    seed: FirstSeeds,
    sampling: ImageSamplingConfig,
    seeds: tuple[int, ...] = (),
    negative_prompt: list[str] | None = None,
    size: str | None = None,
    init_image: Path | None = None,
    strength: float | None = None,
    mask_image: Path | None = None,
    fit: Fit | None = None,
    feather: int = 0,
    lora: tuple[str, ...] = (),
    embedding: tuple[str, ...] = (),
    vae: Path | None = None,
    interpolate: int = 0,
    hires: float = 1.0,
    hires_strength: float = 0.5,
    from_: Path | None = None,
    no_grid: bool = False,
    on_line: OnLine | None = None,
) -> Report:
    """Write images of each prompt, a PNG each as soon as it is generated, and a grid of all.

    Args:
        model: the model.
        num: number of images of each prompt; image ``i`` of each uses seed ``seed + i``.
        prompts: captions or classes; empty for a model without either.
        out: folder of the images.
        seed: random seed of each prompt's first image; a sequence has one for each.
        sampling: sampling options.
        seeds: seed of each prompt's images, instead of ``seed`` and ``num``.
        negative_prompt: caption that guidance leads away from, one for all prompts or one each.
        size: ``WIDTHxHEIGHT`` in pixels.
        init_image: initial image (img2img), or a folder: each prompt is made from each of its
            images.
        strength: fraction of the initial image replaced by noise first, 0 to 1; by default
            0.8, and 1 with a mask.
        mask_image: image that is white where the initial one is inpainted.
        fit: how initial images and masks are brought to the size, or to the nearest valid one:
            crop, stretch or pad.
        feather: number of pixels around the mask over which the inpainted part fades out.
        lora: LoRA files to merge, each optionally followed by ``:weight``.
        embedding: textual inversions, each optionally followed by ``:token``.
        vae: another autoencoder, a folder or a file.
        interpolate: number of frames from each prompt and seed to the next, both included: a
            strip and a GIF; 0 for none.
        hires: factor by which each image is enlarged and then repainted (hi-res fix); 1 is off.
        hires_strength: fraction of the enlarged image replaced by noise.
        from_: image of an earlier run, which is made again, with the options that differ.
        no_grid: write no image of all.
        on_line: function called with each line of the report as soon as it is known.

    Raises:
        InputError: if an option is wrong.
    """
    folder = checked_folder(SAMPLES if out is None else out)
    given = Made(sampling, list(prompts), seed, negative_prompt, size, strength, init_image,
                 mask_image, fit, feather, lora, embedding, vae, hires, hires_strength)  # fmt: skip
    given = given if from_ is None else made_from(from_, model, given)
    files = init_files(given.init_image)
    about = _files_loaded(model, given)
    run = _Run(model, given, _canvas(model, given, files), files, about)
    pairs = _wanted(model, given, num, seeds)
    if interpolate:
        return run.interpolated(folder, pairs, interpolate, on_line)
    return run.made(folder, pairs, on_line, with_grid=not no_grid)


@dataclass(frozen=True)
class _Run:
    """One run of the command: what is made, and from what."""

    model: ImageDiffusion
    given: Made
    canvas: Canvas | None
    files: list[Path]
    about: list[str]

    def made(
        self,
        folder: Path,
        pairs: list[tuple[str, int]],
        on_line: OnLine | None,
        with_grid: bool = True,
    ) -> Report:
        """Write the images of prompts and seeds, each from each initial image."""
        given, model = self.given, self.model
        negatives = self._negatives(len(pairs), [prompt for prompt, _ in pairs])
        count = max(len(self.files), 1)
        texts, seeds = zip(*[pair for pair in pairs for _ in range(count)], strict=True)
        negatives = [one for one in negatives for _ in range(count)]
        canvas = self.canvas
        if canvas is not None and count > 1:
            image = canvas.image.repeat(len(pairs), 1, 1, 1)
            canvas = Canvas(image, canvas.strength, canvas.mask, canvas.feather)
        each = [{} if one is None else {"negative_prompt": one} for one in negatives]
        if self.files:
            sources = [source_facts(init_image=path) for path in self.files] * len(pairs)
            each = [{**one, **source} for one, source in zip(each, sources, strict=True)]
        pixels = None if given.fit or not given.size else size_of(given.size)
        options = {"negative_prompt": negatives, "config": given.sampling, "seed": seeds}
        with lock_dir(folder), model_facts(model) as facts, progress() as on_step:
            shared = {k: v for k, v in each[0].items() if all(one.get(k) == v for one in each)}
            wanted = list(zip(texts, seeds, strict=True))
            writer = self._writer(folder, wanted, facts, on_line, **shared)
            writer.each = each
            make: dict[str, Any] = {**options, "size": pixels, "canvas": canvas, "on_step": on_step}
            if given.hires == 1:
                model.generate(texts, **make, on_batch=writer.write)
            else:
                again = {**options, "on_step": on_step, "on_batch": writer.write}
                enlarged(model, texts, given.hires, given.hires_strength, make, again)
            return writer.report(with_grid=with_grid)

    def interpolated(
        self, folder: Path, ends: list[tuple[str, int]], frames: int, on_line: OnLine | None
    ) -> Report:
        """Write the frames between prompts and seeds, a strip of them and a GIF."""
        given = self.given
        negatives = {*self._negatives(len(ends), [prompt for prompt, _ in ends])}
        if self.canvas is not None or given.size or given.hires != 1 or len(negatives) > 1:
            raise InputError(
                "--interpolate: goes with one negative prompt, and without --init-image, --size "
                "and --hires"
            )
        wanted = labelled_frames(ends, frames)
        negative = negatives.pop()
        options: dict[str, Any] = {"negative_prompt": negative, "config": given.sampling}
        more = {"interpolate": str(frames)} | (
            {} if negative is None else {"negative_prompt": negative}
        )
        with lock_dir(folder), model_facts(self.model) as facts, progress() as on_step:
            writer = self._writer(folder, wanted, facts, on_line, **more)
            made = between(
                self.model, ends, frames, on_batch=writer.write, on_step=on_step, **options
            )
            path = writer.free("interpolation", ".gif")
            write_gif(made, path)
            writer.say(f"{path}: {len(made)} frames, there and back")
            return writer.report(columns=frames)

    def _writer(
        self,
        folder: Path,
        wanted: list[tuple[str, int]],
        facts_of_model: Any,
        on_line: OnLine | None,
        **more: str,
    ) -> ImageWriter:
        def facts() -> dict[str, str]:
            own = _facts(self.given, self.canvas)
            own |= source_facts(mask_image=self.given.mask_image, vae=self.given.vae)
            own |= lora_facts(self.model) | embedding_facts(self.model) | more
            own |= {"hires_from": self._first_size()} if self.given.hires != 1 else {}
            return facts_of_model() | own

        writer = ImageWriter(folder, wanted, facts, on_line)
        for line in self.about:
            writer.say(line)
        return writer

    def _first_size(self) -> str:
        """Return the size of images before they are enlarged."""
        size = self.model.domain.size
        if self.canvas is not None:
            size = self.canvas.image.shape[3], self.canvas.image.shape[2]
        return self.given.size or f"{size[0]}x{size[1]}"

    def _negatives(self, count: int, prompts: list[str]) -> Sequence[str | None]:
        """Return the negative prompt of each pair: one for all, or one for each prompt."""
        given: Sequence[str | None] = self.given.negative_prompt or [None]
        distinct = [*dict.fromkeys(prompts)]
        if len(given) not in (1, len(distinct)):
            raise InputError(
                f"--negative-prompt: {len(given)} for {len(distinct)} prompts; give one for all, "
                "or one for each"
            )
        if len(given) == 1:
            return [*given] * count
        return [given[distinct.index(prompt)] for prompt in prompts]


def _wanted(
    model: ImageDiffusion, given: Made, num: int, seeds: tuple[int, ...]
) -> list[tuple[str, int]]:
    """Return the prompt and the seed of each image."""
    prompts = checked_prompts(model, given.prompts)
    for one in getattr(model, "embeddings", []):
        texts = [*prompts, *(given.negative_prompt or [])]
        if not any(one.token in text for text in texts):
            logger.warning("%s: no prompt has its token %s", one.name, one.token)
    if not seeds:
        return with_seeds(prompts, given.seed, num)
    if len(seeds) != len(prompts):
        raise InputError(f"--seeds: {len(seeds)} for {len(prompts)} prompts; give one for each")
    return [(prompt, one) for prompt, one in zip(prompts, seeds, strict=True)]


def _canvas(model: ImageDiffusion, given: Made, files: list[Path]) -> Canvas | None:
    return canvas_of(
        files,
        given.strength,
        given.mask_image,
        model.domain.channels,
        size=size_of(given.size) if given.size else None,
        fit=given.fit,
        multiple=model.domain.multiple,
        feather=given.feather,
    )


def _files_loaded(model: ImageDiffusion, given: Made) -> list[str]:
    """Load an autoencoder, LoRAs and embeddings, and return a line on each."""
    lines = []
    if given.vae is not None:
        swap_autoencoder(model, given.vae)
        lines.append(f"{given.vae}: is the autoencoder")
    lines += [_added(model, one) for one in given.lora]
    for text in given.embedding:
        path, token = _named(text)
        found = load_embedding(model, path, token)
        lines.append(f"{path}: {found.count} vectors as {found.token}")
    return lines


def _named(text: str) -> tuple[Path, str | None]:
    """Return a file, and the token after its last colon."""
    name, colon, token = text.rpartition(":")
    whole = not colon or Path(text).is_file() or "/" in token or "\\" in token
    return (Path(text), None) if whole else (Path(name), token)


def size_of(text: str) -> Size:
    """Return width and height from ``WIDTHxHEIGHT``.

    Raises:
        InputError: if it has another form.
    """
    found = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if found is None:
        raise InputError(f"--size {text}: write WIDTHxHEIGHT, such as 512x512")
    return int(found[1]), int(found[2])


def _added(model: ImageDiffusion, text: str) -> str:
    """Merge a LoRA file, and return a line on how much of it fitted."""
    path, weight = _weighed(text)
    report = merge_lora(model, path, weight)
    left = f", {len(report.unmatched)} not" if report.unmatched else ""
    return f"{path}: {len(report.matched)} weights changed{left}"


def _weighed(text: str) -> tuple[Path, float]:
    """Return a file, and the weight after its last colon."""
    name, colon, weight = text.rpartition(":")
    try:
        return (Path(name), float(weight)) if colon else (Path(text), 1.0)
    except ValueError:
        return Path(text), 1.0


def _facts(given: Made, canvas: Canvas | None) -> dict[str, str]:
    """Return the options as facts for every image's file, besides model and files."""
    config = given.sampling
    facts = options_as_text(config)
    facts |= {"replaces": config.replaces} if config.replaces else {}
    if SCHEDULER in (config.sampler, config.timestep_spacing):
        facts["scheduler"] = str(config.scheduler)
    if given.hires != 1:
        facts |= {"hires": f"{given.hires:g}", "hires_strength": f"{given.hires_strength:g}"}
    if canvas is None:
        return facts
    if canvas.strength != 1 and config.strength_of == "time":
        facts["timestep_spacing"] = "even"
    if canvas.strength == 0:
        facts["steps"] = "0"
    facts |= {"fit": given.fit} if given.fit else {}
    facts |= {"feather": str(given.feather)} if given.feather else {}
    return {**facts, "strength": f"{canvas.strength:g}"}
