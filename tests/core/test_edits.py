"""The edit process: its statistics, its history, and what undoes it."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multidiff.core.edit.alignment import DELETE, INSERT, KEEP, REPLACE, Alignment, align
from multidiff.core.edit.process import Edited, EditProcess, Operation, tag_disagreement, undo
from multidiff.core.random import generators

SIZE = 20
SEQUENCES = st.lists(st.integers(0, SIZE - 1), max_size=30)
SEEDS = st.integers(0, 2**31)
EDITS = (KEEP, REPLACE, INSERT, DELETE)
UNEVEN = (0.4, 0.3, 0.1, 0.2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def long_walk(**options):
    """The operations on a text so long that its end counts for nothing."""
    return EditProcess(SIZE, **options).corrupt_step([0] * 30_000, seeded()).operations


def written(process, seed=0, count=20_000):
    """Noise tokens, drawn as a replacement of everything."""
    return process.corrupt_step([0] * count, seeded(seed)).tokens


def within_three_sigma(hits, count, ratio):
    return abs(hits / count - ratio) < 3 * math.sqrt(ratio * (1 - ratio) / count)


# ------------------------------------------------------------------------- one step


@given(SEQUENCES, SEEDS, st.floats(1, 6))
@settings(max_examples=50, deadline=None)
def test_a_walk_deals_with_every_token_once(tokens, seed, span):
    edited = EditProcess(SIZE, span=span).corrupt_step(tokens, seeded(seed))
    assert edited.source == tuple(tokens)
    assert sum((operation.after for operation in edited.operations), ()) == edited.tokens
    for edit, before, after in edited.operations:
        assert before or after
        assert edit != KEEP or before == after
        assert edit != REPLACE or len(before) == len(after)
        assert edit != INSERT or before == ()
        assert edit != DELETE or after == ()


@pytest.mark.parametrize("probabilities", [(0.6, 0.2, 0.1, 0.1), UNEVEN])
def test_shares_of_the_edits(probabilities):
    operations = long_walk(probabilities=probabilities)
    for edit, ratio in zip(EDITS, probabilities, strict=True):
        hits = sum(operation.edit == edit for operation in operations)
        assert within_three_sigma(hits, len(operations), ratio)


@pytest.mark.parametrize("span", [1.0, 1.5, 3.0, 8.0])
def test_lengths_are_one_and_a_poisson_draw(span):
    lengths = [max(len(one.before), len(one.after)) for one in long_walk(span=span)]
    count, mean = len(lengths), sum(lengths) / len(lengths)
    variance = sum((length - span) ** 2 for length in lengths) / count
    assert min(lengths) == 1
    assert abs(mean - span) <= 3 * math.sqrt((span - 1) / count)
    # A Poisson variable of rate r has the fourth central moment r + 3 r^2.
    rate = span - 1
    assert abs(variance - rate) <= 3 * math.sqrt((rate + 2 * rate**2) / count)
    for k in range(4 if span > 1 else 0):
        ratio = math.exp(-rate) * rate**k / math.factorial(k)
        assert within_three_sigma(lengths.count(k + 1), count, ratio)


def test_every_edit_has_the_same_lengths():
    operations = long_walk(probabilities=UNEVEN)
    for edit in EDITS:
        lengths = [max(len(one.before), len(one.after)) for one in operations if one.edit == edit]
        assert abs(sum(lengths) / len(lengths) - 3) < 3 * math.sqrt(2 / len(lengths))


@pytest.mark.parametrize("span", [1.0, 8.0])
def test_the_share_of_tokens_that_stay_does_not_depend_on_the_length(span):
    kept = sum(len(one.before) for one in long_walk(span=span) if one.edit == KEEP)
    # Tokens of one edit share its fate, which widens three sigma by a span.
    assert abs(kept / 30_000 - 2 / 3) < 3 * math.sqrt(2 / 9 * (span + 1) / 30_000)


def expected_change(tokens, span, insert, delete):
    """The mean change of length, by the renewal equation of the walk over the tokens."""
    lengths = [math.exp(1 - span) * (span - 1) ** k / math.factorial(k) for k in range(tokens)]
    edits = [0.0]
    for n in range(1, tokens + 1):
        edits.append(1 + sum(lengths[k] * edits[n - 1 - k] for k in range(n)))
    come = insert / (1 - insert) * span * (edits[tokens] + 1)
    return come - delete / (1 - insert) * tokens


@pytest.mark.parametrize(
    ("tokens", "span", "change"), [(26, 3.0, 0.48), (26, 2.0, 0.31), (5, 3.0, 0.48), (0, 3.0, 0.33)]
)
def test_lengths_hardly_change_in_a_step(tokens, span, change):
    assert expected_change(tokens, span, 0.1, 0.1) == pytest.approx(change, abs=0.01)
    process, rng = EditProcess(SIZE, span=span), seeded()
    changes = torch.tensor(
        [len(process.corrupt_step([0] * tokens, rng).tokens) - tokens for _ in range(2000)]
    ).double()
    assert abs(changes.mean() - change) < 3 * changes.std() / math.sqrt(2000) + 0.01


def test_an_empty_sequence_can_only_grow():
    process, rng = EditProcess(SIZE), seeded()
    steps = [process.corrupt_step([], rng) for _ in range(400)]
    assert {one.edit for step in steps for one in step.operations} == {INSERT}
    assert within_three_sigma(sum(step.tokens != () for step in steps), 400, 0.1)


def test_noise_comes_before_the_first_token_and_after_the_last():
    process, rng = EditProcess(SIZE, probabilities=(0.5, 0, 0.5, 0)), seeded()
    chains = [process.corrupt_step([1], rng).operations for _ in range(50)]
    edits = {tuple(one.edit for one in chain) for chain in chains}
    assert {(KEEP,), (INSERT, KEEP), (KEEP, INSERT)} <= edits


# ---------------------------------------------------------------------- what is written


def test_uniform_noise():
    tokens = written(EditProcess(8, probabilities=(0, 1, 0, 0)))
    for token in range(8):
        assert within_three_sigma(tokens.count(token), len(tokens), 1 / 8)


def test_weighted_noise():
    process = EditProcess(5, [0, 3, 0, 1, 0], probabilities=(0, 1, 0, 0))
    tokens = written(process)
    assert set(tokens) == {1, 3}
    assert within_three_sigma(tokens.count(1), len(tokens), 3 / 4)


def test_a_mask_token():
    process = EditProcess(5, 4, probabilities=(0.2, 0.4, 0.3, 0.1))
    edited = process.corrupt_step([0, 1, 2, 3] * 20, seeded())
    noise = [one.after for one in edited.operations if one.edit in (REPLACE, INSERT)]
    assert noise and set(sum(noise, ())) == {4}


def test_generation_may_start_from_noise_alone():
    process = EditProcess(5, [0, 1, 1, 0, 0])
    states = process.prior([0, 3, 40], generators([1, 2, 3]))
    assert list(map(len, states)) == [0, 3, 40] and set(states[2]) == {1, 2}
    assert process.prior([40], generators([3])) == states[2:]
    with pytest.raises(ValueError, match="give one each"):
        process.prior([4, 4], generators([1]))


# ------------------------------------------------------------------------------- the chain


@given(SEQUENCES, SEEDS, st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_states_follow_each_other(tokens, seed, steps):
    states = EditProcess(SIZE, steps=6).corrupt(tokens, steps, seeded(seed))
    assert len(states) == steps + 1
    assert states[0].tokens == states[0].source == tuple(tokens)
    for earlier, later in itertools.pairwise(states):
        assert later.source == earlier.tokens


def test_a_longer_walk_begins_as_a_shorter_one():
    process = EditProcess(SIZE)
    longer = process.corrupt(range(SIZE), 5, seeded())
    assert process.corrupt(range(SIZE), 3, seeded()) == longer[:4]
    assert process.corrupt_step(range(SIZE), seeded()) == longer[1]


def test_intensity_scales_all_but_keep():
    process = EditProcess(SIZE, steps=3, probabilities=UNEVEN, intensity=(0, 0.5, 1.5))
    assert process.ratios[0] == (1, 0, 0, 0)
    assert process.ratios[1] == pytest.approx((0.7, 0.15, 0.05, 0.1))
    assert process.ratios[2] == pytest.approx((0.1, 0.45, 0.15, 0.3))
    states = process.corrupt(range(SIZE), 3, seeded())
    assert states[1].tokens == states[0].tokens
    operations = process.corrupt_step([0] * 30_000, seeded(), step=2).operations
    kept = sum(one.edit == KEEP for one in operations)
    assert within_three_sigma(kept, len(operations), 0.7)


def test_everything_may_be_edited():
    """KEEP's share falls to 0 and not, by rounding, below."""
    assert EditProcess(SIZE, intensity=2.5).ratios[0] == pytest.approx((0, 0.5, 0.25, 0.25))


