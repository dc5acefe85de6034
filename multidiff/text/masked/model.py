"""Text models by masked diffusion: all tokens masked at first (MDLM, Sahoo et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multidiff.core.devices import moved
from multidiff.core.discrete.absorbing import MaskProcess, nelbo
from multidiff.core.discrete.blocks import BlockMaskProcess
from multidiff.core.discrete.unmasking import unmask, unmask_blocks
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.core.guidance import ClassifierFreeGuidance
from multidiff.core.protocols import Corruption, Denoiser, Encoded, Process, Reading
from multidiff.core.random import Rng, generators
from multidiff.models.requests import Seed
from multidiff.nn.token_denoiser import BlockReader, TokenDenoiser
from multidiff.text.data.vocabulary import END, PAD
from multidiff.text.domain import UNWRITTEN, EncodedText, TextDomain
from multidiff.text.masked.repetition import RepetitionPenalty
from multidiff.text.masked_lm.denoiser import PretrainedDenoiser
from multidiff.text.model import OnText, TextModel
from multidiff.text.request import (
    TextRequest,
    batches_of,
    canvas_of,
    condition_of,
    laid_out,
    requests_from,
)
from multidiff.text.sampling_config import MaskedTextSamplingConfig, TokenSamplingConfig
from multidiff.utils.errors import InputError

# Number of mask draws for each text whose likelihood is bounded, and texts in a batch.
LOOKS, AT_ONCE = 32, 50
# Tokens of the longest running text that may be requested.
LONGEST = 100_000


class TokenDomain(TextDomain):
    """Texts as their tokens; see :class:`~multidiff.text.domain.TextDomain`.

    A text's END is never masked: the network knows where a text ends.

    Attributes:
        in_blocks: whether the network reads the clean text too, each block the part before it.
    """

    in_blocks = False

    def encode(self, batch: Any, rng: Rng | None) -> EncodedText:
        """Return the tokens, of which all but END and PAD count."""
        tokens, condition = self.encoded(batch, rng)
        if self.in_blocks:
            condition["x0"] = tokens
        return EncodedText(tokens, condition, self.counted(tokens), tokens)

    def counted(self, tokens: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length"]:
        """Return which tokens are predicted: no padding, and no END, which the length gives."""
        return (tokens != PAD) & (tokens != END) if self.ends else tokens != PAD

    def extra_losses(
        self, encoded: Encoded, corrupted: Corruption, estimate: Reading, process: Process
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return the cross-entropy of the lengths."""
        return {"length": self.length_loss(encoded)} if self.ends else {}


