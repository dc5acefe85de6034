"""The absorbing process: schedules, masks, loss, and bounds on data whose likelihood is known."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from multidiff.core.discrete.absorbing import (
    MaskedTokens,
    MaskProcess,
    continuous_time,
    discrete_time,
    exact_counts,
    lowest,
    nelbo,
)
from multidiff.core.discrete.schedules import (
    CosineMasks,
    LogLinearMasks,
    MaskLevel,
    PolynomialMasks,
    reveal_chance,
)
from multidiff.core.gaussian.timesteps import trailing_timesteps, uniform_timesteps
from multidiff.core.random import generators

LINEAR = PolynomialMasks()
SCHEDULES = {
    "log-linear": LogLinearMasks(),
    "linear": LINEAR,
    "cosine": CosineMasks(),
    "square": PolynomialMasks(2.0),
    "root": PolynomialMasks(0.5),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def some_tokens(batch, length, size, seed=0):
    return torch.randint(size, (batch, length), generator=seeded(seed))


# ------------------------------------------------------------------------- schedules


@every_schedule
def test_schedules_start_at_exactly_one_and_fall(schedule):
    level = schedule.at(torch.linspace(0, 1, 101))
    assert float(level.alpha[0]) == 1.0
    assert level.alpha.dtype == torch.float64
    assert bool((level.alpha.diff() < 0).all()) and float(level.alpha[-1]) >= 0


@every_schedule
def test_slope_is_the_derivative(schedule):
    time = torch.linspace(0.05, 0.95, 19, dtype=torch.float64, requires_grad=True)
    level = schedule.at(time)
    (wanted,) = torch.autograd.grad(level.alpha.sum(), time)
    torch.testing.assert_close(level.slope.detach(), wanted, rtol=1e-12, atol=1e-12)


@every_schedule
def test_time_of_a_share(schedule):
    time = torch.linspace(0, 1, 21, dtype=torch.float64)
    torch.testing.assert_close(schedule.time_at(schedule.at(time).alpha), time)


def test_the_published_curves():
    time = times(0.0, 0.25, 0.7, 1.0)
    torch.testing.assert_close(LogLinearMasks().at(time).alpha, 1 - (1 - 1e-3) * time)
    torch.testing.assert_close(LINEAR.at(time).alpha, 1 - time)
    torch.testing.assert_close(PolynomialMasks(3).at(time).alpha, 1 - time**3)
    maskgit = torch.cos(math.pi / 2 * (1 - time))
    torch.testing.assert_close(CosineMasks().at(time).alpha, 1 - maskgit)


@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.3])
def test_weight_of_the_log_linear_schedule_is_one_over_time(eps):
    level = LogLinearMasks(eps).at(times(1e-3, 0.2, 1.0))
    torch.testing.assert_close(level.weight, 1 / level.time)
    assert float(LogLinearMasks(eps).at(times(0.0)).weight) == 0.0


def test_settings_of_schedules():
    with pytest.raises(ValueError, match="power must be above 0, got 0"):
        PolynomialMasks(0)
    with pytest.raises(ValueError, match=r"eps must be in \[0, 1\), got 1"):
        LogLinearMasks(1)


def test_chances_keep_their_digits_in_walks_of_many_steps():
    """(alpha_s - alpha_t) / (1 - alpha_t) of 50,000 steps is 0 or noise in float32."""
    steps = 50_000
    time = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    linear = reveal_chance(LogLinearMasks().at(time), LogLinearMasks().at(time - 1 / steps))
    torch.testing.assert_close(linear, 1 / torch.arange(1, steps + 1).double(), rtol=1e-9, atol=0)
    cosine = reveal_chance(CosineMasks().at(times(1.0)), CosineMasks().at(times(1 - 1 / steps)))
    # sin a - sin b = 2 cos((a + b) / 2) sin((a - b) / 2)
    wanted = 2 * math.sin(math.pi / 4 / steps) ** 2
    assert float(cosine) == pytest.approx(wanted, rel=1e-9, abs=0)


@every_schedule
def test_a_walk_lifts_each_mask_once(schedule):
    left, lifted = 1.0, 0.0
    levels = MaskProcess(3, schedule).levels(uniform_timesteps(1000))
    for level, earlier in itertools.pairwise(levels):
        chance = float(reveal_chance(level, earlier))
        assert 0 < chance <= 1
        lifted, left = lifted + left * chance, left * (1 - chance)
    assert left == 0.0 and lifted == pytest.approx(1, abs=1e-12)


def test_levels_of_a_walk():
    levels = MaskProcess(3, LINEAR).levels(uniform_timesteps(4))
    assert [float(level.time) for level in levels] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert float(levels[-1].alpha) == 1.0
    with pytest.raises(ValueError, match="trailing times need a schedule with a table"):
        MaskProcess(3, LINEAR).levels(trailing_timesteps(4))


def test_a_level_goes_where_a_noise_level_goes():
    level = CosineMasks().at(times(0.5))
    assert isinstance(level.to("cpu").expand(3), MaskLevel)
    assert level.expand(3).alpha.shape == (3,) and level.expand(3)[1:].time.shape == (2,)
    assert MaskLevel(*level.parts()) == level


# ----------------------------------------------------------------------------- draws


def test_one_generator_spreads_the_times_over_the_batch():
    process = MaskProcess(5, LINEAR)
    for seed in range(20):
        level = process.draw_level(8, seeded(seed))
        stratum = (8 * (level.time.sort().values - 1e-3) / (1 - 1e-3)).ceil()
        assert stratum.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    # The place in the batch says nothing of the time.
    firsts = [float(process.draw_level(8, seeded(seed)).time[0]) for seed in range(300)]
    assert sum(firsts) / 300 == pytest.approx(0.5, abs=4 * 0.289 / 300**0.5)


def test_generators_of_their_own_draw_plain_uniform_times():
    process = MaskProcess(5, LINEAR, first=0.25)
    together = process.draw_level(400, generators(range(400)))
    for row in (0, 7):
        alone = process.draw_level(1, generators([row]))
        assert float(alone.time) == float(together.time[row])
    assert float(together.time.min()) >= 0.25 and float(together.time.max()) <= 1
    assert float(together.time.mean()) == pytest.approx(0.625, abs=4 * 0.75 * 0.289 / 20)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_lowest_takes_exactly_the_counts(data):
    length = data.draw(st.integers(1, 7))
    numbers = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, math.inf])
    scores = data.draw(st.lists(numbers, min_size=length, max_size=length))
    positions = data.draw(st.lists(st.booleans(), min_size=length, max_size=length))
    count = data.draw(st.integers(0, 8))
    found = lowest(torch.tensor([scores]), torch.tensor([positions]), torch.tensor([count]))
    allowed = [position for position in range(length) if positions[position]]
    wanted = sorted(allowed, key=lambda position: scores[position])[:count]
    assert found[0].nonzero().flatten().tolist() == sorted(wanted)


@every_schedule
def test_the_share_masked_is_that_of_the_level(schedule):
    process = MaskProcess(5, schedule)
    x0 = some_tokens(4, 10_000, 5)
    level = schedule.at(times(0.0, 0.2, 0.7, 1.0))
    made = process.corrupt(x0, level, seeded())
    assert torch.equal(made.masked, made.xt == 5)
    assert torch.equal(made.xt[~made.masked], x0[~made.masked])
    ratio = made.masked.double().mean(dim=1)
    torch.testing.assert_close(ratio, 1 - level.alpha, atol=4 * 0.5 / 100, rtol=0)
    assert float(ratio[0]) == 0.0


@pytest.mark.parametrize("masking", ["independent", "exact"])
def test_padding_is_never_masked(masking):
    process = MaskProcess(5, LINEAR, masking=masking, objective="mean")
    x0 = some_tokens(2, 6, 5)
    real = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]])
    made = process.corrupt(x0, LINEAR.at(times(1.0, 1.0)), seeded(), real)
    assert made.masked.tolist() == [[True] * 4 + [False] * 2, [False] * 6]


@pytest.mark.parametrize("masking", ["independent", "exact"])
def test_masks_of_a_sample_alone_are_those_in_a_batch(masking):
    process = MaskProcess(5, LINEAR, masking=masking, objective="mean")
    x0, level = some_tokens(3, 9, 5), LINEAR.at(times(0.3, 0.5, 0.8))
    together = process.corrupt(x0, level, generators([4, 5, 6]))
    alone = process.corrupt(x0[1:2], level[1:2], generators([5]))
    assert torch.equal(alone.xt[0], together.xt[1])


def test_counts_of_mask_predict_are_uniform_with_all_masked_among_them():
    process = MaskProcess(5, LINEAR, first=0.0, masking="exact", objective="mean")
    level = process.draw_level(4000, seeded())
    made = process.corrupt(some_tokens(4000, 4, 5), level, seeded(1))
    counts = made.masked.sum(dim=1).bincount(minlength=5)
    assert counts.tolist() == [0, 1000, 1000, 1000, 1000]
    # Each place is as likely as another.
    ratio = made.masked.double().mean(dim=0)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.625), atol=4 * 0.5 / 63, rtol=0)


def test_counts_of_maskgit_are_the_cosine_of_a_uniform_draw():
    process = MaskProcess(5, CosineMasks(), first=0.0, masking="exact", objective="mean")
    level = process.draw_level(2000, seeded())
    made = process.corrupt(some_tokens(2000, 16, 5), level, seeded(1))
    counts = made.masked.sum(dim=1)
    ratio = torch.cos(math.pi / 2 * (1 - level.time))
    assert torch.equal(counts, torch.ceil(16 * ratio - 1e-9).long().clamp(min=1))
    assert int(counts.min()) == 1 and int(counts.max()) == 16
    assert float(ratio.mean()) == pytest.approx(2 / math.pi, abs=1e-3)


# -------------------------------------------------------------------------- estimate


def test_what_is_not_masked_is_sure_to_be_itself():
    process = MaskProcess(4, LINEAR)
    xt = torch.tensor([[4, 2, 4, 0]])
    logits = torch.randn(1, 4, 4, generator=seeded())
    found = process.estimate(logits, xt, LINEAR.at(times(0.5)))
    torch.testing.assert_close(found[0, [0, 2]], logits[0, [0, 2]].log_softmax(-1))
    assert found[0, 1].exp().tolist() == [0, 0, 1, 0] and found[0, 3].exp().tolist() == [1, 0, 0, 0]


def test_half_precision_logits_make_no_nan():
    process = MaskProcess(4, LINEAR)
    logits = torch.tensor([[[6e4, -6e4, 0.0, -math.inf]] * 2], dtype=torch.float16)
    found = process.estimate(logits, torch.tensor([[4, 1]]), LINEAR.at(times(0.5)))
    assert found.dtype == torch.float32 and not bool(found.isnan().any())


def test_logits_for_the_mask_are_refused():
    process = MaskProcess(4, LINEAR)
    xt, level = torch.full((1, 2), 4), LINEAR.at(times(0.5))
    made = MaskedTokens(xt, torch.zeros_like(xt), xt == 4, level)
    for width in (5, 3):
        with pytest.raises(ValueError, match=f"returns {width} logits .* of 4 tokens"):
            process.estimate(torch.zeros(1, 2, width), xt, level)
        with pytest.raises(ValueError, match=f"returns {width} logits"):
            process.loss(torch.zeros(1, 2, width), made)


def test_the_prior_is_all_masked():
    assert MaskProcess(7, LINEAR).prior((2, 3), None).tolist() == [[7] * 3] * 2


# ------------------------------------------------------------------------------ loss


def masked_at(positions, x0, size, level):
    masked = torch.tensor(positions, dtype=torch.bool).expand(x0.shape)
    return MaskedTokens(x0.masked_fill(masked, size), x0, masked, level)


@every_schedule
def test_loss_by_hand(schedule):
    process = MaskProcess(6, schedule)
    x0, level = some_tokens(2, 5, 6), schedule.at(times(0.3, 0.9))
    made = masked_at([1, 0, 1, 0, 0], x0, 6, level)
    logits = torch.randn(2, 5, 6, generator=seeded(), dtype=torch.float64)
    token = -logits.log_softmax(-1).gather(-1, x0[..., None])[..., 0]
    wanted = -level.slope / (1 - level.alpha) * (token[:, 0] + token[:, 2]) / 5
    torch.testing.assert_close(process.loss(logits, made), wanted)


def test_the_plain_mean_is_cross_entropy_of_what_is_masked():
    process = MaskProcess(6, CosineMasks(), objective="mean", label_smoothing=0.1)
    x0 = some_tokens(1, 5, 6)
    made = masked_at([1, 0, 1, 1, 0], x0, 6, CosineMasks().at(times(0.5)))
    logits = torch.randn(1, 5, 6, generator=seeded())
    wanted = F.cross_entropy(logits[made.masked], x0[made.masked], label_smoothing=0.1)
    torch.testing.assert_close(process.loss(logits, made)[0], wanted)


@pytest.mark.parametrize("objective", ["bound", "mean"])
def test_tokens_that_are_shown_teach_nothing(objective):
    process = MaskProcess(6, LINEAR, objective=objective)
    made = masked_at([1, 0, 1, 0], some_tokens(2, 4, 6), 6, LINEAR.at(times(0.5, 0.5)))
    logits = torch.randn(2, 4, 6, generator=seeded(), requires_grad=True)
    process.loss(logits, made).sum().backward()
    moved = logits.grad.abs().sum(dim=-1) > 0
    assert torch.equal(moved, made.masked)


@pytest.mark.parametrize("objective", ["bound", "mean"])
def test_padding_does_not_change_the_loss(objective):
    process = MaskProcess(6, LINEAR, objective=objective)
    x0, level = some_tokens(1, 4, 6), LINEAR.at(times(0.5))
    logits = torch.randn(1, 7, 6, generator=seeded())
    plain = process.loss(logits[:, :4], masked_at([1, 0, 1, 0], x0, 6, level))
    longer = F.pad(x0, (0, 3))
    real = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    # Masked padding, as from a corruption without a padding mask, does not count either.
    made = masked_at([1, 0, 1, 0, 1, 0, 1], longer, 6, level)
    torch.testing.assert_close(process.loss(logits, made, real), plain)


@pytest.mark.parametrize("objective", ["bound", "mean"])
def test_nothing_masked_costs_nothing(objective):
    process = MaskProcess(6, LINEAR, objective=objective)
    made = masked_at([0, 0], some_tokens(1, 2, 6), 6, LINEAR.at(times(0.0)))
    assert process.loss(torch.randn(1, 2, 6), made).tolist() == [0.0]


def test_settings_of_the_process(unchecked_signatures):
    with pytest.raises(ValueError, match='use objective="mean"'):
        MaskProcess(4, LINEAR, masking="exact")
    with pytest.raises(ValueError, match='masking \'some\' must be "independent" or "exact"'):
        MaskProcess(4, LINEAR, masking="some")
    with pytest.raises(ValueError, match=r"first 1 .* is not in \[0, 1\)"):
        MaskProcess(4, LINEAR, first=1.0)


# ----------------------------------------------------------------------------- bound

SIZE = 3
JOINT = torch.rand(SIZE, SIZE, SIZE, generator=seeded(11), dtype=torch.float64) ** 3
JOINT = JOINT / JOINT.sum()
SEQUENCES = torch.tensor(list(itertools.product(range(SIZE), repeat=3)))
NLL = -JOINT.flatten().log()
SUBSETS = torch.tensor(list(itertools.product([False, True], repeat=3)))


def conditionals(joint):
    """The denoiser that knows p(token | what is shown) exactly."""

    def denoiser(xt, level, condition=None):
        shown = torch.cat([torch.eye(SIZE), torch.ones(1, SIZE)])[xt].double()
        weighed = torch.einsum("abc,na,nb,nc->nabc", joint, *shown.unbind(1))
        single = [weighed.sum(dim=dims) for dims in ((2, 3), (1, 3), (1, 2))]
        probability = torch.stack(single, dim=1)
        return (probability / probability.sum(dim=-1, keepdim=True)).log()

    return denoiser


def smooth_rule(count=14):
    """Places on the walk and their weights: Gauss-Legendre in the root of the place.

    A square root schedule is smooth there too.
    """
    nodes, weights = np.polynomial.legendre.leggauss(count)
    root = torch.from_numpy(nodes + 1) / 2
    return root**2, torch.from_numpy(weights) * root


def middles(steps):
    """The middle of each of even steps."""
    return (torch.arange(steps).double() + 0.5) / steps, torch.full((steps,), 1 / steps).double()


def expected(form, process, denoiser, tokens, rule):
    """The form's expectation: its masks enumerated, its places on the walk by a rule."""
    total = torch.zeros(len(tokens), dtype=torch.float64)
    real = torch.ones_like(tokens, dtype=torch.bool)
    for position, part in zip(*rule, strict=True):
        made, weight = form(process, tokens, real, position.expand(len(tokens)), seeded())
        ratio = process.mask_ratio(made.level)
        for masked in SUBSETS:
            hidden = int(masked.sum())
            one = masked_at(masked.tolist(), tokens, SIZE, made.level)
            errors = process.errors(denoiser(one.xt, one.level), one).sum(dim=1)
            total += part * ratio**hidden * (1 - ratio) ** (3 - hidden) * weight * errors
    return total


