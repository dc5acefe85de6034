"""How much of pictures an autoencoder keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from multidiff.errors import InputError
from multidiff.image.autoencoding import PictureAutoencoder
from multidiff.image.evaluation import DATA, describes_by
from multidiff.image.feature_distance import batches_of, compare_sets, labelled
from multidiff.image.features import PictureClassifier
from multidiff.image.metrics import describe_all, psnr, ssim
from multidiff.report import Report


def measure(
    model: PictureAutoencoder,
    data: str | None,
    folder: Path,
    *,
    steps: int | None = None,
    solver: str | None = None,
    seed: int = 0,
    judge: PictureClassifier | None = None,
    inception: Path | None = None,
    most: int = 5000,
    split: str = "train",
) -> Report:
    """Reconstructions against their originals.

    Args:
        model: the autoencoder.
        data: held-out pictures.
        folder: of the model; nothing in it is needed.
        steps: an autoencoder takes none.
        solver: nor this.
        seed: of the kernel distance's subsets.
        judge: a classifier, for the feature distance.
        inception: a file of Inception's weights, for FID.
        most: pictures.
        split: of the data set.

    Raises:
        InputError: if steps or a solver are asked for.
    """
    if steps is not None or solver is not None:
        raise InputError("--steps, --solver: an autoencoder takes no steps; leave them out")
    channels = model.autoencoder.picture_channels
    real = labelled(DATA if data is None else data, None, channels, split)
    chosen = list(range(min(most, len(real))))
    pairs = [(batch, model.reconstruct(batch).cpu()) for batch in batches_of(real, chosen)]
    noise = torch.cat([psnr(one, other) for one, other in pairs])
    likeness = torch.cat([ssim(one, other) for one, other in pairs])
    facts: dict[str, Any] = {
        "pictures": len(chosen),
        "psnr_db": round(float(noise.mean()), 4),
        "ssim": round(float(likeness.mean()), 5),
    }
    lines = [f"{len(chosen)} pictures: PSNR {noise.mean():.2f} dB, SSIM {likeness.mean():.4f}"]
    for name, describe in describes_by(model, judge, inception).items():
        originals = describe_all((one for one, _ in pairs), describe)
        distance = compare_sets(originals, describe_all((o for _, o in pairs), describe), seed)
        lines += [f"{name}: {line}" for line in distance.lines()]
        facts[name] = distance.facts()
    return Report(lines, facts)
