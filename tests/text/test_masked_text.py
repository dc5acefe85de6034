"""Masked models of texts: what is asked of a text is what it has, and what texts cost."""

import math

import pytest
import torch
from shapes import unchecked
from test_embedded import Listed
from torch import nn

import multidiff as md
from multidiff.core.discrete.absorbing import MaskProcess
from multidiff.core.discrete.blocks import BlockMaskProcess
from multidiff.core.discrete.schedules import CosineMasks, LogLinearMasks
from multidiff.nn.token_denoiser import TokenDenoiser
from multidiff.text.data.attributes import MeaningTable
from multidiff.text.data.vocabulary import BLANK, END, PAD, UNKNOWN, with_blanks
from multidiff.text.masked.model import MaskedText, TokenDomain
from multidiff.text.request import TextRequest
from multidiff.text.sampling_config import UNMASKING_SAMPLERS, MaskedTextSamplingConfig
from multidiff.utils.errors import InputError

SIZE = Listed().size
SAMPLERS = tuple(UNMASKING_SAMPLERS)
TEXTS = {
    "a": "the eagle is a cheap pub near the river",
    "b": "the cafe serves nice food near a river",
    "c": "a pub serves cheap food near the cafe",
    "d": "nice river",
}
LENGTHS = {name: len(text.split()) for name, text in TEXTS.items()}


def small_model(length=12, seed=0, sampling=None, drop_condition=0.0, **options):
    torch.manual_seed(seed)
    domain = TokenDomain(Listed(), length, **options)
    reads = max(1, domain.source_length)
    denoiser = TokenDenoiser(SIZE, 32, 2, 4, length, sources=domain.sources, source_length=reads)
    process = MaskProcess(SIZE, LogLinearMasks())
    return MaskedText(domain, process, denoiser, sampling, drop_condition)


class Blind(nn.Module):
    """Gives every place the same logits, whatever it reads."""

    source = None

    def __init__(self, logits):
        super().__init__()
        self.size, self.logits = len(logits), logits

    def forward(self, xt, level, condition=None):
        return self.logits.expand(*xt.shape, -1)


def blind_model(logits, schedule=None, **options):
    domain = TokenDomain(Listed(), **{"length": 12, **options})
    return MaskedText(domain, MaskProcess(SIZE, schedule or LogLinearMasks()), Blind(logits))


def known_of(model, text):
    found = with_blanks(model.domain.vocabulary, text)
    known = {position: number for position, number in enumerate(found) if number is not None}
    return TextRequest(known=known, length=len(found))


# ------------------------------------------------------------------------------- learning


@pytest.fixture(scope="module")
def learned():
    """A model that knows four texts by heart, by name and by themselves."""
    table = MeaningTable({"which": tuple(TEXTS)})
    model = small_model(meanings=table, drop_condition=0.5)
    batch = {"text": [*TEXTS.values()] * 2, "meaning": [{"which": name} for name in TEXTS] * 2}
    trainer = md.Trainer(
        steps=300, learning_rate=5e-3, warmup_steps=20, decay="linear", ema_decay=0.9,
        precision="fp32", threads=1, log_every=1000, save_every=1000,
    )  # fmt: skip
    with unchecked():
        trainer.fit(model.task(), [batch])
    return model.eval().requires_grad_(False)


