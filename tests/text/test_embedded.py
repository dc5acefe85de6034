"""Texts as states: the losses of the paper with their targets, clamping, collapse, lengths."""

import math

import pytest
import torch
from torch import nn

from multidiff.core.gaussian.process import GaussianProcess
from multidiff.core.gaussian.schedules import BetaSchedule
from multidiff.core.protocols import Estimate
from multidiff.core.random import generators
from multidiff.core.task import DiffusionTask
from multidiff.text.data.attributes import UNSPECIFIED, MeaningTable
from multidiff.text.data.vocabulary import END, PAD, UNKNOWN
from multidiff.text.diffusion_lm.domain import EmbeddedDomain

WORDS = [
    "the",
    "eagle",
    "is",
    "a",
    "pub",
    "cafe",
    "near",
    "river",
    "cheap",
    "nice",
    "food",
    "serves",
]
TABLE = {"food": ("Italian", "French"), "area": ("riverside",)}


class Listed:
    """A vocabulary of a few words."""

    def __init__(self, words=tuple(WORDS)):
        self.words, self.size = words, 3 + len(words)

    def numbers(self, text):
        return [3 + self.words.index(w) if w in self.words else UNKNOWN for w in text.split()]

    def text(self, numbers):
        inner = numbers[: numbers.index(END)] if END in numbers else numbers
        return " ".join(self.words[n - 3] if n > UNKNOWN else "?" for n in inner if n != PAD)

    def unknown(self, text):
        return [w for w in text.split() if w not in self.words]

    def assets(self):
        return {}

    def load_assets(self, folder):
        pass


def domain(seed=0, **options):
    torch.manual_seed(seed)
    return EmbeddedDomain(Listed(), **{"width": 8, "length": 10, **options})


def process(steps=2000, **options):
    return GaussianProcess(BetaSchedule.sqrt(steps), "x0", **options)


def encoded(one, *texts, meanings=None):
    batch = {"text": list(texts), "meaning": meanings}
    return one.encode(batch, generators(range(len(texts))))


def estimate_of(one, state, level=None):
    level = process().schedule.at(torch.full((len(state),), 0.5)) if level is None else level
    return Estimate(state, torch.zeros_like(state)), state, level


# ----------------------------------------------------------------------------- the state


def test_the_state_is_the_embedding_and_little_noise():
    one = domain(width=64, first_std=0.12)
    found = encoded(one, *["the eagle is near the river"] * 200)
    truth = one.table[torch.tensor([*one.vocabulary.numbers("the eagle is near the river"), END])]
    torch.testing.assert_close(found.embedding[0], truth)
    std = float((found.x0 - found.embedding).detach().std())
    assert std == pytest.approx(0.12, rel=0.01)
    assert found.mask.shape == (200, 7, 1) and bool(found.mask.all())


def test_padding_is_no_part_of_the_state():
    one = domain()
    found = encoded(one, "the eagle", "the eagle is a nice pub")
    assert found.tokens.tolist()[0] == [3, 4, END, PAD, PAD, PAD, PAD]
    assert found.real.sum(dim=1).tolist() == [3, 7]
    assert found.embedding[0, 3:].abs().max() == 0


def test_texts_that_are_too_long_are_cut_and_told(caplog):
    found = encoded(domain(length=4), "the eagle is a pub")
    assert found.tokens.tolist() == [[3, 4, 5, 6]]
    assert "cut to 4 tokens: 'the eagle is a pub'" in caplog.text


@pytest.mark.parametrize("norm", [1.5, 4.0])
def test_embeddings_of_a_fixed_norm(norm):
    one = domain(norm=norm)
    torch.testing.assert_close(one.embeddings().norm(dim=1), torch.full((15,), norm))
    assert float(domain().embeddings().norm(dim=1).std().detach()) > 0.1


# ----------------------------------------------------------------------------- the losses


class Recorder(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, xt, level, condition=None):
        return xt * 0 + self.bias


