"""What the command line does with a model that edits texts."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multidiff.text.cli import write
from multidiff.text.data.listing import parse_meaning
from multidiff.text.diffuser.draft_sources import Draft, DraftSource, Start, drafts_of
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.rendering import COLORED, PLAIN, facts_of, lines_of, wants_colour
from multidiff.text.diffuser.reviser import History
from multidiff.text.diffuser.sampling_config import EditSamplingConfig, EditsPerStep, drawn
from multidiff.text.diffuser.spelling import Spelling
from multidiff.text.model import TextModel
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError
from multidiff.utils.report import OnLine, Report


def sample(
    model: EditedText, *, num: int, prompts: Sequence[str], out: Path | None,
    steps: int | None = None, sampler: str | None = None, guidance_scale: float | None = None,
    seed: int = 0, source: list[str] = [], start: Start | None = None,  # noqa: B006
    bootstrap: TextModel | None = None, length: int | None = None, beam: int | None = None,
    revision_beams: int | None = None, top_p: float | None = None, temperature: float | None = None,
    edits_per_step: EditsPerStep | None = None, edit_margin: float | None = None,
    num_candidates: int | None = None,
    show_edits: bool = False, on_line: OnLine | None = None,
) -> Report:  # fmt: skip
    """Drafts revised, a line each.

    Args:
        model: the model.
        num: texts of each prompt and source; text ``i`` of each has seed ``seed + i``.
        prompts: meaning representations, such as ``name[The Eagle], food[Italian]``; what they
            do not say is left open.
        out: a file that receives the texts, or a folder for one.
        steps: most revisions.
        sampler: none is known here.
        guidance_scale: likewise.
        seed: of the draws.
        source: a draft or, for a model that reads such, what the text is made from. May be
            repeated, or read from a file (``--source-file``).
        start: begin from an empty draft, or from random tokens (so where nothing is given).
        bootstrap: the model that drafts the texts.
        length: in tokens, of the noise or of what the other model drafts; drawn where not given.
        beam: see :class:`~multidiff.text.diffuser.sampling_config.EditSamplingConfig`.
        revision_beams: likewise.
        top_p: likewise; tokens are then drawn, as they are where texts begin from noise or
            nothing.
        temperature: likewise.
        edits_per_step: likewise.
        edit_margin: likewise.
        num_candidates: likewise; tokens are then drawn.
        show_edits: print every revision with its edits marked, and then the text.
        on_line: receives each line as soon as it is made.

    Raises:
        InputError: if an option is wrong, or some contradict each other.
    """
    for name, value in (("sampler", sampler), ("guidance_scale", guidance_scale)):
        if value is not None:
            raise InputError(f"--{name.replace('_', '-')} {value}: editing has none; leave it out")
    beginning = DraftSource(source, start, bootstrap, length)
    given: dict[str, Any] = {
        "steps": steps,
        "edits_per_step": edits_per_step,
        "edit_margin": edit_margin,
        "beam": beam,
    }
    given |= {"temperature": temperature, "top_p": top_p, "revision_beams": revision_beams}
    given |= {"num_candidates": num_candidates}
    fresh = beginning.kind(model) in ("noise", "nothing")
    sampling = model.sampling.changed(drawn(given) if fresh else given)
    seeds = range(seed, seed + num)
    requests = [TextRequest(meaning) for meaning in _meanings(model, bootstrap, prompts)]
    drafts = drafts_of(model, requests, seeds, beginning)
    asked = [prompt for prompt in prompts or [""] for _ in range(len(drafts) // len(requests))]
    report = _revised(model, drafts, asked, sampling, show_edits, on_line)
    write([one["text"] for one in report.facts["outputs"]], out)
    return report


def _meanings(
    model: EditedText, bootstrap: TextModel | None, prompts: Sequence[str]
) -> list[dict[str, str]]:
    """What each prompt says, to the model or to the one that drafts."""
    readers = [one.domain.meanings for one in (model, bootstrap) if one is not None]
    tables = [table for table in readers if table is not None]
    if prompts and not tables:
        raise InputError(
            f"--prompt {prompts[0]}: this model was trained without meanings; leave it out"
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
    """What becomes of drafts."""
    marks = COLORED if wants_colour(sys.stdout) else PLAIN
    outputs: list[dict[str, Any]] = []
    lines: list[str] = []

    def note(history: History) -> None:
        draft, prompt = drafts[len(outputs)], prompts[len(outputs)]
        spelling = Spelling(model.domain.vocabulary, draft.typed)
        texts = spelling.texts(history)
        outputs.append(
            {"text": texts[-1], "seed": draft.seed, "prompt": prompt, "source": texts[0]}
            | {"revision_beams": facts_of(spelling, history)}
        )
        for line in [*(lines_of(spelling, history, marks) if show_edits else []), texts[-1]]:
            lines.append(line)
            if on_line is not None:
                on_line(line)

    began = time.perf_counter()
    model.revise(
        [one.tokens for one in drafts], [one.request for one in drafts],
        sampling=sampling, seed=[one.seed for one in drafts], on_history=note,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    facts = {"model": model.name, "outputs": outputs, "wall_seconds": round(seconds, 3)}
    return Report(lines, facts)
