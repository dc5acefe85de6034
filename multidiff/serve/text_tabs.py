"""Tabs of the page for texts: edits with their changes marked, and blanks that are filled in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gradio as gr

from multidiff.serve.marking import BLANK, MASK, Marked, changes, fillings
from multidiff.serve.requesting import events_of, model_choice, seed_number, submitted
from multidiff.serve.service import Served, Service

COLOURS = {"inserted": "#2e9e5b", "deleted": "#c84b4b", "filled": "#2e9e5b", "open": "#9a9a9a"}


def edit(service: Service, models: Sequence[Served]) -> None:
    """Build the tab that revises a draft and marks what has changed."""
    draft = "the eagle is a cheap cheap coffee shop shop near the river ."
    model = model_choice(models)
    with gr.Row():
        source = gr.Textbox(draft, label="Draft", lines=3, scale=3)
        own = float(models[0].model.sampling.edit_margin)
        margin = gr.Slider(-8, 8, own, label="Edit margin: lower changes more")
        seed = seed_number()
    button = gr.Button("Revise", variant="primary")
    text = gr.Textbox(label="Revised", interactive=False)
    marked = gr.HighlightedText(label="Changes", color_map=COLOURS, combine_adjacent=False)

    def revised(name: str, source: str, margin: float, seed: int) -> Iterator[tuple[str, Marked]]:
        fields = {"source": source, "seed": seed, "edit_margin": float(margin)}
        for event in events_of(submitted(service, name, fields)):
            if "text" in event.data:
                found = event.data["text"]
                yield found, changes(event.data.get("source", source), found)

    button.click(revised, [model, source, margin, seed], [text, marked], api_name="edit")


def infill(service: Service, models: Sequence[Served]) -> None:
    """Build the tab that fills in blanks, and shows each step."""
    readers = {one.name for one in models if "prompt" in one.body.model_fields}
    model = model_choice(models)
    with gr.Row():
        blanks = gr.Textbox(
            "the eagle is a ___ ___ near the river .",
            label="Text, with ___ for each word to fill in",
            lines=2,
            scale=3,
        )
        seed = seed_number()
    about = "Attributes (optional), such as food[Italian], area[riverside]"
    meaning = gr.Textbox(label=about, visible=bool(readers))
    button = gr.Button("Fill in", variant="primary")
    marked = gr.HighlightedText(label="Filled in", color_map=COLOURS, combine_adjacent=False)

    def filled(name: str, text: str, meaning: str, seed: int) -> Iterator[Marked]:
        masked = BLANK.sub(MASK, text)
        fields = {"infill": masked, "seed": seed, "prompt": meaning if name in readers else ""}
        for event in events_of(submitted(service, name, fields)):
            if "text" in event.data:
                yield fillings(masked, event.data["text"])

    button.click(filled, [model, blanks, meaning, seed], marked, api_name="infill")
