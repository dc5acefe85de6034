"""Masks block by block: the counts, and bounds on data whose likelihood is known."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multidiff.core.discrete.absorbing import MaskProcess, exact_counts, nelbo
from multidiff.core.discrete.blocks import BlockMaskProcess
from multidiff.core.discrete.schedules import CosineMasks, LogLinearMasks
from multidiff.core.random import generators

SIZE, LENGTH = 3, 4
JOINT = torch.rand([SIZE] * LENGTH, generator=torch.Generator().manual_seed(5)).double() ** 3
JOINT = JOINT / JOINT.sum()
SEQUENCES = torch.tensor(list(itertools.product(range(SIZE), repeat=LENGTH)))
NLL = -JOINT.flatten().log()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def blocks_of(size, block=2, schedule=None):
    return BlockMaskProcess(size, schedule or LogLinearMasks(), block)


def knowing(joint, block):
    """The network that knows p(token | earlier blocks, what its own block shows) of a joint."""

    def denoiser(xt, level, condition):
        number, found = torch.arange(LENGTH) // block, []
        for position in range(LENGTH):
            read = torch.where(number < number[position], condition, xt)
            read = torch.where(number > number[position], SIZE, read)
            shown = torch.cat([torch.eye(SIZE), torch.ones(1, SIZE)])[read].double()
            weighed = torch.einsum("abcd,na,nb,nc,nd->nabcd", joint, *shown.unbind(1))
            others = [one + 1 for one in range(LENGTH) if one != position]
            found.append(weighed.sum(dim=others))
        chances = torch.stack(found, dim=1)
        return (chances / chances.sum(dim=-1, keepdim=True)).log().clamp(min=-80)

    return denoiser


def bound(process, denoiser, tokens, count=400, **options):
    return nelbo(process, denoiser, tokens, tokens, num_times=count, rng=seeded(), **options)


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_the_exact_conditionals_give_the_exact_likelihood(block):
    found = bound(blocks_of(SIZE, block), knowing(JOINT, block), SEQUENCES)
    error = found.draws.std(dim=1) / 400**0.5
    assert bool(((found.total - NLL).abs() < 4 * error + 2e-3 * NLL).all())


def test_blocks_of_one_place_have_no_bound_but_the_likelihood():
    found = bound(blocks_of(SIZE, 1), knowing(JOINT, 1), SEQUENCES, count=1)
    torch.testing.assert_close(found.total, NLL, rtol=1e-9, atol=0)


def test_wrong_conditionals_cost_more():
    other = JOINT.flip(0) + 0.05
    found = bound(blocks_of(SIZE), knowing(other / other.sum(), 2), SEQUENCES, count=60)
    assert float((JOINT.flatten() * (found.total - NLL)).sum()) > 0.05


def test_one_block_is_masked_diffusion_as_it_was():
    tokens = torch.randint(SIZE, (5, LENGTH), generator=seeded())
    whole = nelbo(
        MaskProcess(SIZE, LogLinearMasks()), knowing(JOINT, LENGTH), tokens, tokens,
        num_times=6, form=exact_counts, rng=seeded(3),
    )  # fmt: skip
    block = nelbo(
        blocks_of(SIZE, LENGTH), knowing(JOINT, LENGTH), tokens, tokens, num_times=6, rng=seeded(3)
    )
    torch.testing.assert_close(block.draws, whole.draws)


@pytest.mark.parametrize("schedule", [LogLinearMasks(), CosineMasks()])
@pytest.mark.parametrize("length", [1, 6, 7])
def test_the_uniform_predictor_costs_the_log_of_the_vocabulary(schedule, length):
    tokens = torch.randint(7, (9, length), generator=seeded())
    process = blocks_of(7, 3, schedule)
    made = process.corrupt(tokens, process.draw_level(9, seeded()), seeded(1))
    loss = process.loss(torch.zeros(9, length, 7), made)
    torch.testing.assert_close(loss, torch.full_like(loss, math.log(7)))


def test_the_training_loss_is_the_bound():
    """The mean of many draws, for each token."""
    tokens = SEQUENCES.repeat(300, 1)
    process = blocks_of(SIZE)
    made = process.corrupt(tokens, process.draw_level(len(tokens), seeded(1)), seeded(2))
    output = knowing(JOINT, 2)(made.xt, made.level, tokens)
    found = LENGTH * process.loss(output, made).view(300, -1)
    error = found.std(dim=0) / 300**0.5
    assert bool(((found.mean(dim=0) - NLL).abs() < 4.5 * error).all())


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 13), st.integers(1, 5), st.data())
def test_each_block_has_at_least_one_mask_and_its_own_weight(block, length, batch, data):
    real = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=length, max_size=length),
                           min_size=batch, max_size=batch))
    )  # fmt: skip
    process = blocks_of(5, block)
    tokens = torch.randint(5, (batch, length), generator=seeded())
    made = process.corrupt(tokens, process.draw_level(batch, seeded(1)), seeded(2), real)
    assert not bool((made.masked & ~real).any())
    assert torch.equal(made.xt, torch.where(made.masked, 5, tokens))
    for start in range(0, length, block):
        part = slice(start, start + block)
        there, hidden = real[:, part].sum(dim=1), made.masked[:, part].sum(dim=1)
        assert torch.equal(hidden > 0, there > 0)
        wanted = (there / hidden.clamp(min=1))[:, None].expand(-1, real[:, part].shape[1])
        torch.testing.assert_close(
            made.weight[:, part][there > 0], wanted[there > 0], check_dtype=False
        )


def test_all_counts_of_masks_are_equally_likely_in_every_block():
    """Within 4 sigma of a fair die, and spread evenly over the blocks of one sequence."""
    process, batch = blocks_of(5), 6000
    made = process.corrupt(
        torch.zeros(batch, 12, dtype=torch.long),
        process.draw_level(batch, generators(range(batch))),
        seeded(),
    )
    counts = made.masked.view(batch, 6, 2).sum(dim=2)
    sigma = math.sqrt(batch) / 2
    assert bool((((counts == 1).sum(dim=0) - batch / 2).abs() < 4 * sigma).all())
    assert set((counts == 1).sum(dim=1).tolist()) == {3}
    first = made.masked.view(batch, 6, 2)[..., 0][counts == 1].float()
    assert float(first.mean()) == pytest.approx(0.5, abs=2 / math.sqrt(len(first)))


def test_masks_of_a_sequence_alone_are_those_in_a_batch():
    tokens, process = torch.randint(5, (3, 7), generator=seeded()), blocks_of(5)
    level = process.draw_level(3, generators([1, 2, 3]))
    whole = process.corrupt(tokens, level, generators([4, 5, 6]))
    alone = process.corrupt(tokens[1:2], level[1:2], generators([5]))
    assert torch.equal(whole.xt[1:2], alone.xt)


def test_a_block_has_a_place():
    with pytest.raises(ValueError, match="block must be at least 1 position, got 0"):
        blocks_of(5, 0)
