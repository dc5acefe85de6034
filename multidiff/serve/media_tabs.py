"""Tabs of the page for sounds, images, and several media of one model."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_pil_to_cache
from PIL import Image

from multidiff.serve.brush import brush, brushed
from multidiff.serve.pictures import enlarged, in_base64, opened, painted, spectrogram, wave_of
from multidiff.serve.requesting import events_of, model_choice, seed_number, shown, submitted
from multidiff.serve.service import Served, Service

MOST_IMAGES = 8
ANY_STYLE = "any style"


def speak(service: Service, models: Sequence[Served]) -> None:
    """Build the tab that speaks a text, and draws its spectrogram sentence by sentence."""
    model = model_choice(models)
    with gr.Row():
        text = gr.Textbox("Good morning. The train leaves at 7:45.", label="Text", lines=2, scale=3)
        seed = seed_number()
    button = gr.Button("Speak", variant="primary")
    sound = gr.Audio(label="Sound", interactive=False)
    picture = gr.Image(label="Mel spectrogram", interactive=False, buttons=["download"])

    def spoken(name: str, text: str, seed: int) -> Iterator[tuple[Any, Image.Image]]:
        preset, samples = service.models[name].model.preset, np.zeros(0, np.int16)
        for event in events_of(submitted(service, name, {"text": text, "seed": seed})):
            if event.name != "audio":
                continue
            samples = np.concatenate([samples, np.frombuffer(event.content or b"", "<i2")])
            yield (preset.sample_rate_hz, samples), spectrogram(samples, preset)

    button.click(spoken, [model, text, seed], [sound, picture], api_name="speak")


def draw(service: Service, models: Sequence[Served]) -> None:
    """Build the tab that draws images from a prompt: a request for each seed."""
    model, styles = model_choice(models), _styles(models)
    with gr.Row():
        prompt = gr.Textbox(_example(models[0]), label="Prompt", scale=3)
        style = gr.Dropdown([ANY_STYLE, *styles], label="Style", visible=bool(styles))
        seed = seed_number()
        count = gr.Slider(1, MOST_IMAGES, 4, step=1, label="Number of seeds")
    _follow(service, model, prompt)
    button = gr.Button("Draw", variant="primary")
    images = gr.Gallery(label="Images", columns=4, object_fit="contain", format="png")

    def drawn(
        name: str, prompt: str, style: str, seed: int, count: int
    ) -> Iterator[list[tuple[str, str]]]:
        known = style in _styles([service.models[name]])
        wanted = f"{prompt}, {style} style" if known else prompt
        seeds, found = range(int(seed), int(seed) + int(count)), []
        jobs = [submitted(service, name, {"prompt": wanted, "seed": one}) for one in seeds]
        try:
            for one, job in zip(seeds, jobs, strict=True):
                *_, last = events_of(job)
                # A file of our own: gradio would write those before it again, while they are read.
                file = save_pil_to_cache(
                    enlarged(opened(last.content)), images.GRADIO_CACHE, format="png"
                )
                found.append((file, f"seed {one}"))
                yield found
        finally:
            for job in jobs:
                job.cancel()

    button.click(drawn, [model, prompt, style, seed, count], images, api_name="draw")


def inpaint(service: Service, models: Sequence[Served]) -> None:
    """Build the tab that draws where a brush has been."""
    model, start = model_choice(models), gr.Button("Draw an image to begin with")
    with gr.Row():
        prompt = gr.Textbox(_example(models[0]), label="Prompt", scale=3)
        seed = seed_number()
    _follow(service, model, prompt)
    with gr.Row():
        canvas = brush("Brush over what is to be drawn again")
        image = gr.Image(label="Inpainted", interactive=False, format="png", height=460)
    button = gr.Button("Inpaint", variant="primary")

    def begun(name: str, prompt: str, seed: int) -> str:
        *_, last = events_of(submitted(service, name, {"prompt": prompt, "seed": seed}))
        return in_base64(enlarged(opened(last.content)))

    def inpainted(name: str, prompt: str, seed: int, drawn: str | None) -> Image.Image:
        with shown():
            found = brushed(drawn, service.settings)
        if found is None:
            raise gr.Error("there is no image: draw one, or choose a file", print_exception=False)
        given, mask = painted(*found, service.models[name].model.domain.size)
        if mask.getextrema() == (0, 0):
            raise gr.Error("brush over what is to be drawn again", print_exception=False)
        files = {"init_image": in_base64(given), "mask_image": in_base64(mask)}
        fields = {"prompt": prompt, "seed": seed, **files}
        *_, last = events_of(submitted(service, name, fields))
        return enlarged(opened(last.content))

    start.click(begun, [model, prompt, seed], canvas, api_name="begin")
    button.click(inpainted, [model, prompt, seed, canvas], image, api_name="inpaint")


def joint(service: Service, one: Served) -> None:
    """Build the tab of a model of several media: those that are given make the others."""
    media = {name: one.model.domain[name].ending for name in one.model.domain}
    gr.Markdown("Give any of the media, or none, and the model makes the others.")
    with gr.Row():
        inputs = {name: _component(one.name, name, ending, True) for name, ending in media.items()}
    seed, button = seed_number(), gr.Button("Make the others", variant="primary")
    with gr.Row():
        outputs = {
            name: _component(one.name, name, ending, False) for name, ending in media.items()
        }

    def made(seed: int, *values: str | None) -> list[Any]:
        given = {
            name: _sent(value, media[name])
            for name, value in zip(media, values, strict=True)
            if value
        }
        *_, last = events_of(submitted(service, one.name, {"given": given, "seed": seed}))
        return [_received(last.data.get(name), ending) for name, ending in media.items()]

    button.click(made, [seed, *inputs.values()], [*outputs.values()], api_name=one.name)


def _component(model: str, name: str, ending: str, given: bool) -> Any:
    about = "given" if given else "made"
    shared: dict[str, Any] = {"label": f"{name}, {about}", "elem_id": f"{model}-{name}-{about}"}
    if ending == ".png":
        return gr.Image(type="filepath", interactive=given, format="png", **shared)
    if ending == ".wav":
        return gr.Audio(type="filepath", interactive=given, **shared)
    return gr.Textbox(interactive=given, **shared)


def _sent(value: str, ending: str) -> str:
    return base64.b64encode(Path(value).read_bytes()).decode() if ending else value


def _received(value: str | None, ending: str) -> Any:
    if value is None or not ending:
        return value
    content = base64.b64decode(value)
    if ending == ".png":
        return enlarged(opened(content))
    return wave_of(content) if ending == ".wav" else None


def _styles(models: Sequence[Served]) -> list[str]:
    found = [getattr(getattr(one.model.domain, "tokenizer", None), "styles", ()) for one in models]
    return sorted({style for styles in found for style in styles})


def _follow(service: Service, model: Any, prompt: Any) -> None:
    """Let the prompt be an example of the model that is chosen."""
    model.change(
        lambda name: _example(service.models[name]), model, prompt, api_visibility="private"
    )


def _example(one: Served) -> str:
    """Return a prompt that the model knows."""
    subjects: Callable[[], Sequence[str]] | Sequence[str] = getattr(one.model, "subjects", ())
    classes = getattr(one.model.domain, "classes", ())
    return next((str(name) for name in (*subjects, *classes)), "")  # type: ignore[misc]
