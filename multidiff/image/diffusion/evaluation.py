"""How good a picture model is: sets compared, prompts obeyed, bits counted, pictures restored."""

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

from multidiff.core.gaussian.likelihood import Bound, variational_bound
from multidiff.core.gaussian.timesteps import trailing_times
from multidiff.core.projections import clip
from multidiff.core.random import generators
from multidiff.image.data.image_files import to_unit
from multidiff.image.data.images import Pictures
from multidiff.image.diffusion.domains import PixelDomain
from multidiff.image.diffusion.model import PictureDiffusion
from multidiff.image.metrics.classifier import PictureClassifier
from multidiff.image.metrics.feature_distance import batches_of, compare_sets, labelled
from multidiff.image.metrics.inception import inception_features
from multidiff.image.metrics.sets import Describe, accuracy, describe_all
from multidiff.utils.errors import InputError
from multidiff.utils.report import Report, checked_counts

AT_ONCE = 50
DATA = "starter:digits"


class Drawn(Protocol):
    """A model that draws pictures by prompts."""

    domain: Any
    subjects: tuple[str, ...]

    @property
    def generate(self) -> Callable[..., Tensor]:
        """Makes a picture for each of some prompts."""
        ...


def measure(
    model: PictureDiffusion,
    data: str | None,
    folder: Path,
    *,
    steps: int | None = None,
    solver: str | None = None,
    seed: int = 0,
    guidance: float | None = None,
    num: int = 1000,
    judge: PictureClassifier | None = None,
    inception: Path | None = None,
    bits: int = 0,
    most: int = 5000,
    split: str = "train",
    label_column: str | None = None,
    caption_column: str | None = None,
) -> Report:
    """Samples against real pictures.

    As many samples of each label are drawn as the real pictures have, or one for each of their
    captions.

    Args:
        model: the model.
        data: held-out pictures.
        folder: of the model, unused.
        steps: of the solver.
        solver: its name.
        seed: of the first sample's noise; the others follow.
        guidance: scale.
        num: samples; 0 draws none.
        judge: a classifier, by the name of its model: feature distance on it, and whether
            samples show what was asked for.
        inception: a file of Inception's weights: FID and KID.
        bits: real pictures whose bits per dimension are counted, for models in pixels.
        most: real pictures to compare with.
        split: of the data set.
        label_column: labels of the data set; ``label`` where there is one.
        caption_column: captions of the data set.

    Raises:
        InputError: if there is nothing to measure by, or the model cannot do it.
    """
    checked_counts({"num": num, "bits": bits})
    real, report = beside(model, data, split, label_column, caption_column)
    if bits:
        bound = bits_per_dim(model, _stacked(real, bits), seed)
        report.lines.extend(bound_lines(bound))
        report.facts["bits_per_dim"] = bound_facts(bound)
    if num:
        describes = describes_by(model, judge, inception)
        how = {"steps": steps, "solver": solver, "guidance": guidance, "seed": seed}
        judged(model, real, num, judge, describes, most, how, report)
    return report


def beside(
    model: Drawn, data: str | None, split: str, label_column: str | None, caption_column: str | None
) -> tuple[Pictures, Report]:
    """The real pictures that a model is measured by, and the beginning of what is told.

    Args:
        model: whose size and colours they have.
        data: where they are; those of the package where not given.
        split: of the data set.
        label_column: of the data set.
        caption_column: likewise.
    """
    source, domain = DATA if data is None else data, model.domain
    real = labelled(source, domain.size, domain.channels, split, label_column, caption_column)
    return real, Report([], {"data": source})


def judged(
    model: Drawn,
    real: Pictures,
    num: int,
    judge: PictureClassifier | None,
    describes: dict[str, Describe],
    most: int,
    how: dict[str, Any],
    report: Report,
) -> None:
    """Samples, whether they show what was asked for, and how far they are from real pictures.

    Args:
        model: which draws them.
        real: pictures.
        num: of the samples.
        judge: a classifier, if there is one.
        describes: what pictures are compared by, by name.
        most: real pictures to compare with.
        how: they are drawn, the seed among it.
        report: that receives what is found.

    Raises:
        InputError: if there is nothing to compare by, or the model cannot draw so.
    """
    if not describes:
        raise InputError(
            "--judge MODEL (digit-features for digits) or --inception WEIGHTS: "
            "name what samples are compared by, or set --num 0"
        )
    asked = prompts_of(model, real, num)
    began = time.perf_counter()
    made = model.generate(asked, batch_size=AT_ONCE, **how)
    report.facts["seconds_per_picture"] = round((time.perf_counter() - began) / num, 4)
    if judge is not None and real.labels is not None and len(set(asked)) > 1:
        share = _share_right(judge, made, real.labels[_places(len(real), num)])
        report.lines.append(f"{num} samples: {100 * share:.2f} % show what was asked for")
        report.facts["right"] = round(share, 6)
    chosen = list(range(min(most, len(real))))
    for name, describe in describes.items():
        features = describe_all(batches_of(real, chosen), describe)
        found = describe_all(made.split(AT_ONCE), describe)
        distance = compare_sets(features, found, how["seed"])
        report.lines.extend(f"{name}: {line}" for line in distance.lines())
        report.facts[name] = distance.facts()