def test_the_target_is_the_embedding_at_the_first_level_and_the_state_elsewhere():
    one, whole = domain(), process()
    found = encoded(one, *["the eagle is near the river"] * 3)
    times = torch.tensor([1, 2, 2000]) / 2000
    corrupted = whole.corrupt(found.x0, whole.schedule.at(times), generators(range(3)))
    target = one.target(found, corrupted, whole)
    assert torch.equal(target.x0[0], found.embedding[0])
    assert torch.equal(target.x0[1:], found.x0[1:])
    assert torch.equal(target.xt, corrupted.xt)


def test_the_losses_are_the_papers():
    one, whole = domain(anchor=0.7), process()
    task = DiffusionTask(one, whole, Recorder())
    texts = ["the eagle is near the river", "a nice pub"]
    found = task.losses({"text": texts}, generators(range(2)))
    state = encoded(one, *texts)
    logits = state.x0 @ one.table.T
    alpha = float(whole.schedule.at(torch.ones(1)).alpha)
    for row, count in enumerate([7, 4]):
        rows, tokens = logits[row, :count], state.tokens[row, :count]
        truth = -rows.log_softmax(dim=-1)[range(count), tokens].mean()
        torch.testing.assert_close(found["rounding"][row], truth)
        squares = state.x0[row, :count].square()
        torch.testing.assert_close(found["tail"][row], squares.mean() * alpha**2)
        # The recorder says 0: every word is as likely, and the error is the state itself.
        torch.testing.assert_close(found["anchor"][row], torch.tensor(0.7 * math.log(15)))
        torch.testing.assert_close(found["denoising"][row], squares.mean())


def test_the_tail_is_as_small_as_the_table_says():
    one, whole = domain(width=64), process()
    found = encoded(one, "the eagle is near the river")
    corrupted = whole.corrupt(found.x0, whole.schedule.at(torch.ones(1)), None)
    losses = one.extra_losses(found, corrupted, Estimate(found.x0, found.x0), whole)
    assert 0 < float(losses["tail"]) < 1e-5


def test_a_longer_neighbour_changes_no_loss():
    one, whole = domain(anchor=1.0), process()
    task = DiffusionTask(one, whole, Recorder())
    alone = task.losses({"text": ["a nice pub"]}, generators([0]))
    beside = task.losses(
        {"text": ["a nice pub", "the eagle is near the river"]}, generators([0, 1])
    )
    for name in ("rounding", "tail", "anchor", "length", "denoising"):
        torch.testing.assert_close(beside[name][:1], alone[name], msg=name)


def test_noised_embeddings_are_read_right():
    one = domain(width=64, norm=4.0, first_std=0.12)
    texts = [" ".join(WORDS[i] for i in torch.randint(12, (9,)).tolist()) for _ in range(300)]
    found = encoded(one, *texts)
    right = one.logits(found.x0).argmax(dim=-1)[found.real] == found.tokens[found.real]
    assert float(right.float().mean()) > 0.999


def after_training(*kept, **options):
    """The mean distance of embeddings after a short training on some of the losses, over that
    before; and the share of noised words that are still read right."""
    torch.manual_seed(0)
    one = EmbeddedDomain(Listed(), width=8, length=10, **options)

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(9, 32), nn.SiLU(), nn.Linear(32, 8))

        def forward(self, xt, level, condition=None):
            time = level.time.to(xt)[:, None, None].expand(*xt.shape[:2], 1)
            return self.layers(torch.cat([xt, time], dim=-1))

    task = DiffusionTask(one, process(), Small())
    start = float(one.spread().detach())
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-2)
    texts = ["the eagle is near the river", "a nice pub serves cheap food"] * 8
    for step in range(300):
        losses = task.losses({"text": texts}, torch.Generator().manual_seed(step))
        loss = sum(losses[name].mean() for name in kept)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = encoded(one, *texts)
    right = (one.logits(found.x0).argmax(dim=-1) == found.tokens)[found.real]
    return float(one.spread().detach()) / start, float(right.float().mean())


def test_embeddings_collapse_without_rounding_and_not_with_it():
    distance, right = after_training("denoising")
    assert distance < 0.4 and right < 0.5
    distance, right = after_training("denoising", "rounding")
    assert distance > 0.5 and right == 1


@pytest.mark.parametrize("norm", [None, 4.0])
def test_the_anchor_keeps_embeddings_apart(norm):
    kept = ["rounding", "anchor"] if norm else ["denoising", "rounding", "anchor"]
    distance, right = after_training(*kept, norm=norm, anchor=1.0)
    assert distance > 0.9 and right == 1


