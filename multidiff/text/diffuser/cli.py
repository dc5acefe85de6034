"""Commands of text editing models."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multidiff.models.requests import FirstSeeds, seed_ranges
from multidiff.text.cli import write
from multidiff.text.data.listing import parse_meaning
from multidiff.text.diffuser.draft_sources import Draft, DraftSource, Start, drafts_of, letter
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.rendering import COLORED, PLAIN, lines_of, wants_colour
from multidiff.text.diffuser.revised_texts import RevisedText, revise_drafts
from multidiff.text.diffuser.reviser import History
from multidiff.text.diffuser.sampling_config import EditSamplingConfig
from multidiff.text.diffuser.spelling import Spelling
from multidiff.text.model import TextModel
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError
from multidiff.utils.report import OnLine, Report

LINE_ENDS = re.compile(r"\s*[\n\r]\s*")


def sample(
    model: EditedText, *, num: int, prompts: Sequence[str], out: Path | None, seed: FirstSeeds,
    sampling: EditSamplingConfig, source: list[str] = [], start: Start | None = None,  # noqa: B006
    bootstrap: TextModel | None = None, length: int | None = None,
    show_edits: bool = False, on_line: OnLine | None = None,
) -> Report:  # fmt: skip
    """Print revised drafts, one per line.

    Args:
        model: the model.
        num: number of texts of each prompt and source; text ``i`` of each uses seed ``seed + i``.
        prompts: meaning representations, such as ``name[The Eagle], food[Italian]``; other
            attributes are unspecified.
        out: file that receives the texts, or folder for one.
        seed: random seed of each first text; a sequence has one for each request.
        sampling: options of revising.
        source: draft or, for a model with sources, source of the text; may be repeated. An editor
            that revises by sentence reads the whole of a ``.txt`` or ``.md`` file of that name.
        start: start from an empty draft, or from random tokens (as without a source); tokens are
            then drawn, by default with top-p 0.95, edit margin -3 and whatever confidence.
        bootstrap: model that drafts the texts.
        length: length in tokens, of the noise or of the other model's drafts; drawn by default.
        show_edits: print every revision with its edits marked, and then the text; an editor that
            revises by sentence shows those sentences that it edits.
        on_line: function that receives each line as soon as it is made.

    Raises:
        InputError: if an option is wrong, or some contradict each other.
    """
    if model.by_sentence:
        source = [letter(one) for one in source]
    beginning = DraftSource(source, start, bootstrap, length)
    if beginning.kind(model) in ("noise", "nothing"):
        sampling = sampling.for_new_texts(model.sampling)
    requests = [TextRequest(meaning) for meaning in _meanings(model, bootstrap, prompts)]
    seeds = seed_ranges(seed, len(requests) * max(1, len(source)), num)
    drafts = drafts_of(model, requests, seeds, beginning)
    count = sum(one.last for one in drafts) // len(requests)
    asked = [prompt for prompt in prompts or [""] for _ in range(count)]
    report = _revised(model, drafts, asked, sampling, show_edits, on_line)
    write([one["text"] for one in report.facts["outputs"]], out)
    return report


def _meanings(
    model: EditedText, bootstrap: TextModel | None, prompts: Sequence[str]
) -> list[dict[str, str]]:
    """Return each prompt's attributes, for the model or for the one that drafts."""
    readers = [one.domain.meanings for one in (model, bootstrap) if one is not None]
    tables = [table for table in readers if table is not None]
    if prompts and not tables:
        raise InputError(
            f"--prompt {prompts[0]}: this model was trained without meanings; remove it"
        )
    meanings = [parse_meaning(prompt) for prompt in prompts]
    for table in tables:
        for meaning in meanings:
            table.partial(meaning)
    return meanings or [{}]


def _revised(
    model: EditedText,
    drafts: Sequence[Draft],
    prompts: Sequence[str],
    sampling: EditSamplingConfig,
    show_edits: bool,
    on_line: OnLine | None,
) -> Report:
    """Return a report of the revised drafts."""
    marks = COLORED if wants_colour(sys.stdout) else PLAIN
    outputs: list[dict[str, Any]] = []
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if on_line is not None:
            on_line(line)

    def note(draft: Draft, spelling: Spelling, history: History) -> None:
        if show_edits and (len(history) > 1 or draft.sentence is None):
            for line in lines_of(spelling, history, marks):
                show(LINE_ENDS.sub(" ", line) if draft.sentence else line)

    def end(made: RevisedText) -> None:
        prompt = prompts[len(outputs)]
        outputs.append(
            {"text": made.text, "seed": made.seed, "prompt": prompt, "source": made.source}
            | {"revision_beams": made.facts, "unread_lines": made.unread}
        )
        show(made.text)

    began = time.perf_counter()
    revise_drafts(model, drafts, sampling, note, end)
    seconds = time.perf_counter() - began
    facts = {"model": model.name, "outputs": outputs, "wall_seconds": round(seconds, 3)}
    return Report(lines, facts)
