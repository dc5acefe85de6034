"""Unmasking by surety, remasking and first-hitting times, against the joint that is known."""

import itertools

import pytest
import torch
from test_unmasking import JOINT, Table, chi_square, conditionals, seeded, states_of, told_always

from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.adaptive_samplers import (
    FirstHittingSampler,
    ReMDMSampler,
    SuretySampler,
    surety,
)
from multidiff.core.discrete.samplers import AncestralSampler, TokenDraw
from multidiff.core.discrete.schedules import CosineMasks, LogLinearMasks, PolynomialMasks
from multidiff.core.discrete.unmasking import unmask
from multidiff.core.random import generators

SAMPLERS = {
    "entropy": SuretySampler("entropy"),
    "margin": SuretySampler("margin", pace="even"),
    "confidence": SuretySampler("confidence", noise=2.0),
    "remdm cap": ReMDMSampler("cap", 0.3),
    "remdm rescale": ReMDMSampler("rescale", 0.3, start=0.5),
    "remdm confidence": ReMDMSampler("confidence", 1.0),
    "first hitting": FirstHittingSampler(),
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


@every_sampler
def test_everything_is_filled_and_what_is_known_stays_and_rows_are_independent(sampler):
    process = MaskProcess(6, CosineMasks())
    known = torch.full((3, 8), 6)
    known[1] = torch.tensor([6, 1, 6, 6, 5, 6, 2, 6])
    known[2] = torch.arange(8) % 6

    def made(rows, seeds, steps):
        return unmask(
            process, Table(6, 8), sampler, (len(seeds), 8), steps, known=known[rows],
            forbidden=[0], rng=generators(seeds),
        )  # fmt: skip

    for steps in (1, 5, 20):
        found = made(slice(None), [1, 2, 3], steps)
        assert torch.equal(found[known < 6], known[known < 6])
        assert bool(((found[known == 6] >= 1) & (found[known == 6] < 6)).all())
        for row in range(3):
            assert torch.equal(made(slice(row, row + 1), [row + 1], steps)[0], found[row])


def test_the_three_sureties_by_hand():
    probs = torch.tensor([[0.5, 0.25, 0.25], [0.45, 0.45, 0.1], [0.48, 0.32, 0.2]]).double()
    found = [surety(probs.log(), kind) for kind in ("confidence", "margin", "entropy")]
    torch.testing.assert_close(found[0].exp(), probs[:, 0])
    torch.testing.assert_close(found[1], torch.tensor([0.25, 0.0, 0.16]).double())
    torch.testing.assert_close(found[2], -torch.distributions.Categorical(probs).entropy())
    # They disagree: 0 has the likeliest token and the largest margin, 1 the least entropy.
    assert [int(one.argmax()) for one in found] == [0, 0, 1]


@pytest.mark.parametrize(("kind", "first"), [("confidence", 0), ("margin", 0), ("entropy", 1)])
def test_the_surest_position_is_filled_first(kind, first):
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.45, 0.45, 0.1], [0.48, 0.32, 0.2]]).log()

    def denoiser(xt, level, condition=None):
        return logits.expand(len(xt), 3, 3)

    states = states_of(
        MaskProcess(3, PolynomialMasks()), denoiser, SuretySampler(kind), (4, 3), 3, rng=seeded()
    )
    assert bool((states[0][:, first] < 3).all()) and int((states[0] < 3).sum()) == 4


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_first_hitting_is_exact_on_every_grid_and_asks_once_a_token(steps):
    calls = []

    def asked(xt, level, condition=None):
        calls.append(level.alpha)
        return conditionals(xt, level)

    process = MaskProcess(3, LogLinearMasks())
    found = unmask(process, asked, FirstHittingSampler(), (4000, 3), steps, rng=seeded(1))
    assert chi_square(found, JOINT) < 60  # its 1e-4 quantile
    assert len(calls) <= 3 * steps and (steps > 1 or len(calls) == 3)
    other = unmask(process, conditionals, AncestralSampler(), (4000, 3), 1, rng=seeded(1))
    assert chi_square(other, JOINT) > 200