def mean_over_joint(values):
    return float((JOINT.flatten() * values).sum())


@every_schedule
def test_the_exact_conditionals_give_the_exact_likelihood(schedule):
    """Orders of filling do not matter where the conditionals are those of one joint."""
    process = MaskProcess(SIZE, schedule, first=0.0)
    found = expected(continuous_time, process, conditionals(JOINT), SEQUENCES, smooth_rule())
    torch.testing.assert_close(found, NLL, atol=1e-9, rtol=0)


@pytest.mark.parametrize("schedule", [LINEAR, CosineMasks(), PolynomialMasks(2.0)])
def test_the_training_loss_is_the_bound(schedule):
    """Its mean over times and masks, for each of three tokens."""
    process = MaskProcess(SIZE, schedule)
    total = torch.zeros(len(SEQUENCES), dtype=torch.float64)
    for time, part in zip(*smooth_rule(), strict=True):
        level = schedule.at(time.expand(len(SEQUENCES)))
        for masked in SUBSETS:
            made = masked_at(masked.tolist(), SEQUENCES, SIZE, level)
            hidden = int(masked.sum())
            chance = (1 - level.alpha) ** hidden * level.alpha ** (3 - hidden)
            total += part * chance * process.loss(conditionals(JOINT)(made.xt, level), made)
    torch.testing.assert_close(3 * total, NLL, atol=1e-9, rtol=0)


