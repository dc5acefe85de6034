"""Evaluation of models of image tokens."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from multidiff.image.data.images import Images
from multidiff.image.diffusion.evaluation import (
    AT_ONCE,
    prompts_of,
    real_images,
    report_samples,
)
from multidiff.image.maskgit.model import MaskGIT
from multidiff.image.maskgit.sampling_config import MaskGITSamplingConfig
from multidiff.image.metrics.eval_config import ImageEvalConfig
from multidiff.image.metrics.feature_distance import batches_of
from multidiff.utils.report import Report, checked_counts


def measure(
    model: MaskGIT,
    data: str | None,
    folder: Path,
    *,
    seed: int,
    sampling: MaskGITSamplingConfig,
    evaluation: ImageEvalConfig,
    nats: int = 0,
) -> Report:
    """Compare samples with real images, and bound the cost of real images.

    Args:
        model: the model.
        data: held-out images.
        folder: folder of the model, unused.
        seed: random seed of the first sample; sample ``i`` uses ``seed + i``.
        sampling: sampling options.
        evaluation: options of the comparison.
        nats: number of real images whose tokens' cost is bounded, in nats.

    Raises:
        InputError: if there is nothing to compare with, or the model cannot do it.
    """
    checked_counts({"num": evaluation.num, "nats": nats})
    real, report = real_images(model, data, evaluation)
    if nats:
        _bounded(model, real, min(nats, len(real)), seed, report)
    if evaluation.num:
        report_samples(model, real, evaluation, sampling, seed, report)
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
