"""Attention by plain products beside torch's own, in bfloat16 on a CPU."""

import pytest
import torch
import torch.nn.functional as F

from multidiff.nn import attention as module
from multidiff.nn.attention import attention

MASKS = {
    "no mask": None,
    "padding": torch.arange(7)[None, None, None, :] < torch.tensor([7, 4])[:, None, None, None],
    "a mask for each query": torch.ones(2, 1, 5, 7, dtype=torch.bool).tril(2),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_plain_products_equal_the_fused_kernel(mask, monkeypatch):
    """The output and the gradients in bfloat16 are those of float32 within its rounding."""
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, length, 8) for length in (5, 7, 7)]
    exact = [part.bfloat16().float().requires_grad_() for part in parts]
    half = [part.bfloat16().requires_grad_() for part in parts]
    expected = F.scaled_dot_product_attention(*exact, attn_mask=mask)

    def refuse(*args, **kwargs):
        raise AssertionError("the fused kernel is slower here")

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", refuse)
    found = attention(*half, mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.02)
    weights = torch.randn(found.shape)
    (expected * weights).sum().backward()
    (found.float() * weights).sum().backward()
    for one, other in zip(half, exact, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, atol=0.06, rtol=0.05)