def prompts_of(model: Drawn, real: Pictures, count: int) -> list[str]:
    """What to ask for, so that samples are of the same kinds as real pictures.

    Raises:
        InputError: if the pictures have neither captions nor labels that the model knows.
    """
    places = _places(len(real), count)
    if model.domain.reads == "nothing":
        return [""] * count
    if model.subjects and real.labels is not None:
        labels = real.labels[places].tolist()
        if max(labels) >= len(model.subjects):
            raise InputError(
                f"{real.source.path}: has label {max(labels)}, the model only "
                f"{len(model.subjects)} subjects"
            )
        return [model.subjects[label] for label in labels]
    rng = np.random.default_rng(0)
    captions = [real.caption_of(place, rng) for place in places]
    if not all(captions):
        raise InputError(
            f"{real.source.path}: no captions to ask for; name their column by --caption-column"
        )
    return captions


def bits_per_dim(
    model: PictureDiffusion, picture: UInt8[Tensor, "batch colours height width"], seed: int = 0
) -> Bound:
    """The variational bound of pictures, one draw of the noise for each step of the table.

    Raises:
        InputError: if the model is not one of pixels, or has no table.
    """
    steps = model.process.schedule.num_steps
    if not isinstance(model.domain, PixelDomain) or steps is None or model.domain.pad_to > 1:
        raise InputError("--bits: only a model in pixels, on a table of noise, has them")
    bounds = []
    for first in range(0, len(picture), AT_ONCE):
        clean = to_unit(picture[first : first + AT_ONCE]).to(model.device)
        rng = generators([seed + first + row for row in range(len(clean))])
        variance = "learned" if model.process.learns_variance else "large"
        bounds.append(
            variational_bound(
                model.process,
                model.denoiser,
                clean,
                times=trailing_times(steps),
                rng=rng,
                variance=variance,
                project=clip(),
            )
        )
    return Bound(torch.cat([b.prior for b in bounds]), torch.cat([b.steps for b in bounds]))


def bound_facts(bound: Bound) -> dict[str, float]:
    """The bound's terms in bits for each dimension, means over the pictures."""
    terms = {
        "total": bound.total,
        "prior": bound.prior,
        "steps": bound.steps[:, :-1].sum(dim=1),
        "decoder": bound.decoder,
    }
    count = len(bound.prior)
    error = bound.total.std() / math.sqrt(count) if count > 1 else torch.tensor(math.nan)
    facts = {name: round(float(term.mean()) / math.log(2), 5) for name, term in terms.items()}
    return {**facts, "error": round(float(error) / math.log(2), 5), "pictures": count}


def bound_lines(bound: Bound) -> list[str]:
    """The same as text."""
    facts = bound_facts(bound)
    return [
        f"{facts['pictures']} pictures: {facts['total']:.4f} bits per dimension "
        f"(+- {facts['error']:.4f}): prior {facts['prior']:.5f}, "
        f"steps {facts['steps']:.4f}, decoder {facts['decoder']:.4f}"
    ]


def describes_by(
    model: torch.nn.Module, judge: PictureClassifier | None, inception: Path | None
) -> dict[str, Describe]:
    """What pictures are compared by: a classifier's features, Inception's, or both."""
    found: dict[str, Describe] = {}
    if judge is not None:
        found["judge"] = judge.describe
    if inception is not None:
        found["inception"] = inception_features(inception, next(model.parameters()).device)
    return found


def _share_right(judge: PictureClassifier, made: Tensor, labels: Tensor) -> float:
    device = next(judge.parameters()).device
    with torch.no_grad():
        logits = [judge(to_unit(batch.to(device))).cpu() for batch in made.split(AT_ONCE)]
    return accuracy(torch.cat(logits), labels)


def _places(available: int, count: int) -> list[int]:
    return [number % available for number in range(count)]


def _stacked(pictures: Pictures, count: int) -> Tensor:
    return torch.cat(list(batches_of(pictures, list(range(min(count, len(pictures)))))))
