"""Texts as states: the embeddings of their tokens (Diffusion-LM, Li et al. 2022).

    (1) x_0 = Emb(w) + sigma_0 n                       the state of a text (section 4.1)
    (2) MSE(f(x_t, t), x_0), at the first level Emb(w)  the process's loss (appendix E)
    (3) CE(w | x_0)                                    rounding, by a head tied to Emb
    (4) mean (alpha_T x_0)^2                           the tail: signal left at the last level
    (5) CE(w | f(x_t, t))                              the anchor (Difformer, Gao et al. 2022)

The published code computes (3) from the true x_0, as here, not from the prediction.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from multidiff.core.gaussian.predictions import mean_over_state, with_x0
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.protocols import Condition, Corrupted, Encoded, Estimate, Process
from multidiff.core.random import Rng, normal
from multidiff.text.data.attributes import MeaningTable
from multidiff.text.data.vocabulary import END, PAD, UNKNOWN, Vocabulary
from multidiff.text.domain import EncodedText, TextDomain

Clamp = Literal["none", "soft", "hard"]


class EmbeddedDomain(TextDomain):
    """Texts, their embeddings, and the inverse map.

    A state is ``(batch, length, width)``.

    Args:
        vocabulary: see :class:`~multidiff.text.domain.TextDomain`.
        width: width of the embeddings.
        length: see :class:`~multidiff.text.domain.TextDomain`.
        norm: norm that every embedding is rescaled to; free if None, as published. A smaller
            one lets the schedule destroy words earlier.
        first_std: sigma_0 of eq. (1).
        clamp: clamping of x0 estimates: "soft" is the mean embedding
            under the head's probabilities (score interpolation, Dieleman et al. 2022), "hard"
            the most probable word's (the paper's clamping trick), "none" leaves it.
        anchor: weight of eq. (5).
        meanings: see :class:`~multidiff.text.domain.TextDomain`.
        drop_values: see :class:`~multidiff.text.domain.TextDomain`.
        source_length: see :class:`~multidiff.text.domain.TextDomain`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        width: int = 16,
        length: int = 64,
        norm: float | None = None,
        first_std: float = 0.1,
        clamp: Clamp = "none",
        anchor: float = 0.0,
        meanings: MeaningTable | None = None,
        drop_values: float = 0.0,
        source_length: int = 0,
    ):
        if width < 1 or length < 2 or (norm is not None and norm <= 0):
            raise ValueError(f"width {width}, length {length} or norm {norm}: too small")
        super().__init__(vocabulary, length, meanings, drop_values, source_length)
        self.width, self.norm = width, norm
        self.clamp: Clamp = clamp
        self.first_std, self.anchor = first_std, anchor
        self.table = nn.Parameter(torch.empty(vocabulary.size, width))
        nn.init.normal_(self.table)
        self.bias = nn.Parameter(torch.zeros(vocabulary.size))
        self.log_scale = nn.Parameter(torch.zeros(()))

    # ----------------------------------------------------------------- text to state

    def embeddings(self) -> Float[Tensor, "words width"]:
        """Return the embedding of each word."""
        if self.norm is None:
            return self.table
        return F.normalize(self.table, dim=1) * self.norm

    def encode(self, batch: Any, rng: Rng | None) -> EncodedText:
        """Draw states by eq. (1)."""
        tokens, condition = self.encoded(batch, rng)
        embedding = self.embed(tokens)
        noise = normal(embedding.shape, rng).to(embedding)
        x0 = embedding + self.first_std * noise
        return EncodedText(x0, condition, condition["real"][..., None], tokens, embedding)

    def embed(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """Return the embeddings of tokens; 0 at padding."""
        return F.embedding(tokens, self.embeddings()) * (tokens != PAD)[..., None]

    # ----------------------------------------------------------------- losses

    def target(self, encoded: Encoded, corrupted: Corrupted, process: Process) -> Corrupted:
        """Return the target of eq. (2): at the first level the embedding, elsewhere x_0."""
        assert isinstance(encoded, EncodedText) and encoded.embedding is not None
        steps = cast(GaussianProcess, process).schedule.num_steps
        if steps is None:
            return corrupted
        first = corrupted.level.time * steps < 1.5
        x0 = torch.where(first.view(-1, 1, 1), encoded.embedding, corrupted.x0)
        return dataclasses.replace(corrupted, x0=x0)

    def extra_losses(
        self, encoded: Encoded, corrupted: Corrupted, estimate: Estimate, process: Process
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return eq. (3) to (5), and the lengths' cross-entropy."""
        assert isinstance(encoded, EncodedText) and encoded.tokens is not None
        real, tokens = encoded.real, encoded.tokens
        last = cast(GaussianProcess, process).schedule.at(torch.ones(1)).alpha
        tail = (last.to(encoded.x0) * encoded.x0).square()
        losses = {
            "rounding": self.cross_entropy(encoded.x0, tokens, real),
            "tail": mean_over_state(tail, real[..., None]),
            "length": self.length_loss(encoded),
        }
        if self.anchor:
            found = self.cross_entropy(estimate.x0, tokens, real)
            losses["anchor"] = self.anchor * found
        return losses

    def cross_entropy(self, state: Tensor, tokens: Tensor, real: Tensor) -> Float[Tensor, " batch"]:
        """Return nats for each real token under the head applied to a state."""
        # Flat: over a transposed view the softmax is several times as slow on CPUs.
        logits = self.logits(state).flatten(0, 1)
        found = F.cross_entropy(logits, tokens.flatten(), reduction="none")
        return mean_over_state(found.view_as(tokens), real)

    # ----------------------------------------------------------------- state to text

    def logits(self, state: Float[Tensor, "batch length width"]) -> Tensor:
        """Return the logits of each word at each position: the head, tied to the embeddings."""
        return F.linear(state, self.log_scale.exp() * self.embeddings(), self.bias)

    def project(
        self, estimate: Estimate, xt: Tensor, level: NoiseLevel, condition: Condition = None
    ) -> Estimate:
        """Return the estimate, clamped as in training: to any words."""
        return self.clamped(estimate, xt, level, self.clamp)

    def clamped(
        self,
        estimate: Estimate,
        xt: Tensor,
        level: NoiseLevel,
        clamp: Clamp,
        temperature: float = 1.0,
        unwritten: Sequence[int] = (),
    ) -> Estimate:
        """Return the estimate, clamped in the given way.

        Args:
            estimate: the denoiser's estimate.
            xt: noisy state.
            level: its noise level.
            clamp: see the class.
            temperature: temperature of the probabilities; below 1 words are committed to sooner.
            unwritten: words that get no probability.
        """
        if clamp == "none":
            return estimate
        words, bias = self.embeddings(), self.bias / temperature
        if unwritten:
            never = torch.tensor(unwritten, device=bias.device)
            bias = bias.index_fill(0, never, -math.inf)
        # Inside the small head the temperature costs no pass over all words of all positions.
        logits = F.linear(estimate.x0, self.log_scale.exp() / temperature * words, bias)
        if clamp == "hard":
            x0 = F.embedding(logits.argmax(dim=-1), words)
        else:
            x0 = torch.softmax(logits, dim=-1) @ words
        return with_x0(estimate, x0, xt, level)

    def decode(self, state: Tensor, condition: Condition = None) -> list[str]:
        """Return texts of the most probable words; each ends at END, or its last real position."""
        logits = self.logits(state)
        logits[..., [PAD, UNKNOWN]] = -math.inf
        numbers = logits.argmax(dim=-1)
        if condition is not None:
            numbers = torch.where(condition["real"], numbers, END)
        return self.written(numbers)

    def spread(self) -> Float[Tensor, ""]:
        """Return the mean distance between embeddings; near 0 the training has collapsed."""
        words = self.embeddings()
        return torch.pdist(words).mean() if len(words) < 3000 else torch.pdist(words[:3000]).mean()