def test_exact_counts_give_the_exact_likelihood():
    process = MaskProcess(SIZE, CosineMasks())
    real = torch.ones_like(SEQUENCES, dtype=torch.bool)
    total = torch.zeros(len(SEQUENCES), dtype=torch.float64)
    for count, position in ((1, 0.2), (2, 0.6), (3, 1.0)):
        position = torch.full((len(SEQUENCES),), position).double()
        made, weight = exact_counts(process, SEQUENCES, real, position, seeded())
        assert set(made.masked.sum(dim=1).tolist()) == {count}
        torch.testing.assert_close(1 - made.level.alpha, torch.full_like(weight, count / 3))
        chosen = [one for one in SUBSETS if int(one.sum()) == count]
        for masked in chosen:
            one = masked_at(masked.tolist(), SEQUENCES, SIZE, made.level)
            errors = process.errors(conditionals(JOINT)(one.xt, one.level), one).sum(dim=1)
            total += weight * errors / len(chosen) / 3
    torch.testing.assert_close(total, NLL, atol=1e-9, rtol=0)


def test_fewer_steps_have_a_looser_bound():
    """Tokens of one step are drawn apart from each other; of one step alone, all are."""
    process, costs = MaskProcess(SIZE, LogLinearMasks()), []
    for steps in (1, 2, 4, 16, 64):
        form = discrete_time(steps)
        found = expected(form, process, conditionals(JOINT), SEQUENCES, middles(steps))
        costs.append(mean_over_joint(found))
    assert costs == sorted(costs, reverse=True)
    assert mean_over_joint(NLL) < costs[-1] < mean_over_joint(NLL) + 0.02
    marginals = [JOINT.sum(dim=dims) for dims in ((1, 2), (0, 2), (0, 1))]
    apart = -sum(float((one * one.log()).sum()) for one in marginals)
    assert costs[0] == pytest.approx(apart, rel=1e-9)


