"""What a model of picture tokens is measured by."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from multidiff.image.data.images import Pictures
from multidiff.image.diffusion.evaluation import AT_ONCE, beside, describes_by, judged, prompts_of
from multidiff.image.maskgit.model import TokenImages
from multidiff.image.metrics.classifier import PictureClassifier
from multidiff.image.metrics.feature_distance import batches_of
from multidiff.utils.report import Report, checked_counts


def measure(
    model: TokenImages,
    data: str | None,
    folder: Path,
    *,
    steps: int | None = None,
    solver: str | None = None,
    seed: int = 0,
    guidance: float | None = None,
    temperature: float | None = None,
    noise: float | None = None,
    num: int = 1000,
    judge: PictureClassifier | None = None,
    inception: Path | None = None,
    nats: int = 0,
    most: int = 5000,
    split: str = "train",
    label_column: str | None = None,
    caption_column: str | None = None,
) -> Report:
    """Samples against real pictures, and what real pictures cost.

    Args:
        model: the model.
        data: held-out pictures.
        folder: of the model, unused.
        steps: of the walk.
        solver: the order.
        seed: of the first sample's draws; the others follow.
        guidance: scale.
        temperature: of the tokens.
        noise: of the confidence.
        num: samples; 0 draws none.
        judge: see :func:`multidiff.image.diffusion.evaluation.measure`, as for all that follows.
        inception: likewise.
        nats: real pictures whose tokens' cost is bounded, in nats.
        most: real pictures to compare with.
        split: of the data set.
        label_column: labels of the data set.
        caption_column: captions of the data set.

    Raises:
        InputError: if there is nothing to measure by, or the model cannot do it.
    """
    checked_counts({"num": num, "nats": nats})
    real, report = beside(model, data, split, label_column, caption_column)
    if nats:
        _bounded(model, real, min(nats, len(real)), seed, report)
    if num:
        how = {"steps": steps, "solver": solver, "guidance": guidance, "seed": seed}
        how |= {"temperature": temperature, "noise": noise}
        judged(model, real, num, judge, describes_by(model, judge, inception), most, how, report)
    return report


def _bounded(model: TokenImages, real: Pictures, count: int, seed: int, report: Report) -> None:
    """The bound of real pictures' tokens, told what they show."""
    asked = prompts_of(model, real, count)
    found = []
    for first in range(0, count, AT_ONCE):
        numbers = list(range(first, min(first + AT_ONCE, count)))
        (pictures,) = batches_of(real, numbers)
        prompts = [asked[number] for number in numbers]
        found.append(model.nats_per_token(pictures, prompts, seed=seed + first).cpu())
    each = torch.cat(found)
    mean = float(each.mean())
    error = float(each.std()) / math.sqrt(count) if count > 1 else math.nan
    report.lines.append(
        f"{count} pictures: at most {mean:.3f} nats a token (+- {error:.3f}); "
        f"all codes alike cost {math.log(model.domain.codes):.3f}"
    )
    report.facts["nats_per_token"] = round(mean, 5)