def test_first_hitting_times_follow_the_masked_share():
    """The share left at time t is the schedule's; so are the levels shown to the network."""
    process, seen = MaskProcess(4, CosineMasks()), []

    def denoiser(xt, level, condition=None):
        seen.append(((xt == 4).double().mean(dim=1), process.mask_ratio(level)))
        return torch.zeros(*xt.shape, 4)

    states = states_of(process, denoiser, FirstHittingSampler(), (100, 50), 4, rng=seeded())
    for number, state in enumerate(states, 1):
        wanted = process.mask_ratio(process.schedule.at(torch.tensor([1 - number / 4])))
        assert float((state == 4).double().mean()) == pytest.approx(float(wanted), abs=0.03)
    share, ratio = (torch.cat(one) for one in zip(*seen, strict=True))
    # 50 tokens: the share left scatters around the level's by 0.07 at most.
    assert float((share - ratio).abs().mean()) < 0.06


@pytest.mark.parametrize("sampler", [SAMPLERS[one] for one in SAMPLERS if "remdm" in one])
def test_remasking_keeps_the_share_of_the_level_and_masks_again(sampler):
    process, steps = MaskProcess(4, LogLinearMasks()), 7
    states = states_of(
        process, told_always(0.0, 0.0, 0.0, 0.0), sampler, (20, 500), steps, rng=seeded()
    )
    for number, state in enumerate(states, 1):
        wanted = float(process.schedule.at(torch.tensor([1 - number / steps])).alpha)
        assert float((state < 4).double().mean()) == pytest.approx(wanted, abs=0.025)
    again = [int(((a < 4) & (b == 4)).sum()) for a, b in itertools.pairwise(states)]
    assert sum(again) > 0 and again[-1] == 0
    if sampler.start < 1:
        assert sum(again[: steps // 2 - 1]) == 0


def test_remasking_by_confidence_takes_the_unsure_first():
    """Even positions are certain, odd ones draw one of 50 tokens: these come back oftener."""
    logits = torch.zeros(1, 40, 50)
    logits[:, ::2, 0] = 30.0
    states = states_of(
        MaskProcess(50, PolynomialMasks()),
        lambda xt, level, condition: logits.expand(len(xt), -1, -1),
        ReMDMSampler("confidence", 1.0), (200, 40), 10, rng=seeded(),
    )  # fmt: skip
    again = sum(((a < 50) & (b == 50)).sum(dim=0) for a, b in itertools.pairwise(states))
    ratio = float(again[1::2].sum() / again[::2].sum())
    assert ratio == pytest.approx(2.72, rel=0.25)  # exp(-0.02) against exp(-1)


def test_remasking_samples_the_joint():
    process = MaskProcess(3, LogLinearMasks())
    sampler = ReMDMSampler("cap", 0.02)
    found = unmask(process, conditionals, sampler, (2000, 3), 150, rng=seeded(1))
    assert chi_square(found, JOINT) < 60


def test_no_remasking_is_the_ancestral_sampler():
    process = MaskProcess(6, CosineMasks())
    for mine, other in (
        (ReMDMSampler("cap", 0.0), AncestralSampler()),
        (ReMDMSampler("rescale", 0.6, draw=TokenDraw(0.7)), AncestralSampler(TokenDraw(0.7), 0.6)),
    ):
        one, two = (
            unmask(process, Table(6, 8), sampler, (3, 8), 9, rng=seeded(4))
            for sampler in (mine, other)
        )
        assert torch.equal(one, two)


@pytest.mark.usefixtures("unchecked_signatures")
def test_wrong_settings():
    with pytest.raises(ValueError, match="kind 'max' is not one of confidence, margin, entropy"):
        SuretySampler("max")
    with pytest.raises(ValueError, match="'loop': expected one of cap, rescale, confidence"):
        ReMDMSampler("loop")
    with pytest.raises(ValueError, match=r"eta 2 or start 1 is not in \[0, 1\]"):
        ReMDMSampler("cap", 2)