def test_wrong_conditionals_cost_more():
    process = MaskProcess(SIZE, LINEAR, first=0.0)
    wrong = 0.7 * JOINT + 0.3 / SIZE**3
    found = expected(continuous_time, process, conditionals(wrong), SEQUENCES, smooth_rule())
    assert mean_over_joint(found) > mean_over_joint(NLL) + 0.01


def test_what_is_left_out_near_time_0_hardly_counts():
    """Under ``first`` of what the tokens cost there, or on the mean, which stands for it."""
    at_0 = torch.zeros_like(NLL)
    for masked in SUBSETS[SUBSETS.sum(dim=1) == 1]:
        xt = SEQUENCES.masked_fill(masked, SIZE)
        found = conditionals(JOINT)(xt, None)[:, masked][:, 0]
        at_0 -= found.gather(-1, SEQUENCES[:, masked])[:, 0]
    largest, found = torch.maximum(at_0, NLL), {}
    for first in (1e-3, 1e-5):
        process = MaskProcess(SIZE, LINEAR, first=first)
        found[first] = expected(
            continuous_time, process, conditionals(JOINT), SEQUENCES, smooth_rule()
        )
        assert bool(((found[first] - NLL).abs() <= 1.01 * first * largest).all())
    assert float((found[1e-3] - found[1e-5]).abs().max()) > 1e-5


