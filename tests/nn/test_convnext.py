"""ConvNeXt blocks: kernels of inference against those of training, and half precision."""

import pytest
import torch
from torch import nn

from multidiff.nn.convnext import ConvNeXtBlock, bottlenecks
from multidiff.nn.cpu_kernels import depthwise, linear_gelu


def block(width=24, kernel=5, expansion=3):
    torch.manual_seed(0)
    made = ConvNeXtBlock(width, 6, kernel, expansion).eval()
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3)
    return made


@pytest.mark.parametrize("frames", [1, 8, 33])
@pytest.mark.parametrize("strided", [False, True])
def test_inference_equals_training(frames, strided):
    made, embedding = block(), torch.randn(2, 6)
    x = torch.randn(2, 24, frames).transpose(1, 2) if strided else torch.randn(2, frames, 24)
    trained = made(x, embedding)
    assert trained.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(made(x, embedding), trained.detach())
        assert made.residual(x[:, :0], x[:, :0], embedding).shape == (2, 0, 24)


def test_each_kernel_by_its_formula():
    made, x = block(), torch.randn(2, 9, 24)
    assert made.mix.bias is not None
    with torch.no_grad():
        widened = x @ made.widen.weight.T + made.widen.bias
        cubic = 0.7978845608 * (widened + 0.044715 * widened**3)
        torch.testing.assert_close(
            linear_gelu(made.widen, x), 0.5 * widened * (1 + torch.tanh(cubic))
        )
        padded = nn.functional.pad(x, (0, 0, 2, 2))
        taps = made.mix.weight[:, 0]
        mixed = made.mix.bias * torch.ones_like(x)
        for tap in range(5):
            mixed += padded[:, tap : tap + 9] * taps[:, tap]
        torch.testing.assert_close(depthwise(made.mix, x), mixed)


def test_a_layer_that_does_more_than_the_product_is_called():
    made, x = block(), torch.randn(1, 4, 24)
    with torch.no_grad():
        plain = linear_gelu(made.widen, x)
        made.widen.register_forward_hook(lambda layer, given, output: 2 * output)  # type: ignore
        expected = nn.functional.gelu(made.widen(x), approximate="tanh")
        assert torch.equal(linear_gelu(made.widen, x), expected)
        assert not torch.allclose(expected, plain)
        mixed = depthwise(made.mix, x)
        made.mix.register_forward_hook(lambda layer, given, output: 2 * output)  # type: ignore
        torch.testing.assert_close(depthwise(made.mix, x), 2 * mixed)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_bottlenecks_in_half_precision_leave_the_frames_in_float32(half):
    network = nn.ModuleDict({"blocks": nn.ModuleList([block(), block()]), "out": nn.Linear(3, 3)})
    names = bottlenecks(network, "net")
    assert names == tuple(
        f"net.blocks.{i}.{layer}." for i in (0, 1) for layer in ("widen", "narrow")
    )
    made, x, embedding = block(), torch.randn(2, 40, 24), torch.randn(2, 6)
    with torch.no_grad():
        exact = made(x, embedding)
        for layer in (made.widen, made.narrow):
            layer.to(half)
        found = made(x, embedding)
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    assert float((found - exact).norm() / (exact - x).norm()) < 0.01
