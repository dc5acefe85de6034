"""Texts behind the service: written, infilled, continued, revised, answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from multidiff.models.requests import seed_ranges
from multidiff.serve.families import Family
from multidiff.serve.jobs import DONE, Event, Job
from multidiff.serve.schemas import Fields, options_from, text_field
from multidiff.serve.settings import ServerSettings
from multidiff.text.cli import check_guidance, requests_of
from multidiff.text.data.listing import parse_meaning
from multidiff.text.diffuser.draft_sources import DraftSource, Start, drafts_of
from multidiff.text.diffuser.revised_texts import revise_drafts
from multidiff.text.masked.cli import with_masks
from multidiff.text.masked_lm.cli import check_answer
from multidiff.text.request import TextRequest

LENGTH = Field(None, ge=1, le=100_000, description="length in tokens; drawn by default")
MEANING = "meaning representation, such as name[The Eagle], food[Italian]"


def _inputs(model: Any, settings: ServerSettings) -> Fields:
    infill = "text with [MASK] for each token to fill in; without one, a beginning to continue"
    fields = {"infill": text_field(infill, settings, None), "length": (int | None, LENGTH)}
    if model.domain.meanings is not None:
        fields["prompt"] = text_field(MEANING, settings)
    if model.domain.source_length:
        fields["source"] = text_field("source text", settings, ...)
    return fields


def _request(model: Any, body: Any, config: Any) -> TextRequest:
    prompts, sources = _listed(body, "prompt"), _listed(body, "source")
    check_guidance(model, config, prompts)
    infills = [] if body.infill is None else [body.infill]
    return requests_of(model, prompts, infills, body.length, sources)[0].request


def _listed(body: Any, name: str) -> list[str]:
    value = getattr(body, name, "")
    return [value] if value else []


def _done(model: Any, body: Any, text: str, **more: Any) -> Event:
    return Event(DONE, {"text": text, "seed": body.seed, "model": model.name, **more})


def _unmasked(model: Any, body: Any, job: Job, settings: ServerSettings) -> Event:
    config = options_from(body, model.sampling)
    return _written(model, body, job, config, _request(model, body, config))


def _written(model: Any, body: Any, job: Job, config: Any, request: TextRequest) -> Event:
    """Write a text, and pass on its tokens as they are unmasked."""
    words, mask = model.domain.vocabulary, model.process.size

    def note(number: int, tokens: Any) -> None:
        job.check()
        if job.detailed:
            text = with_masks(words, tokens[0].tolist(), mask)
            job.emit(Event("text", {"step": number, "text": text}))

    (text,) = model.generate([request], seed=body.seed, config=config, on_step=note)
    return _done(model, body, text)


def _embedded(model: Any, body: Any, job: Job, settings: ServerSettings) -> Event:
    def note(step: Any) -> None:
        job.check()
        job.emit(Event("progress", {"step": step.number, "steps": step.total}))

    config = options_from(body, model.sampling)
    request = _request(model, body, config)
    (text,) = model.generate([request], seed=body.seed, config=config, on_step=note)
    return _done(model, body, text)


def _answer_inputs(model: Any, settings: ServerSettings) -> Fields:
    return {"prompt": text_field("text to answer", settings)}


def _answered(model: Any, body: Any, job: Job, settings: ServerSettings) -> Event:
    config = options_from(body, model.sampling)
    check_answer(model, config, _listed(body, "prompt"))
    return _written(model, body, job, config, TextRequest(source=body.prompt))


def _edit_inputs(model: Any, settings: ServerSettings) -> Fields:
    about = "source text" if model.domain.source_length else "draft to revise"
    fields = {
        "source": text_field(about, settings, None),
        "start": (
            Start | None,
            Field(None, description="start from an empty text or from noise, without a draft"),
        ),
        "length": (int | None, LENGTH),
    }
    if model.domain.meanings is not None:
        fields["prompt"] = text_field(MEANING, settings)
    return fields


def _revised(model: Any, body: Any, job: Job, settings: ServerSettings) -> Event:
    prompts = _listed(body, "prompt")
    meaning = parse_meaning(prompts[0]) if prompts else {}
    if meaning:
        model.domain.meanings.partial(meaning)
    config = options_from(body, model.sampling)
    beginning = DraftSource(_listed(body, "source"), body.start, None, body.length)
    if beginning.kind(model) in ("noise", "nothing"):
        config = config.for_new_texts(model.sampling)
    seeds = seed_ranges(body.seed, 1, 1)
    drafts = drafts_of(model, [TextRequest(meaning)], seeds, beginning)
    (made,) = revise_drafts(model, drafts, config)
    more = {"source": made.source, "revision_beams": made.facts, "unread_lines": made.unread}
    return _done(model, body, made.text, **more)


MASKED = Family("texts", "Write, infill or continue a text.", _inputs, _unmasked,
                network="denoiser")  # fmt: skip
EMBEDDED = replace(MASKED, make=_embedded)
ANSWERS = Family("answers", "Answer a prompt.", _answer_inputs, _answered, network="denoiser")
EDITS = Family("edits", "Revise a draft.", _edit_inputs, _revised)