def uniform_predictor(xt, level, condition=None):
    return torch.zeros(*xt.shape, SIZE)


@every_schedule
def test_the_uniform_predictor_costs_the_log_of_the_vocabulary(schedule):
    """ln 3 for each token: the mask is no part of the vocabulary."""
    process = MaskProcess(SIZE, schedule)
    forms = {continuous_time: smooth_rule(40)}
    forms |= {discrete_time(steps): middles(steps) for steps in (1, 2, 37)}
    for form, rule in forms.items():
        found = expected(form, process, uniform_predictor, SEQUENCES[:1], rule)
        assert float(found) == pytest.approx(3 * math.log(3), rel=1e-6)


@pytest.mark.parametrize("form", [continuous_time, discrete_time(10), exact_counts])
def test_the_unigram_predictor_costs_its_cross_entropy(form):
    """Padding costs nothing: each row has its own number of real tokens. 6000 draws."""
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    tokens = some_tokens(1, 8, 4).expand(300, 8)
    real = torch.arange(8) < torch.tensor([8, 5, 1]).repeat(100)[:, None]
    bound = nelbo(
        MaskProcess(4, LogLinearMasks()),
        lambda xt, level, condition: chances.log().expand(*xt.shape, 4),
        tokens,
        real=real,
        num_times=20,
        form=form,
        rng=seeded(),
    )
    wanted = torch.where(real, -chances.log()[tokens], 0.0).sum(dim=1)
    for row in range(3):
        values = bound.total[row::3]
        error = float(values.std() / len(values) ** 0.5)
        assert float(values.mean()) == pytest.approx(float(wanted[row]), abs=4 * error + 1e-9)
    assert bound.num_real[:3].tolist() == [8, 5, 1]
    torch.testing.assert_close(bound.per_token * bound.num_real, bound.total)


