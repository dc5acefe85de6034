"""MAUVE: how near generated texts are to real ones in distribution (Pillutla et al. 2021).

Features of both sets are quantised together by k-means; ``p`` and ``q`` are the histograms. The
divergence frontier is the curve of ::

    (exp(-c KL(q | r)), exp(-c KL(p | r)))    with    r = w p + (1 - w) q,    0 < w < 1,

and MAUVE the area below it: 1 for equal distributions, and with the usual ``c = 5`` 1/252 for
disjoint ones. It depends on the features, on the number of texts and on that of the clusters:
compare only values that agree in all three.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from multidiff.utils.packages import needs

SCALING = 5.0
POINTS = 25  # of the frontier
TEXTS_OF_A_CLUSTER = 10
VARIANCE = 0.9  # that the principal components keep


def mauve(
    samples: Float[np.ndarray, "texts width"],
    real: Float[np.ndarray, "others width"],
    clusters: int | None = None,
    scaling: float = SCALING,
    seed: int = 0,
) -> float:
    """Return MAUVE of two sets of texts.

    The features have unit length and are reduced to the principal components that keep 90 % of
    the variance, as the authors do.

    Args:
        samples: features of generated texts.
        real: features of real texts.
        clusters: number of clusters; a tenth of the smaller set, at least 2, by default.
        scaling: constant ``c``.
        seed: random seed of the clusters.

    Raises:
        ValueError: if the features differ in width, or there are more clusters than texts.
    """
    with needs("scikit-learn", "MAUVE"):
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA

    if samples.ndim != 2 or real.ndim != 2 or samples.shape[1] != real.shape[1]:
        raise ValueError(f"features of shapes {samples.shape} and {real.shape}: give rows alike")
    if clusters is None:
        clusters = max(2, round(min(len(samples), len(real)) / TEXTS_OF_A_CLUSTER))
    if not 1 < clusters <= len(samples) + len(real):
        raise ValueError(f"{clusters} clusters of {len(samples) + len(real)} texts: give 2 or more")
    both = np.concatenate([samples, real]).astype(np.float64)
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
    if np.ptp(both, axis=0).max() > 1e-9:
        both = PCA(VARIANCE, svd_solver="full").fit_transform(both)
    options: Any = {"n_init": 5, "max_iter": 500, "random_state": seed}
    labels = KMeans(clusters, **options).fit_predict(both)
    p, q = (
        np.bincount(part, minlength=clusters) / len(part)
        for part in np.split(labels, [len(samples)])
    )
    return frontier_area(p, q, scaling)


def frontier_area(
    p: Float[np.ndarray, " bins"],
    q: Float[np.ndarray, " bins"],
    scaling: float = SCALING,
    points: int = POINTS,
) -> float:
    """Return the area below the divergence frontier of two histograms.

    It is the mean of the areas over each of the axes, by the trapezoidal rule.

    Args:
        p: probabilities of the bins.
        q: other probabilities of them.
        scaling: constant ``c``.
        points: number of points of the curve between its ends.
    """
    weights = np.linspace(1e-6, 1 - 1e-6, points)[:, None]
    mixed = weights * p + (1 - weights) * q
    # From (0, 1) to (1, 0); x falls and y rises with the weight.
    x, y = (np.exp(-scaling * _divergence(one, mixed)) for one in (q, p))
    x = np.sort(np.concatenate([[0.0, 1.0], x]))
    y = np.sort(np.concatenate([[0.0, 1.0], y]))[::-1]
    return float((np.trapezoid(y, x) - np.trapezoid(x, y)) / 2)


def _divergence(
    p: Float[np.ndarray, " bins"], mixed: Float[np.ndarray, "points bins"]
) -> Float[np.ndarray, " points"]:
    """Return the Kullback-Leibler divergence of ``p`` from each mixture, in nats."""
    some = p > 0
    return (p[some] * np.log(p[some] / mixed[:, some])).sum(axis=1)
