"""Options of sampling of joint models."""

from __future__ import annotations

import math
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
from multidiff.utils.errors import InputError

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
        media_guidance: scales of single media where they differ from it, such as
            ``image=1.5,audio=3``; not of media made all at once. A ``guidance_scale`` that a call
            sets holds for all media, unless it sets these too.
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
    media_guidance: str = option("", "guidance scales of single media, such as image=1.5,audio=3")
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

    def guidance_scales(self) -> dict[str, float]:
        """Return the guidance scales of single media.

        Raises:
            InputError: if they are not ``NAME=SCALE``, joined by commas.
        """
        if "guidance_scale" in self.overrides and "media_guidance" not in self.overrides:
            return {}
        found: dict[str, float] = {}
        for part in filter(None, (one.strip() for one in self.media_guidance.split(","))):
            name, _, text = (one.strip() for one in part.partition("="))
            try:
                scale = float(text)
            except ValueError:
                scale = -1.0
            if not name or name in found or not 0 <= scale < math.inf:
                raise InputError(
                    f"--media-guidance {part}: write MEDIUM=SCALE, each medium once, its scale 0 "
                    "or more; 1 is off"
                )
            found[name] = scale
        return found

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
