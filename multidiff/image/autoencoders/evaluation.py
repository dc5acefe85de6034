"""Reconstruction quality of autoencoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from multidiff.image.autoencoders.quantizers import perplexity, usage
from multidiff.image.autoencoders.training import AutoencoderTrainer, ImageAutoencoder
from multidiff.image.autoencoders.vq import TokenAutoencoder
from multidiff.image.diffusion.evaluation import DATA, describes_by
from multidiff.image.metrics.classifier import ImageClassifier
from multidiff.image.metrics.feature_distance import batches_of, compare_sets, labelled
from multidiff.image.metrics.sets import Describe, describe_all, psnr, ssim
from multidiff.utils.report import Report

Batches = list[UInt8[Tensor, "batch channels height width"]]


def measure(
    model: ImageAutoencoder | TokenAutoencoder,
    data: str | None,
    folder: Path,
    *,
    seed: int = 0,
    classifier: ImageClassifier | None = None,
    inception: Path | None = None,
    most: int = 5000,
    split: str = "train",
) -> Report:
    """Compare reconstructions with their originals; for tokens also report code usage.

    Args:
        model: the autoencoder.
        data: held-out images.
        folder: folder of the model, unused.
        seed: random seed of the kernel distance's subsets.
        classifier: image classifier, for the feature distance.
        inception: file of Inception's weights, for FID.
        most: number of images, at most.
        split: split of the data set.
    """
    real = _batches(data, model.autoencoder.image_channels, split, most)
    report = compared(model, real, describes_by(model, classifier, inception), seed)
    if isinstance(model, TokenAutoencoder):
        _codes_used(model, real, report)
    return report


def _codes_used(model: TokenAutoencoder, real: Batches, report: Report) -> None:
    """Report the fraction of the codes that images use, and how evenly."""
    tokens = torch.cat([model.encode(batch).cpu() for batch in real])
    used, even = (float(of(tokens, model.size)) for of in (usage, perplexity))
    rows, columns = tokens.shape[1:]
    report.lines.append(
        f"{rows}x{columns} tokens: {100 * used:.1f} % of {model.size} codes used, "
        f"perplexity {even:.1f}"
    )
    report.facts.update(
        {
            "tokens": [rows, columns],
            "codes": model.size,
            "usage": round(used, 5),
            "perplexity": round(even, 3),
        }
    )


def compared(
    model: AutoencoderTrainer, real: Batches, describes: dict[str, Describe], seed: int = 0
) -> Report:
    """Compare images with their reconstructions: one by one, and as sets of features.

    Args:
        model: the autoencoder.
        real: images.
        describes: feature functions for comparing sets, by name.
        seed: random seed of the kernel distance's subsets.
    """
    pairs = [(batch, model.reconstruct(batch).cpu()) for batch in real]
    noise = torch.cat([psnr(one, other) for one, other in pairs])
    likeness = torch.cat([ssim(one, other) for one, other in pairs])
    facts: dict[str, Any] = {
        "images": len(noise),
        "psnr_db": round(float(noise.mean()), 4),
        "ssim": round(float(likeness.mean()), 5),
    }
    lines = [f"{len(noise)} images: PSNR {noise.mean():.2f} dB, SSIM {likeness.mean():.4f}"]
    for name, describe in describes.items():
        originals = describe_all((one for one, _ in pairs), describe)
        distance = compare_sets(originals, describe_all((o for _, o in pairs), describe), seed)
        lines += [f"{name}: {line}" for line in distance.lines()]
        facts[name] = distance.facts()
    return Report(lines, facts)


def _batches(data: str | None, channels: Literal[1, 3], split: str, most: int) -> Batches:
    images = labelled(DATA if data is None else data, None, channels, split)
    return list(batches_of(images, list(range(min(most, len(images))))))
