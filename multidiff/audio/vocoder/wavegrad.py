"""WaveGrad as in the paper: a network on samples (Chen et al. 2020, section 3, figure 4).

Noisy samples go down through DBlocks, the mel goes up through UBlocks, and FiLM layers pass
the features of the former, together with the noise level, to the latter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from multidiff.audio.mel import MelPreset, preset_named
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.nn.convolutions import TimeConv, time_conv
from multidiff.nn.embeddings import sinusoid

SLOPE = 0.2
# Up-sampling factors from mel frames to samples, by hop length.
FACTORS = {300: (5, 5, 3, 2, 2), 256: (4, 4, 4, 2, 2)}
UP_CHANNELS = (512, 512, 256, 128, 128)
DOWN_CHANNELS = (128, 128, 256, 512)
DILATIONS = ((1, 2, 1, 2), (1, 2, 1, 2), (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8))


class WaveGrad(nn.Module):
    """epsilon prediction in samples, conditioned on mel and continuous noise level; 15.9 M weights.

    Args:
        mel: the preset, or its name; its hop length determines the factors.
        embedding_scale: factor on the noise level before its sinusoidal embedding:
            5000 in the paper, 1 in lmnt's code. Weights of one do not work with the other.
        first_channels: channels of the UBlocks' input; all other widths are the paper's times
            ``first_channels / 768``.

    Raises:
        ValueError: if there are no factors for the preset's hop.
    """

    def __init__(
        self, mel: str | MelPreset = "wavegrad-paper-24k", embedding_scale: float = 5000.0,
        first_channels: int = 768,
    ):  # fmt: skip
        super().__init__()
        self.preset = preset_named(mel)
        self.embedding_scale = embedding_scale
        if self.preset.hop_length not in FACTORS:
            raise ValueError(
                f"WaveGrad has factors for hops of {sorted(FACTORS)}, not for the "
                f"{self.preset.hop_length} of {self.preset.name}"
            )
        factors = FACTORS[self.preset.hop_length]
        up = [width * first_channels // 768 for width in UP_CHANNELS]
        down = [width * first_channels // 768 for width in DOWN_CHANNELS]
        narrow = down[0] // 4
        self.read = conv(1, narrow, 5)
        self.down = nn.ModuleList(
            DBlock(before, after, factor)
            for before, after, factor in zip(
                [narrow, *down[:-1]], down, reversed(factors[1:]), strict=True
            )
        )
        self.film = nn.ModuleList(
            FiLM(before, after) for before, after in zip([narrow, *down], reversed(up), strict=True)
        )
        self.read_mel = conv(self.preset.n_mels, first_channels, 3)
        self.up = nn.ModuleList(
            UBlock(before, after, factor, dilations)
            for before, after, factor, dilations in zip(
                [first_channels, *up[:-1]], up, factors, DILATIONS, strict=True
            )
        )
        self.write = conv(up[-1], 1, 3)

    def forward(
        self,
        xt: Float[Tensor, "batch samples"],
        level: NoiseLevel,
        condition: Float[Tensor, "batch mels frames"],
    ) -> Float[Tensor, "batch samples"]:
        """Return the noise in the samples.

        Args:
            xt: noisy waveforms.
            level: noise level of each.
            condition: the mel; a centred preset's last frame is ignored.
        """
        frames = xt.shape[1] // self.preset.hop_length
        alpha = level.alpha.to(xt.device)
        hidden = self.read(in_channels_last(xt[:, None]))
        modulations = [self.film[0](hidden, alpha, self.embedding_scale)]
        for block, film in zip(self.down, list(self.film)[1:], strict=True):
            hidden = block(hidden)
            modulations.append(film(hidden, alpha, self.embedding_scale))
        hidden = self.read_mel(in_channels_last(condition[..., :frames]))
        for block, modulation in zip(self.up, reversed(modulations), strict=True):
            hidden = block(hidden, modulation)
        return self.write(hidden)[:, 0, 0]


class DBlock(nn.Module):
    """Fewer samples, more channels (figure 4, right).

    Nearest-neighbour resizing keeps every ``factor``-th sample; it commutes with the
    residual's 1x1 convolution, which therefore runs on the shorter signal.
    """

    def __init__(self, before: int, after: int, factor: int):
        super().__init__()
        self.factor = factor
        self.residual = conv(before, after, 1)
        self.layers = nn.ModuleList(
            conv(before if number == 0 else after, after, 3, dilation)
            for number, dilation in enumerate((1, 2, 4))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, ``factor`` times shorter."""
        x = x[..., :: self.factor].contiguous(memory_format=torch.channels_last)
        hidden = self.layers[0](F.leaky_relu(x, SLOPE))
        for layer in list(self.layers)[1:]:
            hidden = layer(F.leaky_relu_(hidden, SLOPE))
        return hidden.add_(self.residual(x))


