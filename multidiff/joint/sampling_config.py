"""Options of sampling of joint models."""

from __future__ import annotations

from dataclasses import dataclass

from multidiff.config.option_set import option
from multidiff.core.discrete.samplers import (
    AncestralSampler,
    FixedOrderSampler,
    MaskGITSampler,
    RandomOrderSampler,
    TokenDraw,
    UnmaskingSampler,
)
from multidiff.models.sampling_config import MOST_STEPS, SamplingConfig

SAMPLERS = ("confidence", "random", "ancestral")
TOGETHER, NONE = "together", "none"
FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class JointSamplingConfig(SamplingConfig):
    """Options of sampling.

    Attributes:
        steps: number of reverse steps of each medium. A medium with no more tokens than steps is
            generated a token at a time, which is exact.
        sampler: which masked tokens each step predicts: the most confident (MaskGIT), random ones
            or each by chance (ancestral).
        guidance_scale: scale of guidance towards what is given or generated before; 1 is off.
        temperature: temperature of the tokens' distribution; 0 takes the likeliest.
        short_temperature: the same, for media that are generated a token at a time where others
            are given: their digit, colour or name is to be the likeliest one, however worded.
        short_order: whether such media are generated from their beginning or from their end. Exact
            conditionals would give the same distribution; those of a network are of different
            quality.
        noise: scale of Gumbel noise on the confidence, annealed to 0.
        order: media in the order in which they are generated, joined by commas, or "together" for
            all at once.
        bridge: medium that is generated silently between what is given and what is asked for, if
            it is neither; "none" generates directly.
    """

    steps: int = option(16, "number of reverse steps of each medium", least=1, most=MOST_STEPS)
    sampler: str = option("confidence", "which masked tokens each step predicts", choices=SAMPLERS)
    guidance_scale: float = option(
        1.0, "guidance towards what is given or was generated before", least=0, note="1 is off"
    )
    temperature: float = option(
        1.0, "temperature of the tokens' distribution", least=0, note="0 takes the likeliest"
    )
    short_temperature: float = option(
        1.0, "temperature of media generated a token at a time, given others", least=0
    )
    short_order: str = option(
        FORWARD, "from which end such media are generated", choices=(FORWARD, BACKWARD)
    )
    noise: float = option(
        4.5, "Gumbel noise on the confidence", least=0, note="0 takes the most confident first"
    )
    order: str = option(
        "", "media in their order, joined by commas; 'together' generates all at once"
    )
    bridge: str = option(
        NONE, "medium generated silently between given and wanted ones; 'none' for none"
    )

    def unmasking_sampler(self, length: int, given: bool = False) -> UnmaskingSampler:
        """Return the sampler of a medium with that many tokens.

        Args:
            length: number of tokens.
            given: whether another medium is given, or was generated before.
        """
        draw = TokenDraw(self.temperature)
        if length <= self.steps:
            short = TokenDraw(self.short_temperature) if given else draw
            places = range(length) if self.short_order == FORWARD else range(length)[::-1]
            return FixedOrderSampler(places, "even", short)
        if self.sampler == "random":
            return RandomOrderSampler(draw=draw)
        if self.sampler == "ancestral":
            return AncestralSampler(draw)
        return MaskGITSampler(self.noise, draw=draw)
