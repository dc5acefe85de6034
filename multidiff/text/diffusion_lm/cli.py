"""Command-line sampling from Diffusion-LM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from multidiff.models.requests import FirstSeeds, seed_ranges
from multidiff.text.cli import (
    FIRST,
    LENGTH,
    check_guidance,
    drawn,
    requests_of,
    write,
)
from multidiff.text.data.vocabulary import PAD
from multidiff.text.diffusion_lm.classifier import TextClassifier
from multidiff.text.diffusion_lm.model import TextDiffusion
from multidiff.text.model import OnText
from multidiff.text.request import Control, TextRequest
from multidiff.text.sampling_config import TextSamplingConfig
from multidiff.utils.errors import InputError
from multidiff.utils.report import OnLine, Report, progress

# Number of updates after each step, their rate, and the weight of fluency.
PULL = (6, 50.0, 0.003)


def sample(
    model: TextDiffusion, *, num: int, prompts: Sequence[str], out: Path | None, seed: FirstSeeds,
    sampling: TextSamplingConfig, control: list[str] = [],  # noqa: B006
    classifier: TextClassifier | None = None, infill: list[str] = [],  # noqa: B006
    length: int | None = None, source: list[str] = [],  # noqa: B006
    control_strength: tuple[float, float, float] | None = None, on_line: OnLine | None = None,
) -> Report:  # fmt: skip
    """Print texts, one per line.

    Args:
        model: the model.
        num: number of texts of each prompt; text ``i`` of each uses seed ``seed + i``.
        prompts: meaning representations, such as ``name[The Eagle], food[Italian]``; other
            attributes are unspecified.
        out: file that receives the lines, or folder for one.
        seed: random seed of each prompt's first text; a sequence has one for each request.
        sampling: sampling options.
        control: ``attribute=value``, towards which a classifier guides the texts; ``length=N``;
            ``first=WORD``; may be repeated.
        classifier: classifier of noisy texts for --control.
        infill: text with ``[MASK]`` for each token to fill in; may be repeated.
        length: length of the texts, in tokens.
        source: source text, for models that read one; may be repeated.
        control_strength: number of updates towards the controls after each step, their rate, and
            the weight of fluency, which keeps texts likely; by default 6,50,0.003.
        on_line: function that receives each text as soon as it is done.

    Raises:
        InputError: if an option is wrong.
    """
    wanted = read_controls(control)
    pinned = {name: wanted.pop(name) for name in (LENGTH, FIRST) if name in wanted}
    check_guidance(model, sampling, prompts)
    pulled = _pulled(classifier, wanted, control_strength)
    requests = requests_of(model, prompts, infill, length, source, pinned)

    def draw(every: list[TextRequest], seeds: list[int], on_text: OnText) -> list[str]:
        with progress() as on_step:
            return model.generate(
                every, control=pulled, seed=seeds, config=sampling, on_step=on_step, on_text=on_text
            )

    report = drawn(model, requests, seed_ranges(seed, len(requests), num), draw, on_line)
    _add_scores(report, pulled)
    write(report.lines, out)
    return report


def _add_scores(report: Report, control: Control | None) -> None:
    found = [] if control is None else scores(control, report.lines)
    for output, score in zip(report.facts["outputs"], found, strict=False):
        output["control"] = score


def read_controls(controls: Sequence[str]) -> dict[str, str]:
    """Return ``attribute=value`` pairs.

    Raises:
        InputError: if one has another form, or two contradict each other.
    """
    wanted: dict[str, str] = {}
    for text in controls:
        attribute, equals, value = text.partition("=")
        if not equals or not attribute or not value:
            raise InputError(f"--control {text}: write attribute=value, such as food=Italian")
        if wanted.setdefault(attribute, value) != value:
            raise InputError(
                f"--control {text}: contradicts --control {attribute}={wanted[attribute]}; keep one"
            )
    return wanted


def _pulled(
    classifier: TextClassifier | None,
    wanted: dict[str, str],
    control_strength: tuple[float, float, float] | None,
) -> Control | None:
    updates, rate, fluency = given = PULL if control_strength is None else control_strength
    described = ",".join(f"{number:g}" for number in given)
    if min(given) < 0 or updates != int(updates):
        raise InputError(
            f"--control-strength {described}: must be updates, rate and fluency, each 0 or more"
        )
    if not wanted:
        if control_strength is not None:
            raise InputError(f"--control-strength {described}: requires --control attribute=value")
        return None
    if classifier is None:
        described = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise InputError(f"--control {described}: needs a classifier; name one by --classifier")
    return Control(classifier, wanted, int(updates), rate, fluency)


@torch.no_grad()
def scores(control: Control, texts: Sequence[str]) -> list[dict[str, float]]:
    """Return the probability of each wanted value in finished texts, by the classifier."""
    domain, process = control.classifier.domain, control.classifier.process
    tokens = domain.tokens(texts)
    real = tokens != PAD
    times = torch.full((len(texts),), 1e-3, dtype=torch.float64)
    level = process.schedule.at(times).to(tokens.device)
    found: list[dict[str, float]] = [{} for _ in texts]
    for attribute, value in control.wanted.items():
        wanted = control.classifier.wanted({attribute: value}, real)
        for row, likely in enumerate(wanted(domain.embed(tokens), level).exp().tolist()):
            found[row][f"{attribute}={value}"] = round(likely, 4)
    return found
