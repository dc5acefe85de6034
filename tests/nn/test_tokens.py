"""Networks over tokens and what they are told."""

import pytest
import torch

from multidiff.core.schedules import LogSNRSchedule
from multidiff.nn.tokens import TokenDenoiser
from multidiff.text.denoiser import TextDenoiser
from multidiff.text.drafts import Drafts
from multidiff.text.editor import Editor

SOURCE = torch.tensor([[3, 1, 4], [2, 7, 1]])
DRAFTS = [[5, 6, 7], [5]]


def masked(source):
    network = TokenDenoiser(9, 16, 2, 2, length=6, sources=8, source_length=7)
    return lambda: network(torch.tensor([[5, 9, 7], [9, 9, 1]]), None, source())


def embedded(source):
    network = TextDenoiser(4, 16, 2, 2, length=6, sources=8, source_length=7)
    noisy = torch.randn(2, 3, 8)
    level = LogSNRSchedule(9, -7).at(torch.tensor([0.2, 0.7]))
    return lambda: network(noisy, level, source())


def edited(source):
    network = Editor(9, 16, 2, 2, length=6, writer_layers=1, sources=8, source_length=7)
    return lambda: network.encode(Drafts.of(DRAFTS, source(), torch.device("cpu"))).places


@pytest.mark.parametrize("network", [masked, embedded, edited])
def test_what_is_said_does_not_depend_on_how_far_a_batch_pads_its_sources(network):
    torch.manual_seed(0)
    told = {"source": SOURCE}
    said = network(lambda: told)
    alone = said()
    told["source"] = torch.nn.functional.pad(SOURCE, (0, 4), value=-1)
    torch.testing.assert_close(said(), alone, rtol=1e-5, atol=1e-6)
    told["source"] = SOURCE.flip(1)
    assert float((said() - alone).detach().abs().max()) > 1e-3, "the source is not read"
