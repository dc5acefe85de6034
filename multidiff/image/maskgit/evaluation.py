"""What a model of image tokens is measured by."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from multidiff.image.data.images import Images
from multidiff.image.diffusion.evaluation import (
    AT_ONCE,
    describes_by,
    judged,
    prompts_of,
    real_images,
)
from multidiff.image.maskgit.model import MaskGIT
from multidiff.image.metrics.classifier import ImageClassifier
from multidiff.image.metrics.feature_distance import batches_of
from multidiff.utils.report import Report, checked_counts


def measure(
    model: MaskGIT,
    data: str | None,
    folder: Path,
    *,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    guidance_scale: float | None = None,
    temperature: float | None = None,
    noise: float | None = None,
    num: int = 1000,
    classifier: ImageClassifier | None = None,
    inception: Path | None = None,
    nats: int = 0,
    most: int = 5000,
    split: str = "train",
    label_column: str | None = None,
    caption_column: str | None = None,
) -> Report:
    """Samples against real images, and what real images cost.

    Args:
        model: the model.
        data: held-out images.
        folder: of the model, unused.
        steps: of the walk.
        sampler: the order.
        seed: of the first sample's draws; the others follow.
        guidance_scale: scale.
        temperature: of the tokens.
        noise: of the confidence.
        num: samples; 0 draws none.
        classifier: see :func:`multidiff.image.diffusion.evaluation.measure`, as for all that
            follows.
        inception: likewise.
        nats: real images whose tokens' cost is bounded, in nats.
        most: real images to compare with.
        split: of the data set.
        label_column: labels of the data set.
        caption_column: captions of the data set.

    Raises:
        InputError: if there is nothing to measure by, or the model cannot do it.
    """
    checked_counts({"num": num, "nats": nats})
    real, report = real_images(model, data, split, label_column, caption_column)
    if nats:
        _bounded(model, real, min(nats, len(real)), seed, report)
    if num:
        how = {"steps": steps, "sampler": sampler, "guidance_scale": guidance_scale, "seed": seed}
        how |= {"temperature": temperature, "noise": noise}
        judged(
            model,
            real,
            num,
            classifier,
            describes_by(model, classifier, inception),
            most,
            how,
            report,
        )
    return report


def _bounded(model: MaskGIT, real: Images, count: int, seed: int, report: Report) -> None:
    """The bound of real images' tokens, told what they show."""
    asked = prompts_of(model, real, count)
    found = []
    for first in range(0, count, AT_ONCE):
        numbers = list(range(first, min(first + AT_ONCE, count)))
        (images,) = batches_of(real, numbers)
        prompts = [asked[number] for number in numbers]
        found.append(model.nats_per_token(images, prompts, seed=seed + first).cpu())
    each = torch.cat(found)
    mean = float(each.mean())
    error = float(each.std()) / math.sqrt(count) if count > 1 else math.nan
    report.lines.append(
        f"{count} images: at most {mean:.3f} nats a token (+- {error:.3f}); "
        f"all codes alike cost {math.log(model.domain.codes):.3f}"
    )
    report.facts["nats_per_token"] = round(mean, 5)
