"""Command-line sampling from masked text models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from torch import Tensor

from multidiff.models.requests import FirstSeeds, seed_ranges
from multidiff.text.cli import check_guidance, drawn, requests_of, write
from multidiff.text.data.vocabulary import BLANK, END, Vocabulary, sets_apart
from multidiff.text.masked.model import MaskedText
from multidiff.text.model import OnText
from multidiff.text.request import TextRequest
from multidiff.text.sampling_config import TokenSamplingConfig
from multidiff.utils.errors import InputError
from multidiff.utils.report import OnLine, Report, progress


def sample(
    model: MaskedText, *, num: int, prompts: Sequence[str], out: Path | None, seed: FirstSeeds,
    sampling: TokenSamplingConfig, infill: list[str] = [],  # noqa: B006
    length: int | None = None, source: list[str] = [],  # noqa: B006
    show_steps: bool = False, stream: bool = False, on_line: OnLine | None = None,
) -> Report:  # fmt: skip
    """Print texts, one per line.

    Args:
        model: the model.
        num: number of texts of each prompt; text ``i`` of each uses seed ``seed + i``.
        prompts: meaning representations, such as ``name[The Eagle], food[Italian]``; other
            attributes are unspecified.
        out: file that receives the texts, or folder for one.
        seed: random seed of each prompt's first text; a sequence has one for each request.
        sampling: sampling options.
        infill: text with ``[MASK]`` for each token to fill in; without one, a beginning that is
            continued; running text continues behind it up to its length; may be repeated.
        length: length of the texts, in tokens; running text may be longer than the context.
        source: source text, for models that read one; may be repeated.
        show_steps: print each text after each step, with ``[MASK]`` for tokens still masked.
        stream: print each text while it is written, up to its first mask.
        on_line: function that receives each line as soon as it is made.

    Raises:
        InputError: if an option is wrong.
    """
    write_part = streaming(sampling, stream, on_line)
    if show_steps and stream:
        raise InputError("--stream: does not go with --show-steps; remove either")
    if show_steps and sampling.num_candidates > 1:
        raise InputError(
            f"--num-candidates {sampling.num_candidates}: --show-steps shows one; remove either"
        )
    check_guidance(model, sampling, prompts)
    requests = requests_of(model, prompts, infill, length, source)
    seeds, shown = seed_ranges(seed, len(requests), num), []
    if show_steps:
        draw = partial(_watched, model, sampling, shown)
        report = drawn(model, requests, seeds, draw, on_line, partial(_states, shown))
        for output, states in zip(report.facts["outputs"], shown, strict=True):
            output["steps"] = states
    else:
        report = drawn(model, requests, seeds, drawing(model, sampling, write_part), on_line)
    write([output["text"] for output in report.facts["outputs"]], out)
    return report


def made(
    model: MaskedText,
    sampling: TokenSamplingConfig,
    requests: list[TextRequest],
    seeds: list[int],
    on_text: OnText,
) -> list[str]:
    """Return all of the texts, generated batch by batch.

    Args:
        model: the model.
        sampling: sampling options.
        requests: request for each text.
        seeds: random seed of each.
        on_text: function that receives each text in turn.
    """
    count = sampling.steps or model.block
    with progress() as bar:

        def advance(number: int, tokens: Tensor) -> None:
            assert bar is not None
            bar(SimpleNamespace(number=number, total=count or tokens.shape[1]))

        on_step = None if bar is None else advance
        return model.generate(
            requests, seed=seeds, config=sampling, on_step=on_step, on_text=on_text
        )


def streaming(
    sampling: TokenSamplingConfig, stream: bool, on_line: OnLine | None
) -> Callable[[str], None] | None:
    """Return what prints parts of a text, if the texts are to appear while they are written.

    Args:
        sampling: sampling options.
        stream: ``--stream``.
        on_line: printer of lines, with a method ``part``.

    Raises:
        InputError: if there is nowhere to print, or only the best of several is printed.
    """
    if not stream:
        return None
    part = getattr(on_line, "part", None)
    if part is None or sampling.num_candidates > 1:
        raise InputError("--stream: prints one text while it is written; remove --json and "
                         "--num-candidates")  # fmt: skip
    return part


def drawing(
    model: MaskedText,
    sampling: TokenSamplingConfig,
    write_part: Callable[[str], None] | None,
) -> Callable[[list[TextRequest], list[int], OnText], list[str]]:
    """Return what generates the texts: batch by batch, or one by one where parts are printed."""
    if write_part is None:
        return partial(made, model, sampling)
    return partial(streamed, model, sampling, write_part)


def streamed(
    model: MaskedText,
    sampling: TokenSamplingConfig,
    write_part: Callable[[str], None],
    requests: list[TextRequest],
    seeds: list[int],
    on_text: OnText,
) -> list[str]:
    """Return the texts, generated one by one, and write each as far as it has no mask yet.

    Args:
        model: the model.
        sampling: sampling options.
        write_part: function that receives the next characters of a text.
        requests: request for each text.
        seeds: random seed of each.
        on_text: function that receives each text in turn.
    """
    words, mask = model.domain.vocabulary, model.process.size
    texts: list[str] = []
    for request, seed in zip(requests, seeds, strict=True):
        begun = ""

        def note(number: int, tokens: Tensor) -> None:
            nonlocal begun
            inner = itertools.takewhile(lambda one: one not in (mask, END), tokens[0].tolist())
            text = words.text([*inner])
            if text.startswith(begun) and len(text) > len(begun):
                write_part(text[len(begun) :])
                begun = text

        texts += model.generate([request], seed=[seed], config=sampling, on_step=note)
        on_text(texts[-1])
    return texts


def _watched(
    model: MaskedText,
    sampling: TokenSamplingConfig,
    shown: list[list[str]],
    requests: list[TextRequest],
    seeds: list[int],
    on_text: OnText,
) -> list[str]:
    """Return the texts, generated one by one, with the states of each added to ``shown``."""
    words, mask = model.domain.vocabulary, model.process.size
    texts: list[str] = []
    for request, seed in zip(requests, seeds, strict=True):
        states: list[str] = []

        def note(number: int, tokens: Tensor, states: list[str] = states) -> None:
            states.append(with_masks(words, tokens[0].tolist(), mask))

        texts += model.generate([request], seed=[seed], config=sampling, on_step=note)
        shown.append(states)
        on_text(texts[-1])
    return texts


def with_masks(vocabulary: Vocabulary, numbers: Sequence[int], mask: int) -> str:
    """Return the text of numbers up to END, with ``[MASK]`` for each mask.

    It inverts :func:`~multidiff.text.data.vocabulary.with_blanks`.
    """
    inner = itertools.takewhile(lambda number: number != END, numbers)
    parts: list[str] = []
    for masked, run in itertools.groupby(inner, lambda number: number == mask):
        found = list(run)
        parts += [BLANK] * len(found) if masked else [vocabulary.text(found)]
    return (" " if sets_apart(vocabulary) else "").join(part for part in parts if part)


def _states(shown: Sequence[Sequence[str]], number: int, text: str) -> list[str]:
    """Return the states of a text, one per line, after an empty line for all but the first text."""
    states = shown[number]
    width = len(str(len(states)))
    lines = [""] if number else []
    for step, state in enumerate(states, 1):
        described = state.replace("\n", "\\n")
        lines.append(f"{step:>{width}}  {described}")
    return lines
