"""Evaluation of image models: set distances, prompt accuracy, bits per dimension."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from multidiff.core.gaussian.likelihood import Bound, vlb
from multidiff.core.gaussian.timesteps import trailing_timesteps
from multidiff.core.projections import clip
from multidiff.core.random import generators
from multidiff.image.data.image_files import to_unit
from multidiff.image.data.images import Images
from multidiff.image.diffusion.domains import PixelDomain
from multidiff.image.diffusion.model import ImageDiffusion
from multidiff.image.diffusion.sampling_config import ImageSamplingConfig
from multidiff.image.metrics.classifier import ImageClassifier
from multidiff.image.metrics.eval_config import ImageEvalConfig
from multidiff.image.metrics.feature_distance import batches_of, compare_sets, labelled
from multidiff.image.metrics.inception import inception_features
from multidiff.image.metrics.sets import Describe, accuracy, describe_all
from multidiff.models.sampling_config import SamplingConfig
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, checked_counts

AT_ONCE = 50
DATA = "starter:digits"


class Drawn(Protocol):
    """A model that generates images from prompts."""

    domain: Any
    subjects: tuple[str, ...]

    @property
    def generate(self) -> Callable[..., Tensor]:
        """Return the function that generates an image for each prompt."""
        ...


def measure(
    model: ImageDiffusion,
    data: str | None,
    folder: Path,
    *,
    seed: int,
    sampling: ImageSamplingConfig,
    evaluation: ImageEvalConfig,
    bits: int = 0,
) -> Report:
    """Compare samples with real images.

    The samples have the labels of the real images in equal numbers, or one sample for each caption.

    Args:
        model: the model.
        data: held-out images.
        folder: folder of the model, unused.
        seed: random seed of the first sample; sample ``i`` uses ``seed + i``.
        sampling: sampling options.
        evaluation: options of the comparison.
        bits: number of real images whose bits per dimension are computed, for pixel models.

    Raises:
        InputError: if there is nothing to compare with, or the model cannot do it.
    """
    checked_counts({"num": evaluation.num, "bits": bits})
    real, report = real_images(model, data, evaluation)
    if bits:
        bound = bits_per_dim(model, _stacked(real, bits), seed)
        report.lines.extend(bound_lines(bound))
        report.facts["bits_per_dim"] = bound_facts(bound)
    if evaluation.num:
        report_samples(model, real, evaluation, sampling, seed, report)
    return report


def real_images(
    model: Drawn, data: str | None, evaluation: ImageEvalConfig
) -> tuple[Images, Report]:
    """Return the real images for an evaluation, and the beginning of the report.

    Args:
        model: model whose size and channels they have.
        data: source of the images; the package's own by default.
        evaluation: options of the comparison.
    """
    source, domain = DATA if data is None else data, model.domain
    columns = (evaluation.split, evaluation.label_column, evaluation.caption_column)
    return labelled(source, domain.size, domain.channels, *columns), Report([], {"data": source})


def report_samples(
    model: Any,
    real: Images,
    evaluation: ImageEvalConfig,
    sampling: SamplingConfig,
    seed: int,
    report: Report,
) -> None:
    """Report how many samples show their prompt, and their distances from real images.

    Args:
        model: the model.
        real: real images.
        evaluation: options of the comparison.
        sampling: sampling options.
        seed: random seed of the first sample.
        report: report to add lines and facts to.

    Raises:
        InputError: if there is nothing to compare with, or the model cannot sample with these
            options.
    """
    num, classifier = evaluation.num, evaluation.classifier
    describes = describes_by(model, classifier, evaluation.inception)
    if not describes:
        raise InputError(
            "--classifier MODEL (digit-features for digits) or --inception WEIGHTS: "
            "name what samples are compared by, or set --num 0"
        )
    asked = prompts_of(model, real, num)
    began = time.perf_counter()
    made = model.generate(asked, batch_size=AT_ONCE, config=sampling, seed=seed)
    report.facts["seconds_per_image"] = round((time.perf_counter() - began) / num, 4)
    if classifier is not None and real.labels is not None and len(set(asked)) > 1:
        ratio = _ratio_right(classifier, made, real.labels[_positions(len(real), num)])
        report.lines.append(f"{num} samples: {100 * ratio:.2f} % show what was asked for")
        report.facts["right"] = round(ratio, 6)
    chosen = list(range(min(evaluation.most, len(real))))
    for name, describe in describes.items():
        features = describe_all(batches_of(real, chosen), describe)
        found = describe_all(made.split(AT_ONCE), describe)
        distance = compare_sets(features, found, seed)
        report.lines.extend(f"{name}: {line}" for line in distance.lines())
        report.facts[name] = distance.facts()


def prompts_of(model: Drawn, real: Images, count: int) -> list[str]:
    """Return prompts for samples with the labels or captions of the real images.

    Raises:
        InputError: if the images have neither captions nor labels that the model knows.
    """
    positions = _positions(len(real), count)
    if model.domain.reads == "nothing":
        return [""] * count
    if model.subjects and real.labels is not None:
        labels = real.labels[positions].tolist()
        if max(labels) >= len(model.subjects):
            raise InputError(
                f"{real.source.path}: has label {max(labels)}, the model only "
                f"{len(model.subjects)} subjects"
            )
        return [model.subjects[label] for label in labels]
    rng = np.random.default_rng(0)
    captions = [real.caption_of(position, rng) for position in positions]
    if not all(captions):
        raise InputError(
            f"{real.source.path}: no captions to ask for; name their column by --caption-column"
        )
    return captions


def bits_per_dim(
    model: ImageDiffusion, image: UInt8[Tensor, "batch channels height width"], seed: int = 0
) -> Bound:
    """Return the variational bound of images, with one draw of the noise for each timestep.

    Raises:
        InputError: if the model is not a pixel model, or its schedule has no table.
    """
    steps = model.process.schedule.num_steps
    if not isinstance(model.domain, PixelDomain) or steps is None or model.domain.pad_to > 1:
        raise InputError("--bits: only a model in pixels, on a table of noise, has them")
    bounds = []
    for first in range(0, len(image), AT_ONCE):
        x0 = to_unit(image[first : first + AT_ONCE]).to(model.device)
        rng = generators([seed + first + row for row in range(len(x0))])
        variance = "learned" if model.process.learns_variance else "large"
        bounds.append(
            vlb(
                model.process,
                model.denoiser,
                x0,
                times=trailing_timesteps(steps),
                rng=rng,
                variance=variance,
                project=clip(),
            )
        )
    return Bound(torch.cat([b.prior for b in bounds]), torch.cat([b.steps for b in bounds]))


def bound_facts(bound: Bound) -> dict[str, float]:
    """Return the bound's terms in bits per dimension, averaged over the images."""
    terms = {
        "total": bound.total,
        "prior": bound.prior,
        "steps": bound.steps[:, :-1].sum(dim=1),
        "decoder": bound.decoder,
    }
    count = len(bound.prior)
    error = bound.total.std() / math.sqrt(count) if count > 1 else torch.tensor(math.nan)
    facts = {name: round(float(term.mean()) / math.log(2), 5) for name, term in terms.items()}
    return {**facts, "error": round(float(error) / math.log(2), 5), "images": count}


