"""MAUVE, where its value is known exactly."""

import math

import numpy as np
import pytest

from multidiff.text.metrics.mauve import frontier_area, mauve


def test_equal_histograms_have_one_and_disjoint_ones_a_beta_integral():
    same = np.array([0.2, 0.3, 0.5])
    assert frontier_area(same, same) == pytest.approx(1)
    one, other = np.eye(2)
    for scaling in (1, 2, 5):
        # x = (1 - w)^c and y = w^c: the area is c B(c + 1, c), one over a binomial coefficient.
        exact = 1 / math.comb(2 * scaling, scaling)
        assert frontier_area(one, other, scaling=scaling, points=4001) == pytest.approx(
            exact, rel=1e-4
        )
    assert frontier_area(one, other) == pytest.approx(1 / 252, rel=0.05)


def test_the_area_of_two_bins_by_an_integral():
    """Over the mixture's weight, by the derivative of one divergence."""
    p, q, c = np.array([0.9, 0.1]), np.array([0.3, 0.7]), 5.0
    w = (np.arange(200_000) + 0.5) / 200_000
    r = w[:, None] * p + (1 - w[:, None]) * q
    y = np.exp(-c * (p * np.log(p / r)).sum(1))
    x = np.exp(-c * (q * np.log(q / r)).sum(1))
    slope = x * c * (q * (p - q) / r).sum(1)  # of x by w
    area = -(y * slope).mean()
    # The curve begins at (0, 1), and y is 1 up to the least x.
    assert frontier_area(p, q, points=4001) == pytest.approx(area + x.min(), rel=1e-3)
    assert frontier_area(p, q) == pytest.approx(frontier_area(q, p))


def test_mauve_of_features():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 300, 8))
    far = other + 40 * np.eye(8)[0]
    assert mauve(one, one) == pytest.approx(1)
    assert mauve(one, other) > 0.9
    assert mauve(one - 40 * np.eye(8)[1], far) == pytest.approx(1 / 252, rel=0.05)
    shifted = [mauve(one, other + by) for by in (0.3, 0.8, 2.0)]
    assert shifted == sorted(shifted, reverse=True)
    assert mauve(one, other, seed=3) == mauve(one, other, seed=3)


def test_features_that_do_not_fit():
    rows = np.ones((4, 3))
    with pytest.raises(ValueError, match="give rows alike"):
        mauve(rows, np.ones((4, 2)))
    with pytest.raises(ValueError, match="9 clusters of 8 texts"):
        mauve(rows, rows, clusters=9)
