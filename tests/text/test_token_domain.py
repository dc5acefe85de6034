"""Texts as their tokens: what is masked, the conditions, and what lengths cost."""

import math

import pytest
import torch
from test_embedded import Listed
from torch import nn

from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.core.random import generators
from multidiff.core.task import DiffusionTask
from multidiff.nn.token_denoiser import TokenDenoiser
from multidiff.text.data.attributes import UNSPECIFIED, MeaningTable
from multidiff.text.data.vocabulary import END, PAD, UNKNOWN
from multidiff.text.diffusion_lm.denoiser import TextDenoiser
from multidiff.text.domain import TextDomain
from multidiff.text.masked.model import MaskedText, TokenDomain

TABLE = MeaningTable({"food": ("Italian", "French")})
SIZE = Listed().size


def test_a_state_is_its_tokens_and_only_words_count():
    encoded = TokenDomain(Listed(), 10).encode({"text": ["the eagle", "a zebra pub near"]}, None)
    assert encoded.x0.tolist() == [[3, 4, END, PAD, PAD], [6, UNKNOWN, 7, 9, END]]
    assert encoded.mask.int().tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]
    assert torch.equal(encoded.condition["real"], encoded.x0 != PAD)


def test_running_text_has_no_end_and_pays_for_no_length():
    domain = TokenDomain(Listed(), 10, ends=False)
    encoded = domain.encode({"text": ["the eagle", "a pub near"]}, None)
    assert encoded.x0.tolist() == [[3, 4, PAD], [6, 7, 9]]
    assert torch.equal(encoded.mask, encoded.x0 != PAD)
    assert domain.length_nats(torch.tensor([2, 3])).tolist() == [0, 0]
    assert domain.extra_losses(encoded, None, None, None) == {}


def test_lengths_cost_their_cross_entropy():
    domain = TokenDomain(Listed(), 10)
    encoded = domain.encode({"text": ["the eagle", "a pub near"]}, None)
    with torch.no_grad():
        domain.lengths[3] = 2.0
    logits = torch.zeros(11)
    logits[3] = 2.0
    truth = [-float(logits.log_softmax(0)[length]) for length in (3, 4)]
    found = domain.extra_losses(encoded, None, None, None)["length"]
    assert found.tolist() == pytest.approx(truth, rel=1e-6)
    assert domain.length_nats(torch.tensor([3, 4])).tolist() == pytest.approx(truth, rel=1e-6)


def test_sources_end_and_what_is_behind_them_is_left_open():
    domain = TokenDomain(Listed(), 10, source_length=4)
    assert domain.sources == SIZE
    found = domain.source_tokens(["the eagle", "a pub near the river"])
    assert found.tolist() == [[3, 4, END, UNSPECIFIED], [6, 7, 9, 3]]
    reported = domain.encode({"text": ["the", "a"], "source": ["the eagle", "a"]}, None).condition
    assert reported["source"].tolist() == [[3, 4, END], [6, END, UNSPECIFIED]]


@pytest.mark.parametrize("words", [1, 3, 5])
def test_a_length_is_told_as_so_much_longer_than_the_source(words):
    domain = TokenDomain(Listed(), 10, source_length=8)
    with torch.no_grad():
        domain.lengths_by_source[0, 8 + 2] = 9.0  # two tokens longer
    source = domain.source_tokens([" ".join(["eagle"] * words)])
    logits = domain.length_logits(1, source)[0]
    assert int(logits.argmax()) == words + 1 + 2
    assert len(logits) == len(domain.length_logits(1, None)[0]) == 11


def test_a_meaning_that_is_left_out_tells_no_length():
    domain = TokenDomain(Listed(), 10, TABLE)
    with torch.no_grad():
        domain.lengths_by_source[TABLE.number["food", "Italian"], 7] = 5.0
    reported = torch.tensor([TABLE.whole({"food": "Italian"}), [UNSPECIFIED]])
    assert domain.length_logits(2, reported).argmax(dim=1).tolist() == [7, 0]
    assert torch.equal(domain.length_logits(2, reported)[1], domain.length_logits(1, None)[0])


