"""An independent classifier of attributes in texts: logistic regression on their n-grams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.text.metrics.ngram import Sentence

MOST = 3  # largest number of tokens in an n-gram
ABSENT = ""


class AttributeClassifier:
    """Predicts the value of each attribute from a text's n-grams of 1 to 3 tokens.

    It shares nothing with the evaluated models except the words, and must be trained on texts that
    they were not trained on.

    Args:
        texts: tokens of the training texts.
        meanings: attributes and values of each; a missing attribute counts as a value too.
        least: n-grams in fewer texts than this are ignored.
        steps: number of full-batch training steps.
        decay: weight decay.
    """

    def __init__(
        self,
        texts: Sequence[Sentence],
        meanings: Sequence[Mapping[str, str]],
        least: int = 5,
        steps: int = 100,
        decay: float = 1e-4,
    ):
        counts = Counter(gram for text in texts for gram in _grams(text))
        kept = [gram for gram, count in counts.items() if count >= least]
        self.positions = {gram: position for position, gram in enumerate(kept)}
        names = dict.fromkeys(name for meaning in meanings for name in meaning)
        self.values = {
            name: [ABSENT, *sorted({one[name] for one in meanings if name in one})]
            for name in names
        }
        self.counts = [len(values) for values in self.values.values()]
        self.weights = nn.EmbeddingBag(len(kept), sum(self.counts), mode="sum")
        nn.init.zeros_(self.weights.weight)
        self.bias = nn.Parameter(torch.zeros(sum(self.counts)))
        self._train(texts, meanings, steps, decay)

    def _train(
        self,
        texts: Sequence[Sentence],
        meanings: Sequence[Mapping[str, str]],
        steps: int,
        decay: float,
    ) -> None:
        grams, offsets = self._bags(texts)
        targets = [
            torch.tensor([values.index(one.get(name, ABSENT)) for one in meanings])
            for name, values in self.values.items()
        ]
        parameters = [self.weights.weight, self.bias]
        optimizer = torch.optim.AdamW(parameters, lr=0.05, weight_decay=decay)
        for _ in range(steps):
            found = self._logits(grams, offsets)
            loss = torch.stack(
                [F.cross_entropy(one, target) for one, target in zip(found, targets, strict=True)]
            ).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _bags(self, texts: Sequence[Sentence]) -> tuple[Tensor, Tensor]:
        bags = [[self.positions[g] for g in _grams(text) if g in self.positions] for text in texts]
        ends = torch.tensor([0, *map(len, bags)]).cumsum(0)
        return torch.tensor([position for bag in bags for position in bag], dtype=torch.long), ends[
            :-1
        ]

    def _logits(self, grams: Tensor, offsets: Tensor) -> list[Float[Tensor, "texts values"]]:
        return list((self.weights(grams, offsets) + self.bias).split(self.counts, dim=1))

    @torch.no_grad()
    def meanings(self, texts: Sequence[Sentence]) -> list[dict[str, str]]:
        """Return the predicted meanings of texts; attributes predicted absent are omitted."""
        found = [one.argmax(dim=1).tolist() for one in self._logits(*self._bags(texts))]
        described = zip(*found, strict=True) if found else iter([()] * len(texts))
        return [
            {
                name: values[number]
                for (name, values), number in zip(self.values.items(), row, strict=True)
                if number
            }
            for row in described
        ]

    def accuracy(
        self, texts: Sequence[Sentence], meanings: Sequence[Mapping[str, str]]
    ) -> dict[str, float]:
        """Return the accuracy for each attribute."""
        found = self.meanings(texts)
        return {
            name: sum(
                one.get(name) == truth.get(name) for one, truth in zip(found, meanings, strict=True)
            )
            / len(texts)
            for name in self.values
        }


def _grams(text: Sentence) -> set[tuple[str | int, ...]]:
    return {
        tuple(text[start : start + length])
        for length in range(1, MOST + 1)
        for start in range(len(text) - length + 1)
    }