@pytest.mark.parametrize("form", [continuous_time, exact_counts])
def test_bounds_drawn_at_random_are_near_the_likelihood(form):
    """Within 4 sigma of 27 sequences times 400 draws; stratified, so sigma is a little less."""
    bound = nelbo(
        MaskProcess(SIZE, CosineMasks()),
        conditionals(JOINT),
        SEQUENCES,
        num_times=400,
        form=form,
        rng=seeded(),
    )
    error = bound.draws.std(dim=1) / 400**0.5
    assert bool(((bound.total - NLL).abs() < 4 * error + 2e-3 * NLL).all())


def test_exact_counts_vary_least():
    bounds = [
        nelbo(
            MaskProcess(7, LINEAR),
            lambda xt, level, condition: torch.zeros(*xt.shape, 7),
            some_tokens(50, 12, 7),
            num_times=20,
            form=form,
            rng=seeded(),
        )
        for form in (exact_counts, continuous_time)
    ]
    torch.testing.assert_close(bounds[0].per_token, torch.full((50,), math.log(7)).double())
    assert float(bounds[1].draws.std()) > 1


def test_the_bound_of_a_sequence_alone_is_that_in_a_batch():
    tokens = SEQUENCES[4:7]
    process = MaskProcess(SIZE, LINEAR)
    together, alone = (
        nelbo(process, conditionals(JOINT), one, num_times=5, rng=generators(seeds))
        for one, seeds in ((tokens, [1, 2, 3]), (tokens[1:2], [2]))
    )
    torch.testing.assert_close(together.draws[1:2], alone.draws)


def test_the_bound_tells_the_network_condition_and_level():
    seen = []

    def denoiser(xt, level, condition):
        seen.append((level.alpha.shape, condition))
        return torch.zeros(*xt.shape, SIZE)

    nelbo(MaskProcess(SIZE, LINEAR), denoiser, SEQUENCES[:2], "cond", num_times=2)
    assert seen == [((2,), "cond")] * 2


def test_settings_of_the_bound():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        discrete_time(0)
    with pytest.raises(ValueError, match="num_times must be at least 1, got 0"):
        nelbo(MaskProcess(SIZE, LINEAR), conditionals(JOINT), SEQUENCES, num_times=0)
