"""Texts by masked diffusion: all places masked at first, then ever fewer (Sahoo et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multidiff.core.devices import moved
from multidiff.core.discrete.absorbing import MaskProcess, nelbo
from multidiff.core.discrete.blocks import BlockMaskProcess
from multidiff.core.discrete.samplers import UnmaskingSampler
from multidiff.core.discrete.unmasking import unmask, unmask_blocks
from multidiff.core.guidance import ClassifierFreeGuidance
from multidiff.core.protocols import Corruption, Denoiser, Encoded, Process, Reading
from multidiff.core.random import Rng, generators
from multidiff.models.requests import Seed
from multidiff.nn.token_denoiser import BlockReader, TokenDenoiser
from multidiff.text.data.vocabulary import END, PAD
from multidiff.text.domain import UNWRITTEN, EncodedText, TextDomain
from multidiff.text.model import OnText, TextModel
from multidiff.text.request import (
    TextRequest,
    batches_of,
    canvas_of,
    condition_of,
    laid_out,
    requests_from,
)
from multidiff.text.sampling_config import MaskedTextSamplingConfig

# Draws of the masks for each text whose likelihood is bounded, and texts at a time.
LOOKS, AT_ONCE = 32, 50
# Tokens of the longest running text that may be asked for.
LONGEST = 100_000


class TokenDomain(TextDomain):
    """Texts as their tokens; see :class:`~multidiff.text.domain.TextDomain`.

    A text's END is never masked: the network is told where a text ends.

    Attributes:
        in_blocks: the network is told the clean text too, of which each block reads what stands
            before it.
    """

    in_blocks = False

    def encode(self, batch: Any, rng: Rng | None) -> EncodedText:
        """Tokens, of which all but END and PAD count."""
        tokens, condition = self.encoded(batch, rng)
        if self.in_blocks:
            condition["x0"] = tokens
        return EncodedText(tokens, condition, self.counted(tokens), tokens)

    def counted(self, tokens: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length"]:
        """Which of them are to be found: no padding, and no END that the length tells."""
        return (tokens != PAD) & (tokens != END) if self.ends else tokens != PAD

    def extra_losses(
        self, encoded: Encoded, corrupted: Corruption, estimate: Reading, process: Process
    ) -> dict[str, Float[Tensor, " batch"]]:
        """The lengths' cross-entropy."""
        return {"length": self.length_loss(encoded)} if self.ends else {}


@dataclass(frozen=True)
class _UnmaskingPlan:
    """How the texts of one call are made, once it is checked."""

    steps: int | None
    sampler: UnmaskingSampler
    guidance_scale: float


