"""How near made images are to real ones, as sets and one by one.

Sets are compared by features: of a small classifier of our own
(:class:`~multidiff.image.metrics.classifier.ImageClassifier`), or of Inception for the FID and
KID that papers print (:mod:`multidiff.image.metrics.inception`). A Frechet distance falls as the
sets grow, even of real images from real ones, so it is told with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from multidiff.core.devices import in_float64

# Images in bytes to their features, a row each, on the CPU.
Describe = Callable[[UInt8[Tensor, "batch channels height width"]], Float[Tensor, "batch features"]]

BLOCK = 1024


def describe_all(batches: Iterable[Tensor], describe: Describe) -> Float[Tensor, "count features"]:
    """The features of all images of some batches of bytes.

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
    """The Gaussian that stands for a set of features.

    Attributes:
        mean: of the features.
        covariance: without bias, divided by ``count - 1``.
        count: how many images it is of.
    """

    mean: Float[Tensor, " features"]
    covariance: Float[Tensor, "features features"]
    count: int

    @classmethod
    def of(cls, batches: Iterable[Float[Tensor, "_ features"]]) -> FeatureStatistics:
        """Of features that come in batches, none of which is kept; all sums are float64.

        Raises:
            ValueError: if there are none.
        """
        whole: FeatureStatistics | None = None
        for batch in batches:
            rows = in_float64(batch)
            mean = rows.mean(dim=0)
            spread = rows - mean
            part = cls(mean, spread.T @ spread / max(len(rows) - 1, 1), len(rows))
            whole = part if whole is None else whole.with_more(part)
        if whole is None:
            raise ValueError("no features to take the statistics of")
        return whole

    def with_more(self, other: FeatureStatistics) -> FeatureStatistics:
        """Of both sets together (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = (self.count - 1) * self.covariance + (other.count - 1) * other.covariance
        scatter = scatter + self.count * other.count / count * torch.outer(apart, apart)
        return FeatureStatistics(
            self.mean + other.count / count * apart, scatter / max(count - 1, 1), count
        )


def frechet_distance(one: FeatureStatistics, other: FeatureStatistics) -> float:
    """The squared Wasserstein-2 distance of two Gaussians (Heusel et al. 2017, eq. 6).

    The trace of the root of a product that is not symmetric equals that of the symmetric
    ``A^(1/2) B A^(1/2)``, whose eigenvalues are real and at least 0, so no complex root has to
    be cut, even where there are fewer images than features.

    Raises:
        ValueError: if a set has fewer than two images: its covariance is not known.
    """
    if min(one.count, other.count) < 2:
        raise ValueError(f"sets of {one.count} and {other.count}: a covariance takes at least 2")
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
    """The squared maximum mean discrepancy (KID), without bias: the mean over random subsets.

    The kernel is ``(x . y / features + 1) ** 3`` (Binkowski et al. 2018, section 4).

    Args:
        real: features of one set,
        made: and of the other.
        subsets: how many are drawn.
        subset_size: images of each set in a subset; all of the smaller set at most.
        rng: draws them; with seed 0 where not given.

    Returns:
        Mean and standard deviation over the subsets, the latter with division by ``subsets``.

    Raises:
        ValueError: if a subset would have fewer than two images, or there are none.
    """
    size = min(subset_size, len(real), len(made))
    if size < 2 or subsets < 1:
        raise ValueError(f"{subsets} subsets of {size} images: at least 1 of 2 is needed")
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
    pairs = within.sum() - within.diagonal().sum()  # none is its own pair
    return pairs / (size * (size - 1)) - 2 * kernel(one, other).mean()


def precision_recall(
    real: Float[Tensor, "count features"],
    made: Float[Tensor, "others features"],
    neighbours: int = 3,
) -> tuple[float, float]:
    """How many made images lie among real ones, and real ones among made ones.

    A set's manifold is all that lies as near to one of its members as that member's k-th
    neighbour in the set (Kynkaanniemi et al. 2019, eq. 1 and 2).

    Raises:
        ValueError: if a set has no more images than neighbours.
    """
    if not 1 <= neighbours < min(len(real), len(made)):
        raise ValueError(f"{neighbours} neighbours in sets of {len(real)} and {len(made)}")
    return _ratio_within(made, real, neighbours), _ratio_within(real, made, neighbours)


def _ratio_within(asked: Tensor, members: Tensor, neighbours: int) -> float:
    """The share of the asked that lie on the manifold of the members."""
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
    """The share of the images whose likeliest class is theirs."""
    return float(in_float64(logits.argmax(dim=1) == label).mean())


def psnr(
    original: Shaped[Tensor, "batch channels height width"],
    made: Shaped[Tensor, "batch channels height width"],
    peak: float = 255.0,
) -> Float[Tensor, " batch"]:
    """Peak signal-to-noise ratio in dB; infinite for what is the same.

    Args:
        original: levels,
        made: and what became of them.
        peak: from the lowest possible level to the highest.
    """
    error = (in_float64(original) - in_float64(made)).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(peak**2 / error)


def ssim(
    original: Shaped[Tensor, "batch channels height width"],
    made: Shaped[Tensor, "batch channels height width"],
    peak: float = 255.0,
) -> Float[Tensor, " batch"]:
    """Structural similarity, 1 for what is the same (Wang et al. 2004, eq. 13).

    Gaussian windows of 11 pixels and deviation 1.5, wherever they fit whole; the mean over
    places and channels.

    Args:
        original: levels,
        made: and what became of them.
        peak: from the lowest possible level to the highest.

    Raises:
        ValueError: if no window fits.
    """
    if min(original.shape[-2:]) < 11:
        raise ValueError(f"{tuple(original.shape[-2:])} pixels: a window has 11 by 11")
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
    """Means in Gaussian windows; as the weights are a product, along one side, then the other."""
    weights = torch.exp(-(torch.arange(-5, 6, dtype=levels.dtype).square()) / (2 * 1.5**2))
    weights = (weights / weights.sum()).to(levels.device)
    single = levels.flatten(0, 1)[:, None]
    single = F.conv2d(F.conv2d(single, weights[None, None, None]), weights[None, None, :, None])
    return single.reshape(*levels.shape[:2], *single.shape[-2:])
