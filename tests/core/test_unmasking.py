"""The walk from masks to tokens: draws, counts, orders, what is kept, and what comes out."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from multidiff.core.discrete import samplers as mask_samplers
from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.samplers import (
    AncestralSampler,
    FixedOrderSampler,
    MaskGITSampler,
    MaskPredictSampler,
    RandomOrderSampler,
    TokenDraw,
    gumbel,
)
from multidiff.core.discrete.schedules import CosineMasks, LogLinearMasks, PolynomialMasks
from multidiff.core.discrete.unmasking import canvas, unmask, unmask_blocks
from multidiff.core.guidance import ClassifierFreeGuidance
from multidiff.core.random import generators

LINEAR = PolynomialMasks()
GREEDY = TokenDraw(temperature=0)
SAMPLERS = {
    "ancestral": AncestralSampler(),
    "ancestral that takes back": AncestralSampler(remasking=0.6),
    "confidence": MaskGITSampler(),
    "noisy confidence": MaskGITSampler(noise=4.5, pace="even", draw=TokenDraw(0.8, 0.9)),
    "random order": RandomOrderSampler(),
    "given order": FixedOrderSampler([4, 0, 7, 2, 5, 1, 3, 6]),
    "remasking": MaskPredictSampler(),
    "remasking with draws": MaskPredictSampler(pace="schedule", draw=TokenDraw()),
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Table:
    """A network of fixed random weights that reads every place and the time, row by row."""

    def __init__(self, size, length, seed=0):
        self.weights = torch.randn(size + 1, length, length, size, generator=seeded(seed))
        self.calls = 0

    def __call__(self, xt, level, condition=None):
        self.calls += 1
        position = torch.arange(xt.shape[1])
        rows = [self.weights[row, position].sum(dim=0) for row in xt]
        return torch.stack(rows) * (0.5 + level.time.float())[:, None, None]


def told_always(*logits):
    """A network that says the same at each place."""

    def denoiser(xt, level, condition=None):
        return torch.tensor(logits).expand(*xt.shape, len(logits))

    return denoiser


def states_of(process, denoiser, sampler, shape, steps, **options):
    """The states after each step."""
    states = []
    unmask(
        process,
        denoiser,
        sampler,
        shape,
        steps,
        on_step=lambda number, state: states.append(state.clone()),
        **options,
    )
    return states


# ----------------------------------------------------------------------------- draws


def test_rare_tokens_are_drawn_as_often_as_they_should(monkeypatch):
    """One token, and 262,144 others 20.5 nats below it, 1e5 times: 32.8 of the others.

    Of the 2.6e10 Gumbel values of the others only those above 13.8 can ever win: as many as
    there should be of them are made, on the grid of the type that was asked for, each
    against a value of the first token of its own.
    """
    top = 1e-6  # P(Gumbel > 13.8)
    count = round(262_144 * 100_000 * top)

    def thinned(shape, rng, dtype=torch.float64):
        first = torch.rand(shape[0], generator=rng, dtype=dtype)
        other = 1 - top * torch.rand(shape[0], generator=rng, dtype=torch.float64)
        grid = 2.0 ** (24 if dtype == torch.float32 else 53)
        return torch.stack([first, (torch.floor(other * grid) / grid).to(dtype)], dim=1)

    monkeypatch.setattr(mask_samplers, "uniform", thinned)
    log_probs = torch.tensor([0.0, -20.5]).expand(1, count, 2)
    drawn = TokenDraw()(log_probs, torch.ones(1, count, dtype=torch.bool), seeded())
    wanted = 262_144 * 100_000 * math.exp(-20.5)
    assert wanted == pytest.approx(32.8, abs=0.1)
    assert abs(int(drawn.sum()) - wanted) < 4 * wanted**0.5
    # Single precision, which this is about, never finds one.
    single = log_probs[0] + gumbel(thinned((count, 2), seeded(), torch.float32))
    assert int(single.argmax(dim=-1).sum()) == 0


def test_tokens_are_drawn_with_their_probabilities(monkeypatch):
    """In pieces too, as a large vocabulary is."""
    monkeypatch.setattr(mask_samplers, "AT_ONCE", 3000)
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    positions = torch.ones(2, 10_000, dtype=torch.bool)
    log_probs = chances.log().expand(2, 10_000, 4)
    for temperature in (1.0, 0.5):
        drawn = TokenDraw(temperature)(log_probs, positions, seeded())
        wanted = chances ** (1 / temperature) / (chances ** (1 / temperature)).sum()
        ratio = drawn.flatten().bincount(minlength=4) / 20_000
        error = (wanted * (1 - wanted) / 20_000).sqrt()
        assert bool(((ratio - wanted).abs() < 4 * error).all())


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.3, [2]), (0.5, [2]), (0.6, [0, 2]), (0.8, [0, 2]), (0.81, [0, 1, 2])]
)
def test_the_nucleus_keeps_the_token_that_crosses_it(top_p, kept):
    log_probs = torch.tensor([0.3, 0.15, 0.5, 0.05]).log().expand(1, 2000, 4)
    positions = torch.ones(1, 2000, dtype=torch.bool)
    drawn = TokenDraw(top_p=top_p)(log_probs, positions, seeded())
    assert sorted(set(drawn.flatten().tolist())) == kept


def test_temperature_zero_takes_the_likeliest_and_draws_nothing():
    rng = seeded()
    before = rng.get_state()
    log_probs = torch.randn(2, 3, 5, generator=seeded(1))
    positions = torch.tensor([[1, 0, 1], [0, 0, 0]]).bool()
    drawn = GREEDY(log_probs, positions, rng)
    assert torch.equal(drawn[positions], log_probs.argmax(-1)[positions])
    assert torch.equal(rng.get_state(), before)


def test_settings_of_draws_and_solvers():
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match=r"at least 0, .* top_p in \(0, 1\]"):
            TokenDraw(**wrong)
    with pytest.raises(ValueError, match=r"remasking 2 is not in \[0, 1\]"):
        AncestralSampler(remasking=2)
    with pytest.raises(ValueError, match="noise must be at least 0, got -1"):
        MaskGITSampler(noise=-1)


# ---------------------------------------------------------------- what every sampler does


@every_sampler
@pytest.mark.parametrize("steps", [1, 3, 8, 40])
def test_everything_is_filled_and_what_is_known_stays(sampler, steps):
    """Rows with all, some and no masks; UNKNOWN (1) may be known, but is never drawn."""
    process = MaskProcess(6, CosineMasks())
    known = torch.full((3, 8), 6)
    known[1] = torch.tensor([6, 1, 6, 6, 5, 6, 2, 6])
    known[2] = torch.arange(8) % 6
    real = torch.arange(8) < torch.tensor([[8], [6], [8]])
    found = unmask(
        process,
        Table(6, 8),
        sampler,
        (3, 8),
        steps,
        known=known,
        real=real,
        forbidden=[0, 1],
        rng=seeded(),
    )
    start = canvas(process, (3, 8), known, real)
    free = start == 6
    assert int(free.sum()) == 8 + 4
    assert torch.equal(found[~free], start[~free])
    assert found[1, 6:].tolist() == [2, 0]  # known, though no real place; and the padding
    assert bool(((found[free] >= 2) & (found[free] < 6)).all())


@every_sampler
def test_a_sample_alone_is_the_sample_in_a_batch(sampler):
    process = MaskProcess(6, LogLinearMasks())
    known = torch.full((3, 8), 6)
    known[0, :5], known[2, 1] = 3, 4
    together = unmask(
        process, Table(6, 8), sampler, (3, 8), 11, known=known, rng=generators([1, 2, 3])
    )
    for row in range(3):
        alone = unmask(
            process,
            Table(6, 8),
            sampler,
            (1, 8),
            11,
            known=known[row : row + 1],
            rng=generators([row + 1]),
        )
        assert torch.equal(alone[0], together[row])


@every_sampler
def test_the_same_seed_gives_the_same_and_another_another(sampler):
    process = MaskProcess(50, LINEAR)
    one, same, other = (
        unmask(process, Table(50, 8), sampler, (4, 8), 6, rng=seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    if sampler is not SAMPLERS["remasking"]:  # it draws nothing
        assert not torch.equal(one, other)


@every_sampler
def test_nothing_masked_asks_nothing(sampler):
    table, known = Table(6, 8), torch.arange(16).reshape(2, 8) % 6
    found = unmask(MaskProcess(6, LINEAR), table, sampler, (2, 8), 5, known=known, rng=seeded())
    assert torch.equal(found, known) and table.calls == 0


@every_sampler
def test_the_network_is_told_levels_and_condition(sampler):
    seen = []

    def denoiser(xt, level, condition):
        seen.append((level.alpha.shape, condition))
        return torch.zeros(*xt.shape, 6)

    process = MaskProcess(6, LINEAR)
    unmask(process, denoiser, sampler, (3, 8), 2, condition="cond", rng=seeded())
    assert set(seen) == {((3,), "cond")}


# ------------------------------------------------------------------------- ancestral


class Eager(AncestralSampler):
    """Asks the network at every step, as the plain algorithm is written."""

    def step(self, context, xt, level, next_level, memory):
        context.estimate(xt, level)
        return super().step(context, xt, level, next_level, memory)


def test_samples_are_the_same_however_often_the_network_is_asked():
    """A network that reads the time, too, of which a kept output would be out of date."""
    process = MaskProcess(6, LogLinearMasks())
    asked, eager = Table(6, 12), Table(6, 12)
    states = states_of(process, asked, AncestralSampler(), (1, 12), 1000, rng=seeded(5))
    found = unmask(process, eager, Eager(), (1, 12), 1000, rng=seeded(5))
    assert torch.equal(states[-1], found)
    # A sampler that keeps its output asks once in each state it finds itself in.
    distinct = 1 + sum(not torch.equal(a, b) for a, b in itertools.pairwise(states))
    assert asked.calls <= min(12, distinct) and eager.calls == 1000 + asked.calls


@pytest.mark.parametrize("remasking", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("schedule", [LogLinearMasks(), CosineMasks(), PolynomialMasks(2.0)])
def test_the_share_kept_is_that_of_the_level(schedule, remasking):
    process, steps = MaskProcess(4, schedule), 7
    states = states_of(
        process,
        told_always(0.0, 0.0, 0.0, 0.0),
        AncestralSampler(remasking=remasking),
        (10, 2000),
        steps,
        rng=seeded(),
    )
    for number, state in enumerate(states, 1):
        time = torch.tensor([1 - number / steps], dtype=torch.float64)
        wanted = float(schedule.at(time).alpha)
        ratio = float((state < 4).double().mean())
        # 20,000 tokens; the walk starts with all masked, not with a share alpha(1) kept.
        assert ratio == pytest.approx(wanted, abs=4 * 0.5 / 141 + 1e-3)
    again = sum(int(((a < 4) & (b == 4)).sum()) for a, b in itertools.pairwise(states))
    assert (again > 0) == (remasking > 0)


# No sequence is so rare that one too many of it would outweigh all others below.
JOINT = torch.rand(3, 3, 3, generator=seeded(11), dtype=torch.float64) ** 3 + 0.05
JOINT = JOINT / JOINT.sum()


def conditionals(xt, level, condition=None):
    """The network that knows p(token | what is shown) of the joint of three tokens."""
    shown = torch.cat([torch.eye(3), torch.ones(1, 3)])[xt].double()
    weighed = torch.einsum("abc,na,nb,nc->nabc", JOINT, *shown.unbind(1))
    single = [weighed.sum(dim=dims) for dims in ((2, 3), (1, 3), (1, 2))]
    probability = torch.stack(single, dim=1)
    return (probability / probability.sum(dim=-1, keepdim=True)).log()


def chi_square(found, chances):
    """Of sequences of three tokens; 26 degrees of freedom where none is left out."""
    number = found @ torch.tensor([9, 3, 1])
    counts = number.bincount(minlength=27).double()
    wanted = chances.flatten() * len(found)
    return float(((counts - wanted) ** 2 / wanted).sum())


# One at a time, each of these is an exact sampler of the joint. The 1e-4 quantile is 60.
ONE_AT_A_TIME = [
    (AncestralSampler(), 200),
    (AncestralSampler(remasking=0.02), 200),
    (RandomOrderSampler("even"), 3),
    (FixedOrderSampler([1, 2, 0], "even"), 3),
]


@pytest.mark.parametrize(("sampler", "steps"), ONE_AT_A_TIME)
def test_samples_follow_the_joint(sampler, steps):
    process = MaskProcess(3, LogLinearMasks())
    found = unmask(process, conditionals, sampler, (4000, 3), steps, rng=seeded(1))
    assert chi_square(found, JOINT) < 60


def test_one_step_draws_every_token_apart():
    found = unmask(
        MaskProcess(3, LINEAR), conditionals, AncestralSampler(), (4000, 3), 1, rng=seeded()
    )
    a, b, c = (JOINT.sum(dim=dims) for dims in ((1, 2), (0, 2), (0, 1)))
    assert chi_square(found, torch.einsum("a,b,c->abc", a, b, c)) < 60
    assert chi_square(found, JOINT) > 200


def test_more_steps_do_not_sharpen_the_tokens():
    """Entropy of the drawn tokens at 64 and at 4096 steps, under a vocabulary with a tail."""
    chances = 1 / torch.arange(1, 41).double()
    chances = chances / chances.sum()
    process = MaskProcess(40, LogLinearMasks())

    def entropy(steps):
        found = unmask(
            process,
            lambda xt, level, condition: chances.log().expand(*xt.shape, 40),
            AncestralSampler(),
            (10, 64),
            steps,
            rng=seeded(steps),
        )
        ratio = found.flatten().bincount(minlength=40) / found.numel()
        return float(-torch.special.xlogy(ratio, ratio).sum())

    # Of 640 draws, with its error and the usual bias of an entropy, (40 - 1) / 2n = 0.03.
    error = float((chances * chances.log() ** 2).sum() - (chances * chances.log()).sum() ** 2)
    wanted = float(-(chances * chances.log()).sum()) - 0.03
    for steps in (64, 4096):
        assert entropy(steps) == pytest.approx(wanted, abs=4 * (error / 640) ** 0.5)


# ---------------------------------------------------------------------------- counts


def masks_left(states, size):
    return [(state == size).sum(dim=1).tolist() for state in states]


@pytest.mark.parametrize(
    "sampler", [MaskGITSampler(), RandomOrderSampler(), FixedOrderSampler(range(256))]
)
def test_counts_of_maskgit(sampler):
    """256 cos(pi/2 k/T), rounded down; exactly 128 at 60 degrees, and nothing at the end."""
    published = {
        8: [251, 236, 212, 181, 142, 97, 49, 0],
        12: [253, 247, 236, 221, 203, 181, 155, 128, 97, 66, 33, 0],
    }
    process, even = MaskProcess(4, CosineMasks()), told_always(0.0, 0.0, 0.0, 0.0)
    for steps, wanted in published.items():
        states = states_of(process, even, sampler, (1, 256), steps, rng=seeded())
        assert masks_left(states, 4) == [[count] for count in wanted]


@pytest.mark.parametrize("sampler", [MaskGITSampler(pace="even"), RandomOrderSampler("even")])
@pytest.mark.parametrize("steps", [1, 3, 4, 10, 37])
def test_even_counts_are_exact_in_every_row(sampler, steps):
    """More steps than tokens too; what is known at the start is not counted."""
    known = torch.full((3, 10), 4)
    known[1, :3], known[2] = 1, 2
    states = states_of(
        MaskProcess(4, LogLinearMasks()), told_always(0.0, 0.0, 0.0, 0.0), sampler, (3, 10), steps,
        known=known, rng=seeded(),
    )  # fmt: skip
    wanted = [
        [count * (steps - number) // steps for count in (10, 7, 0)]
        for number in range(1, steps + 1)
    ]
    assert masks_left(states, 4) == wanted


def test_steps_without_a_token_ask_nothing():
    table = Table(6, 8)
    unmask(MaskProcess(6, LINEAR), table, MaskGITSampler(), (2, 8), 100, rng=seeded())
    assert table.calls == 8


# ---------------------------------------------------------------------------- orders


def surer_to_the_right(xt, level, condition=None):
    """Token 1 everywhere, the surer the further to the right."""
    position = torch.arange(xt.shape[1]).float()
    return torch.stack([torch.zeros_like(position), 1 + position], dim=-1).expand(*xt.shape, 2)


def test_the_surest_come_first():
    states = states_of(
        MaskProcess(2, LINEAR),
        surer_to_the_right,
        MaskGITSampler(draw=GREEDY),
        (1, 5),
        5,
        rng=seeded(),
    )
    shown = [[position for position in range(5) if state[0, position] < 2] for state in states]
    assert shown == [[4], [3, 4], [2, 3, 4], [1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_noise_on_the_confidence_is_annealed():
    """At the first of many steps it decides, towards the end the confidence does."""
    process, sampler = MaskProcess(2, LINEAR), MaskGITSampler(noise=30.0, draw=GREEDY)
    states = states_of(process, surer_to_the_right, sampler, (2000, 3), 3, rng=seeded())
    first = (states[0] < 2).double().mean(dim=0)
    assert bool(((first - 1 / 3).abs() < 0.12).all())
    quiet = MaskGITSampler(noise=1e-9, draw=GREEDY)
    states = states_of(process, surer_to_the_right, quiet, (50, 3), 3, rng=seeded())
    assert bool((states[0][:, 2] < 2).all())


def test_noise_on_the_confidence_draws_places_in_proportion():
    """To p^(1 / noise): noise 1.5 at time 2/3, where the first of three steps ends, is 1."""

    def sure_of_19(xt, level, condition=None):
        logits = torch.zeros(*xt.shape, 20)
        logits[..., 19] = torch.tensor([1.0, 3.0, 5.0])
        return logits

    sampler = MaskGITSampler(noise=1.5, draw=GREEDY)
    states = states_of(MaskProcess(20, LINEAR), sure_of_19, sampler, (4000, 3), 3, rng=seeded())
    chances = torch.tensor([1.0, 3.0, 5.0]).exp()
    chances = chances / (19 + chances)
    found = (states[0] < 20).double().mean(dim=0)
    assert bool(((found - chances / chances.sum()).abs() < 4 * 0.5 / 63).all())


def test_confidence_does_not_empty_the_canvas():
    """A network surest of padding (0): it fills every place, unless it is forbidden."""
    table = Table(6, 8)

    def fond_of_padding(xt, level, condition=None):
        return table(xt, level) + torch.tensor([30.0, 0, 0, 0, 0, 0])

    process = MaskProcess(6, LINEAR)
    empty = unmask(process, fond_of_padding, MaskGITSampler(), (4, 8), 8, rng=seeded())
    assert int(empty.sum()) == 0
    real = torch.arange(8) < torch.tensor([[8], [5], [3], [1]])
    found = unmask(
        process,
        fond_of_padding,
        MaskGITSampler(),
        (4, 8),
        8,
        real=real,
        forbidden=[0],
        rng=seeded(),
    )
    assert torch.equal(found > 0, real)


def test_a_given_order_is_followed():
    order = [3, 1, 4, 0, 2]
    states = states_of(
        MaskProcess(2, LINEAR),
        surer_to_the_right,
        FixedOrderSampler(order),
        (2, 5),
        5,
        rng=seeded(),
    )
    for number, state in enumerate(states, 1):
        assert (state[0] < 2).nonzero().flatten().tolist() == sorted(order[:number])
    with pytest.raises(ValueError, match="is not a permutation from 0"):
        FixedOrderSampler([0, 2, 2])
    with pytest.raises(ValueError, match="order of 5 positions for 4 tokens"):
        unmask(MaskProcess(2, LINEAR), surer_to_the_right, FixedOrderSampler(order), (2, 4), 2)


def test_a_random_order_has_no_favourites():
    states = states_of(
        MaskProcess(2, LINEAR), surer_to_the_right, RandomOrderSampler(), (3000, 3), 3, rng=seeded()
    )
    orders = torch.stack([(state < 2).sum(dim=1) for state in states])
    assert bool((orders == torch.tensor([[1], [2], [3]])).all())
    when = sum((state == 2).long() for state in states)
    counts = (when @ torch.tensor([9, 3, 1])).unique(return_counts=True)[1]
    assert len(counts) == 6 and float(((counts - 500) ** 2 / 500).sum()) < 26


# ------------------------------------------------------------------------- remasking


def masks_read(sampler, length, steps, **options):
    """How many masks the network reads at each step."""
    read, table = [], Table(6, length)

    def denoiser(xt, level, condition=None):
        read.append(int((xt == 6).sum()))
        return table(xt, level)

    unmask(MaskProcess(6, LINEAR), denoiser, sampler, (1, length), steps, rng=seeded(), **options)
    return read


def test_counts_of_mask_predict():
    assert masks_read(MaskPredictSampler(), 10, 4) == [10, 7, 5, 2]
    assert masks_read(MaskPredictSampler(), 3, 6) == [3, 2, 2, 1, 1, 1]  # at least one again
    known = torch.tensor([[1, 6, 6, 2, 6, 6]])
    assert masks_read(MaskPredictSampler(), 6, 4, known=known) == [4, 3, 2, 1]


@pytest.mark.parametrize("seed", [2, 4])
def test_mask_predict_by_hand(seed):
    """The least sure are predicted again, the others keep the probability they were set with."""
    length, steps = 12, 6
    table, process = Table(6, length, seed), MaskProcess(6, LINEAR)
    tokens, surety = torch.full((length,), 6), torch.zeros(length)
    again, older = list(range(length)), set()
    for number in range(steps):
        if number > 0:
            last, again = again, surety.argsort()[: length * (steps - number) // steps].tolist()
            older |= set(again) - set(last)
        xt = tokens.clone()
        xt[again] = 6
        level = LINEAR.at(torch.tensor([1 - number / steps], dtype=torch.float64))
        found = F.log_softmax(table(xt[None], level)[0], dim=-1)
        surety[again], tokens[again] = (part[again] for part in found.max(dim=-1))
    assert older  # a token that was left alone for a while is doubted after all
    assert torch.equal(unmask(process, table, MaskPredictSampler(), (1, length), steps)[0], tokens)


def test_a_first_mistake_is_mended():
    """Both tokens must be alike: drawn apart they are not; the unsure one is drawn again."""

    def group_by_length(xt, level, condition=None):
        logits = torch.tensor([[[0.0, 0.1], [2.0, 0.0]]]).repeat(len(xt), 1, 1)
        other = xt.flip(1)
        return torch.where(
            (other < 2)[..., None], 5.0 * F.one_hot(other.clamp(max=1), 2).float(), logits
        )

    process = MaskProcess(2, LINEAR)
    assert unmask(process, group_by_length, MaskPredictSampler(), (1, 2), 1).tolist() == [[1, 0]]
    assert unmask(process, group_by_length, MaskPredictSampler(), (1, 2), 2).tolist() == [[0, 0]]


# -------------------------------------------------------------------------- guidance


def test_guidance_goes_around_the_network(unchecked_signatures):
    """Scale 2 of log odds 1 against 0.4: 1.6. The level reaches the network, twice as long."""
    seen = []

    def denoiser(xt, level, condition):
        seen.append(level.alpha.shape)
        odds = torch.where(condition < 0, 0.4, 1.0)[:, None].expand(xt.shape)
        return torch.stack([torch.zeros_like(odds), odds], dim=-1)

    process, condition = MaskProcess(2, LINEAR), torch.zeros(500, dtype=torch.long)
    for scale, odds in ((1.0, 1.0), (2.0, 1.6)):
        guided = ClassifierFreeGuidance(denoiser, scale)
        found = unmask(
            process, guided, AncestralSampler(), (500, 16), 4, condition=condition, rng=seeded()
        )
        wanted = 1 / (1 + math.exp(-odds))
        assert float(found.double().mean()) == pytest.approx(wanted, abs=4 * 0.5 / 89)
    assert set(seen) == {(500,), (1000,)}


# ---------------------------------------------------------------------------- blocks


def test_blocks_continue_what_stands_before_them():
    """Each token is its left neighbour's successor, which is known across the blocks."""
    process, widths = MaskProcess(7, LINEAR), []

    def successor(xt, level, condition=None):
        widths.append(xt.shape[1])
        left = F.pad(xt, (1, 0), value=6)[:, :-1]
        return 50.0 * F.one_hot((left + 1) % 7, 7).float()

    def fill(known):
        sampler = FixedOrderSampler(range(known.shape[1]), "even", GREEDY)
        return unmask(process, successor, sampler, known.shape, known.shape[1], known=known)

    start = canvas(process, (2, 41))
    start[1, 0] = 3
    found = unmask_blocks(fill, start, context_length=8, block=3)
    wanted = torch.stack([torch.arange(41) % 7, (torch.arange(41) + 3) % 7])
    assert torch.equal(found, wanted)
    assert set(widths) == {8}
    assert bool((start[:, 1:] == 7).all())  # what was given is left alone


