"""Requests for texts, and their layout on canvases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multidiff.core.random import mixed_seed, uniform
from multidiff.text.data.attributes import UNSPECIFIED
from multidiff.text.data.vocabulary import END, PAD
from multidiff.text.diffusion_lm.classifier import TextClassifier
from multidiff.text.domain import TextDomain

# A text's canvas is its length rounded up to a multiple of this, so that neither its noise nor
# its neighbours' depends on the batch it is in, and few batches are needed.
CANVAS = 8


@dataclass(frozen=True)
class TextRequest:
    """A request for one text.

    Attributes:
        meaning: attributes and values to express; missing attributes are unspecified.
        known: known tokens by their position.
        length: number of tokens without END; drawn if None.
        source: source text, for models that read one.
        least: least number of tokens without END, if the length is drawn.
    """

    meaning: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[int, int] = field(default_factory=dict)
    length: int | None = None
    source: str = ""
    least: int = 0


def requests_from(
    meanings: Sequence[Mapping[str, str]], sources: Sequence[str] = ()
) -> list[TextRequest]:
    """Return requests with these meanings; sources are empty if not given."""
    pairs = zip(meanings, sources or [""] * len(meanings), strict=True)
    return [TextRequest(meaning, source=source) for meaning, source in pairs]


@dataclass(frozen=True)
class Control:
    """Classifier guidance of sampled texts.

    Attributes:
        classifier: classifier of noisy texts.
        wanted: attributes and their values.
        updates: see :class:`~multidiff.core.gaussian.classifier_guidance.ClassifierGuidance`.
        rate: see there.
        fluency: see there.
    """

    classifier: TextClassifier
    wanted: Mapping[str, str]
    updates: int = 6
    rate: float = 50.0
    fluency: float = 0.003


def candidate_seeds(seed: int, count: int) -> list[int]:
    """Return the seeds of a text's candidates; the first is its own."""
    return [seed, *(mixed_seed(seed, number) for number in range(1, count))]


def drawn_index(logits: Float[Tensor, " lengths"], rng: torch.Generator) -> int:
    """Draw an index from these logits."""
    edges = torch.softmax(logits, dim=0).cumsum(0)
    return int(torch.searchsorted(edges, uniform((1,), rng) * edges[-1], right=True))


def canvas_of(length: int) -> int:
    """Return the number of positions of the canvas of a text with that many tokens."""
    return -(-length // CANVAS) * CANVAS


def batches_of(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Return batches of texts whose canvases have one size.

    The batch with the earliest text comes first, so that texts finish nearly in their order.
    """
    group_by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        group_by_length.setdefault(canvas_of(length), []).append(row)
    batches = [
        rows[i : i + most] for rows in group_by_length.values() for i in range(0, len(rows), most)
    ]
    return sorted(batches)


def laid_out(
    requests: Sequence[TextRequest], lengths: Sequence[int], canvas: int, ends: bool = True
) -> tuple[Int[Tensor, "batch canvas"], Bool[Tensor, "batch canvas"]]:
    """Return the known tokens on each canvas and their mask: an END where each text ends."""
    tokens = torch.full((len(requests), canvas), PAD)
    is_known = torch.zeros(len(requests), canvas, dtype=torch.bool)
    for row, (request, length) in enumerate(zip(requests, lengths, strict=True)):
        end = {length - 1: END} if ends else {}
        for position, number in {**request.known, **end}.items():
            tokens[row, position], is_known[row, position] = number, True
    return tokens, is_known


def condition_of(
    domain: TextDomain, requests: Sequence[TextRequest], real: Bool[Tensor, "batch canvas"]
) -> dict[str, Tensor]:
    """Return the denoiser's condition for some requests."""
    described = domain.condition(
        [request.meaning for request in requests], real, [request.source for request in requests]
    )
    if domain.source_length:
        nothing = torch.tensor([not request.source for request in requests], device=real.device)
        described["source"] = described["source"].masked_fill(nothing[:, None], UNSPECIFIED)
    return described
