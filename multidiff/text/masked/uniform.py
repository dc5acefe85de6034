"""Text models by uniform diffusion: noise replaces tokens by random ones (UDLM, D3PM-uniform)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from multidiff.core.discrete.samplers import TokenDraw
from multidiff.core.discrete.uniform import UniformAncestralSampler, UniformProcess
from multidiff.core.gaussian.timesteps import uniform_timesteps
from multidiff.core.protocols import Condition, Denoiser, Level
from multidiff.core.sample import Step, sample
from multidiff.nn.token_denoiser import TokenDenoiser
from multidiff.text.data.vocabulary import PAD, UNKNOWN
from multidiff.text.domain import UNWRITTEN
from multidiff.text.masked.model import MaskedText, TokenDomain
from multidiff.text.request import TextRequest, condition_of
from multidiff.text.sampling_config import UniformTextSamplingConfig
from multidiff.utils.errors import InputError


@dataclass(frozen=True)
class _Written:
    """A denoiser that gives tokens that are never written no probability."""

    denoiser: Denoiser

    def __call__(self, xt: Tensor, level: Level, condition: Condition = None) -> Tensor:
        output = self.denoiser(xt, level, condition)
        never = torch.tensor(UNWRITTEN, device=output.device)
        return output.index_fill(-1, never, -torch.inf)


class UniformText(MaskedText):
    """A text model by uniform diffusion (Austin et al. 2021, Schiff et al. 2024).

    Requests, likelihood and evaluation are those of masked models. A token is noise or not without
    a sign of it, so the network must read the noise level, and each step may change every token.
    All tokens share one noise level in training, so none can be given.

    Args:
        domain: texts as tokens.
        process: process that the denoiser is trained on.
        denoiser: the network, which reads the noise level (``embedding_width``).
        sampling: default sampling options.
        drop_condition: fraction of the conditions that training drops, for guidance.

    Raises:
        ValueError: if these do not fit each other.
    """

    process: UniformProcess
    sampling: UniformTextSamplingConfig

    def __init__(
        self,
        domain: TokenDomain,
        process: UniformProcess,
        denoiser: TokenDenoiser,
        sampling: UniformTextSamplingConfig | None = None,
        drop_condition: float = 0.0,
    ):
        if denoiser.level is None:
            raise ValueError(
                "uniform noise leaves no trace in the tokens: the denoiser needs the noise level; "
                "set its embedding_width, such as 128"
            )
        config: Any = sampling or UniformTextSamplingConfig()
        super().__init__(domain, cast(Any, process), denoiser, config, drop_condition)

    def _longest(self) -> int:
        return self.domain.length

    def _filled(
        self,
        known: Tensor,
        requests: list[TextRequest],
        rng: list[torch.Generator],
        config: Any,
        on_step: Callable[[int, Tensor], None] | None,
        denoiser: Denoiser | None = None,
    ) -> Tensor:
        """Return texts; END and PAD stay where they are."""
        if any(request.known for request in requests):
            raise InputError(
                "--infill: this model noises all tokens alike and can keep none; remove it, or use "
                "a model of masks (MaskedText)"
            )
        free = known == self.process.size
        start = torch.where(free, self.process.prior(known.shape, rng).to(known), known)
        never = torch.tensor(UNWRITTEN, device=known.device)
        draw = TokenDraw(config.temperature, config.top_p)
        sampler: Any = UniformAncestralSampler(draw, free)

        def report(step: Step) -> None:
            noise = free & torch.isin(step.state, never)
            cast(Callable, on_step)(step.number, step.state.masked_fill(noise, UNKNOWN))

        return sample(
            self.process,
            _Written(self.guided(denoiser or self.denoiser, requests, config)),
            sampler,
            known.shape,
            uniform_timesteps(config.steps or known.shape[1]),
            condition=condition_of(self.domain, requests, known != PAD),
            rng=rng,
            start=start,
            device=self.device,
            on_step=report if on_step else None,
        )