def test_levels_are_uniform_and_show_clean_text():
    levels = EditProcess(SIZE, steps=3).draw_level(8000, seeded())
    for level in range(4):
        assert within_three_sigma(int((levels == level).sum()), 8000, 1 / 4)
    assert int(levels.min()) == 0 and int(levels.max()) == 3


def test_a_sample_does_not_see_the_batch():
    process, batch = EditProcess(SIZE), [[1, 2, 3] * 5, [], [4] * 20]
    levels = process.draw_level(3, generators([5, 6, 7]))
    together = process.corrupt_many(batch, levels, generators([5, 6, 7]))
    for i, seed in enumerate([5, 6, 7]):
        assert process.draw_level(1, generators([seed])).tolist() == levels[i : i + 1].tolist()
        alone = process.corrupt_many(batch[i : i + 1], levels[i : i + 1], generators([seed]))
        assert alone == together[i : i + 1]
        assert len(together[i]) == levels[i] + 1


def test_one_generator_for_a_batch_draws_each_sample_anew():
    process, levels = EditProcess(SIZE), torch.tensor([2, 2])
    first, second = process.corrupt_many([[1] * 30] * 2, levels, seeded())
    assert first[2] != second[2]
    assert [first, second] == process.corrupt_many([[1] * 30] * 2, levels, seeded())


