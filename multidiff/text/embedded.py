"""Texts as states: the embeddings of their tokens (Diffusion-LM, Li et al. 2022).

    (1) x_0 = Emb(w) + sigma_0 n                       the state of a text (section 4.1)
    (2) MSE(f(x_t, t), x_0), at the first level Emb(w)  the process's loss (appendix E)
    (3) CE(w | x_0)                                    rounding, by a head tied to Emb
    (4) mean (alpha_T x_0)^2                           the tail: what is left at the last level
    (5) CE(w | f(x_t, t))                              the anchor (Difformer, Gao et al. 2022)

The published code takes (3) of the noised truth, as here, and not of the prediction.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.gaussian import GaussianProcess
from multidiff.core.predictions import mean_over_state, with_clean
from multidiff.core.protocols import Condition, Corrupted, Domain, Encoded, Estimate, Process
from multidiff.core.randomness import Rng, normal, uniform
from multidiff.core.schedules import NoiseLevel
from multidiff.text.meaning import LEFT_OPEN, MeaningTable
from multidiff.text.vocabulary import END, PAD, UNKNOWN, Vocabulary

logger = logging.getLogger(__name__)

Clamp = Literal["none", "soft", "hard"]
# Never written inside a text; its end is put where its length says.
UNWRITTEN = (PAD, END, UNKNOWN)


@dataclass(frozen=True)
class EncodedText(Encoded):
    """A text as a state, and what it was made of.

    Attributes:
        tokens: their numbers, padded with PAD.
        embedding: without the noise of eq. (1).
    """

    tokens: Int[Tensor, "batch length"] | None = None
    embedding: Float[Tensor, "batch length width"] | None = None

    @property
    def real(self) -> Bool[Tensor, "batch length"]:
        """Where there is a token and no padding."""
        assert self.tokens is not None
        return self.tokens != PAD


class EmbeddedDomain(nn.Module, Domain):
    """Texts, their embeddings, and the way back.

    A state is ``(batch, length, width)``. END is the last token of every text, and its place is
    its length. Padding is no part of a state: it is masked in attention and in every loss, and
    how long a text becomes is drawn from a distribution that is learned beside the rest.

    Args:
        vocabulary: texts to tokens.
        width: of the embeddings.
        length: the longest text, its END counted.
        norm: length that every embedding is kept at; free where None, as published. A smaller
            one lets the schedule destroy words earlier.
        first_deviation: sigma_0 of eq. (1).
        clamp: what an estimate of a clean state is brought to: "soft" is the mean embedding
            under the head's probabilities (score interpolation, Dieleman et al. 2022), "hard"
            the most probable word's (the paper's clamping trick), "none" leaves it.
        anchor: factor of eq. (5).
        meanings: attributes whose values are the condition.
        drop_values: share of the meanings of which training leaves a half open, value by
            value, so that the model may be told a part.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        width: int = 16,
        length: int = 64,
        norm: float | None = None,
        first_deviation: float = 0.1,
        clamp: Clamp = "none",
        anchor: float = 0.0,
        meanings: MeaningTable | None = None,
        drop_values: float = 0.0,
    ):
        if width < 1 or length < 2 or (norm is not None and norm <= 0):
            raise ValueError(f"width {width}, length {length} or norm {norm}: too small")
        super().__init__()
        self.vocabulary, self.meanings = vocabulary, meanings
        self.width, self.length, self.norm = width, length, norm
        self.clamp: Clamp = clamp
        self.first_deviation, self.anchor = first_deviation, anchor
        self.drop_values = drop_values
        self.table = nn.Parameter(torch.empty(vocabulary.size, width))
        nn.init.normal_(self.table)
        self.bias = nn.Parameter(torch.zeros(vocabulary.size))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.lengths = nn.Parameter(torch.zeros(length + 1))
        sources = 0 if meanings is None else meanings.size
        self.lengths_by_source = nn.Parameter(torch.zeros(sources, length + 1))

    # ----------------------------------------------------------------- text to state

    def embeddings(self) -> Float[Tensor, "words width"]:
        """The embedding of each word."""
        if self.norm is None:
            return self.table
        return F.normalize(self.table, dim=1) * self.norm

    def encode(self, batch: Any, rng: Rng | None) -> EncodedText:
        """A draw of eq. (1). A batch has ``text``, and ``meaning`` where there is a table."""
        tokens = self.tokens(batch["text"])
        embedding = self.embed(tokens)
        noise = normal(embedding.shape, rng).to(embedding)
        clean = embedding + self.first_deviation * noise
        real = tokens != PAD
        condition: dict[str, Tensor] = {"real": real}
        if self.meanings is not None:
            source = self._source([self.meanings.whole(one) for one in batch["meaning"]])
            condition["source"] = self._partly_open(source, rng)
        return EncodedText(clean, condition, real[..., None], tokens, embedding)

    def tokens(self, texts: Sequence[str]) -> Int[Tensor, "batch longest"]:
        """Numbers, END behind each text; a text that is too long is cut, and has no END."""
        rows = [[*self.vocabulary.numbers(text), END] for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > self.length:
                logger.warning("cut to %d tokens: %r", self.length, text)
        longest = min(max(map(len, rows)), self.length)
        padded = [(row + [PAD] * longest)[:longest] for row in rows]
        return torch.tensor(padded, device=self.table.device)

    def embed(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length width"]:
        """The embeddings of tokens; 0 where there is padding."""
        return F.embedding(tokens, self.embeddings()) * (tokens != PAD)[..., None]

    def _source(self, rows: list[list[int]]) -> Int[Tensor, "batch attributes"]:
        return torch.tensor(rows, device=self.table.device)

    def _partly_open(self, source: Tensor, rng: Rng | None) -> Tensor:
        if self.drop_values == 0:
            return source
        chance = uniform((len(source), 1 + source.shape[1]), rng).to(source.device)
        opened = (chance[:, :1] < self.drop_values) & (chance[:, 1:] < 0.5)
        return torch.where(opened, LEFT_OPEN, source)

    def condition(
        self, meanings: Sequence[Mapping[str, str]], real: Bool[Tensor, "batch length"]
    ) -> dict[str, Tensor]:
        """What the denoiser is told of meanings, of which what is not said is left open."""
        told = {"real": real}
        if self.meanings is not None:
            told["source"] = self._source([self.meanings.partial(one) for one in meanings])
        return told

    # ----------------------------------------------------------------- losses

    def aim(self, encoded: Encoded, corrupted: Corrupted, process: Process) -> Corrupted:
        """Eq. (2): at the first level of the table the embedding itself, elsewhere x_0."""
        assert isinstance(encoded, EncodedText) and encoded.embedding is not None
        steps = cast(GaussianProcess, process).schedule.num_steps
        if steps is None:
            return corrupted
        first = corrupted.level.time * steps < 1.5
        clean = torch.where(first.view(-1, 1, 1), encoded.embedding, corrupted.clean)
        return dataclasses.replace(corrupted, clean=clean)

    def extra_losses(
        self, encoded: Encoded, corrupted: Corrupted, estimate: Estimate, process: Process
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Eq. (3) to (5), and the lengths' cross-entropy."""
        assert isinstance(encoded, EncodedText) and encoded.tokens is not None
        real, tokens = encoded.real, encoded.tokens
        last = cast(GaussianProcess, process).schedule.at(torch.ones(1)).alpha
        tail = (last.to(encoded.clean) * encoded.clean).square()
        losses = {
            "rounding": self.cross_entropy(encoded.clean, tokens, real),
            "tail": mean_over_state(tail, real[..., None]),
            "length": self._length_loss(encoded),
        }
        if self.anchor:
            found = self.cross_entropy(estimate.clean, tokens, real)
            losses["anchor"] = self.anchor * found
        return losses

    def cross_entropy(self, state: Tensor, tokens: Tensor, real: Tensor) -> Float[Tensor, " batch"]:
        """Nats for each real token under the head's reading of a state."""
        # Flat: over a transposed view the softmax is several times as slow on CPUs.
        logits = self.logits(state).flatten(0, 1)
        found = F.cross_entropy(logits, tokens.flatten(), reduction="none")
        return mean_over_state(found.view_as(tokens), real)

    def _length_loss(self, encoded: EncodedText) -> Tensor:
        lengths = encoded.real.sum(dim=1)
        source = encoded.condition.get("source")
        loss = F.cross_entropy(self.length_logits(len(lengths), None), lengths, reduction="none")
        if source is None:
            return loss
        told = F.cross_entropy(self.length_logits(len(lengths), source), lengths, reduction="none")
        return loss + told

    def length_logits(self, batch: int, source: Tensor | None) -> Float[Tensor, "batch lengths"]:
        """Of each length, 0 among them: those of all texts, and what each value adds to them."""
        if source is None:
            return self.lengths.expand(batch, -1)
        told = self.lengths_by_source[source.clamp(min=0)]
        return self.lengths.detach() + (told * (source != LEFT_OPEN)[..., None]).sum(dim=1)

    # ----------------------------------------------------------------- state to text

    def logits(self, state: Float[Tensor, "batch length width"]) -> Tensor:
        """Of each word at each place: the head, tied to the embeddings."""
        return self.log_scale.exp() * (state @ self.embeddings().T) + self.bias

    def project(
        self, estimate: Estimate, noisy: Tensor, level: NoiseLevel, condition: Condition = None
    ) -> Estimate:
        """The estimate, clamped as training clamps it: to any words."""
        return self.clamped(estimate, noisy, level, self.clamp)

    def clamped(
        self,
        estimate: Estimate,
        noisy: Tensor,
        level: NoiseLevel,
        clamp: Clamp,
        temperature: float = 1.0,
        unwritten: Sequence[int] = (),
    ) -> Estimate:
        """The estimate, clamped in some way.

        Args:
            estimate: what the denoiser said.
            noisy: of what.
            level: how noisy that is.
            clamp: see the class.
            temperature: of the probabilities; below 1 words are chosen sooner.
            unwritten: words that get no probability.
        """
        if clamp == "none":
            return estimate
        words = self.embeddings()
        logits = self.logits(estimate.clean)
        if unwritten:
            logits[..., list(unwritten)] = -math.inf
        if clamp == "hard":
            clean = F.embedding(logits.argmax(dim=-1), words)
        else:
            clean = torch.softmax(logits / temperature, dim=-1) @ words
        return with_clean(estimate, clean, noisy, level)

    def decode(self, state: Tensor, condition: Condition = None) -> list[str]:
        """Texts of the most probable words; each ends at its END, or its last real place."""
        logits = self.logits(state)
        logits[..., [PAD, UNKNOWN]] = -math.inf
        numbers = logits.argmax(dim=-1)
        if condition is not None:
            numbers = torch.where(condition["real"], numbers, END)
        return [self.vocabulary.text(row) for row in numbers.tolist()]

    def spread(self) -> Float[Tensor, ""]:
        """Mean distance between embeddings: training that lets it vanish has collapsed."""
        words = self.embeddings()
        return torch.pdist(words).mean() if len(words) < 3000 else torch.pdist(words[:3000]).mean()

    def files(self) -> dict[str, str]:
        """What must lie beside the weights."""
        return self.vocabulary.files()

    def settle(self, folder: Path) -> None:
        """Take that up."""
        self.vocabulary.settle(folder)
