"""Masked diffusion language models that answer prompts: LLaDA, Dream, and models tuned like them.

The canvas of an answer is all masks. END is a token like the others, generated where the answer
ends and, in training, repeated up to the end of the canvas, so that the length is learned (Nie et
al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from multidiff.config.option_set import option
from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.unmasking import unmask
from multidiff.core.protocols import Condition, Denoiser, Level
from multidiff.core.random import Rng
from multidiff.models.requests import Seed, one_each
from multidiff.text.data.attributes import UNSPECIFIED
from multidiff.text.data.subwords import HuggingFaceVocabulary
from multidiff.text.data.vocabulary import END, PAD, UNKNOWN
from multidiff.text.domain import EncodedText
from multidiff.text.masked.model import MaskedText, TokenDomain
from multidiff.text.masked_lm.denoiser import PretrainedDenoiser
from multidiff.text.model import OnText
from multidiff.text.request import TextRequest, canvas_of, condition_of, laid_out
from multidiff.text.sampling_config import (
    UNMASKING_SAMPLERS,
    MaskedTextSamplingConfig,
    TokenSamplingConfig,
)

MOST_TOKENS = 100_000


@dataclass(frozen=True)
class AnswerSamplingConfig(MaskedTextSamplingConfig):
    """Options of sampling answers.

    Attributes:
        steps: number of reverse steps of the whole answer, shared evenly among its blocks; 0 for
            one per token.
        sampler: see :class:`~multidiff.text.sampling_config.MaskedTextSamplingConfig`; LLaDA's
            low-confidence remasking is confidence.
        repetition_penalty: see there.
        guidance_scale: scale of classifier-free guidance, LLaDA's ``cfg_scale`` plus 1; the
            unconditional prediction reads a prompt of masks.
        temperature: temperature of the tokens' distribution; 0 takes the likeliest.
        answer_length: number of tokens of an answer, END and what follows included.
        block_length: number of tokens of each block; blocks are generated from left to right.
            0 for one block.
    """

    sampler: str = option(
        "confidence",
        "which masked tokens each step predicts",
        choices=UNMASKING_SAMPLERS,
    )
    temperature: float = option(
        0.0, "temperature of the tokens' distribution", least=0, note="0 takes the likeliest"
    )
    answer_length: int = option(
        128, "tokens of an answer, its end included", least=1, most=MOST_TOKENS
    )
    block_length: int = option(
        0, "tokens of each block, from left to right", least=0, most=MOST_TOKENS, note="0 is one"
    )


class AnswerDomain(TokenDomain):
    """Answers as their tokens, conditional on prompts, the sources.

    Args:
        vocabulary: vocabulary of a tokenizer, with its END.
        length: number of tokens of the longest answer, END included.
        source_length: number of tokens of the longest prompt.
        chat: whether prompts are put into the tokenizer's chat template, if it has one.
    """

    vocabulary: HuggingFaceVocabulary

    def __init__(
        self,
        vocabulary: HuggingFaceVocabulary,
        length: int,
        source_length: int,
        chat: bool = True,
    ):
        super().__init__(vocabulary, length, source_length=source_length, ends=False)
        self.chat = chat

    def encode(self, batch: Any, rng: Rng | None) -> EncodedText:
        """Return the tokens, each answer followed by END up to the longest one; all count."""
        tokens, condition = self.encoded(batch, rng)
        tokens = tokens.masked_fill(tokens == PAD, END)
        everywhere = torch.ones_like(tokens, dtype=torch.bool)
        return EncodedText(tokens, {**condition, "real": everywhere}, everywhere, tokens)

    def tokens(self, texts: Sequence[str], prepared: Any = None) -> Int[Tensor, "batch longest"]:
        """Return numbers, one END after each text and PAD after it."""
        rows = [[*row, END][: self.length] for row in self._numbers(texts, prepared)]
        return self._padded(rows, self.length, PAD)

    def source_tokens(
        self, texts: Sequence[str], prepared: Any = None
    ) -> Int[Tensor, "batch longest"]:
        """Return numbers of prompts in the chat template, without an END of ours."""
        rows = self._numbers([self.prompt(text) for text in texts], None)
        return self._padded([row or [UNSPECIFIED] for row in rows], self.source_length, UNSPECIFIED)

    def prompt(self, text: str) -> str:
        """Return a prompt as the network reads it."""
        return self.vocabulary.chat_prompt(text) if self.chat and text else text


class PromptedText(MaskedText):
    """A masked diffusion language model that answers prompts.

    Args:
        domain: answers as tokens.
        process: process that the denoiser is trained on.
        denoiser: the network.
        sampling: default sampling options.
        drop_condition: fraction of the prompts that training drops.
    """

    pipeline_tag = "text-generation"
    domain: AnswerDomain
    sampling: AnswerSamplingConfig

    def __init__(
        self,
        domain: AnswerDomain,
        process: MaskProcess,
        denoiser: PretrainedDenoiser,
        sampling: AnswerSamplingConfig | None = None,
        drop_condition: float = 0.0,
    ):
        options = sampling or AnswerSamplingConfig()
        super().__init__(domain, process, denoiser, options, drop_condition)

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
        """Generate an answer for each request; see :meth:`MaskedText.generate`."""
        options: Any = (config or self.sampling).replace(**overrides)
        items = one_each(requests, TextRequest, "request")
        items = [
            one if one.length is not None else replace(one, length=options.answer_length)
            for one in items
        ]
        return super().generate(
            items, seed=seed, config=options, batch_size=batch_size, on_step=on_step,
            on_text=on_text,
        )  # fmt: skip

    def _longest(self) -> int:
        return self.domain.length

    def _made(
        self,
        requests: list[TextRequest],
        lengths: list[int],
        rng: list[torch.Generator],
        config: Any,
        on_step: Callable[[int, Tensor], None] | None,
    ) -> list[str]:
        """Generate the answers of one batch, block by block, until each has its END."""
        canvas = min(canvas_of(lengths[0]), self._longest())
        tokens, is_known = laid_out(requests, lengths, canvas, ends=False)
        real = (torch.arange(canvas) < torch.tensor(lengths)[:, None]).to(self.device)
        known = torch.where(is_known, tokens, self.process.size).to(self.device)
        state = known.masked_fill(~real, PAD)
        condition = condition_of(self.domain, requests, real)
        denoiser = self.guided(self.denoiser, requests, config)
        blocks = _blocks(max(lengths), config.block_length, config.steps)
        for block, steps in blocks:
            if bool((state[:, : block.start] == END).any(dim=1).all()):
                break
            part = state[:, block]
            if bool((part == self.process.size).any()):
                state[:, block] = unmask(
                    self.process,
                    BlockView(denoiser, state, block),
                    config.unmasking_sampler(),
                    part.shape,
                    steps,
                    condition=condition,
                    known=part,
                    real=real[:, block],
                    pad=PAD,
                    forbidden=(PAD, UNKNOWN),
                    rng=rng,
                    device=self.device,
                    on_step=None if on_step is None else partial(_report, on_step, state, block),
                )
        # Blocks after the END of every answer were left as masks.
        return self.domain.written(state.masked_fill(state == self.process.size, END))

    def _guidance(self, denoiser: Denoiser, scale: float) -> Denoiser:
        return MaskedPromptGuidance(denoiser, scale, self.process.size)


def _blocks(length: int, block: int, steps: int) -> list[tuple[slice, int]]:
    """Return the blocks of an answer, and the number of steps of each."""
    block = min(block, length) or length
    starts = range(0, length, block)
    found = []
    for number, start in enumerate(starts):
        stop = min(start + block, length)
        shared = steps // len(starts) + (number < steps % len(starts))
        found.append((slice(start, stop), max(1, shared) if steps else stop - start))
    return found


def _report(
    on_step: Callable[[int, Tensor], None], state: Tensor, block: slice, number: int, part: Tensor
) -> None:
    """Report a whole answer of which one block was changed."""
    whole = state.clone()
    whole[:, block] = part
    on_step(number, whole)


@dataclass(frozen=True)
class BlockView:
    """Denoiser of one block of sequences whose other positions are fixed.

    Attributes:
        denoiser: denoiser of whole sequences.
        state: the sequences, masks at the positions after the block.
        block: positions of the block.
    """

    denoiser: Denoiser
    state: Int[Tensor, "batch length"]
    block: slice

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the logits of the block."""
        whole = self.state.clone()
        whole[:, self.block] = xt
        return self.denoiser(whole, level, condition)[:, self.block]


@dataclass(frozen=True)
class MaskedPromptGuidance:
    """Classifier-free guidance whose unconditional prediction reads a prompt of masks.

    It returns ``unconditional + scale (conditional - unconditional)``; LLaDA's ``cfg_scale`` is
    one less (Nie et al. 2025).

    Attributes:
        denoiser: denoiser that reads ``source``.
        scale: guidance scale.
        mask: token number of the mask.
    """

    denoiser: Denoiser
    scale: float
    mask: int

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        """Return the guided logits."""
        cond: Any = condition
        hidden = {**cond, "source": cond["source"].masked_fill(cond["source"] >= 0, self.mask)}
        without = self.denoiser(xt, level, hidden)
        return without + self.scale * (self.denoiser(xt, level, condition) - without)