class FiLM(nn.Module):
    """Shift and scale for a UBlock, from a DBlock's features and the noise level."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.read = conv(before, before, 3)
        self.write = conv(before, 2 * after, 3)

    def forward(self, x: Tensor, alpha: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Return ``(shift, scale)``; the scale multiplies as it is, without a 1 added to it."""
        hidden = F.leaky_relu_(self.read(x), SLOPE)
        code = sinusoid(alpha, hidden.shape[1], scale=scale).to(hidden.dtype)
        shift, factor = self.write(hidden + code[:, :, None, None]).chunk(2, dim=1)
        return shift, factor


class UBlock(nn.Module):
    """More samples, modulated (figure 4, left).

    What the paper computes on the stretched signal is computed before stretching where that
    is equivalent: the residual's 1x1 convolution, and the first 3-tap one, see
    :class:`StretchedConv`.
    """

    def __init__(self, before: int, after: int, factor: int, dilations: Sequence[int]):
        super().__init__()
        self.factor = factor
        self.residual = conv(before, after, 1)
        self.first = StretchedConv(before, after, factor)
        self.layers = nn.ModuleList(conv(after, after, 3, dilation) for dilation in dilations[1:])

    def forward(self, x: Tensor, modulation: tuple[Tensor, Tensor]) -> Tensor:
        """Return the block's output, ``factor`` times longer."""
        second, third, fourth = self.layers
        hidden = self.first(F.leaky_relu(x, SLOPE))
        x = plus_stretched(second(modulated(hidden, modulation)), self.residual(x), self.factor)
        return fourth(modulated(third(modulated(x, modulation)), modulation)).add_(x)


class StretchedConv(nn.Module):
    """Nearest-neighbour stretching by a factor, then a 3-tap convolution.

    Every stretched sample sees at most two of the original ones: the first of a group also
    the one before, the last also the one after, those between only their own. So three
    small convolutions at the low rate compute all of it.
    """

    def __init__(self, before: int, after: int, factor: int):
        super().__init__()
        self.factor = factor
        self.taps = conv(before, after, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved signal, ``factor`` times longer."""
        left, middle, right = self.taps.weight.unbind(dim=3)
        weights = [torch.stack([left, middle + right], 3), torch.stack([left + middle, right], 3)]
        padded = F.pad(x, (1, 1))
        bias = self.taps.bias
        first = time_conv(padded[..., :-1], weights[0], bias, 1, 0)
        last = time_conv(padded[..., 1:], weights[1], bias, 1, 0)
        between = []
        if self.factor > 2:
            total = (left + middle + right)[..., None]
            between = [time_conv(x, total, bias, 1, 0)] * (self.factor - 2)
        return interleaved([first, *between, last])


def conv(before: int, after: int, taps: int, dilation: int = 1) -> TimeConv:
    """Return a convolution over time, orthogonally initialised (section 3)."""
    layer = TimeConv(before, after, taps, dilation)
    with torch.no_grad():
        layer.weight.copy_(nn.init.orthogonal_(torch.empty(layer.weight.shape)))
    return layer


def modulated(x: Tensor, modulation: tuple[Tensor, Tensor]) -> Tensor:
    """Apply feature-wise shift and scale, then the leaky ReLU."""
    shift, scale = modulation
    return F.leaky_relu_(torch.addcmul(shift, scale, x), SLOPE)


def plus_stretched(x: Tensor, short: Tensor, factor: int) -> Tensor:
    """Add a ``factor`` times shorter signal, nearest-neighbour stretched."""
    groups = x.permute(0, 2, 3, 1).unflatten(2, (-1, factor))
    return (groups + short.permute(0, 2, 3, 1)[:, :, :, None]).flatten(2, 3).movedim(3, 1)


def interleaved(signals: Sequence[Tensor]) -> Tensor:
    """Interleave signals: the first samples of all, then the second ones; stays channels-last."""
    return torch.stack([x.permute(0, 2, 3, 1) for x in signals], 3).flatten(2, 3).movedim(3, 1)


def in_channels_last(x: Float[Tensor, "batch channels time"]) -> Tensor:
    """Return ``(batch, channels, 1, time)`` with the channels innermost in memory."""
    return x[:, :, None].contiguous(memory_format=torch.channels_last)
