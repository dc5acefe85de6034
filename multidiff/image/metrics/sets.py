"""Metrics of generated images against real ones, as sets and one by one.

Sets are compared by features: of a small classifier of our own
(:class:`~multidiff.image.metrics.classifier.ImageClassifier`), or of Inception for the FID and
KID that papers report (:mod:`multidiff.image.metrics.inception`). A Frechet distance falls as the
sets grow, even between sets of real images, so it is reported with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from multidiff.core.devices import in_float64

# Maps images in bytes to their features, a row each, on the CPU.
Describe = Callable[[UInt8[Tensor, "batch channels height width"]], Float[Tensor, "batch features"]]

BLOCK = 1024


def describe_all(batches: Iterable[Tensor], describe: Describe) -> Float[Tensor, "count features"]:
    """Return the features of all images of some batches of bytes.

    Raises:
        ValueError: if there are no batches.
    """
    rows = [describe(batch) for batch in batches]
    if not rows:
        raise ValueError("no images to describe")
    return torch.cat(rows)


# ------------------------------------------------------------------------ Frechet distance


@dataclass(frozen=True)
class FeatureStatistics:
    """Gaussian fitted to a set of features.

    Attributes:
        mean: mean of the features.
        covariance: unbiased covariance, divided by ``count - 1``.
        count: number of images.
    """

    mean: Float[Tensor, " features"]
    covariance: Float[Tensor, "features features"]
    count: int

    @classmethod
    def of(cls, batches: Iterable[Float[Tensor, "_ features"]]) -> FeatureStatistics:
        """Compute them from batches of features, which are not kept; all sums are float64.

        Raises:
            ValueError: if there are no features.
        """
        whole: FeatureStatistics | None = None
        for batch in batches:
            rows = in_float64(batch)
            mean = rows.mean(dim=0)
            spread = rows - mean
            part = cls(mean, spread.T @ spread / max(len(rows) - 1, 1), len(rows))
            whole = part if whole is None else whole.with_more(part)
        if whole is None:
            raise ValueError("no features to compute statistics of")
        return whole

    def with_more(self, other: FeatureStatistics) -> FeatureStatistics:
        """Combine the statistics of both sets (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = (self.count - 1) * self.covariance + (other.count - 1) * other.covariance
        scatter = scatter + self.count * other.count / count * torch.outer(apart, apart)
        return FeatureStatistics(
            self.mean + other.count / count * apart, scatter / max(count - 1, 1), count
        )


def frechet_distance(one: FeatureStatistics, other: FeatureStatistics) -> float:
    """Return the squared Wasserstein-2 distance of two Gaussians (Heusel et al. 2017, eq. 6).

    The trace of the square root of the product, which is not symmetric, equals that of the
    symmetric ``A^(1/2) B A^(1/2)``, whose eigenvalues are real and at least 0, so no imaginary
    part has to be dropped, even with fewer images than features.

    Raises:
        ValueError: if a set has fewer than two images, so that it has no covariance.
    """
    if min(one.count, other.count) < 2:
        raise ValueError(f"sets of {one.count} and {other.count}: a covariance needs at least 2")
    root = _root(in_float64(one.covariance))
    middle = root @ in_float64(other.covariance) @ root
    shared = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp(min=0).sqrt().sum()
    apart = (in_float64(one.mean) - in_float64(other.mean)).square().sum()
    return float(apart + one.covariance.trace() + other.covariance.trace() - 2 * shared)


def _root(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


# ------------------------------------------------------------- kernel distance, diversity


def kernel_distance(
    real: Float[Tensor, "count features"],
    made: Float[Tensor, "others features"],
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    rng: torch.Generator | None = None,
) -> tuple[float, float]:
    """Return the kernel distance (KID): the unbiased squared MMD, averaged over random subsets.

    The kernel is ``(x . y / features + 1) ** 3`` (Binkowski et al. 2018, section 4).

    Args:
        real: features of one set.
        made: features of the other set.
        subsets: number of subsets.
        subset_size: number of images of each set in a subset; at most the smaller set.
        rng: generator of the subsets; seeded with 0 by default.

    Returns:
        Mean and standard deviation over the subsets, the latter with division by ``subsets``.

    Raises:
        ValueError: if a subset would have fewer than two images, or there are no subsets.
    """
    size = min(subset_size, len(real), len(made))
    if size < 2 or subsets < 1:
        raise ValueError(f"{subsets} subsets of {size} images: need at least 1 of 2")
    rng = torch.Generator().manual_seed(0) if rng is None else rng
    values = torch.stack([
        _discrepancy(_drawn(real, size, rng), _drawn(made, size, rng)) for _ in range(subsets)
    ])  # fmt: skip
    return float(values.mean()), float(values.std(correction=0))


def _drawn(features: Tensor, size: int, rng: torch.Generator) -> Tensor:
    return in_float64(features[torch.randperm(len(features), generator=rng)[:size]])


def _discrepancy(
    one: Float[Tensor, "size features"], other: Float[Tensor, "size features"]
) -> Float[Tensor, ""]:
    size, width = one.shape

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        return (left @ right.T / width + 1) ** 3

    within = kernel(one, one) + kernel(other, other)
    pairs = within.sum() - within.diagonal().sum()  # without pairs of an image with itself
    return pairs / (size * (size - 1)) - 2 * kernel(one, other).mean()


def precision_recall(
    real: Float[Tensor, "count features"],
    made: Float[Tensor, "others features"],
    neighbours: int = 3,
) -> tuple[float, float]:
    """Return the fraction of generated images among real ones, and of real among generated.

    A set's manifold is the union of balls around its members that reach to the k-th
    neighbour in the set (Kynkaanniemi et al. 2019, eq. 1 and 2).

    Raises:
        ValueError: if a set has no more images than ``neighbours``.
    """
    if not 1 <= neighbours < min(len(real), len(made)):
        raise ValueError(f"{neighbours} neighbours in sets of {len(real)} and {len(made)}")
    return _ratio_within(made, real, neighbours), _ratio_within(real, made, neighbours)


def _ratio_within(asked: Tensor, members: Tensor, neighbours: int) -> float:
    """Return the fraction of ``asked`` that lies on the manifold of ``members``."""
    asked, members = in_float64(asked), in_float64(members)
    # Each is its own nearest neighbour, at distance 0.
    radius = torch.cat([
        torch.cdist(block, members).kthvalue(neighbours + 1, dim=1).values
        for block in members.split(BLOCK)
    ])  # fmt: skip
    within = [(torch.cdist(block, members) <= radius).any(dim=1) for block in asked.split(BLOCK)]
    return float(in_float64(torch.cat(within)).mean())


# ------------------------------------------------------------------------- one by one


def accuracy(logits: Float[Tensor, "batch classes"], label: Int[Tensor, " batch"]) -> float:
    """Return the fraction of images whose likeliest class is the right one."""
    return float(in_float64(logits.argmax(dim=1) == label).mean())


def psnr(
    original: Shaped[Tensor, "batch channels height width"],
    made: Shaped[Tensor, "batch channels height width"],
    peak: float = 255.0,
) -> Float[Tensor, " batch"]:
    """Return the peak signal-to-noise ratio in dB; infinite for identical images.

    Args:
        original: levels of the originals.
        made: levels of the reconstructions.
        peak: difference of the highest and the lowest possible level.
    """
    error = (in_float64(original) - in_float64(made)).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(peak**2 / error)


def ssim(
    original: Shaped[Tensor, "batch channels height width"],
    made: Shaped[Tensor, "batch channels height width"],
    peak: float = 255.0,
) -> Float[Tensor, " batch"]:
    """Return the structural similarity, 1 for identical images (Wang et al. 2004, eq. 13).

    Gaussian windows of 11 pixels and standard deviation 1.5, wherever they fit whole; the mean
    over positions and channels.

    Args:
        original: levels of the originals.
        made: levels of the reconstructions.
        peak: difference of the highest and the lowest possible level.

    Raises:
        ValueError: if the images are smaller than a window.
    """
    if min(original.shape[-2:]) < 11:
        raise ValueError(f"{tuple(original.shape[-2:])} pixels: must be at least 11 by 11")
    one, other = in_float64(original), in_float64(made)
    mean_one, mean_other = _windowed(one), _windowed(other)
    product = mean_one * mean_other
    energy = mean_one.square() + mean_other.square()
    covariance = _windowed(one * other) - product
    variances = _windowed(one.square() + other.square()) - energy
    first, second = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    similarity = (2 * product + first) * (2 * covariance + second)
    similarity = similarity / ((energy + first) * (variances + second))
    return similarity.mean(dim=(1, 2, 3))


def _windowed(levels: Float[Tensor, "batch channels height width"]) -> Tensor:
    """Return means in Gaussian windows; the weights are separable: one side, then the other."""
    weights = torch.exp(-(torch.arange(-5, 6, dtype=levels.dtype).square()) / (2 * 1.5**2))
    weights = (weights / weights.sum()).to(levels.device)
    single = levels.flatten(0, 1)[:, None]
    single = F.conv2d(F.conv2d(single, weights[None, None, None]), weights[None, None, :, None])
    return single.reshape(*levels.shape[:2], *single.shape[-2:])
