"""Images behind the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field

from multidiff.config.option_set import options_as_text
from multidiff.image.canvas import STRENGTH, Canvas, checked_mask
from multidiff.image.data.image_files import png_bytes
from multidiff.image.data.provenance import lora_facts
from multidiff.image.maskgit.model import TokenDraft
from multidiff.image.stable_diffusion.lora import with_loras
from multidiff.serve.families import Family
from multidiff.serve.jobs import DONE, Event, Job
from multidiff.serve.schemas import Body, Fields, file_field, options_from, text_field
from multidiff.serve.settings import ServerSettings
from multidiff.serve.uploads import image_from, mask_from
from multidiff.utils.errors import InputError
from multidiff.utils.names import suggestion

# Pixels that may be asked for, as a multiple of those of the model's own size.
MOST_ENLARGED = 4
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
    fields = {
        "size": (str | None, size),
        "strength": (
            float | None,
            Field(None, ge=0, le=1, description="fraction of the image replaced by noise first"),
        ),
        "feather": (int, Field(0, ge=0, le=32, description="pixels over which a mask fades")),
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


def _image(model: Any, made: torch.Tensor, body: Any, prompt: str, config: Any) -> Event:
    facts = {"prompt": prompt, "seed": str(body.seed), **options_as_text(config)}
    facts |= lora_facts(model)
    return Event(DONE, {"seed": body.seed}, png_bytes(made[0], facts), "image/png")


def _diffused(model: Any, body: Any, job: Job, settings: ServerSettings) -> Event:
    def note(step: Any) -> None:
        job.check()
        job.emit(Event("progress", {"step": step.number, "steps": step.total}))

    model = _with_loras(model, getattr(body, "lora", {}), settings)
    prompt, config = _prompt(model, body), options_from(body, model.sampling)
    canvas = _canvas(model, body, settings)
    made = model.generate(
        [prompt],
        negative_prompt=getattr(body, "negative_prompt", None),
        size=_size(model, body.size, settings),
        canvas=canvas,
        seed=body.seed,
        config=config,
        on_step=note,
    )
    return _image(model, made, body, prompt, config)


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


def _canvas(model: Any, body: Any, settings: ServerSettings) -> Canvas | None:
    """Return the canvas of a request; None without an image.

    Raises:
        InputError: if an option has no image to change.
    """
    if body.init_image is None:
        if body.mask_image is not None or body.strength is not None or body.feather:
            raise InputError("mask_image, strength and feather change an image: send init_image")
        return None
    settings = _bounded(model, settings)
    image = image_from("init_image", body.init_image, settings, model.domain.channels)[None]
    mask = None
    if body.mask_image is not None:
        mask = checked_mask(mask_from("mask_image", body.mask_image, settings), image, "mask_image")
    usual = STRENGTH if mask is None else 1.0
    return Canvas(image, usual if body.strength is None else body.strength, mask, body.feather)


def _size(model: Any, size: str | None, settings: ServerSettings) -> tuple[int, int] | None:
    if size is None:
        return None
    width, height = (int(one) for one in size.lower().split("x"))
    most = _bounded(model, settings).max_pixels
    if width * height > most:
        raise InputError(f"size {size}: has {width * height:,} pixels; {most:,} at most here")
    return width, height


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
    return _image(model, made, body, prompt, config)


DIFFUSION = Family(
    "images", "Draw an image.", _diffusion_inputs, _diffused, "image/png", "denoiser"
)
MASKGIT = Family("image-tokens", "Draw an image.", _inputs, _unmasked, "image/png", "denoiser")
