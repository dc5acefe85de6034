"""Evaluation of models of image tokens."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from multidiff.image.data.images import Images
from multidiff.image.diffusion.evaluation import (
    AT_ONCE,
    Measured,
    describes_by,
    prompts_of,
    real_images,
    report_samples,
)
from multidiff.image.maskgit.model import MaskGIT
from multidiff.image.maskgit.sampling_config import MaskGITSamplingConfig
from multidiff.image.metrics.classifier import ImageClassifier
from multidiff.image.metrics.feature_distance import batches_of
from multidiff.utils.report import Report, checked_counts


def measure(
    model: MaskGIT,
    data: str | None,
    folder: Path,
    *,
    seed: int,
    sampling: MaskGITSamplingConfig,
    num: int = 1000,
    classifier: ImageClassifier | None = None,
    inception: Path | None = None,
    nats: int = 0,
    most: int = 5000,
    split: str = "train",
    label_column: str | None = None,
    caption_column: str | None = None,
) -> Report:
    """Compare samples with real images, and bound the cost of real images.

    Args:
        model: the model.
        data: held-out images.
        folder: folder of the model, unused.
        seed: random seed of the first sample; sample ``i`` uses ``seed + i``.
        sampling: sampling options.
        num: number of samples; 0 for none.
        classifier: image classifier, such as digit-features: feature distance on it, and the
            fraction of samples that show their prompt.
        inception: file of Inception's weights: FID and KID.
        nats: number of real images whose tokens' cost is bounded, in nats.
        most: largest number of real images to compare with.
        split: split of the data set.
        label_column: column of the data set's labels; ``label`` by default.
        caption_column: column of the data set's captions.

    Raises:
        InputError: if there is nothing to compare with, or the model cannot do it.
    """
    checked_counts({"num": num, "nats": nats})
    real, report = real_images(model, data, split, label_column, caption_column)
    if nats:
        _bounded(model, real, min(nats, len(real)), seed, report)
    if num:
        measured = Measured(real, describes_by(model, classifier, inception), classifier, most)
        report_samples(model, measured, num, sampling, seed, report)
    return report


def _bounded(model: MaskGIT, real: Images, count: int, seed: int, report: Report) -> None:
    """Report the bound of real images' tokens, given their prompts."""
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
