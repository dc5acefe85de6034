"""Networks over tokens and their conditions."""

import pytest
import torch

from multidiff.core.gaussian.schedules import LogSNRSchedule
from multidiff.nn.token_denoiser import BlockReader, TokenDenoiser
from multidiff.text.diffuser.drafts import Drafts
from multidiff.text.diffuser.network import Editor
from multidiff.text.diffusion_lm.denoiser import TextDenoiser

SOURCE = torch.tensor([[3, 1, 4], [2, 7, 1]])
DRAFTS = [[5, 6, 7], [5]]


def masked(source):
    network = TokenDenoiser(9, 16, 2, 2, length=6, sources=8, source_length=7)
    return lambda: network(torch.tensor([[5, 9, 7], [9, 9, 1]]), None, source())


def embedded(source):
    network = TextDenoiser(4, 16, 2, 2, length=6, sources=8, source_length=7)
    xt = torch.randn(2, 3, 8)
    level = LogSNRSchedule(9, -7).at(torch.tensor([0.2, 0.7]))
    return lambda: network(xt, level, source())


def edited(source):
    network = Editor(9, 16, 2, 2, length=6, writer_layers=1, sources=8, source_length=7)
    return lambda: network.encode(Drafts.of(DRAFTS, source(), torch.device("cpu"))).hidden


@pytest.mark.parametrize("network", [masked, embedded, edited])
def test_what_is_said_does_not_depend_on_how_far_a_batch_pads_its_sources(network):
    torch.manual_seed(0)
    cond = {"source": SOURCE}
    said = network(lambda: cond)
    alone = said()
    cond["source"] = torch.nn.functional.pad(SOURCE, (0, 4), value=-1)
    torch.testing.assert_close(said(), alone, rtol=1e-5, atol=1e-6)
    cond["source"] = SOURCE.flip(1)
    assert float((said() - alone).detach().abs().max()) > 1e-3, "the source is not read"


# ----------------------------------------------------------------------------- blocks


def in_blocks(block=4, length=12):
    torch.manual_seed(0)
    network = TokenDenoiser(9, 16, 2, 2, length, block=block)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x0 = torch.randint(9, (3, length))
    xt = x0.masked_fill(torch.rand(3, length) < 0.5, 9)
    return network, x0, xt


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_block_reads_the_clean_ones_before_it_and_no_other(changed):
    network, x0, xt = in_blocks()
    said = network(xt, None, {"x0": x0})
    other = x0.clone()
    other[:, 4 * changed : 4 * changed + 4] += 1
    moved = (network(xt, None, {"x0": other % 9}) - said).abs().amax(dim=(0, 2))
    later = torch.arange(12) >= 4 * changed + 4
    assert bool((moved[~later] == 0).all()) and bool((moved[later] > 1e-3).all())


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_of_what_is_noisy_a_block_reads_its_own_alone(changed):
    network, x0, xt = in_blocks()
    said = network(xt, None, {"x0": x0})
    other = xt.clone()
    other[:, 4 * changed] = (other[:, 4 * changed] + 1) % 10
    moved = (network(other, None, {"x0": x0}) - said).abs().amax(dim=(0, 2))
    own = torch.arange(12) // 4 == changed
    assert bool((moved[~own] == 0).all()) and bool((moved[own] > 1e-4).all())


@pytest.mark.parametrize("block", [1, 3, 4])
def test_what_is_trained_at_once_is_what_a_walk_reads_block_by_block(block):
    network, x0, xt = in_blocks(block)
    at_once, reader = network(xt, None, {"x0": x0}), BlockReader(network)
    for start in range(0, 12, block):
        own = slice(start, start + block)
        known = torch.cat([x0[:, :start], xt[:, own]], dim=1)
        alone = network(known, None)[:, own]
        torch.testing.assert_close(at_once[:, own], alone, rtol=1e-5, atol=1e-5)
        for _ in range(2):  # a reading leaves nothing behind
            behind = reader(xt[:, own], None, {"real": xt[:, own] >= 0})
            torch.testing.assert_close(behind, alone, rtol=1e-5, atol=1e-5)
        reader.append(x0[:, own])


@pytest.mark.parametrize(("block", "kept"), [(2, 6), (4, 4), (5, 5), (12, 0)])
def test_where_the_text_is_longer_half_of_it_is_forgotten(block, kept):
    network, _, xt = in_blocks(block)
    reader, text = BlockReader(network), torch.randint(9, (3, 12 // block * block))
    for part in text.split(block, dim=1):
        reader.append(part)
    xt = xt[:, :block]
    known = torch.cat([text[:, text.shape[1] - kept :], xt], dim=1)
    found = reader(xt, None, {"real": xt >= 0})
    torch.testing.assert_close(found, network(known, None)[:, kept:], rtol=1e-5, atol=1e-5)


def test_blocks_and_sources_do_not_go_together():
    with pytest.raises(ValueError, match="block 4 and sources 8: one of the two must be 0"):
        TokenDenoiser(9, 16, 2, 2, 12, sources=8, block=4)


def test_padding_is_not_read_in_blocks():
    network, x0, xt = in_blocks()
    real = torch.arange(12).expand(3, 12) < 10
    said = network(xt, None, {"x0": x0, "real": real})
    filled = network(xt.masked_fill(~real, 3), None, {"x0": x0.masked_fill(~real, 5), "real": real})
    torch.testing.assert_close(said[:, :10], filled[:, :10])
