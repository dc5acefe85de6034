"""Bits per dimension of a pixel model, against a computation that shares no code with ours.

Ho et al. 2020, equations 5 to 8 and 13, written out in NumPy and SciPy from the table of betas
alone. The network and the noise are the same; everything between them is not.
"""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

import multidiff as md
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.image.data.images import Images, ImageSource
from multidiff.image.diffusion.evaluation import bits_per_dim, bound_facts

COUNT = 2


@pytest.fixture(scope="module")
def model(small_pixels):
    return md.load(small_pixels)


@pytest.fixture(scope="module")
def digits():
    images = Images(ImageSource("starter:digits"), channels=1)
    return torch.stack([images.image(50 * i) for i in range(COUNT)])


@torch.no_grad()
def independent(model, image, seed):
    """Prior, sum of the steps and decoder in bits for each dimension, of one image."""
    betas = np.linspace(1e-3, 0.2, 100)  # 100 steps of the usual thousand's noise
    kept = np.cumprod(1 - betas)
    before = np.append(1.0, kept[:-1])
    clean = image.numpy().astype(np.float64) / 255 * 2 - 1
    rng = torch.Generator().manual_seed(seed)
    steps = []
    for t in reversed(range(100)):
        noise = torch.randn(1, *clean.shape, generator=rng)[0].numpy()
        xt = np.sqrt(kept[t]) * clean + np.sqrt(1 - kept[t]) * noise
        time = torch.tensor([(t + 1) / 100], dtype=torch.float64)
        level = NoiseLevel(time, time, time)  # the network reads the time alone
        reported = model.denoiser(torch.tensor(xt[None], dtype=torch.float32), level)[0].numpy()
        guess = (xt - np.sqrt(1 - kept[t]) * reported) / np.sqrt(kept[t])
        guess = np.clip(guess, -1, 1)
        towards_clean = np.sqrt(before[t]) * betas[t] / (1 - kept[t])
        towards_noisy = np.sqrt(1 - betas[t]) * (1 - before[t]) / (1 - kept[t])
        mean = towards_clean * guess + towards_noisy * xt
        if t == 0:
            # The published code's variance of the last step: the posterior's of the one before.
            variance = betas[1] * (1 - before[1]) / (1 - kept[1])
            upper = np.where(clean > 0.999, np.inf, clean + 1 / 255)
            lower = np.where(clean < -0.999, -np.inf, clean - 1 / 255)
            mass = norm.cdf(upper, mean, variance**0.5) - norm.cdf(lower, mean, variance**0.5)
            steps.append(-np.log(np.maximum(mass, 1e-300)).mean())
            continue
        true_mean = towards_clean * clean + towards_noisy * xt
        true_variance = betas[t] * (1 - before[t]) / (1 - kept[t])
        ratio = true_variance / betas[t]
        gap = (true_mean - mean) ** 2 / betas[t]
        steps.append(0.5 * (ratio - 1 - np.log(ratio) + gap).mean())
    spread = 1 - kept[-1]
    prior = 0.5 * (kept[-1] * clean**2 + spread - 1 - np.log(spread)).mean()
    return np.array([prior, sum(steps[:-1]), steps[-1]]) / math.log(2)


def test_each_term_equals_the_independent_one(model, digits):
    bound = bits_per_dim(model, digits, seed=3)
    for row in range(COUNT):
        prior, steps, decoder = independent(model, digits[row], 3 + row)
        found = [bound.prior[row], bound.steps[row, :-1].sum(), bound.decoder[row]]
        for term, wanted in zip(found, (prior, steps, decoder), strict=True):
            assert float(term) / math.log(2) == pytest.approx(wanted, abs=0.005)
        total = float(bound.bits_per_dim[row])
        assert total == pytest.approx(prior + steps + decoder, abs=0.01)


def test_a_trained_network_is_worth_bits(model, digits):
    """The bound of a network that says nothing is larger, term for term where it counts."""

    class Nothing(torch.nn.Module):
        def forward(self, xt, level, condition=None):
            return torch.zeros_like(xt)

    own, model.denoiser = model.denoiser, Nothing()
    model.denoiser.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    try:
        silent = bound_facts(bits_per_dim(model, digits))
    finally:
        model.denoiser = own
    reported = bound_facts(bits_per_dim(model, digits))
    assert reported["total"] < silent["total"] and reported["prior"] == silent["prior"]
