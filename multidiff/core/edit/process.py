"""Edit process: text corrupted by edits, with the history needed to undo them.

This is the forward process of DiffusER (Reid et al. 2022): at each step draw edits (60% KEEP,
20% REPLACE, 10% INSERT, 10% DELETE) and the length of each. The paper has no code and leaves
the rest open. The choices here:

- **One step is one pass from the left.** At the current position an edit and a length are drawn;
  the pass continues behind the tokens it consumed. So edits of one step never overlap.
- **Every edit has a length, KEEP too.** Then the fraction of *tokens* that stay does not depend
  on the length, only on the edit probabilities: ``keep / (1 - insert)``, 2/3 by default.
- **Lengths are 1 + Poisson(span - 1).** Poisson(span) can give 0, an edit that edits nothing.
  Shifted, the mean is exactly ``span``; ``max(1, draw)`` has mean ``span + exp(-span)``.
  ``span=1`` is the process that edits single tokens.
- **An edit stops at the end of the sequence**, whatever length was drawn: redrawing until
  it fits would apply only short edits to the last tokens.
- **INSERT writes before the position and does not advance**, so several may follow each other. It
  may also write after the last token, so that a tagger learns to cut there too: the pass ends at
  the first other edit drawn there. An empty sequence can only grow.
- **Noise is drawn token by token** and may repeat what it replaces. If that were excluded, the
  token at a position would reveal what it cannot have been; :func:`tag_disagreement`
  measures the cost.
- **The intensity of a step scales all probabilities but KEEP's**, which takes the rest: the edits
  keep their relative frequencies. Three steps at 1 leave little of a sentence; a small
  network learns more from fewer steps, or from gentler ones.
- **Levels are uniform in 0 .. steps.** Level 0 shows clean text, so that a tagger learns to
  leave it alone and editing terminates.
- **All states of a trajectory are kept**, so that the training target may be the state before or
  the clean one. The history of a step (:func:`undo`) and a minimal alignment
  (:mod:`multidiff.core.edit.alignment`) are two answers to how the state before is reached, in
  the same form. The paper uses Levenshtein tags, which is the second.

Lengths drift a little. Of ``n`` tokens a fraction ``delete / (1 - insert)`` is deleted. Added are
``insert / (1 - insert) * (n + overshoot + span)``: the overshoot is what the end cuts off the
last edit, ``(span - 1 / span) / 2`` in all but the shortest sequences, and one ``span`` stands
for the position after the last token. By default that is 0.48 tokens more a step (0.33 for an
empty sequence).
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from multidiff.core.edit.alignment import DELETE, INSERT, KEEP, REPLACE, Alignment, Edit, align_many
from multidiff.core.random import Rng, uniform, uniforms

# In the paper's order, which is that of ``probabilities``.
_DRAWN = (KEEP, REPLACE, INSERT, DELETE)


class Operation(NamedTuple):
    """One edit of a corruption step.

    Attributes:
        edit: its kind.
        before: tokens it consumed; empty for INSERT.
        after: tokens it left; empty for DELETE.
    """

    edit: Edit
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Edited:
    """A state, and the edits of the last step.

    Attributes:
        tokens: the state.
            operations: edits of that step, from the left. Together they consume every token of
            the state before, and produce every token of this one.
    """

    tokens: tuple[int, ...]
    operations: tuple[Operation, ...]

    @property
    def source(self) -> tuple[int, ...]:
        """Return the state before."""
        return tuple(token for operation in self.operations for token in operation.before)


class EditProcess:
    """A chain of corruption steps that keep, replace, insert and delete spans of tokens.

    Args:
        size: size of the vocabulary.
        noise_tokens: distribution of inserted tokens: a weight for each token of the vocabulary
            (0 for padding and the like), or one token that is always written (a mask); uniform by
            default.
        steps: length of the chain; 12 in the paper.
        probabilities: probabilities of KEEP, REPLACE, INSERT and DELETE among the edits drawn.
        span: mean length of an edit, in tokens, at least 1; 3 (translation) and 8
            (summaries) in the paper.
        intensity: factor on all probabilities but KEEP's, one for every step or one for each.

    Attributes:
        ratios: for each step the probabilities of KEEP, REPLACE, INSERT and DELETE.

    Raises:
        ValueError: if these are out of range or do not fit each other.
    """

    def __init__(
        self,
        size: int,
        noise_tokens: Sequence[float] | int | None = None,
        steps: int = 12,
        probabilities: Sequence[float] = (0.6, 0.2, 0.1, 0.1),
        span: float = 3.0,
        intensity: float | Sequence[float] = 1.0,
    ):
        if size < 1 or steps < 1 or not 1 <= span < math.inf:
            raise ValueError(
                f"size {size}, steps {steps} and span {span:g} must be at least 1, and finite"
            )
        self.size, self.steps, self.span = size, steps, span
        self.ratios = tuple(
            _scaled(probabilities, factor) for factor in _intensities(intensity, steps)
        )
        self._edits = [_cumulated(ratios) for ratios in self.ratios]
        self._lengths = _cumulated(_poisson(span - 1))
        self.write(noise_tokens)

    def write(self, noise_tokens: Sequence[float] | int | None) -> None:
        """Set the distribution of noise tokens; see the class.

        Raises:
            ValueError: if the weights do not fit the vocabulary.
        """
        self._tokens = _cumulated(_weights(noise_tokens, self.size))

    def draw_level(self, batch: int, rng: Rng | None) -> Int[Tensor, " batch"]:
        """Draw a number of steps for each sample, uniform in 0 (clean) .. ``steps``."""
        return torch.floor(uniform((batch,), rng) * (self.steps + 1)).long()

    def corrupt_step(
        self, tokens: Sequence[int], rng: torch.Generator | None, step: int = 1
    ) -> Edited:
        """Draw from q(x_step | x_(step - 1)).

        Raises:
            ValueError: if the chain is shorter, or a token is not in the vocabulary.
        """
        if not 1 <= step <= self.steps:
            raise ValueError(f"step {step} is not in 1..{self.steps}")
        operations = tuple(self._walk(self._checked(tokens), step, uniforms(rng)))
        return Edited(
            tuple(token for operation in operations for token in operation.after), operations
        )

    def corrupt(
        self, tokens: Sequence[int], steps: int, rng: torch.Generator | None
    ) -> list[Edited]:
        """Return the states x_0 .. x_steps of one trajectory; x_0 is ``tokens``, unchanged.

        Raises:
            ValueError: if the chain is shorter, or a token is not in the vocabulary.
        """
        if not 0 <= steps <= self.steps:
            raise ValueError(f"steps must be in 0..{self.steps} (the chain's length), got {steps}")
        clean = self._checked(tokens)
        states = [Edited(clean, (Operation(KEEP, clean, clean),) if clean else ())]
        for step in range(1, steps + 1):
            states.append(self.corrupt_step(states[-1].tokens, rng, step))
        return states

    def corrupt_many(
        self, batch: Sequence[Sequence[int]], levels: Int[Tensor, " batch"], rng: Rng | None
    ) -> list[list[Edited]]:
        """Return the states of each sample up to its level; see :meth:`corrupt`.

        Raises:
            ValueError: if there is not one level, and in a list one generator, for each sample.
        """
        each = zip(batch, levels.tolist(), _one_each(rng, len(batch)), strict=True)
        return [self.corrupt(tokens, level, generator) for tokens, level, generator in each]

    def prior(self, lengths: Sequence[int], rng: Rng | None) -> list[tuple[int, ...]]:
        """Draw sequences of noise tokens of each length, where generation may start.

        Raises:
            ValueError: if a list of generators does not have one for each length.
        """
        each = zip(lengths, _one_each(rng, len(lengths)), strict=True)
        return [self._noise(length, uniforms(generator)) for length, generator in each]

    def _walk(
        self, tokens: tuple[int, ...], step: int, draws: Iterator[float]
    ) -> Iterator[Operation]:
        position = 0
        while True:
            edit = _DRAWN[bisect(self._edits[step - 1], next(draws))]
            length = 1 + bisect(self._lengths, next(draws))
            if edit == INSERT:
                yield Operation(edit, (), self._noise(length, draws))
                continue
            span = tokens[position : position + length]
            if not span:
                return
            position += len(span)
            if edit == KEEP:
                yield Operation(edit, span, span)
            elif edit == REPLACE:
                yield Operation(edit, span, self._noise(len(span), draws))
            else:
                yield Operation(edit, span, ())

    def _noise(self, count: int, draws: Iterator[float]) -> tuple[int, ...]:
        return tuple(bisect(self._tokens, draw) for draw in islice(draws, count))

    def _checked(self, tokens: Sequence[int]) -> tuple[int, ...]:
        for token in tokens:
            if not 0 <= token < self.size:
                raise ValueError(f"token {token} is not in a vocabulary of {self.size}")
        return tuple(tokens)


def undo(edited: Edited) -> Alignment:
    """Return the alignment that leads back to the state before, according to the history.

    Replaced tokens are to be replaced, inserted ones deleted, and deleted ones inserted. It need
    not be minimal.
    """
    tags: list[Edit] = []
    replacements: list[int | None] = []
    inserts: list[tuple[int, ...]] = [()]
    for edit, before, after in edited.operations:
        if edit == DELETE:
            inserts[-1] += before
            continue
        tags += [DELETE if edit == INSERT else edit] * len(after)
        replacements += before if edit == REPLACE else [None] * len(after)
        inserts += [()] * len(after)
    return Alignment(tuple(tags), tuple(replacements), tuple(inserts))


class Disagreement(NamedTuple):
    """Rates at which history and minimal alignment give a tagger different targets.

    Attributes:
        tokens: fraction of the tokens whose tags differ.
        gaps: fraction of the gaps where only one of them inserts.
    """

    tokens: float
    gaps: float


def tag_disagreement(edited: Sequence[Edited]) -> Disagreement:
    """Return how often the two targets differ, over all tokens and gaps of some edited states.

    They differ where noise repeats a token, where a deletion beside an insertion is one
    replacement, and where equal tokens stand side by side.
    """
    histories = [undo(one) for one in edited]
    minimal = align_many([one.tokens for one in edited], [one.source for one in edited])
    pairs = list(zip(histories, minimal, strict=True))
    return Disagreement(
        _ratio_unequal((one.tags, other.tags) for one, other in pairs),
        _ratio_unequal((one.gaps, other.gaps) for one, other in pairs),
    )


def _ratio_unequal(pairs: Iterable[tuple[Sequence, Sequence]]) -> float:
    differ = [a != b for one, other in pairs for a, b in zip(one, other, strict=True)]
    return sum(differ) / max(1, len(differ))


def _one_each(rng: Rng | None, batch: int) -> Sequence[torch.Generator | None]:
    if rng is None or isinstance(rng, torch.Generator):
        return [rng] * batch
    if len(rng) != batch:
        raise ValueError(f"{len(rng)} generators for a batch of {batch}: give one each")
    return rng


def _cumulated(weights: Sequence[float]) -> list[float]:
    """Return upper edges of the intervals of [0, 1) that belong to each index; the last is 1."""
    total = list(accumulate(weights))
    return [edge / total[-1] for edge in total]


def _poisson(mean: float) -> list[float]:
    """Return probabilities of 0, 1, 2, ... until the rest is below the resolution of a draw."""
    if mean == 0:
        return [1.0]
    last = math.ceil(mean + 12 * math.sqrt(mean) + 30)
    return [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(last)]


def _weights(noise_tokens: Sequence[float] | int | None, size: int) -> list[float]:
    if noise_tokens is None:
        return [1.0] * size
    if isinstance(noise_tokens, int):
        if not 0 <= noise_tokens < size:
            raise ValueError(f"noise token {noise_tokens} is not in a vocabulary of {size}")
        return [float(token == noise_tokens) for token in range(size)]
    weights = list(noise_tokens)
    if len(weights) != size or min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise ValueError(
            f"{len(weights)} weights of noise tokens for a vocabulary of {size}: give one each, "
            "none below 0 and one above"
        )
    return weights


def _intensities(intensity: float | Sequence[float], steps: int) -> tuple[float, ...]:
    given = (intensity,) * steps if isinstance(intensity, int | float) else tuple(intensity)
    if len(given) != steps:
        raise ValueError(f"{len(given)} intensities for {steps} steps: give one, or one each")
    return given


def _scaled(probabilities: Sequence[float], intensity: float) -> tuple[float, ...]:
    given = tuple(probabilities)
    if len(given) != len(_DRAWN) or min(given) < 0 or not math.isclose(sum(given), 1):
        raise ValueError(
            f"probabilities {given}: give those of KEEP, REPLACE, INSERT and DELETE, summing to 1"
        )
    replace, insert, delete = (ratio * intensity for ratio in given[1:])
    keep = 1 - replace - insert - delete
    if not (intensity >= 0 and keep >= -1e-9 and insert < 1):
        raise ValueError(
            f"intensity {intensity:g} on probabilities {given} makes KEEP {keep:g} and INSERT "
            f"{insert:g}: choose one of at least 0 that leaves KEEP 0 or more and INSERT below 1"
        )
    return max(0.0, keep), replace, insert, delete
