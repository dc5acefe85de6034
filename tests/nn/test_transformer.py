"""The transformer, against textbook attention and its own symmetries."""

import math

import pytest
import torch

from multidiff.nn.transformer import Attention, Transformer, apply_rotary, rotary_embedding


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_is_the_textbooks():
    torch.manual_seed(0)
    attention, x, context = Attention(16, 2), noise(3, 5, 16), noise(3, 2, 16, seed=1)
    keys = torch.ones(3, 7, dtype=torch.bool)
    keys[0, 1] = keys[1, 5] = False
    found = attention(x, context, keys)
    asked = torch.cat([context, x], dim=1)
    weight, bias = attention.key_value.weight, attention.key_value.bias
    for row in range(3):
        heads = []
        for head in range(2):
            part = slice(8 * head, 8 * head + 8)
            query = (attention.query(x[row]))[:, part]
            key = asked[row] @ weight[:16].T[:, part] + bias[:16][part]
            value = asked[row] @ weight[16:].T[:, part] + bias[16:][part]
            turns = rotary_embedding(torch.arange(7), 8)
            query = apply_rotary(query[None, None], turns[:, 2:])[0, 0]
            key = apply_rotary(key[None, None], turns)[0, 0]
            scores = query @ key.T / math.sqrt(8)
            scores[:, ~keys[row]] = -math.inf
            heads.append(scores.softmax(dim=-1) @ value)
        torch.testing.assert_close(found[row], attention.out(torch.cat(heads, dim=-1)))


def test_turns_make_products_depend_on_distance_alone():
    query, key = noise(1, 1, 1, 8), noise(1, 1, 1, 8, seed=1)
    turns = rotary_embedding(torch.arange(30), 8)
    at = [apply_rotary(one.expand(1, 1, 30, 8), turns)[0, 0] for one in (query, key)]
    products = at[0] @ at[1].T
    for distance in (0, 1, 5):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    torch.testing.assert_close(at[0].norm(dim=-1), query.norm().expand(30))


@pytest.mark.parametrize("embedding", [0, 6])
def test_padding_changes_nothing(embedding):
    torch.manual_seed(0)
    body = Transformer(16, 2, 2, embedding)
    x, level = noise(2, 4, 16), noise(2, 6, seed=1) if embedding else None
    alone = body(x, level)
    padded = torch.cat([x, 100 * noise(2, 3, 16, seed=2)], dim=1)
    keys = torch.tensor([[True] * 4 + [False] * 3]).expand(2, -1)
    torch.testing.assert_close(body(padded, level, None, keys)[:, :4], alone)


def test_a_context_that_is_left_out_is_none():
    torch.manual_seed(0)
    body, x, context = Transformer(16, 2, 2), noise(2, 4, 16), noise(2, 3, 16, seed=1)
    keys = torch.tensor([[False] * 3 + [True] * 4]).expand(2, -1)
    torch.testing.assert_close(body(x, None, context, keys), body(x))
    assert not torch.allclose(body(x, None, context), body(x))


def test_it_looks_both_ways():
    torch.manual_seed(0)
    body = Transformer(16, 1, 2)
    x = noise(1, 5, 16).requires_grad_()
    body(x)[0, 2, 0].backward()
    assert (x.grad.abs().sum(dim=-1) > 0).all()


def test_heads_that_do_not_fit():
    with pytest.raises(ValueError, match=r"width 18 must be a multiple of 2 \* heads, 8"):
        Transformer(18, 1, 4)