def test_stretches_move_on_by_blocks_and_end_with_the_sequence():
    seen = []

    def fill(known):
        seen.append((known == 4).sum(dim=1).tolist())
        return torch.where(known == 4, 0, known)

    start = canvas(MaskProcess(4, LINEAR), (1, 11))
    assert int(unmask_blocks(fill, start, context_length=6, block=2).sum()) == 0
    assert seen == [[6], [2], [2], [1]]
    seen.clear()
    unmask_blocks(fill, start[:, :5], context_length=6, block=2)
    assert seen == [[5]]
    with pytest.raises(ValueError, match=r"block must be in 1 \.\. 6 .* got 7"):
        unmask_blocks(fill, start, context_length=6, block=7)


# ---------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known": torch.zeros(1, 8, dtype=torch.long)}, r"known \(1, 8\) .* shape \(2, 8\)"),
        ({"real": torch.ones(2, 7)}, r"real \(2, 7\) differs from the shape \(2, 8\)"),
        ({"known": torch.full((2, 8), 7)}, r"known tokens must be in 0 \.\. 6"),
        ({"pad": 6}, r"pad 6 in 0 \.\. 5"),
        ({"forbidden": [6]}, r"forbidden \[6\]: expected tokens in 0 \.\. 5"),
        ({"forbidden": range(6)}, "not all of them"),
        ({"rng": generators([1])}, "1 generators for a batch of 2"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        unmask(MaskProcess(6, LINEAR), Table(6, 8), AncestralSampler(), (2, 8), 3, **options)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        unmask(MaskProcess(6, LINEAR), Table(6, 8), AncestralSampler(), (2, 8), 0)