class MaskedText(TextModel):
    """A text model by masked diffusion.

    Args:
        domain: texts as tokens.
        process: process that the denoiser is trained on.
        denoiser: the network.
        sampling: default sampling options.
        drop_condition: fraction of the conditions that training drops, for guidance.

    Attributes:
        block: number of positions of each block of block diffusion; 0 without blocks.

    Raises:
        ValueError: if these do not fit each other.
    """

    pipeline_tag = "fill-mask"
    domain: TokenDomain
    process: MaskProcess
    denoiser: TokenDenoiser | PretrainedDenoiser
    sampling: MaskedTextSamplingConfig

    def __init__(
        self,
        domain: TokenDomain,
        process: MaskProcess,
        denoiser: TokenDenoiser | PretrainedDenoiser,
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
        seed: Seed = 0,
        config: TokenSamplingConfig | None = None,
        batch_size: int = 64,
        on_step: Callable[[int, Tensor], None] | None = None,
        on_text: OnText | None = None,
        **overrides: Any,
    ) -> list[str]:
        """Generate a text for each request.

        Args:
            requests: request for each text.
            seed: random seed of the first text; text ``i`` uses ``seed + i``, or the i-th of
                several. None draws one from the system. A text depends only on its own seed,
                not on its batch.
            config: sampling options; the model's own, ``sampling``, by default.
            batch_size: number of texts in a batch.
            on_step: function called with the steps done and the tokens after each step.
            on_text: function that receives each text in turn, once it and all before it are done.
            **overrides: single options that replace the config's, by the names of
                :class:`~multidiff.text.sampling_config.MaskedTextSamplingConfig`.

        Raises:
            InputError: if the model cannot fulfil the request.
            TypeError: if an option is unknown.
        """
        config = (config or self.sampling).replace(**overrides)
        penalty = getattr(config, "repetition_penalty", 1.0)
        if self.block and penalty != 1:
            raise InputError(
                f"--repetition-penalty {penalty:g}: this model writes block by block and does not "
                "see which tokens earlier blocks have; remove it"
            )
        make = partial(self._made, config=config, on_step=on_step)
        return self._texts(requests, seed, config.num_candidates, batch_size, make, on_text)

    def _longest(self) -> int:
        """Return the largest length; running text is written in blocks, to any length."""
        return self.domain.length if self.domain.ends else LONGEST

    def _made(
        self,
        requests: list[TextRequest],
        lengths: list[int],
        rng: list[torch.Generator],
        config: Any,
        on_step: Callable[[int, Tensor], None] | None,
    ) -> list[str]:
        """Generate the texts of one batch, all on canvases of one size."""
        canvas = min(canvas_of(lengths[0]), self._longest())
        canvas += -canvas % (self.block or 1)
        tokens, is_known = laid_out(requests, lengths, canvas, self.domain.ends)
        real = torch.arange(canvas) < torch.tensor(lengths)[:, None]
        known = torch.where(is_known, tokens, self.process.size).masked_fill(~real, PAD)
        fill = partial(self._filled, requests=requests, rng=rng, config=config, on_step=on_step)
        known, most = known.to(self.device), min(canvas, self.domain.length)
        if self.block:
            return self.domain.written(self._in_turn(fill, known, on_step))
        found = unmask_blocks(fill, known, context_length=most, block=max(1, most // 2))
        return self.domain.written(found)

    def _in_turn(
        self,
        fill: Callable[..., Tensor],
        known: Tensor,
        on_step: Callable[[int, Tensor], None] | None,
    ) -> Tensor:
        """Return a text generated block by block; each step reports all blocks up to there."""
        reader, found = BlockReader(self.denoiser), known[:, :0]

        def report(number: int, tokens: Tensor) -> None:
            assert on_step is not None
            on_step(number, torch.cat([found, tokens], dim=1))

        for part in known.split(self.block, dim=1):
            block = fill(part, denoiser=reader, on_step=report if on_step else None)
            reader.append(block)
            found = torch.cat([found, block], dim=1)
        return found

    def _filled(
        self,
        known: Tensor,
        requests: list[TextRequest],
        rng: list[torch.Generator],
        config: Any,
        on_step: Callable[[int, Tensor], None] | None,
        denoiser: Denoiser | None = None,
    ) -> Tensor:
        """Return a piece of text with its masks filled in."""
        if not bool((known == self.process.size).any()):
            return known
        real = known != PAD
        return unmask(
            self.process,
            self.guided(denoiser or self.denoiser, requests, config),
            config.unmasking_sampler(),
            known.shape,
            config.steps or known.shape[1],
            condition=condition_of(self.domain, requests, real),
            known=known,
            real=real,
            pad=PAD,
            forbidden=UNWRITTEN,
            rng=rng,
            device=self.device,
            on_step=on_step,
        )

    def guided(
        self, denoiser: Denoiser, requests: Sequence[TextRequest], config: TokenSamplingConfig
    ) -> Denoiser:
        """Return a denoiser with classifier-free guidance, for requests with a condition.

        Repetition is penalised if the options say so.
        """
        asks = any(request.meaning or request.source for request in requests)
        if asks and config.guidance_scale != 1:
            denoiser = self._guidance(denoiser, config.guidance_scale)
        penalty = getattr(config, "repetition_penalty", 1.0)
        return denoiser if penalty == 1 else RepetitionPenalty(denoiser, penalty)

    def _guidance(self, denoiser: Denoiser, scale: float) -> Denoiser:
        return ClassifierFreeGuidance(denoiser, scale)

    @torch.no_grad()
    def encode(
        self,
        texts: Sequence[str],
        *,
        sources: Sequence[str] = (),
        pooled: bool = True,
    ) -> Float[Tensor, "texts width"] | list[Float[Tensor, "tokens width"]]:
        """Return the hidden states of texts without a mask, as embeddings.

        Args:
            texts: the texts.
            sources: source of each, for models that read one; without one it is unspecified.
            pooled: whether to average the states of each text's tokens, END left out; if not, the
                states of each text are returned by themselves.

        Raises:
            ValueError: if the network gives no hidden states.
        """
        tokens = self.domain.tokens(texts)
        counted = (tokens != PAD) & (tokens != END)
        requests = requests_from([{}] * len(texts), sources)
        found: list[Tensor] = [tokens.new_zeros(0)] * len(texts)
        clean = self.process.levels(uniform_timesteps(1))[-1].to(self.device)
        for rows in batches_of((tokens != PAD).sum(dim=1).tolist(), AT_ONCE):
            x0 = tokens[rows]
            condition = condition_of(self.domain, [requests[row] for row in rows], x0 != PAD)
            states = self.denoiser.hidden(x0, clean.expand(len(rows)), condition)
            for row, own in zip(rows, states, strict=True):
                found[row] = own[counted[row]]
        return torch.stack([one.mean(dim=0) for one in found]) if pooled else found

    def nats_per_token(
        self,
        texts: Sequence[str],
        meanings: Sequence[Mapping[str, str]],
        *,
        seed: int = 0,
        sources: Sequence[str] = (),
    ) -> dict[str, float]:
        """Return a bound in nats per token; see :class:`~multidiff.text.model.TextModel`."""
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
        """Return an upper bound on the cost of each text, in nats.

        Args:
            texts: the texts.
            meanings: meaning representation of each.
            seed: random seed of the first text's draws; text ``i`` uses ``seed + i``.
            sources: source of each.
            known: number of first tokens that are given, and cost nothing.

        Returns:
            ``tokens``, ``length``, and the ``count`` of its tokens, including END.
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
        """Return an upper bound on the cost of each text's tokens in nats, without its length.

        Args:
            tokens: tokens of each text, padded with PAD.
            requests: conditions of each.
            seed: random seed of the first text's draws; text ``i`` uses ``seed + i``.
            known: number of first tokens that are given, and cost nothing.
        """
        longest = self.domain.length
        tokens = F.pad(tokens, (0, longest - tokens.shape[1]), value=PAD)
        count = (tokens != PAD).sum(dim=1)
        total = torch.zeros(len(tokens), dtype=torch.float64)
        # By canvases, as texts are generated: the draws for one do not depend on its batch.
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
    domain: TokenDomain, process: MaskProcess, denoiser: nn.Module, drop_condition: float
) -> int:
    """Return the block size, on which all must agree; 0 without blocks."""
    block = process.block if isinstance(process, BlockMaskProcess) else 0
    reads = getattr(denoiser, "block", 0)
    if block != reads:
        raise ValueError(
            f"a process of blocks of {block} and a denoiser of blocks of {reads} positions: make "
            "them alike (0 without blocks: MaskProcess)"
        )
    if block and (domain.ends or domain.length % block or domain.sources or drop_condition):
        raise ValueError(
            f"blocks of {block} positions are for running text (ends: false) without condition (no "
            "meanings, source_length: 0, drop_condition: 0), and its length "
            f"{domain.length} must be a multiple of the block"
        )
    return block