# --------------------------------------------------------------------------------- the way back


@given(SEQUENCES, SEEDS, st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_history_leads_back(tokens, seed, steps):
    """Exactly, and never in fewer edits than the minimal alignment."""
    for edited in EditProcess(SIZE, steps=4).corrupt(tokens, steps, seeded(seed)):
        history = undo(edited)
        assert history.apply(edited.tokens) == edited.source
        assert history.num_edits >= align(edited.tokens, edited.source).num_edits


def test_clean_text_is_left_alone():
    (x0,) = EditProcess(SIZE).corrupt([3, 1, 2], 0, seeded())
    assert undo(x0) == align([3, 1, 2], [3, 1, 2])


def test_what_undoes_each_edit():
    edited = Edited(
        (9, 1, 7, 8, 4),
        (
            Operation(INSERT, (), (9,)),
            Operation(KEEP, (1,), (1,)),
            Operation(REPLACE, (2, 3), (7, 8)),
            Operation(DELETE, (5,), ()),
            Operation(DELETE, (6,), ()),
            Operation(KEEP, (4,), (4,)),
        ),
    )
    assert undo(edited) == Alignment(
        (DELETE, KEEP, REPLACE, REPLACE, KEEP),
        (None, None, 2, 3, None),
        ((), (), (), (), (5, 6), ()),
    )


def test_where_history_and_alignment_disagree():
    repeated = Edited((5, 1), (Operation(REPLACE, (5,), (5,)), Operation(KEEP, (1,), (1,))))
    assert tag_disagreement([repeated]) == (1 / 2, 0)
    moved = Edited((7,), (Operation(INSERT, (), (7,)), Operation(DELETE, (1,), ())))
    assert tag_disagreement([moved]) == (1, 1 / 2)
    twin = Edited((4,), (Operation(DELETE, (4,), ()), Operation(KEEP, (4,), (4,))))
    assert tag_disagreement([twin]) == (0, 1)
    assert tag_disagreement([repeated, twin]) == (1 / 3, 2 / 5)
    assert tag_disagreement([Edited((), ())]) == (0, 0)


def test_noise_repeats_the_token_as_often_as_chance_has_it():
    process, rng = EditProcess(4, probabilities=(0, 1, 0, 0)), seeded()
    edited = [process.corrupt_step([2], rng) for _ in range(1000)]
    differ = tag_disagreement(edited)
    assert within_three_sigma(differ.tokens * 1000, 1000, 1 / 4) and differ.gaps == 0


def test_how_often_they_disagree_on_sentences():
    """26 different tokens of 500: about 7 tags in 100, mostly deletions beside insertions."""
    process, rng = EditProcess(500), seeded()
    edited = [process.corrupt_step(range(26), rng) for _ in range(300)]
    differ = tag_disagreement(edited)
    assert differ.tokens == pytest.approx(0.065, abs=0.02)
    assert differ.gaps == pytest.approx(0.02, abs=0.01)


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size 0"),
        ({"steps": 0}, "steps 0"),
        ({"span": 0.5}, "span 0.5"),
        ({"span": math.nan}, "span nan"),
        ({"noise_tokens": 20}, "noise token 20"),
        ({"noise_tokens": [1.0] * 19}, "19 weights"),
        ({"noise_tokens": [-1.0] + [1.0] * 19}, "none below 0"),
        ({"noise_tokens": [0.0] * 20}, "one above"),
        ({"probabilities": (0.5, 0.5)}, "summing to 1"),
        ({"probabilities": (0.6, 0.2, 0.1, 0.2)}, "summing to 1"),
        ({"probabilities": (1.2, -0.2, 0, 0)}, "summing to 1"),
        ({"probabilities": (0, 0, 1, 0)}, "INSERT 1"),
        ({"intensity": 3.0}, "KEEP -0.2"),
        ({"intensity": -1.0}, "intensity -1"),
        ({"intensity": (1.0, 1.0)}, "2 intensities for 12 steps"),
    ],
)
def test_processes_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EditProcess(**{"size": SIZE, **options})


def test_what_the_chain_does_not_have_is_refused():
    process = EditProcess(SIZE, steps=2)
    with pytest.raises(ValueError, match="step 3"):
        process.corrupt_step([1], None, step=3)
    with pytest.raises(ValueError, match=r"steps must be in 0\.\.2 .* got 3"):
        process.corrupt([1], 3, None)
    with pytest.raises(ValueError, match="token 20 is not"):
        process.corrupt([1, 20], 0, None)
    with pytest.raises(ValueError, match="give one each"):
        process.corrupt_many([[1], [2]], torch.tensor([1, 1]), generators([1]))
