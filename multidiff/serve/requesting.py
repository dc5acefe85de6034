"""Requests from the page: a job's events, and errors that a visitor reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from multidiff.serve.jobs import FAILED, Busy, Event, Job
from multidiff.serve.service import Served, Service
from multidiff.utils.errors import InputError


def submitted(service: Service, name: str, fields: dict[str, Any]) -> Job:
    """Queue a request; fields that are empty are left out.

    Raises:
        gr.Error: if it is wrong, or too many wait.
    """
    given = {key: value for key, value in fields.items() if value not in (None, "")}
    with shown():
        return service.submit(name, given)


@contextmanager
def shown() -> Iterator[None]:
    """Show a visitor what is wrong with a request."""
    try:
        yield
    except (InputError, Busy) as fault:
        raise gr.Error(str(fault), print_exception=False) from fault


def events_of(job: Job) -> Iterator[Event]:
    """Yield the events of a job, the last of which is ``done``; it is cancelled if nobody reads.

    Raises:
        gr.Error: if it fails.
    """
    try:
        for event in job.events():
            if event.name == FAILED:
                raise gr.Error(event.data["detail"], print_exception=False)
            yield event
    finally:
        job.cancel()


def model_choice(models: Sequence[Served]) -> gr.Dropdown:
    """Return the choice of a model, shown if there are several."""
    names = [one.name for one in models]
    return gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)


def seed_number() -> gr.Number:
    """Return the field of a seed."""
    return gr.Number(0, label="Seed", precision=0, minimum=0)
