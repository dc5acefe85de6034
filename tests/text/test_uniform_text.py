"""Texts by uniform diffusion: the bound, samples, and options that only masks have."""

import math

import pytest
import torch
from commands import complains, does, facts
from test_embedded import Listed
from torch import nn

import multidiff as md
from multidiff.core.discrete.schedules import LogLinearMasks
from multidiff.core.discrete.uniform import UniformProcess
from multidiff.nn.token_denoiser import TokenDenoiser
from multidiff.text.data.vocabulary import FIRST, UNKNOWN
from multidiff.text.domain import UNWRITTEN
from multidiff.text.masked.model import TokenDomain
from multidiff.text.masked.uniform import UniformText
from multidiff.text.request import TextRequest

SIZE = Listed().size


class Unigram(nn.Module):
    """The exact network of texts whose tokens are independent: it needs nothing but their law."""

    source, level, block = None, True, 0

    def __init__(self, log_probs):
        super().__init__()
        self.size, self.log_probs = len(log_probs), log_probs

    def forward(self, xt, level, condition=None):
        return self.log_probs.expand(*xt.shape, -1)


def unigram_model(probs, length=12):
    domain = TokenDomain(Listed(), length=length, ends=False)
    process = UniformProcess(SIZE, LogLinearMasks(), prediction="leave_one_out")
    return UniformText(domain, process, Unigram(probs.clamp(min=1e-12).log()))


def law(seed=0):
    drawn = torch.rand(SIZE, generator=torch.Generator().manual_seed(seed)) + 0.1
    drawn[list(UNWRITTEN)] = 0
    return drawn / drawn.sum()


def test_the_bound_of_independent_tokens_is_their_cost():
    """With exact conditionals the bound is tight, but for the noise of its draws."""
    probs = law()
    rows = torch.multinomial(probs.expand(40, -1), 12, True, generator=torch.Generator())
    exact = -probs.log()[rows].sum(dim=1)
    found = unigram_model(probs).token_nats(rows, [TextRequest()] * 40)
    assert float((found - exact).mean()) == pytest.approx(0, abs=0.6)
    wrong = unigram_model(law(3)).token_nats(rows, [TextRequest()] * 40)
    assert float(wrong.mean()) > float(exact.mean()) + 1


def test_samples_have_the_law_of_the_network_and_no_token_that_is_never_written():
    probs, states = law(), []
    model = unigram_model(probs)
    texts = model.generate(
        [TextRequest()] * 200, steps=8, on_step=lambda number, tokens: states.append(tokens)
    )
    numbers = torch.tensor([model.domain.vocabulary.numbers(text) for text in texts])
    assert numbers.shape == (200, 12) and len(states) == 8 * math.ceil(200 / 64)
    found = torch.bincount(numbers.flatten(), minlength=SIZE) / numbers.numel()
    assert float((found - probs).abs().sum()) / 2 < 0.05
    assert not set(UNWRITTEN) & {*numbers.unique().tolist()}
    assert all(int(state.min()) >= min(UNKNOWN, FIRST) for state in states)


def test_a_text_is_that_of_its_own_seed():
    model = unigram_model(law())
    both = model.generate([TextRequest(length=7), TextRequest()], seed=3, steps=4)
    assert model.generate([TextRequest()], seed=4, steps=4) == both[1:]
    assert both != model.generate([TextRequest(length=7), TextRequest()], seed=8, steps=4)


def test_a_network_that_does_not_read_the_level_is_refused():
    domain = TokenDomain(Listed(), length=12, ends=False)
    process = UniformProcess(SIZE, LogLinearMasks())
    with pytest.raises(ValueError, match="embedding_width"):
        UniformText(domain, process, TokenDenoiser(SIZE, 16, 1, 1, 12))
    with pytest.raises(ValueError, match="block 2 and embedding_width 8"):
        TokenDenoiser(SIZE, 16, 1, 1, 12, block=2, embedding_width=8)


def test_the_network_reads_the_level():
    torch.manual_seed(0)
    network = TokenDenoiser(SIZE, 16, 1, 1, 12, embedding_width=8)
    for one in network.parameters():
        nn.init.normal_(one, std=0.5)
    tokens, schedule = torch.full((2, 5), FIRST), LogLinearMasks()
    logits = network(tokens, schedule.at(torch.tensor([0.1, 0.9])))
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)
    ends = network(tokens, schedule.at(torch.tensor([0.0, 1.0])))
    assert bool(torch.isfinite(ends).all())


def test_the_commands(small_uniform, capsys):
    words = ["sample", small_uniform, "-n", 2, "--length", 16, "--steps", 4]
    assert len(facts(capsys, *words)["outputs"][0]["text"]) == 16
    assert len(does(capsys, *words, "--show-steps").splitlines()) >= 2 * 4
    reported = facts(
        capsys, "eval", small_uniform, "starter:restaurant/sentences.csv", "--bound", 4, "--num", 0
    )
    bits = reported["bits_per_character"]["model, at most"]["mean"]
    assert 2 < bits < 2 * math.log2(67)
    assert isinstance(md.load(small_uniform), md.UniformText)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (["--sampler", "random"], "--sampler random: expected one of ancestral"),
        (["--infill", "the [MASK]"], "--infill: "),
        (["--length", "500"], "length 500: this model writes 1 to 32 tokens"),
        (["--steps", "-1"], "--steps -1: from 0 to 10000"),
    ],
)
def test_options_that_only_masks_have_are_refused(small_uniform, capsys, words, reported):
    assert reported in complains(capsys, "sample", small_uniform, *words)
