"""Convolution over time that is fast to train on CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class TimeConv(nn.Conv2d):
    """A length-preserving convolution over time: states are ``(batch, channels, 1, time)``.

    Two-dimensional of height 1 and channels-last in memory, because CPUs run that up to 1.5
    times as fast as one-dimensional convolutions of some hundred channels. The library's
    weight gradient reaches a third of the speed of its forward pass there, so on CPUs it is
    computed as matrix products, one for each tap. Elsewhere, and in bfloat16, this is an ordinary
    convolution.

    Args:
        before: number of input channels.
        after: number of output channels.
        taps: length of the kernel, odd.
        dilation: samples between taps.
    """

    def __init__(self, before: int, after: int, taps: int, dilation: int = 1):
        super().__init__(
            before,
            after,
            (1, taps),
            padding=(0, dilation * (taps // 2)),
            dilation=(1, dilation),
        )
        self.reach = dilation * (taps // 2)
        self.weight = nn.Parameter(self.weight.to(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.zeros(after))

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved states."""
        return time_conv(x, self.weight, self.bias, self.dilation[1], self.reach)


def time_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, padding: int
) -> Tensor:
    """Convolve over the last axis with weights ``(out, in, 1, taps)``."""
    own = x.device.type == "cpu" and torch.is_grad_enabled() and min(weight.shape[:2]) >= 16
    # Under autocast weights and states differ in dtype, which the library's own gradient handles.
    if own and not torch.is_autocast_enabled("cpu"):
        return _TimeConv.apply(x, weight, bias, dilation, padding)
    return F.conv2d(x, weight, bias, padding=(0, padding), dilation=(1, dilation))


class _TimeConv(torch.autograd.Function):
    """conv2d whose weight gradient is a matrix product for each tap."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation, ctx.padding = dilation, padding
        return F.conv2d(x, weight, bias, padding=(0, padding), dilation=(1, dilation))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, [1, 1], [0, ctx.padding], [1, ctx.dilation],
                False, [0, 0], 1, [True, False, False],
            )[0]  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(gradient, x, weight, ctx.dilation, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = _time_first(gradient).flatten(0, 1).sum(dim=0)
        return of_x, of_weight, of_bias, None, None


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, dilation: int, padding: int
) -> Tensor:
    out, before = _time_first(gradient), _time_first(x)
    taps = []
    for tap in range(weight.shape[3]):
        shift = tap * dilation - padding
        first, last = max(0, -shift), min(out.shape[1], before.shape[1] - shift)
        seen = before[:, first + shift : last + shift]
        taps.append(torch.bmm(out[:, first:last].transpose(1, 2), seen).sum(dim=0))
    return torch.stack(taps, dim=2)[:, :, None]


def _time_first(x: Tensor) -> Tensor:
    """Return ``(batch, time, channels)``; no copy for channels-last memory."""
    return x[:, :, 0].transpose(1, 2).contiguous()