# ----------------------------------------------------------------------------- clamping


def test_soft_clamping_is_the_mean_word():
    one = domain()
    state = torch.randn(2, 5, 8)
    level = process().schedule.at(torch.full((2,), 0.5))
    xt = torch.randn(2, 5, 8)
    found = one.clamped(Estimate(state, state), xt, level, "soft", temperature=0.7)
    probabilities = ((state @ one.table.T) / 0.7).softmax(dim=-1)
    torch.testing.assert_close(found.x0, probabilities @ one.table)
    alpha, sigma = float(level.alpha[0]), float(level.sigma[0])
    torch.testing.assert_close(alpha * found.x0 + sigma * found.noise, xt)


def test_hard_clamping_is_a_word_and_the_limit_of_soft():
    one = domain()
    what = estimate_of(one, torch.randn(2, 5, 8))
    hard = one.clamped(*what, "hard").x0
    assert all(any(torch.equal(position, word) for word in one.table) for position in hard[0])
    torch.testing.assert_close(one.clamped(*what, "soft", temperature=1e-4).x0, hard)
    assert one.clamped(*what, "none") is what[0]


def test_words_that_are_not_written_get_no_probability():
    one = domain()
    what = estimate_of(one, one.table[[3, 4, 5]][None].clone() * 5)
    free, bound = (one.clamped(*what, "hard", unwritten=w).x0 for w in ((), (3, 4, 5)))
    assert not torch.equal(free, bound)
    logits = one.logits(what[0].x0)
    logits[..., [3, 4, 5]] = -math.inf
    assert torch.equal(bound, one.table[logits.argmax(dim=-1)])


def test_states_come_back_as_texts():
    one = domain(width=64, norm=4.0)
    texts = ["the eagle is near the river", "a nice pub"]
    found = encoded(one, *texts)
    assert one.decode(found.x0) == texts
    assert one.decode(found.x0, {"real": found.real}) == texts


# ----------------------------------------------------------------------------- meanings


def test_meanings_are_told_in_full_or_in_part():
    one = domain(meanings=MeaningTable(TABLE))
    found = encoded(one, "the eagle", meanings=[{"food": "French"}])
    assert found.condition["source"].tolist() == [[2, 3]]
    part = one.condition([{"food": "French"}], found.real)
    assert part["source"].tolist() == [[2, UNSPECIFIED]]


def test_a_part_of_the_values_is_left_open_in_training():
    one = domain(meanings=MeaningTable(TABLE), drop_values=0.5)
    meanings = [{"food": "French"}] * 2000
    source = encoded(one, *["the eagle"] * 2000, meanings=meanings).condition["source"]
    opened = source == UNSPECIFIED
    assert float(opened.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(opened.all(dim=1).float().mean()) == pytest.approx(0.125, abs=0.03)


def test_lengths_are_learned_of_all_texts_and_of_each_value():
    one = domain(meanings=MeaningTable(TABLE))
    optimizer = torch.optim.Adam([one.lengths, one.lengths_by_source], lr=0.1)
    texts = ["the eagle", "the eagle is near the river"]
    meanings = [{"food": "French"}, {"food": "Italian"}]
    found = encoded(one, *texts, meanings=meanings)
    for _ in range(200):
        loss = one.length_loss(found).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    free = one.length_logits(1, None).softmax(dim=-1)[0]
    assert float(free[3]) == pytest.approx(0.5, abs=0.02)
    assert float(free[7]) == pytest.approx(0.5, abs=0.02)
    source = one.condition(meanings, found.real)["source"]
    reported = one.length_logits(2, source).softmax(dim=-1)
    assert float(reported[0, 3]) > 0.9 and float(reported[1, 7]) > 0.9


def test_domains_that_cannot_be():
    with pytest.raises(ValueError, match="too small"):
        domain(norm=0.0)
    with pytest.raises(ValueError, match="at least one attribute"):
        MeaningTable({})
    with pytest.raises(ValueError, match="'food' has the value 'x' twice"):
        MeaningTable({"food": ("x", "x")})
