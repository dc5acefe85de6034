"""Command-line sampling from models that answer prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multidiff.models.requests import FirstSeeds, seed_ranges
from multidiff.models.sampling_config import SamplingConfig
from multidiff.text.cli import Asked, drawn, write
from multidiff.text.masked.cli import drawing, streaming
from multidiff.text.masked_lm.model import AnswerSamplingConfig, PromptedText
from multidiff.text.request import TextRequest
from multidiff.utils.errors import InputError
from multidiff.utils.report import OnLine, Report


def sample(
    model: PromptedText, *, num: int, prompts: Sequence[str], out: Path | None, seed: FirstSeeds,
    sampling: AnswerSamplingConfig, plain: bool = False, stream: bool = False,
    on_line: OnLine | None = None,
) -> Report:  # fmt: skip
    """Print an answer to each prompt.

    Args:
        model: the model.
        num: number of answers to each prompt; answer ``i`` of each uses seed ``seed + i``.
        prompts: texts to answer; without one, texts are generated freely.
        out: file that receives the answers, or folder for one.
        seed: random seed of each prompt's first answer; a sequence has one for each.
        sampling: sampling options.
        plain: read prompts as they are, without the tokenizer's chat template.
        stream: print each answer while it is written, up to its first mask.
        on_line: function that receives each line as soon as it is made.

    Raises:
        InputError: if a prompt is too long or has no words, or an option is wrong.
    """
    write_part = streaming(sampling, stream, on_line)
    model.domain.chat = model.domain.chat and not plain
    check_answer(model, sampling, prompts)
    asked = [Asked(TextRequest(source=one), {"prompt": one}) for one in prompts or [""]]
    seeds = seed_ranges(seed, len(asked), num)
    report = drawn(model, asked, seeds, drawing(model, sampling, write_part), on_line)
    write([output["text"] for output in report.facts["outputs"]], out)
    return report


def check_answer(
    model: PromptedText, sampling: AnswerSamplingConfig, prompts: Sequence[str]
) -> None:
    """Check that a model can answer prompts with some options.

    Raises:
        InputError: if a prompt is too long or has no words, or an option is wrong.
    """
    for prompt in prompts:
        _check_prompt(model, prompt)
    most = model.most_words
    if sampling.answer_length > most:
        raise InputError(f"--answer-length {sampling.answer_length}: this model writes 1 to {most} "
                         "tokens")  # fmt: skip
    _check_guidance(sampling, prompts)


def _check_prompt(model: PromptedText, prompt: str) -> None:
    words, most = model.domain.vocabulary, model.domain.source_length
    if not words.has_words(prompt):
        raise InputError(f"--prompt {prompt!r}: has no words besides special tokens; write some")
    count = len(words.numbers(model.domain.prompt(prompt)))
    if count > most:
        raise InputError(
            f"--prompt {prompt[:40]}...: has {count} tokens, but this model reads at most {most}; "
            "shorten it"
        )


def _check_guidance(sampling: SamplingConfig, prompts: Sequence[str]) -> None:
    if sampling.guidance_scale != 1 and not prompts:
        raise InputError(
            f"--guidance-scale {sampling.guidance_scale:g}: strengthens a --prompt; give one, or "
            "remove it"
        )