def bound_lines(bound: Bound) -> list[str]:
    """Format the bound's terms as lines of text."""
    facts = bound_facts(bound)
    return [
        f"{facts['images']} images: {facts['total']:.4f} bits per dimension "
        f"(+- {facts['error']:.4f}): prior {facts['prior']:.5f}, "
        f"steps {facts['steps']:.4f}, decoder {facts['decoder']:.4f}"
    ]


def describes_by(
    model: torch.nn.Module, classifier: ImageClassifier | None, inception: Path | None
) -> dict[str, Describe]:
    """Return feature functions for comparing images: a classifier's, Inception's, or both."""
    found: dict[str, Describe] = {}
    if classifier is not None:
        found["classifier"] = classifier.describe
    if inception is not None:
        found["inception"] = inception_features(inception, next(model.parameters()).device)
    return found


def _ratio_right(classifier: ImageClassifier, made: Tensor, labels: Tensor) -> float:
    device = next(classifier.parameters()).device
    with torch.no_grad():
        logits = [classifier(to_unit(batch.to(device))).cpu() for batch in made.split(AT_ONCE)]
    return accuracy(torch.cat(logits), labels)


def _positions(available: int, count: int) -> list[int]:
    return [number % available for number in range(count)]


def _stacked(images: Images, count: int) -> Tensor:
    return torch.cat(list(batches_of(images, list(range(min(count, len(images)))))))