def test_one_batch_is_learned_by_heart(learned):
    texts, names = [*TEXTS.values()], [{"which": name} for name in TEXTS]
    reported = learned.nats_per_token(texts, names)
    unconditional = learned.nats_per_token(texts, [{}] * 4)
    assert reported["tokens"] < 0.03
    # Two texts have one length: to tell which it is costs ln 2 for both, of 31 tokens in all.
    assert 2 * math.log(2) / 31 - 0.02 < unconditional["tokens"] < 2 * math.log(2) / 31 + 0.05
    # Lengths are 3, 9 twice and 10: at best 1.5 ln 2 for each text; untrained ln 13.
    assert (
        6 * math.log(2) / 31 < unconditional["length"] == reported["length"] < 3 * math.log(13) / 31
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_was_learned_is_said_when_it_is_asked_for(learned, sampler):
    requests = [TextRequest({"which": name}, length=length) for name, length in LENGTHS.items()]
    for steps in (4, 24):
        made = learned.generate(requests, sampler=sampler, temperature=0, steps=steps)
        assert made == list(TEXTS.values())


def test_told_nothing_it_says_one_or_the_other(learned):
    made = learned.generate([TextRequest(length=LENGTHS["b"])] * 40, temperature=0.4)
    assert min(made.count(TEXTS["b"]), made.count(TEXTS["c"])) >= 8


def test_the_words_around_a_blank_are_enough(learned):
    text = f"{BLANK} {BLANK} serves cheap {BLANK} near the {BLANK}"
    assert learned.generate([known_of(learned, text)]) == [TEXTS["c"]]


# ------------------------------------------------------------------- what is asked is had


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_tokens_are_there_at_every_step_and_blanks_are_words(sampler):
    model = small_model()
    request = known_of(model, f"the {BLANK} serves {BLANK} {BLANK} food")
    states = []
    texts = model.generate(
        [request] * 5, sampler=sampler, steps=6, on_step=lambda number, state: states.append(state)
    )
    assert len(states) == 6
    for state in states:
        for position, number in {**request.known, request.length: END}.items():
            assert (state[:, position] == number).all()
        assert (state[:, request.length + 1 :] == PAD).all()
        found = state[:, : request.length]
        assert not torch.isin(found, torch.tensor([PAD, END, UNKNOWN])).any()
    for text in texts:
        numbers = model.domain.vocabulary.numbers(text)
        assert {position: numbers[position] for position in request.known} == request.known
        assert len(numbers) == request.length and min(numbers) > UNKNOWN


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_never_written_is_not_written_even_where_the_network_wants_it(sampler):
    logits = torch.zeros(SIZE)
    logits[[PAD, END, UNKNOWN]] = 30.0
    model = blind_model(logits)
    for text in model.generate([TextRequest(length=7)] * 4, sampler=sampler):
        assert len(text.split()) == 7 and "?" not in text


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_text_i_alone_is_text_i_in_a_batch(sampler):
    model = small_model()
    requests = [
        TextRequest(length=5),
        TextRequest(),
        known_of(model, f"a {BLANK}"),
        TextRequest(length=5),
    ]
    how = {"sampler": sampler, "steps": 5, "temperature": 0.9, "top_p": 0.95}
    together = model.generate(requests, seed=3, **how)
    assert together == model.generate(requests[::-1], seed=[6, 5, 4, 3], batch_size=2, **how)[::-1]
    assert [
        model.generate([one], seed=3 + i, **how)[0] for i, one in enumerate(requests)
    ] == together
    assert together[0] != together[3]


@pytest.mark.parametrize("length", [1, 2, 7, 8, 11])
def test_ends_stand_where_the_length_says(length):
    model = small_model()
    states = []
    texts = model.generate(
        [TextRequest(length=length)] * 3,
        sampler="confidence",
        on_step=lambda number, state: states.append(state),
    )
    assert [len(text.split()) for text in texts] == [length] * 3
    assert all((state == END).nonzero()[:, 1].tolist() == [length] * 3 for state in states)


def test_the_surest_first_makes_whole_texts():
    """Where a network is surest of the end, texts still are as long as they are to be."""
    logits = torch.zeros(SIZE)
    logits[END] = 9.0
    texts = blind_model(logits).generate([TextRequest()] * 8, sampler="confidence", temperature=0)
    assert all(texts) and len(set(map(len, texts))) > 1


# --------------------------------------------------------------------------------- walks


def test_as_many_steps_as_the_canvas_has_places_or_as_many_as_are_asked_for():
    def steps(model, **how):
        numbers = []
        model.generate(
            [TextRequest(length=9)], on_step=lambda number, _: numbers.append(number), **how
        )
        return len(numbers)

    assert steps(small_model()) == 12  # 10 tokens on a canvas of 16, of which the model reads 12
    assert steps(small_model(), steps=3) == 3
    assert steps(small_model(sampling=MaskedTextSamplingConfig(steps=5))) == 5
    assert steps(small_model(sampling=MaskedTextSamplingConfig(steps=5)), steps=20) == 20
    assert steps(small_model(sampling=MaskedTextSamplingConfig(steps=5)), steps=0) == 12


def test_the_walks_own_ways_are_taken_where_nobody_says_otherwise():
    requests = [TextRequest(length=8)] * 4
    plain, own = (
        small_model(),
        small_model(sampling=MaskedTextSamplingConfig(4, sampler="remasking", temperature=0.5)),
    )
    how = {"steps": 4, "sampler": "remasking", "temperature": 0.5}
    assert own.generate(requests) == plain.generate(requests, **how) != plain.generate(requests)


def test_a_small_nucleus_and_no_temperature_take_the_likeliest():
    model = small_model()
    requests = [TextRequest(length=8)] * 4
    how = {"sampler": "confidence", "steps": 4}
    sure = model.generate(requests, temperature=0, **how)
    assert sure == model.generate(requests, top_p=1e-6, **how) != model.generate(requests, **how)


@pytest.mark.parametrize(
    ("how", "reported"),
    [
        ({"steps": -1}, "--steps -1: from 0 to 10000; 0 makes one for each token"),
        (
            {"sampler": "ddpm"},
            "--sampler ddpm: expected one of ancestral, confidence, random, remasking",
        ),
        ({"temperature": -1}, "--temperature -1: 0"),
        ({"temperature": math.nan}, "--temperature nan: 0"),
        ({"temperature": math.inf}, "--temperature inf: 0"),
        ({"top_p": 0}, "--top-p 0: above 0"),
        ({"top_p": 1.5}, "--top-p 1.5: above 0, up to 1"),
        ({"guidance_scale": -1}, "--guidance-scale -1: 0 or more"),
        ({"num_candidates": 0}, "--num-candidates 0: from 1 to 1000"),
    ],
)
def test_walks_that_cannot_be(how, reported):
    with pytest.raises(InputError, match=reported):
        small_model().generate([TextRequest()], **how)


# ---------------------------------------------------------------------------- conditions


def conditional(kind):
    if kind == "meaning":
        model = small_model(meanings=MeaningTable({"food": ("Italian", "French")}))
        return model, TextRequest({"food": "French"}, length=8)
    return small_model(source_length=6), TextRequest(source="the eagle serves food", length=8)


@pytest.mark.parametrize("kind", ["meaning", "source"])
def test_conditions_are_read(kind):
    model, request = conditional(kind)
    reported, unconditional = [request] * 6, [TextRequest(length=8)] * 6
    assert model.generate(reported) != model.generate(unconditional)
    sources = [request.source] * 2 if request.source else []
    texts = ["a pub near the river", "nice food"]
    with_it = model.nats_per_token(texts, [request.meaning] * 2, sources=sources)
    without = model.nats_per_token(texts, [{}] * 2)
    assert with_it["tokens"] != without["tokens"] and with_it["length"] == without["length"]


@pytest.mark.parametrize("kind", ["meaning", "source"])
def test_guidance_of_1_is_none_and_more_changes_what_is_told_something(kind):
    model, request = conditional(kind)
    reported, unconditional = [request] * 6, [TextRequest(length=8)] * 6
    assert model.generate(reported, guidance_scale=1.0) == model.generate(reported)
    assert model.generate(reported, guidance_scale=8.0) != model.generate(reported)
    assert model.generate(reported, guidance_scale=0.0) == model.generate(unconditional)
    assert model.generate(unconditional, guidance_scale=8.0) == model.generate(unconditional)


# --------------------------------------------------------------------------- running text


def test_running_text_is_written_in_blocks_that_are_told_what_stands_before():
    model = small_model(length=8, ends=False)
    reads = []
    forward = model.denoiser.forward

    def noted(xt, level, condition=None):
        reads.append(xt.clone())
        return forward(xt, level, condition)

    model.denoiser.forward = noted
    request = TextRequest(known={0: 3, 17: 4}, length=21)
    (text,) = model.generate([request])
    numbers = model.domain.vocabulary.numbers(text)
    assert len(numbers) == 21 and numbers[0] == 3 and numbers[17] == 4 and min(numbers) > UNKNOWN
    assert {read.shape[1] for read in reads} == {8}
    # The last stretch lies on places 16 to 23, of which three are no text.
    last = reads[-1][0].tolist()
    assert last[:4] == numbers[16:20] and last[5:] == [PAD] * 3
    assert model.generate([TextRequest(length=21)] * 2)[1:] == model.generate(
        [TextRequest(length=21)], seed=1
    )


@pytest.mark.parametrize("length", [1, 3, 8, 9, 50])
def test_running_text_is_of_any_length(length):
    model = small_model(length=8, ends=False)
    for text in model.generate([TextRequest(length=length)] * 2, steps=2):
        assert len(text.split()) == length


def model_of_blocks(block=2, length=8, reads=None, drop_condition=0.0, **options):
    torch.manual_seed(0)
    domain = TokenDomain(Listed(), length, **{"ends": False, **options})
    process = BlockMaskProcess(SIZE, LogLinearMasks(), block)
    denoiser = TokenDenoiser(SIZE, 32, 2, 4, length, block=block if reads is None else reads)
    return MaskedText(domain, process, denoiser, None, drop_condition)


@pytest.mark.parametrize("steps", [None, 1])
def test_blocks_are_found_one_after_the_other(steps):
    model, states = model_of_blocks(), []
    request = TextRequest(known={0: 3, 9: 4}, length=11)
    (text,) = model.generate(
        [request], steps=steps, on_step=lambda number, tokens: states.append(tokens[0].tolist())
    )
    numbers = model.domain.vocabulary.numbers(text)
    assert len(numbers) == 11 and numbers[0] == 3 and numbers[9] == 4 and min(numbers) > UNKNOWN
    for state in states:
        assert SIZE not in state[:-2] and state[:-2] == numbers[: len(state) - 2]
    # Six blocks, of which three have something known or no text at one of their two places.
    assert len(states) == (2 * 6 if steps is None else 6)
    assert [len(state) for state in states] == sorted(len(state) for state in states)


def test_equal_seeds_give_equal_texts_in_blocks_alone_and_beside_others():
    model = model_of_blocks()
    both = model.generate([TextRequest(length=21), TextRequest(length=23)], seed=3)
    assert model.generate([TextRequest(length=23)], seed=4) == both[1:]


def test_blocks_are_learned_by_heart_and_cost_little_then():
    model = model_of_blocks(block=4, length=12)
    texts = [" ".join(TEXTS["a"].split()[:8] + ["nice"] * 4), " ".join(["food", "cheap"] * 6)]
    task, rng = model.task(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    with unchecked():
        for _ in range(300):
            optimizer.zero_grad()
            sum(task.losses({"text": texts * 8}, rng).values()).mean().backward()
            optimizer.step()
    model.eval()
    found = model.nats(texts, [{}] * 2)
    assert float(torch.exp(-found["tokens"]).sum()) > 0.9
    # The first block tells which of the two it is, so what stands behind it is free.
    assert bool((model.nats(texts, [{}] * 2, known=4)["tokens"] < 0.1).all())
    made = model.generate([TextRequest(length=12)] * 24)
    assert set(texts) <= set(made) and sum(text in texts for text in made) >= 20


def test_what_is_known_costs_nothing():
    model = blind_model(torch.zeros(SIZE), ends=False)
    found = model.nats(["the eagle is nice"], [{}], known=3)
    assert float(found["tokens"]) == pytest.approx(math.log(SIZE), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reads": 4}, "a process of blocks of 2 and a denoiser of blocks of 4"),
        ({"reads": 0}, r"blocks of 0 positions: make them alike \(0 without blocks: MaskProcess\)"),
        ({"ends": True}, "running text"),
        ({"block": 3}, "its length 8 must be a multiple"),
        ({"source_length": 5}, "source_length: 0"),
        ({"drop_condition": 0.1}, "without condition"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        model_of_blocks(**options)


# ----------------------------------------------------------------------------- likelihood


@pytest.mark.parametrize("schedule", [LogLinearMasks(), CosineMasks()])
def test_a_uniform_predictor_costs_ln_v_for_each_word_and_ln_of_the_lengths(schedule):
    model = blind_model(torch.zeros(SIZE), schedule)
    texts = ["the eagle is a pub", "nice", "a cheap cafe"]
    words = 5 + 1 + 3
    found = model.nats_per_token(texts, [{}] * 3)
    assert found["tokens"] == pytest.approx(words * math.log(SIZE) / (words + 3), rel=1e-6)
    assert found["length"] == pytest.approx(3 * math.log(13) / (words + 3), rel=1e-6)
    assert found["total"] == pytest.approx(found["tokens"] + found["length"])


def test_running_text_costs_its_tokens_alone():
    found = blind_model(torch.zeros(SIZE), ends=False).nats_per_token(["the eagle is"], [{}])
    assert found["length"] == 0 and found["total"] == pytest.approx(math.log(SIZE), rel=1e-6)


def test_texts_cost_the_same_alone_and_beside_longer_ones():
    model = small_model()
    texts = ["nice food", "the eagle is a cheap pub near the river", "a pub"]
    together = model.nats(texts, [{}] * 3, seed=4)
    assert together["count"].tolist() == [3, 10, 3]
    for row, text in enumerate(texts):
        alone = model.nats([text], [{}], seed=4 + row)
        for name, value in alone.items():
            assert float(together[name][row]) == pytest.approx(float(value), rel=1e-5)


def test_a_text_without_words_costs_its_length():
    found = blind_model(torch.zeros(SIZE)).nats([""], [{}])
    assert found["tokens"].tolist() == [0] and found["count"].tolist() == [1]
