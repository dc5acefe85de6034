"""What the command line does with a model that edits texts."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multidiff.text.cli import write
from multidiff.text.data.listing import parse_meaning
from multidiff.text.diffuser.draft_sources import Beginning, Draft, Start, drafts_of
from multidiff.text.diffuser.model import EditedText
from multidiff.text.diffuser.rendering import COLOURED, PLAIN, facts_of, lines_of, wants_colours
from multidiff.text.diffuser.reviser import History
from multidiff.text.diffuser.sampling_config import EditWalk, Pace, drawn
from multidiff.text.diffuser.spelling import Spelling
from multidiff.text.model import TextModel
from multidiff.text.request import TextOrder
from multidiff.utils.errors import InputError
from multidiff.utils.report import OnLine, Report


def sample(
    model: EditedText, *, num: int, prompts: Sequence[str], out: Path | None,
    steps: int | None = None, solver: str | None = None, guidance: float | None = None,
    seed: int = 0, source: list[str] = [], start: Start | None = None,  # noqa: B006
    bootstrap: TextModel | None = None, length: int | None = None, beam: int | None = None,
    revisions: int | None = None, nucleus: float | None = None, temperature: float | None = None,
    pace: Pace | None = None, caution: float | None = None, candidates: int | None = None,
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
        solver: none is known here.
        guidance: likewise.
        seed: of the draws.
        source: a draft or, for a model that reads such, what the text is made from. May be
            repeated, or read from a file (``--source-file``).
        start: begin from an empty draft, or from random tokens (so where nothing is given).
        bootstrap: the model that drafts the texts.
        length: in tokens, of the noise or of what the other model drafts; drawn where not given.
        beam: see :class:`~multidiff.text.diffuser.sampling_config.EditWalk`.
        revisions: likewise.
        nucleus: likewise; tokens are then drawn, as they are where texts begin from noise or
            nothing.
        temperature: likewise.
        pace: likewise.
        caution: likewise.
        candidates: likewise; tokens are then drawn.
        show_edits: print every revision with its edits marked, and then the text.
        on_line: receives each line as soon as it is made.

    Raises:
        InputError: if an option is wrong, or some contradict each other.
    """
    for name, value in (("solver", solver), ("guidance", guidance)):
        if value is not None:
            raise InputError(f"--{name} {value}: editing has none; leave it out")
    beginning = Beginning(source, start, bootstrap, length)
    given: dict[str, Any] = {"steps": steps, "pace": pace, "caution": caution, "beam": beam}
    given |= {"temperature": temperature, "nucleus": nucleus, "revisions": revisions}
    given |= {"candidates": candidates}
    fresh = beginning.kind(model) in ("noise", "nothing")
    walk = model.walk.changed(drawn(given) if fresh else given)
    seeds = range(seed, seed + num)
    orders = [TextOrder(meaning) for meaning in _meanings(model, bootstrap, prompts)]
    drafts = drafts_of(model, orders, seeds, beginning)
    asked = [prompt for prompt in prompts or [""] for _ in range(len(drafts) // len(orders))]
    report = _revised(model, drafts, asked, walk, show_edits, on_line)
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
    walk: EditWalk,
    show_edits: bool,
    on_line: OnLine | None,
) -> Report:
    """What becomes of drafts."""
    marks = COLOURED if wants_colours(sys.stdout) else PLAIN
    outputs: list[dict[str, Any]] = []
    lines: list[str] = []

    def note(history: History) -> None:
        draft, prompt = drafts[len(outputs)], prompts[len(outputs)]
        spelling = Spelling(model.domain.vocabulary, draft.typed)
        texts = spelling.texts(history)
        outputs.append(
            {"text": texts[-1], "seed": draft.seed, "prompt": prompt, "source": texts[0]}
            | {"revisions": facts_of(spelling, history)}
        )
        for line in [*(lines_of(spelling, history, marks) if show_edits else []), texts[-1]]:
            lines.append(line)
            if on_line is not None:
                on_line(line)

    began = time.perf_counter()
    model.revise(
        [one.tokens for one in drafts], [one.order for one in drafts],
        walk=walk, seed=[one.seed for one in drafts], on_history=note,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    facts = {"model": model.name, "outputs": outputs, "wall_seconds": round(seconds, 3)}
    return Report(lines, facts)
