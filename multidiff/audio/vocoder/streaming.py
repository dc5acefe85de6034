"""Synthesis while the mel is still arriving, equal to that of the whole mel and no dearer.

Every part of the vocoder's network but its convolutions over time works on single frames. Here
each convolution keeps the last frames of its input and returns what these and the new ones
determine, so a frame is computed once, as offline. The output lags the input by the frames that all
convolutions of all evaluations see ahead (:func:`look_ahead_frames`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.audio.vocoder.domains import SpectralDomain
from multidiff.audio.vocoder.envelope import lerp_frames, state_positions
from multidiff.audio.vocoder.mdct_denoiser import MDCTDenoiser, log_energy, wiener_velocity
from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.samplers import deterministic_step, is_clean
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.core.random import placed_normal
from multidiff.nn.convnext import ConvNeXtBlock

# Channels and frames of arguments and results differ.
Frames = Float[Tensor, "1 _ _"]


class Delay:
    """Frames that wait until the frames of a delayed path are there."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def __call__(self, frames: Frames, count: int) -> Frames:
        """Take up new frames and return the oldest ``count``."""
        held = frames if self._held is None else torch.cat([self._held, frames], dim=2)
        self._held = held[..., count:]
        return held[..., :count]


class ConvStream:
    """A convolution over time with zeros beyond both ends, on frames as they arrive.

    Args:
        conv: convolution of odd length that keeps the number of frames.
    """

    def __init__(self, conv: nn.Conv1d):
        self.conv, self.reach = conv, conv.kernel_size[0] // 2
        self._held: Tensor | None = None

    def __call__(self, frames: Frames, last: bool) -> Frames:
        """Return the outputs that are determined now; all of them if these frames are the last."""
        if self._held is None:
            self._held = frames.new_zeros(1, frames.shape[1], self.reach)
        held = torch.cat([self._held, frames], dim=2)
        if last:
            held = F.pad(held, (0, self.reach))
        conv, width = self.conv, 2 * self.reach
        self._held = held[..., max(held.shape[2] - width, 0) :]
        if held.shape[2] <= width:
            return held.new_zeros(1, conv.out_channels, 0)
        return F.conv1d(held, conv.weight, conv.bias, groups=conv.groups)


class BlockStream:
    """A ConvNeXt block on frames as they arrive.

    Args:
        block: the block.
        embedding: embedding of the noise level.
    """

    def __init__(self, block: ConvNeXtBlock, embedding: Float[Tensor, "1 emb"]):
        self.block, self.embedding = block, embedding
        self.mix, self.delay = ConvStream(block.mix), Delay()

    def __call__(self, frames: Frames, last: bool) -> Frames:
        """Return the output frames that are determined now."""
        mixed = self.mix(frames, last)
        here = self.delay(frames, mixed.shape[2])
        return self.block.residual(
            here.transpose(1, 2), mixed.transpose(1, 2), self.embedding
        ).transpose(1, 2)


class StepStream:
    """One evaluation of the network and a deterministic step, on frames as they arrive.

    Args:
        denoiser: the network.
        process: its process.
        level: level of the incoming states.
        next_level: level of the outgoing ones.
    """

    def __init__(
        self,
        denoiser: MDCTDenoiser,
        process: GaussianProcess,
        level: NoiseLevel,
        next_level: NoiseLevel,
    ):
        self.denoiser, self.process = denoiser, process
        self.level, self.next_level = level, next_level
        self.embedding = denoiser.level(level)
        self.read, self.read_mel = ConvStream(denoiser.read), ConvStream(denoiser.read_mel)
        self.blocks = [
            BlockStream(block, self.embedding)
            for block in denoiser.blocks
            if isinstance(block, ConvNeXtBlock)
        ]
        self.states, self.mels = Delay(), Delay()

    def __call__(self, xt: Frames, mel: Frames, last: bool) -> tuple[Frames, Frames]:
        """Return the states at the next level, and the mel of their frames."""
        features = torch.cat([xt, log_energy(xt)], dim=1)
        hidden = self.read(features, last) + self.read_mel(mel, last)
        for block in self.blocks:
            hidden = block(hidden, last)
        count = hidden.shape[2]
        xt, mel = self.states(xt, count), self.mels(mel, count)
        if count == 0:
            return xt, mel
        network = self.denoiser
        output = network.write(network.norm(hidden.transpose(1, 2), self.embedding))
        strength, rest = output.transpose(1, 2).chunk(2, dim=1)
        velocity = wiener_velocity(strength, xt, self.level) + rest
        estimate = self.process.estimate(velocity, xt, self.level)
        if is_clean(self.next_level):
            return estimate.x0, mel
        return deterministic_step(estimate, self.next_level), mel


