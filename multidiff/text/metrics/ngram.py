"""N-gram language model: a scorer of generated texts, and a plain generator itself.

All orders are mixed by method C of Witten & Bell (1991), in the interpolated form that Chen &
Goodman (1999) give it::

    P(w | h) = (c(h w) + T(h) P(w | h')) / (c(h) + T(h))

``c`` are counts in the training text, ``T(h)`` is the number of distinct events that followed the
history ``h``, and ``h'`` is ``h`` without its first token. A history that was never seen backs off
to ``h'``. The recursion ends in the uniform ``1 / V``, where the ``V`` events are the
tokens of the training text, END and UNKNOWN.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np
from jaxtyping import Float

Sentence = Sequence[str | int]
Events = tuple[int, ...]

# Numbers of events; START occurs only in histories, before the first token.
START, END, UNKNOWN, FIRST = -1, 0, 1, 2


class NGramModel:
    """A Witten-Bell model of sentences, each closed by END.

    Tokens that did not occur in training are the event UNKNOWN, whose count is 0; its probability
    is what the uniform end of the recursion leaves it, shared by all such tokens. A token that
    stands for rare words in the training text is an ordinary token.

    Args:
        sentences: training text.
        order: number of tokens in an n-gram, the predicted one included; 1 is the
            unigram.

    Attributes:
        order: order of the model.
        tokens: tokens of the training text, in the order of their first appearance.

    Raises:
        ValueError: if the order is below 1 or there are no tokens.
    """

    def __init__(self, sentences: Sequence[Sentence], order: int = 4):
        if order < 1:
            raise ValueError(f"order must be at least 1, got {order}")
        self.order = order
        self.tokens = list(dict.fromkeys(token for sentence in sentences for token in sentence))
        if not self.tokens:
            raise ValueError(f"{len(sentences)} sentences without a token: nothing to learn from")
        self._numbers = {token: FIRST + position for position, token in enumerate(self.tokens)}
        self._uniform = 1 / (FIRST + len(self.tokens))
        self._followers = self._counted(sentences)

    def _counted(self, sentences: Sequence[Sentence]) -> dict[Events, tuple[dict[int, int], int]]:
        """Count what followed each history, and sum these counts."""
        grams: Counter[Events] = Counter()
        for sentence in sentences:
            padded = [*self._padded(sentence), END]
            for length in range(1, self.order + 1):
                inner = padded[self.order - length :]
                grams.update(zip(*(inner[shift:] for shift in range(length)), strict=False))
        counts: dict[Events, dict[int, int]] = {}
        for gram, count in grams.items():
            counts.setdefault(gram[:-1], {})[gram[-1]] = count
        return {history: (found, sum(found.values())) for history, found in counts.items()}

    def _padded(self, tokens: Sentence) -> list[int]:
        """Return the events at the beginning of a sentence, after the START events."""
        return [START] * (self.order - 1) + self._events(tokens)

    def _events(self, tokens: Sentence) -> list[int]:
        return [self._numbers.get(token, UNKNOWN) for token in tokens]

    def _history(self, tokens: Sentence) -> Events:
        """Return the history that the event after these tokens depends on."""
        events = self._padded(tokens)
        return tuple(events[len(events) - self.order + 1 :])

    def _seen(self, history: Events) -> Iterator[tuple[dict[int, int], int]]:
        """Yield the counts of followers of all seen suffixes of a history, from the empty one."""
        for start in range(len(history), -1, -1):
            found = self._followers.get(history[start:])
            if found is None:  # then no longer one was seen either
                return
            yield found

    # --------------------------------------------------------------------- probabilities

    def _probability(self, event: int, history: Events) -> float:
        ratio = self._uniform
        for counts, total in self._seen(history):
            kinds = len(counts)
            ratio = (counts.get(event, 0) + kinds * ratio) / (total + kinds)
        return ratio

    def distribution(self, beginning: Sentence) -> Float[np.ndarray, " events"]:
        """Return the probabilities of the next event; they sum to one.

        Args:
            beginning: all tokens of the sentence so far.

        Returns:
            The probability of END, that of UNKNOWN, then those of ``tokens``.
        """
        ratios = np.full(FIRST + len(self.tokens), self._uniform)
        for counts, total in self._seen(self._history(beginning)):
            ratios *= len(counts)
            ratios[list(counts)] += list(counts.values())
            ratios /= total + len(counts)
        return ratios

    def nats(self, sentence: Sentence) -> list[float]:
        """Return minus the log probability of each token and, last, of END."""
        events, width = [*self._padded(sentence), END], self.order - 1
        return [
            -math.log(
                self._probability(events[position], tuple(events[position - width : position]))
            )
            for position in range(width, len(events))
        ]

    def running_nats(self, tokens: Sentence, before: Sentence = ()) -> list[float]:
        """Return minus the log probability of each token of a segment of running text.

        A segment neither begins nor ends a sentence: histories reach back to its first token,
        or into the text before it, and END is not scored. The training text is one sentence.

        Args:
            tokens: the segment.
            before: the text before it, as far as it is known.
        """
        events, width = self._events([*before, *tokens]), self.order - 1
        return [
            -math.log(
                self._probability(
                    events[position], tuple(events[max(0, position - width) : position])
                )
            )
            for position in range(len(before), len(events))
        ]

    def nats_per_token(self, sentences: Sequence[Sentence]) -> float:
        """Return the mean over all tokens of all sentences, including each sentence's END.

        Raises:
            ValueError: if there are no sentences.
        """
        if not sentences:
            raise ValueError("no sentences to score")
        scores = [nats for sentence in sentences for nats in self.nats(sentence)]
        return math.fsum(scores) / len(scores)

    # ------------------------------------------------------------------------ generation

    def sample(self, rng: np.random.Generator, longest: int) -> list[str | int]:
        """Draw a sentence, token by token; UNKNOWN is not a token and never drawn.

        Args:
            rng: generator of all draws.
            longest: number of tokens after which the sentence is truncated.
        """
        made: list[str | int] = []
        while len(made) < longest:
            ratios = self.distribution(made)
            ratios[UNKNOWN] = 0
            event = _drawn(ratios, rng)
            if event == END:
                break
            made.append(self.tokens[event - FIRST])
        return made

    def fill(
        self, sentence: Sequence[str | int | None], rng: np.random.Generator | None = None
    ) -> list[str | int]:
        """Fill blanks from left to right, each with one token.

        A token's weight is the probability of the sentence with it, up to the next blank. So
        the weights of a lone blank are exact, and a blank before others does not foresee them.

        Args:
            sentence: tokens, and None for each blank.
            rng: generator that draws tokens by their weights; without it each blank takes the
                likeliest, the first of equals in ``tokens``.
        """
        filled = list(sentence)
        for position, token in enumerate(filled):
            if token is None:
                weights = self._weights(filled, position)
                chosen = int(weights.argmax()) if rng is None else _drawn(weights, rng)
                filled[position] = self.tokens[chosen]
        return [token for token in filled if token is not None]

    def _weights(
        self, sentence: Sequence[str | int | None], position: int
    ) -> Float[np.ndarray, " tokens"]:
        """Return the weight of each token for a blank that has no blank before it."""
        width = self.order - 1
        before = [token for token in sentence[:position] if token is not None]
        rest = list(takewhile(lambda token: token is not None, sentence[position + 1 :]))
        after = [self._numbers.get(token, UNKNOWN) for token in rest if token is not None]
        if position + 1 + len(rest) == len(sentence):
            after.append(END)
        after = after[:width]  # tokens beyond do not depend on the blank
        weights = self.distribution(before)[FIRST:]
        for number in range(len(weights)):
            events = [*self._history(before), FIRST + number, *after]
            for end in range(width + 1, len(events)):
                history = tuple(events[end - width : end])
                weights[number] *= self._probability(events[end], history)
        return weights


def _drawn(weights: Float[np.ndarray, " choices"], rng: np.random.Generator) -> int:
    return int(rng.choice(len(weights), p=weights / weights.sum()))