class MaskedText(TextModel):
    """A model of texts by masked diffusion.

    Args:
        domain: texts as tokens.
        process: what the denoiser is trained on.
        denoiser: the network.
        sampling: how to sample where nobody says otherwise.
        drop_condition: share of the conditions that training leaves out, for guidance.

    Attributes:
        block: places of the blocks that a text is found in, by a process of such; 0 for none.

    Raises:
        ValueError: if these do not fit each other.
    """

    domain: TokenDomain
    process: MaskProcess
    denoiser: TokenDenoiser
    sampling: MaskedTextSamplingConfig

    def __init__(
        self,
        domain: TokenDomain,
        process: MaskProcess,
        denoiser: TokenDenoiser,
        sampling: MaskedTextSamplingConfig | None = None,
        drop_condition: float = 0.0,
    ):
        sizes = {domain.vocabulary.size, process.size, denoiser.size}
        if len(sizes) > 1:
            raise ValueError(
                f"a vocabulary of {domain.vocabulary.size} for a process of size {process.size} "
                f"and a denoiser of size {denoiser.size}: make them alike"
            )
        block = _block_of(domain, process, denoiser, drop_condition)
        super().__init__(
            domain, process, denoiser, sampling or MaskedTextSamplingConfig(), drop_condition
        )
        self.block = block
        domain.in_blocks = self.block > 0

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[TextRequest],
        *,
        steps: int | None = None,
        sampler: str | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: Seed = 0,
        num_candidates: int = 1,
        batch_size: int = 64,
        on_step: Callable[[int, Tensor], None] | None = None,
        on_text: OnText | None = None,
    ) -> list[str]:
        """Texts, one for each order.

        Args:
            requests: what is asked of each.
            steps: of the walk, of each block where there are any; as many as it has tokens
                where neither this nor the model says.
            sampler: one of ancestral, confidence, random, remasking, entropy, margin, remdm
                and first-hitting.
            guidance_scale: scale, for orders with a condition; 1 is off.
            temperature: of the tokens; 0 takes the likeliest.
            top_p: tokens are drawn among the likeliest up to this probability.
            seed: of the draws: text ``i`` has ``seed + i``, or the i-th of several. A text
                depends on its own alone, whatever is made beside it.
            num_candidates: drawn for each text, of which the one most like the others is taken.
            batch_size: texts at a time.
            on_step: told the steps done and the tokens after each step of each batch.
            on_text: receives each text in turn, as soon as it and all before it are done.

        Raises:
            InputError: if the model cannot do what is asked.
        """
        plan = _UnmaskingPlan(
            self.sampling.mask_steps(steps),
            self.sampling.mask_sampler(sampler, temperature, top_p),
            self.sampling.checked_guidance(guidance_scale),
        )
        make = partial(self._made, plan=plan, on_step=on_step)
        return self._texts(requests, seed, num_candidates, batch_size, make, on_text)

    def _longest(self) -> int:
        """Running text is written in blocks, so that it may be of any length."""
        return self.domain.length if self.domain.ends else LONGEST

    def _made(
        self,
        requests: list[TextRequest],
        lengths: list[int],
        rng: list[torch.Generator],
        plan: _UnmaskingPlan,
        on_step: Callable[[int, Tensor], None] | None,
    ) -> list[str]:
        """One batch of texts, all on canvases of one size."""
        canvas = min(canvas_of(lengths[0]), self._longest())
        canvas += -canvas % (self.block or 1)
        tokens, is_known = laid_out(requests, lengths, canvas, self.domain.ends)
        real = torch.arange(canvas) < torch.tensor(lengths)[:, None]
        known = torch.where(is_known, tokens, self.process.size).masked_fill(~real, PAD)
        fill = partial(self._filled, requests=requests, rng=rng, plan=plan, on_step=on_step)
        known, shown = known.to(self.device), min(canvas, self.domain.length)
        if self.block:
            return self.domain.written(self._in_turn(fill, known, on_step))
        found = unmask_blocks(fill, known, shown=shown, block=max(1, shown // 2))
        return self.domain.written(found)

    def _in_turn(
        self,
        fill: Callable[..., Tensor],
        known: Tensor,
        on_step: Callable[[int, Tensor], None] | None,
    ) -> Tensor:
        """Each block found behind those before it, all of which are told after each step."""
        reader, found = BlockReader(self.denoiser), known[:, :0]

        def tell(number: int, tokens: Tensor) -> None:
            assert on_step is not None
            on_step(number, torch.cat([found, tokens], dim=1))

        for part in known.split(self.block, dim=1):
            block = fill(part, denoiser=reader, on_step=tell if on_step else None)
            reader.take(block)
            found = torch.cat([found, block], dim=1)
        return found

    def _filled(
        self,
        known: Tensor,
        requests: list[TextRequest],
        rng: list[torch.Generator],
        plan: _UnmaskingPlan,
        on_step: Callable[[int, Tensor], None] | None,
        denoiser: Denoiser | None = None,
    ) -> Tensor:
        """A stretch without masks."""
        if not bool((known == self.process.size).any()):
            return known
        real = known != PAD
        denoiser = self.denoiser if denoiser is None else denoiser
        if plan.guidance_scale != 1 and any(
            request.meaning or request.source for request in requests
        ):
            denoiser = ClassifierFreeGuidance(denoiser, plan.guidance_scale)
        return unmask(
            self.process,
            denoiser,
            plan.sampler,
            known.shape,
            plan.steps or known.shape[1],
            condition=condition_of(self.domain, requests, real),
            known=known,
            real=real,
            pad=PAD,
            forbidden=UNWRITTEN,
            rng=rng,
            device=self.device,
            on_step=on_step,
        )

    def nats_per_token(
        self,
        texts: Sequence[str],
        meanings: Sequence[Mapping[str, str]],
        *,
        seed: int = 0,
        sources: Sequence[str] = (),
    ) -> dict[str, float]:
        """See :class:`TextModel`: the masked tokens, and the length."""
        found = self.nats(texts, meanings, seed=seed, sources=sources)
        count = float(found.pop("count").sum())
        terms = {name: float(value.sum()) / count for name, value in found.items()}
        return {"total": sum(terms.values()), **terms}

    def nats(
        self,
        texts: Sequence[str],
        meanings: Sequence[Mapping[str, str]],
        *,
        seed: int = 0,
        sources: Sequence[str] = (),
        known: int = 0,
    ) -> dict[str, Float[Tensor, " texts"]]:
        """What each text costs at most, in nats; told what :meth:`nats_per_token` is.

        Args:
            texts: what is measured.
            meanings: what the model is told of each.
            seed: of the first text's draws; the others follow.
            sources: what each is made from.
            known: how many tokens of each stand before what is measured, and cost nothing.

        Returns:
            ``tokens``, ``length``, and the ``count`` of its tokens, END among them.
        """
        tokens = self.domain.tokens(texts)
        total = self.token_nats(tokens, requests_from(meanings, sources), seed=seed, known=known)
        count = (tokens != PAD).sum(dim=1)
        return {"tokens": total, "length": self.domain.length_nats(count), "count": count}

    @torch.no_grad()
    def token_nats(
        self,
        tokens: Int[Tensor, "texts longest"],
        requests: Sequence[TextRequest],
        *,
        seed: int = 0,
        known: int = 0,
    ) -> Float[Tensor, " texts"]:
        """Return a bound on what the tokens of each text cost, in nats, its length not counted.

        Args:
            tokens: of each text, padded with PAD.
            requests: what the model is told of each.
            seed: of the first text's draws; the others follow.
            known: how many tokens of each stand before what is measured, and cost nothing.
        """
        longest = self.domain.length
        tokens = F.pad(tokens, (0, longest - tokens.shape[1]), value=PAD)
        count = (tokens != PAD).sum(dim=1)
        total = torch.zeros(len(tokens), dtype=torch.float64)
        # By canvases, as texts are made: what is drawn for one does not depend on its batch.
        for rows in batches_of(count.tolist(), AT_ONCE):
            x0 = tokens[rows, : min(canvas_of(int(count[rows[0]])), longest)]
            condition = condition_of(self.domain, [requests[row] for row in rows], x0 != PAD)
            counted = self.domain.counted(x0)
            counted[:, :known] = False
            total[rows] = (
                nelbo(
                    self.process,
                    self.denoiser,
                    x0,
                    {**condition, "x0": x0} if self.block else condition,
                    real=counted,
                    num_times=LOOKS,
                    rng=generators([seed + row for row in rows]),
                )
                .total.cpu()
                .double()
            )
        return moved(total, self.device)


def _block_of(
    domain: TokenDomain, process: MaskProcess, denoiser: TokenDenoiser, drop_condition: float
) -> int:
    """Places of a block, on which all agree; 0 for texts that are found as a whole."""
    block = process.block if isinstance(process, BlockMaskProcess) else 0
    reads = getattr(denoiser, "block", 0)
    if block != reads:
        raise ValueError(
            f"a process of blocks of {block} places and a denoiser of blocks of {reads}: make them "
            "alike (0 is none: MaskProcess)"
        )
    if block and (domain.ends or domain.length % block or domain.sources or drop_condition):
        raise ValueError(
            f"blocks of {block} places are for running text (ends: false) that is told nothing (no "
            "meanings, source_length: 0, drop_condition: 0), and its length "
            f"{domain.length} is to be a multiple of them"
        )
    return block