def test_what_is_read_in_a_text_does_not_depend_on_longer_neighbours():
    torch.manual_seed(0)
    domain, process = TokenDomain(Listed(), 12), MaskProcess(SIZE, LogLinearMasks())
    denoiser = TokenDenoiser(SIZE, 16, 2, 2, 12)
    short, long = "the eagle is a pub", "a cheap cafe near the river serves nice nice nice food"
    tokens = domain.tokens([short, long])
    masked = domain.counted(tokens) & (torch.arange(tokens.shape[1]) % 2 == 0)
    xt = tokens.masked_fill(masked, SIZE)
    level = process.schedule.at(torch.full((2,), 0.5))
    together = denoiser(xt, level, {"real": tokens != PAD})
    alone = denoiser(xt[:1, :6], level[:1], {"real": tokens[:1, :6] != PAD})
    torch.testing.assert_close(together[:1, :6], alone, rtol=1e-5, atol=1e-6)


def test_a_task_trains_on_it():
    torch.manual_seed(0)
    domain = TokenDomain(Listed(), 10, TABLE, drop_values=0.5)
    process = MaskProcess(SIZE, LogLinearMasks())
    denoiser = TokenDenoiser(SIZE, 16, 1, 2, 10, sources=TABLE.size, source_length=1)
    task = DiffusionTask(domain, process, denoiser, drop_condition=0.5)
    batch = {"text": ["the eagle", "a pub near"] * 3, "meaning": [{"food": "French"}, {}] * 3}
    losses = task.losses(batch, generators(range(6)))
    assert set(losses) == {"denoising", "length"}
    # Two terms of a uniform distribution over 0 to 10 tokens: of all texts, and of the condition.
    assert losses["length"].tolist() == pytest.approx([2 * math.log(11)] * 6)
    sum(loss.mean() for loss in losses.values()).backward()
    assert domain.lengths.grad.abs().sum() > 0 and denoiser.words.weight.grad.abs().sum() > 0


def test_parts_that_do_not_fit_each_other():
    process, denoiser = MaskProcess(SIZE, LogLinearMasks()), TokenDenoiser(SIZE, 16, 1, 2, 10)
    domain = TokenDomain(Listed(), 10)
    with pytest.raises(ValueError, match=f"a vocabulary of {SIZE} for a process of size 9"):
        MaskedText(domain, MaskProcess(9, LogLinearMasks()), denoiser)
    with pytest.raises(ValueError, match="set sources: 3"):
        MaskedText(TokenDomain(Listed(), 10, TABLE), process, denoiser)
    with pytest.raises(ValueError, match=f"set sources: {SIZE}"):
        MaskedText(TokenDomain(Listed(), 10, source_length=4), process, denoiser)
    with pytest.raises(ValueError, match="give one"):
        TextDomain(Listed(), 10, TABLE, source_length=4)
    for wrong in ({"length": 1}, {"length": 4, "source_length": -1}):
        with pytest.raises(ValueError, match="too small"):
            TextDomain(Listed(), **wrong)


@pytest.mark.parametrize("network", [TextDenoiser(4, 16, 1, 2, sources=5), nn.Linear(2, 2)])
def test_a_network_reads_what_a_domain_tells(network):
    reads = 5 if isinstance(network, TextDenoiser) else 0
    domain = TextDomain(Listed(), 10)
    if reads:
        with pytest.raises(ValueError, match=r"the denoiser's sources are 5.*set sources: 0"):
            domain.check_reader(network)
    else:
        domain.check_reader(network)


def test_a_network_reads_the_longest_that_a_domain_tells():
    size = Listed().size
    domain = TextDomain(Listed(), 10, source_length=6)
    domain.check_reader(TextDenoiser(4, 16, 1, 2, sources=size, source_length=6))
    with pytest.raises(ValueError, match=r"source_length is 5.*set source_length: 6"):
        domain.check_reader(TextDenoiser(4, 16, 1, 2, sources=size, source_length=5))
    table = MeaningTable({"food": ("Italian",), "area": ("riverside",)})
    short = TextDenoiser(4, 16, 1, 2, sources=table.size, source_length=1)
    with pytest.raises(ValueError, match=r"set source_length: 2"):
        TextDomain(Listed(), 10, table).check_reader(short)