class VocoderStream:
    """Synthesis of one mel as it arrives, with deterministic steps and without projections.

    Args:
        domain: domain of the vocoder.
        process: its process.
        denoiser: its network.
        levels: levels visited, the clean one last.
        seed: random seed.
    """

    @torch.no_grad()
    def __init__(
        self,
        domain: SpectralDomain,
        process: GaussianProcess,
        denoiser: MDCTDenoiser,
        levels: Sequence[NoiseLevel],
        seed: int,
    ):
        self.domain, self.preset, self.seed = domain, domain.preset, seed
        self.steps = [
            StepStream(denoiser, process, level, following) for level, following in pairwise(levels)
        ]
        self.deviations = Delay()
        self._mel: Tensor | None = None
        self._first, self._done = 0, 0
        self._tail: Tensor | None = None

    @torch.no_grad()
    def push(self, mel: Float[Tensor, "1 mels frames"], last: bool) -> Float[Tensor, " samples"]:
        """Return the samples that are determined by the frames so far; all if they are the last."""
        hop = self.domain.transform.hop
        held = mel if self._mel is None else torch.cat([self._mel, mel], dim=2)
        frames = self._first + held.shape[2]
        total = max(self.preset.num_samples(frames), 0) // hop + 1
        where = state_positions(self.preset, hop, total + 1, frames)
        # A position between two frames needs both.
        ready = total if last else min(total, int((where < frames - 1).sum()))
        here = where[self._done : ready] - self._first
        normal = lerp_frames(self.preset.normalize(held), here)
        deviation = lerp_frames(self.domain.envelope.log_std(held), here).exp()
        state = normal.new_zeros(1, hop, 0)
        if len(here):
            state = placed_normal((hop, len(here)), self._done, self.seed)[None].to(normal)
        kept = int(where[ready])  # the frame on the left of the next position
        self._mel, self._first, self._done = held[..., kept - self._first :], kept, ready
        for step in self.steps:
            state, normal = step(state, normal, last)
        return self._sound(state, deviation)

    def _sound(self, state: Frames, deviation: Frames) -> Float[Tensor, " samples"]:
        coefficients = state * self.deviations(deviation, state.shape[2])
        if self._tail is not None:
            coefficients = torch.cat([self._tail, coefficients], dim=2)
        self._tail = coefficients[..., -1:]
        if coefficients.shape[2] < 2:
            return coefficients.new_zeros(0)
        return self.domain.transform.inverse(coefficients)[0]


def look_ahead_frames(domain: SpectralDomain, denoiser: MDCTDenoiser, num_steps: int) -> int:
    """Return how many mel frames the sound lags behind the mel: those seen ahead.

    Args:
        domain: domain of the vocoder.
        denoiser: its network.
        num_steps: number of evaluations.
    """
    convolutions = [denoiser.read, *(block.mix for block in denoiser.blocks)]
    reach = sum(conv.kernel_size[0] // 2 for conv in convolutions)
    # One state frame more is the inverse transform's, one mel frame the interpolation's.
    states = num_steps * reach + 1
    return math.ceil(states * domain.transform.hop / domain.preset.hop_length) + 1


def faded_in(tail: Float[Tensor, " fade"], piece: Tensor) -> Float[Tensor, " samples"]:
    """Cross-fade the beginning of a piece with the previous piece's output there."""
    length = min(len(tail), len(piece))
    ratio = torch.linspace(0, 1, length + 2)[1:-1]
    return torch.cat([torch.lerp(tail[:length], piece[:length], ratio), piece[length:]])
