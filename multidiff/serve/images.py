"""Images behind the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field

from multidiff.config.option_set import options_as_text
from multidiff.image.canvas import STRENGTH, Canvas, checked_mask, cut_mask
from multidiff.image.canvas_files import fitted, fitted_size, outpainted
from multidiff.image.data.image_files import png_bytes
from multidiff.image.maskgit.model import TokenDraft
from multidiff.image.replay import Made, request_facts, sampling_facts
from multidiff.image.request import SIDES, ImageRequest, Size, sides_of
from multidiff.image.requested import requested_images
from multidiff.image.stable_diffusion.lora import with_loras
from multidiff.image.variations import Variation
from multidiff.serve.families import Family
from multidiff.serve.jobs import DONE, Event, Job
from multidiff.serve.schemas import (
    Body,
    Fields,
    file_field,
    option_fields,
    options_from,
    text_field,
)
from multidiff.serve.settings import ServerSettings
from multidiff.serve.uploads import image_from, mask_from
from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion

# Pixels that may be asked for, as a multiple of those of the model's own size.
MOST_ENLARGED = 4
WHITE = 255
PLAIN = ImageRequest()
OPTIONS = (
    *("strength", "feather", "fit", "padding_mask_crop", "hires", "hires_strength"),
    *("variation_seed", "variation_strength"),
)
SIZE = r"^\d{1,6}[xX]\d{1,6}$"


def _inputs(model: Any, settings: ServerSettings) -> Fields:
    fields = {} if model.domain.reads == "nothing" else {
        "prompt": text_field(
            _about_prompt(model), settings, ... if model.domain.reads == "prompt" else ""
        ),
    }  # fmt: skip
    return fields | {
        "init_image": file_field("image to begin with (img2img), or to inpaint", settings),
        "mask_image": file_field("image that is white where the other is inpainted", settings),
    }


def _diffusion_inputs(model: Any, settings: ServerSettings) -> Fields:
    size = Field(None, pattern=SIZE, description="WIDTHxHEIGHT in pixels; the model's by default")
    sides = "pixels added at sides, such as left=64; also right, top, bottom"
    fields = {
        **option_fields(PLAIN, OPTIONS),
        "size": (str | None, size),
        "outpaint": (list[str], Field([], max_length=len(SIDES), description=sides)),
    }
    if model.domain.reads == "prompt":
        about = "what guidance leads away from"
        fields["negative_prompt"] = text_field(about, settings, None)
    if settings.loras:
        known = f"weight of each LoRA by name: {', '.join(settings.loras)}"
        fields["lora"] = (
            dict[str, float],
            Field({}, max_length=len(settings.loras), description=known),
        )
    return {**_inputs(model, settings), **fields}


def _about_prompt(model: Any) -> str:
    classes = getattr(model.domain, "classes", ())
    return f"one of {', '.join(classes)}" if classes else "what the image shows"


def _prompt(model: Any, body: Body) -> str:
    prompt = getattr(body, "prompt", "")
    if model.domain.reads == "prompt":
        model.domain.check_prompts([prompt])
    return prompt


def _image(made: torch.Tensor, body: Any, prompt: str, facts: Mapping[str, str]) -> Event:
    facts = {"prompt": prompt, "seed": str(body.seed), **facts}
    return Event(DONE, {"seed": body.seed}, png_bytes(made[0], facts), "image/png")


def _diffused(model: Any, body: Any, job: Job, settings: ServerSettings) -> Event:
    def note(step: Any) -> None:
        job.check()
        job.emit(Event("progress", {"step": step.number, "steps": step.total}))

    model = _with_loras(model, getattr(body, "lora", {}), settings)
    prompt, config = _prompt(model, body), options_from(body, model.sampling)
    given = {k: v for k, v in body.set_values.items() if k in ("size", *OPTIONS)}
    request = PLAIN.replace(**given, outpaint=tuple(body.outpaint))
    _check_size(model, request.pixels or model.domain.size, request, settings)
    canvas = _canvas(model, body, request, settings)
    Made(config, request, [prompt], None, body.seed).check(body.model_fields_set, canvas)
    strength, other = request.variation_strength, request.variation_seed
    other = body.seed + 1 if other is None else other
    make = {
        "negative_prompt": getattr(body, "negative_prompt", None),
        "size": None if request.fit or request.outpaint else request.pixels,
        "canvas": canvas,
        "seed": body.seed,
        "config": config,
        "on_step": note,
        "variation": Variation([other], strength) if strength else None,
    }
    made = requested_images(model, [prompt], request, make)
    facts = sampling_facts(config, canvas) | request_facts(model, request, canvas)
    negative = make["negative_prompt"]
    facts |= {} if negative is None else {"negative_prompt": negative}
    return _image(made, body, prompt, facts)


def _with_loras(model: Any, wanted: Mapping[str, float], settings: ServerSettings) -> Any:
    """Return a view of the model with LoRAs, which other requests do not see.

    Raises:
        InputError: if one is not known, or does not fit the model.
    """
    if not wanted:
        return model
    for name in wanted:
        if name not in settings.loras:
            raise InputError(f"lora {name}: {suggestion(name, settings.loras)}")
    view = with_loras(model, [(settings.loras[name], scale) for name, scale in wanted.items()])
    vars(view.denoiser).pop("forward", None)  # that of the batches, which have other weights
    return view


def _canvas(
    model: Any, body: Any, request: ImageRequest, settings: ServerSettings
) -> Canvas | None:
    """Return the canvas of a request; None without an image.

    Raises:
        InputError: if an option has no image to change, or the image would be too large.
    """
    if body.init_image is None:
        changing = ("strength", "feather", "fit", "outpaint", "padding_mask_crop")
        wrong = [one for one in changing if getattr(request, one) != getattr(PLAIN, one)]
        wrong += [] if body.mask_image is None else ["mask_image"]
        if wrong:
            raise InputError(f"{', '.join(wrong)}: changes an image: send init_image")
        return None
    settings = _bounded(model, settings)
    image = image_from("init_image", body.init_image, settings, model.domain.channels)[None]
    mask = None
    if body.mask_image is not None:
        mask = checked_mask(mask_from("mask_image", body.mask_image, settings), image, "mask_image")
    if request.fit is not None:
        size = fitted_size(request, image.shape[2:], model.domain.multiple)
        image = fitted(image[0], size, request.fit)[None]
        if mask is not None:
            levels = fitted(mask[None].to(torch.uint8) * WHITE, size, request.fit)[0]
            mask = cut_mask(levels, WHITE, "mask_image")
    sides, (rows, columns) = sides_of(request.outpaint), image.shape[2:]
    size = columns + sides["left"] + sides["right"], rows + sides["top"] + sides["bottom"]
    _check_size(model, size, request, settings)
    image, mask = outpainted(image, mask, sides)
    usual = STRENGTH if mask is None else 1.0
    strength = usual if request.strength is None else request.strength
    return Canvas(image, strength, mask, request.feather)


def _check_size(model: Any, size: Size, request: ImageRequest, settings: ServerSettings) -> None:
    """Reject a size of images that would be too large, before memory of that size is taken."""
    most, (width, height) = _bounded(model, settings).max_pixels, size
    pixels = width * height * request.hires * request.hires  # a power of it may overflow
    if pixels > most:
        enlarged = f" times {request.hires:g}" if request.hires != 1 else ""
        raise InputError(
            f"size {width}x{height}{enlarged}: has {pixels:,.0f} pixels; {most:,} at most here"
        )


def _bounded(model: Any, settings: ServerSettings) -> ServerSettings:
    """Return settings whose images are not far larger than those of the model."""
    width, height = model.domain.size
    return replace(settings, max_pixels=min(settings.max_pixels, MOST_ENLARGED * width * height))


def _unmasked(model: Any, body: Any, job: Job, settings: ServerSettings) -> Event:
    prompt, config = _prompt(model, body), options_from(body, model.sampling)
    steps = config.token_steps(model.domain.length)

    def note(number: int, tokens: torch.Tensor) -> None:
        job.check()
        job.emit(Event("progress", {"step": number, "steps": steps}))

    draft = None
    if (body.init_image is None) != (body.mask_image is None):
        raise InputError("init_image and mask_image: send both to inpaint, or neither")
    if body.init_image is not None:
        image = image_from("init_image", body.init_image, settings, model.domain.channels)[None]
        draft = TokenDraft(image, mask_from("mask_image", body.mask_image, settings))
    made = model.generate([prompt], draft=draft, seed=body.seed, config=config, on_step=note)
    return _image(made, body, prompt, options_as_text(config))


DIFFUSION = Family(
    "images", "Draw an image.", _diffusion_inputs, _diffused, "image/png", "denoiser"
)
MASKGIT = Family("image-tokens", "Draw an image.", _inputs, _unmasked, "image/png", "denoiser")
