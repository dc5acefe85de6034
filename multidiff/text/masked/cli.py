"""Sampling from a model of masked texts on the command line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from multidiff.text.cli import check_guidance, drawn, requests_of, write
from multidiff.text.data.vocabulary import BLANK, END, Vocabulary, sets_apart
from multidiff.text.masked.model import MaskedText
from multidiff.text.model import OnText
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError
from multidiff.utils.report import OnLine, Report, progress


def sample(
    model: MaskedText, *, num: int, prompts: Sequence[str], out: Path | None,
    steps: int | None = None, sampler: str | None = None, guidance_scale: float | None = None,
    seed: int = 0, infill: list[str] = [], length: int | None = None,  # noqa: B006
    source: list[str] = [], num_candidates: int = 1, temperature: float | None = None,  # noqa: B006
    top_p: float | None = None, show_steps: bool = False, on_line: OnLine | None = None,
) -> Report:  # fmt: skip
    """Texts, a line each.

    Args:
        model: the model.
        num: texts of each prompt; text ``i`` of each has seed ``seed + i``.
        prompts: meaning representations, such as ``name[The Eagle], food[Italian]``; what they
            do not say is left open.
        out: a file that receives the texts, or a folder for one.
        steps: of the walk, or of each block where texts are found in blocks; as many as there
            are tokens to find where the model does not say.
        sampler: ancestral, confidence, random, remasking, entropy, margin, remdm or
            first-hitting.
        guidance_scale: scale of the prompts, or of the source; 1 is off.
        seed: of the draws.
        infill: a text with ``[MASK]`` for each token to be found; running text goes on behind it
            up to its length. May be repeated, or read from a file (``--infill-file``).
        length: of the texts, in tokens; running text may be longer than the model reads.
        source: what the texts are made from, for models that read that. May be repeated, or read
            from a file (``--source-file``).
        num_candidates: drawn for each text, of which the one most like the others is told.
        temperature: of the tokens; 0 takes the likeliest.
        top_p: tokens are drawn among the likeliest up to this probability.
        show_steps: tell each text after each step, ``[MASK]`` where a token is not found yet.
        on_line: receives each line as soon as it is made.

    Raises:
        InputError: if an option is wrong.
    """
    if show_steps and num_candidates > 1:
        raise InputError(
            f"--num-candidates {num_candidates}: --show-steps shows one; leave either out"
        )
    check_guidance(model, guidance_scale, prompts)
    requests = requests_of(model, prompts, infill, length, source)
    how: dict[str, Any] = {"steps": steps, "sampler": sampler, "guidance_scale": guidance_scale}
    how |= {"temperature": temperature, "top_p": top_p, "num_candidates": num_candidates}
    seeds, shown = range(seed, seed + num), []
    if show_steps:
        draw = partial(_watched, model, how, shown)
        report = drawn(model, requests, seeds, draw, on_line, partial(_states, shown))
        for output, states in zip(report.facts["outputs"], shown, strict=True):
            output["steps"] = states
    else:
        report = drawn(model, requests, seeds, partial(_made, model, how), on_line)
    write([output["text"] for output in report.facts["outputs"]], out)
    return report


def _made(
    model: MaskedText,
    how: dict[str, Any],
    requests: list[TextRequest],
    seeds: list[int],
    on_text: OnText,
) -> list[str]:
    """All of the texts, batch by batch."""
    count = model.sampling.mask_steps(how["steps"]) or model.block
    with progress() as bar:

        def tell(number: int, tokens: Tensor) -> None:
            assert bar is not None
            bar(SimpleNamespace(number=number, total=count or tokens.shape[1]))

        on_step = None if bar is None else tell
        return model.generate(requests, **how, seed=seeds, on_step=on_step, on_text=on_text)


def _watched(
    model: MaskedText,
    how: dict[str, Any],
    shown: list[list[str]],
    requests: list[TextRequest],
    seeds: list[int],
    on_text: OnText,
) -> list[str]:
    """Each text by itself, and its states noted in ``shown``."""
    words, mask = model.domain.vocabulary, model.process.size
    texts: list[str] = []
    for request, seed in zip(requests, seeds, strict=True):
        states: list[str] = []

        def note(number: int, tokens: Tensor, states: list[str] = states) -> None:
            states.append(with_masks(words, tokens[0].tolist(), mask))

        texts += model.generate([request], **how, seed=[seed], on_step=note)
        shown.append(states)
        on_text(texts[-1])
    return texts


def with_masks(vocabulary: Vocabulary, numbers: Sequence[int], mask: int) -> str:
    """The text of numbers up to END, with ``[MASK]`` for each mask.

    It is what :func:`~multidiff.text.data.vocabulary.with_blanks` reads.
    """
    inner = itertools.takewhile(lambda number: number != END, numbers)
    parts: list[str] = []
    for masked, run in itertools.groupby(inner, lambda number: number == mask):
        found = list(run)
        parts += [BLANK] * len(found) if masked else [vocabulary.text(found)]
    return (" " if sets_apart(vocabulary) else "").join(part for part in parts if part)


def _states(shown: Sequence[Sequence[str]], number: int, text: str) -> list[str]:
    """The states of a text, a line each, with an empty line before all but the first text."""
    states = shown[number]
    width = len(str(len(states)))
    lines = [""] if number else []
    for step, state in enumerate(states, 1):
        described = state.replace("\n", "\\n")
        lines.append(f"{step:>{width}}  {described}")
    return lines
