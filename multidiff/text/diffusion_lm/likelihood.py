"""Bound (NELBO) on the likelihood of texts under diffusion of their embeddings.

With ``q(x_0 | w) = N(Emb(w), sigma_0^2)`` and the head ``p(w | x_0)``,

    (1) -log p(w) <= E_q [ bound of -log p(x_0) - log p(w | x_0) + log q(x_0 | w) ]

(Li et al. 2022, eq. 2). The first term is the variational bound of the states; the last is minus
the entropy of a Gaussian. The network knows where a text ends, so the length is paid for
separately, under the distribution that lengths are drawn from. Everything is in nats for each
token, including END: padding is not part of a state and costs nothing.

If an embedding is known, the rest of x_0 is Gaussian:

    (2) E[x_0 | x_t, w] = Emb + g (x_t - alpha Emb),  g = alpha sigma_0^2 / v
        Var[x_0 | x_t, w] = sigma_0^2 sigma^2 / v,    v = alpha^2 sigma_0^2 + sigma^2

An estimate that is clamped to embeddings is completed by (2), and its variance is what even a
perfect estimate of x_0 leaves: with it the Gaussian part costs nothing, however few the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from multidiff.core.gaussian.likelihood import ContinuousDecoder, vlb
from multidiff.core.gaussian.predictions import combine, with_x0
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.gaussian.timesteps import TimestepSchedule, uniform_timesteps
from multidiff.core.protocols import Condition, Denoiser, Estimate
from multidiff.core.random import generators
from multidiff.text.diffusion_lm.domain import EmbeddedDomain
from multidiff.text.diffusion_lm.model import TextDiffusion
from multidiff.text.request import condition_of, requests_from


def completed(
    domain: EmbeddedDomain, estimate: Estimate, xt: Tensor, level: NoiseLevel
) -> Estimate:
    """Return an estimate of x_0, if needed from that of its embedding and eq. (2)."""
    if domain.clamp == "none":
        return estimate
    clamped = domain.project(estimate, xt, level).x0
    gain = level.alpha * domain.first_std**2 / _total(domain, level)
    return with_x0(estimate, combine(1 - gain * level.alpha, clamped, gain, xt), xt, level)


def _total(domain: EmbeddedDomain, level: NoiseLevel) -> Tensor:
    """Return ``v`` of eq. (2)."""
    return (level.alpha * domain.first_std) ** 2 + level.sigma**2


def _residual(domain: EmbeddedDomain, level: NoiseLevel) -> Tensor:
    """Return the variance of eq. (2)."""
    return (domain.first_std * level.sigma) ** 2 / _total(domain, level)


@torch.no_grad()
def text_bound(
    model: TextDiffusion,
    texts: Sequence[str],
    meanings: Sequence[Mapping[str, str]],
    seeds: Sequence[int],
    times: TimestepSchedule,
    sources: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Return the terms of each text's bound, in nats for the whole text, by name.

    Self-conditioning is off: each term is one evaluation at one state.

    Args:
        model: the model.
        texts: texts to measure.
        meanings: meaning of each, as the model's condition; missing attributes are unspecified.
        seeds: random seeds of the noise of each.
        times: timestep schedule.
        sources: source of each, for models with sources; empty if not given.
    """
    domain, rng = model.domain, generators(seeds)
    requests = requests_from(meanings, sources)
    read = [request.source for request in requests]
    encoded = domain.encode({"text": texts, "meaning": meanings, "source": read}, rng)
    assert encoded.tokens is not None
    bound = vlb(
        model.process,
        _told_nothing(model),
        encoded.x0,
        condition_of(domain, requests, encoded.real),
        times=times,
        rng=rng,
        decoder=ContinuousDecoder(),
        project=lambda *what: completed(domain, *what),
        mask=encoded.mask,
        residual=partial(_residual, domain),
    )
    words = encoded.real.sum(dim=1)
    dimensions = words * domain.width
    entropy = 0.5 * math.log(2 * math.pi * math.e * domain.first_std**2) * dimensions
    return {
        "prior": bound.prior * dimensions,
        "steps": bound.steps[:, :-1].sum(dim=1) * dimensions,
        "decoder": bound.decoder * dimensions - entropy,
        "length": domain.length_nats(words),
        "rounding": domain.cross_entropy(encoded.x0, encoded.tokens, encoded.real) * words,
        "words": words,
    }


def _told_nothing(model: TextDiffusion) -> Denoiser:
    memory = model.memory
    if memory is None:
        return model.denoiser

    def denoiser(xt: Tensor, level: NoiseLevel, condition: Condition = None) -> Tensor:
        return model.denoiser(memory.concat(xt, torch.zeros_like(xt)), level, condition)

    return denoiser


def nats_per_token(
    model: TextDiffusion,
    texts: Sequence[str],
    meanings: Sequence[Mapping[str, str]],
    *,
    seed: int = 0,
    steps: int | None = None,
    batch_size: int = 50,
    sources: Sequence[str] = (),
) -> dict[str, float]:
    """Return the bound of a set of texts and its terms, in nats for each token.

    Args:
        model: the model.
        texts: texts to measure.
        meanings: meaning of each, as the model's condition.
        seed: random seed of the first text; text ``i`` uses ``seed + i``.
        steps: number of steps; every timestep of the schedule by default.
        batch_size: number of texts in a batch.
        sources: source of each, for models with sources; empty if not given.
    """
    times = uniform_timesteps(steps or model.process.schedule.num_steps or 1000)
    sums: dict[str, float] = {}
    for first in range(0, len(texts), batch_size):
        rows = slice(first, first + batch_size)
        seeds = [seed + row for row in range(len(texts))[rows]]
        found = text_bound(model, texts[rows], meanings[rows], seeds, times, sources[rows])
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value.sum())
    words = sums.pop("words")
    terms = {name: value / words for name, value in sums.items()}
    return {"total": sum(terms.values()), **terms}
