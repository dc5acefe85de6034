"""The autoregressive baseline of the benchmark: what it reads, and what it writes."""

import math

import pytest
import torch

from benchmarks.autoregressive import LENGTH, SIZE, CausalText, batches, padded
from multidiff.nn.transformer import KVCache
from multidiff.text.data.vocabulary import END, PAD, UNKNOWN


@pytest.fixture(scope="module")
def causal():
    torch.manual_seed(0)
    made = CausalText().eval().requires_grad_(False)
    for one in made.parameters():
        one.add_(0.05 * torch.randn_like(one))
    return made


def test_a_token_depends_on_those_before_it_alone(causal):
    tokens = torch.randint(3, SIZE, (2, 9))
    other = tokens.clone()
    other[:, 5:] = 3
    one, changed = causal(tokens), causal(other)
    torch.testing.assert_close(one[:, :5], changed[:, :5])
    assert float((one[:, 5:] - changed[:, 5:]).abs().max()) > 0.1


def test_the_cache_gives_the_same_logits(causal):
    tokens, memory = torch.randint(3, SIZE, (2, 9)), KVCache()
    parts = [causal(part, memory) for part in tokens.split([1, 3, 1, 4], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), causal(tokens), rtol=1e-4, atol=1e-4)


def test_nats_count_end_and_no_padding(causal):
    rows = [[5, 6, 7], [8]]
    together = causal.nats(padded(rows))
    alone = torch.cat([causal.nats(padded([row])) for row in rows])
    torch.testing.assert_close(together, alone)
    blank = CausalText()
    with torch.no_grad():
        blank.words.weight.zero_()
        assert float(blank.nats(padded([[5, 6, 7]]))) == pytest.approx(4 * math.log(SIZE))


def test_texts_are_reproducible_and_end(causal):
    made = causal.write(20, 1.0, seed=3)
    assert made == causal.write(20, 1.0, seed=3) != causal.write(20, 1.0, seed=4)
    assert all(len(one) < LENGTH and not {PAD, END, UNKNOWN} & {*one} for one in made)


def test_batches_cover_the_sentences():
    rows = [[3] * n for n in (1, 2, 3)] * 50
    data = batches(rows, 0)
    counts = [int((next(data) != PAD).sum()) for _ in range(3)]
    assert sum(counts) == sum(len(row) + 1 for row in rows)
