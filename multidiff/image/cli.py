"""Commands of Gaussian-diffusion image models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from multidiff.image.autoencoders.tiling import set_tiling
from multidiff.image.canvas_files import canvas_of, init_files
from multidiff.image.data.image_files import grid
from multidiff.image.data.provenance import model_facts, source_facts
from multidiff.image.diffusion.model import Canvas, ImageDiffusion
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.interpolation import interpolate as between
from multidiff.image.interpolation import labelled_frames, write_gif
from multidiff.image.latent_files import canvas_of_latents, latent_domain
from multidiff.image.outputs import SAMPLES, ImageWriter, checked_folder
from multidiff.image.plots import XYPlot, sheet
from multidiff.image.plots import xy_plot as plot_of
from multidiff.image.prompt_rows import WantedImage, prompt_rows, wanted_images
from multidiff.image.replay import Made, made_from, request_facts, sampling_facts
from multidiff.image.request import ImageRequest
from multidiff.image.requested import requested_images
from multidiff.image.stable_diffusion.lora import merge_lora
from multidiff.image.stable_diffusion.textual_inversion import load_embedding
from multidiff.image.stable_diffusion.vae import swap_autoencoder
from multidiff.image.variations import Variation
from multidiff.models.requests import FirstSeeds
from multidiff.nn.attention import attention_slicing
from multidiff.utils.errors import InputError
from multidiff.utils.files import lock_dir
from multidiff.utils.report import OnLine, Report, progress

PLAIN = ImageRequest()


def sample(
    model: ImageDiffusion,
    *,
    num: int,
    prompts: Sequence[str],
    out: Path | None,
    sampling: ImageSamplingConfig,
    seed: FirstSeeds | None = None,
    request: ImageRequest = PLAIN,
    seeds: tuple[int, ...] = (),
    negative_prompt: list[str] | None = None,
    prompt_table: Path | None = None,
    interpolate: int = 0,
    xy_plot: tuple[str, ...] = (),
    from_: Path | None = None,
    save_latents: bool = False,
    no_grid: bool = False,
    on_line: OnLine | None = None,
) -> Report:
    """Write images of each prompt, a PNG each as soon as it is generated, and a grid of all.

    Args:
        model: the model.
        num: number of images of each prompt; image ``i`` of each uses seed ``seed + i``.
        prompts: captions or classes; empty for a model without either.
        out: folder of the images.
        sampling: sampling options.
        seed: random seed of each prompt's first image; a sequence has one for each; None for
            that of the image ``from_``, or 0 without one.
        request: size, inputs and what is loaded for them.
        seeds: seed of each prompt's images, instead of ``seed`` and ``num``.
        negative_prompt: caption that guidance leads away from, one for all prompts or one each.
        prompt_table: .csv, .tsv or .jsonl file with columns prompt, negative_prompt and seed.
        interpolate: number of frames from each prompt and seed to the next, both included: a
            strip and a GIF; 0 for none.
        xy_plot: one or two sampling options with their values, such as
            ``guidance-scale=3,7,steps=10,20``: an image of each pair, on one labelled sheet.
        from_: image of an earlier run, which is made again, with the options that differ.
        save_latents: also write each image's latents, for ``--init-latents``.
        no_grid: write no image of all.
        on_line: function called with each line of the report as soon as it is known.

    Raises:
        InputError: if an option is wrong.
    """
    folder = checked_folder(SAMPLES if out is None else out)
    if seeds and num != 1:
        raise InputError(f"-n {num}: --seeds gives each prompt one image; leave one of them out")
    if interpolate and (xy_plot or save_latents):
        raise InputError("--interpolate: leave out --xy-plot and --save-latents beside it")
    given = Made(sampling, request, list(prompts), negative_prompt, seed)
    given = given if from_ is None else made_from(from_, model, given)
    if prompt_table is not None:
        given = replace(given, prompts=list(prompts), negative_prompt=negative_prompt)
    rows = prompt_rows(given.prompts, given.negative_prompt, prompt_table)
    plot = plot_of(xy_plot, given.sampling) if xy_plot else None
    files = init_files(given.request.init_image)
    about = loaded_lines(model, given.request)
    canvas = _canvas(model, given.request, files)
    given.check({*request.overrides, *sampling.overrides}, canvas)
    if save_latents:
        latent_domain(model, "--save-latents")
    first = 0 if given.seed is None else given.seed
    wanted = wanted_images(model, rows, given.request, num, first, seeds, files)
    run = _Run(model, given, canvas, wanted, about, on_line)
    with attention_slicing(given.request.attention_slicing):
        if interpolate:
            return run.interpolated(folder, interpolate, with_grid=not no_grid)
        return run.made(folder, plot, with_grid=not no_grid, save_latents=save_latents)


@dataclass(frozen=True)
class _Run:
    """One run of the command: what is made, and from what."""

    model: ImageDiffusion
    given: Made
    canvas: Canvas | None
    wanted: list[WantedImage]
    about: list[str]
    on_line: OnLine | None

    def made(
        self, folder: Path, plot: XYPlot | None, *, with_grid: bool, save_latents: bool
    ) -> Report:
        """Write the images: all that are wanted, with the options of each place of a plot."""
        model, request, config = self.model, self.given.request, self.given.sampling
        configs = [config] if plot is None else plot.configs
        count = len(self.wanted)
        make, texts = self._arguments(), [one.prompt for one in self.wanted]
        with lock_dir(folder), model_facts(model) as facts, progress() as on_step:
            each = [
                {**one.facts(), **self._plotted(own, plot), **source_facts(init_image=one.file)}
                for own in configs
                for one in self.wanted
            ]
            shared = {k: v for k, v in each[0].items() if all(one.get(k) == v for one in each)}
            pairs = [(one.prompt, one.seed) for _ in configs for one in self.wanted]
            writer = self._writer(folder, pairs, facts, shared, {} if plot else None)
            writer.each = each
            for number, own in enumerate(configs):
                first = number * count

                def write(at: int, images: Tensor, first: int = first) -> None:
                    writer.write(first + at, images)

                def keep(at: int, states: Tensor, first: int = first) -> None:
                    writer.keep_latents(first + at, states)

                more = {"on_latents": keep} if save_latents else {}
                whole = {**make, "config": own, "on_step": on_step}
                requested_images(model, texts, request, whole, write, **more)
            arrange = grid if plot is None else partial(self._sheet, plot)
            return writer.report(arrange, with_grid)

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of ``model.generate`` that all images share."""
        request, canvas = self.given.request, self.canvas
        files = len({one.file for one in self.wanted})
        if canvas is not None and files > 1:
            image = canvas.image.repeat(len(self.wanted) // files, 1, 1, 1)
            canvas = replace(canvas, image=image)
        seeds = [one.variation_seed for one in self.wanted]
        strength = request.variation_strength
        varied = [one for one in seeds if one is not None]
        keeps = request.fit or request.outpaint or request.init_latents
        return {
            "seed": [one.seed for one in self.wanted],
            "negative_prompt": [one.negative_prompt for one in self.wanted],
            "size": None if keeps else request.pixels,
            "canvas": canvas,
            "variation": Variation(varied, strength) if varied else None,
        }

    def _plotted(self, config: ImageSamplingConfig, plot: XYPlot | None) -> dict[str, str]:
        return {} if plot is None else sampling_facts(config, self.canvas)

    def _sheet(self, plot: XYPlot, images: Tensor) -> Tensor:
        """Return the sheet of a plot: rows of each image that is wanted, one after the other."""
        by_image = images.unflatten(0, (len(plot.configs), -1)).transpose(0, 1).flatten(0, 1)
        labels = plot.rows
        if len(self.wanted) > 1:
            about = [f"{one.prompt[:24]} {one.seed}" for one in self.wanted]
            labels = [f"{one} {label}".strip() for one in about for label in plot.rows]
        return sheet(by_image, plot.columns, labels)

    def interpolated(self, folder: Path, frames: int, *, with_grid: bool) -> Report:
        """Write the frames between prompts and seeds, a strip of them and a GIF."""
        given, ends = self.given, [(one.prompt, one.seed) for one in self.wanted]
        negatives = {one.negative_prompt for one in self.wanted}
        others = {"size", "hires", "variation_strength"} & {*given.request.overrides}
        if self.canvas is not None or others or len(negatives) > 1:
            raise InputError(
                "--interpolate: goes with one negative prompt, and without --init-image, --size, "
                "--hires and --variation-strength"
            )
        wanted = labelled_frames(ends, frames)
        negative = negatives.pop()
        options: dict[str, Any] = {"negative_prompt": negative, "config": given.sampling}
        more = {"interpolate": str(frames)} | (
            {} if negative is None else {"negative_prompt": negative}
        )
        with lock_dir(folder), model_facts(self.model) as facts, progress() as on_step:
            writer = self._writer(folder, wanted, facts, more)
            made = between(
                self.model, ends, frames, on_batch=writer.write, on_step=on_step, **options
            )
            path = writer.free("interpolation", ".gif")
            write_gif(made, path)
            writer.say(f"{path}: {len(made)} frames, there and back")
            return writer.report(partial(grid, columns=frames), with_grid)

    def _writer(
        self,
        folder: Path,
        pairs: list[tuple[str, int]],
        facts_of_model: Any,
        more: Mapping[str, str],
        sampling: dict[str, str] | None = None,
    ) -> ImageWriter:
        def facts() -> dict[str, str]:
            own = sampling_facts(self.given.sampling, self.canvas) if sampling is None else sampling
            own = own | request_facts(self.model, self.given.request, self.canvas)
            return {**facts_of_model(), **own, **more}

        writer = ImageWriter(folder, pairs, facts, self.on_line)
        for line in self.about:
            writer.say(line)
        return writer


def _canvas(model: ImageDiffusion, given: ImageRequest, files: list[Path]) -> Canvas | None:
    domain = model.domain
    latents = partial(canvas_of_latents, model=model, size=given.pixels)
    return canvas_of(files, given, domain.channels, domain.multiple, latents)


def loaded_lines(model: ImageDiffusion, given: ImageRequest) -> list[str]:
    """Load an autoencoder, LoRAs and embeddings, and return a line on each."""
    lines = []
    if given.vae is not None:
        swap_autoencoder(model, given.vae)
        lines.append(f"{given.vae}: is the autoencoder")
    if given.vae_tiling:
        set_tiling(latent_domain(model, "--vae-tiling").autoencoder, given.vae_tiling)
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
